"""What one figure for a whole split hides: it moves while every slice stays, and it stays while a slice fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from pcam.attributes import ATTRIBUTES
from pcam.interval_methods import by_group
from pcam.intervals import Groups, ratio_parts, units_of
from pcam.metrics import placements, roc_auc
from pcam.settings import EvaluationSettings
from pcam.slices import MINIMUM_CLASS_N, Answers, Members

MIX_FACTOR = 2.0  # a slice's share of the patches may at most double or halve
MIX_METRICS = ("accuracy", "f_beta", "sensitivity")
UNSEEN = 0.01  # a fall of the ROC-AUC that nobody would notice
_TOLERANCE = 1e-12


def crossed(slicings: Mapping[str, Members]) -> dict[str, Members]:
    """Slices by attribute and hospital at once; none where fewer than two hospitals are known."""
    hospitals = slicings.get("hospital", {})
    if len(hospitals) < 2:
        return {}
    return {
        f"{name} and hospital": {
            f"{value}, {hospital}": np.intersect1d(places, there)
            for value, places in slicings[name].items()
            for hospital, there in hospitals.items()
        }
        for name in ATTRIBUTES
        if name in slicings
    }


# --- Another mix of the same slices


def worst_mix(above: np.ndarray, below: np.ndarray, shares: np.ndarray, free: np.ndarray, factor: float) -> np.ndarray:
    """Shares (S,) of slices that make the ratio sum(share * above) / sum(share * below) least.

    above, below (S,): what a patch of a slice adds on average. shares (S,): those now, sum 1. free (S,) bool: slices
    whose share may change, by no more than `factor` up or down. A ratio of two linear functions over a box with a fixed
    sum: Dinkelbach's steps (1967), each solved by filling up the cheapest slices first.
    """
    low, high = np.where(free, shares / factor, shares), np.where(free, shares * factor, shares)
    best = shares
    while True:
        ratio = float(best @ above) / float(best @ below)
        mix, left = low.copy(), 1.0 - float(low.sum())
        for at in np.argsort(above - ratio * below, kind="stable"):
            added = min(float(high[at] - low[at]), max(left, 0.0))
            mix[at], left = mix[at] + added, left - added
        if float(mix @ above) / float(mix @ below) >= ratio - _TOLERANCE:
            return best
        best = mix


def slice_means(per_patch: np.ndarray, members: Members) -> np.ndarray:
    """Mean (S,) of values (N,) over each slice."""
    return np.array([per_patch[places].mean() if len(places) else 0.0 for places in members.values()])


def is_partition(members: Members, n: int) -> bool:
    """Whether every one of n patches stands in exactly one slice, and there are two slices at least."""
    return len(members) > 1 and np.array_equal(np.sort(np.concatenate(list(members.values()))), np.arange(n))


def multipliers(parts: tuple[np.ndarray, np.ndarray], members: Members, minimum_n: int) -> tuple[np.ndarray, float]:
    """How often a patch of each slice (S,) counts in the worst mix of one metric, and by how much that changes it.

    Slices of fewer patches than minimum_n keep their share: what such a slice scores is chance.
    """
    above, below = (slice_means(part.astype(float), members) for part in parts)
    counts = np.array([len(places) for places in members.values()])
    shares = counts / counts.sum()
    mix = worst_mix(above, below, shares, counts >= minimum_n, MIX_FACTOR)
    change = float(mix @ above) / float(mix @ below) - float(shares @ above) / float(shares @ below)
    return np.divide(mix, shares, out=np.ones_like(mix), where=shares > 0), change


def mixed(
    parts: tuple[np.ndarray, np.ndarray], weights: np.ndarray, groups: Groups | None, rules: EvaluationSettings
) -> dict[str, Any]:
    """A metric as it is and under weights (N,) of the patches, and the change with its interval."""
    above, below = (part.astype(float) for part in parts)
    now, then = float(above.sum() / below.sum()), float((weights @ above) / (weights @ below))
    influence = weights * (above - then * below) / (weights @ below) - (above - now * below) / below.sum()
    units = units_of(groups, [below > 0], rules)
    shown = by_group(influence, np.arange(len(influence)) if units.ids is None else units.ids)
    degrees = (len(influence) if units.groups is None else units.groups) - 1
    reach = float(stats.t.ppf(0.5 + rules.level / 2, degrees) * np.sqrt(np.sum(shown**2)))
    change = then - now
    told = {"now": now, "mixed": then, "change": change, "low": change - reach, "high": change + reach}
    return {**told, "groups": units.groups, "note": units.note}


def mix_shift(
    answers: Mapping[str, Answers],
    slicings: Mapping[str, Mapping[str, Members]],
    rules: EvaluationSettings,
    *,
    beta: float,
    minimum_n: int,
) -> dict[str, Any]:
    """The mix of slices that lowers each metric most on valid, and what it does to test while every slice stays.

    answers and slicings: by split, "valid" and "test". Only a slicing that has the same slices in both, and a place for
    every patch, can be mixed.
    """
    parts = {split: ratio_parts(a.labels, a.probabilities, a.called.astype(int), beta) for split, a in answers.items()}
    usable = [
        name
        for name in slicings["test"]
        if list(slicings["valid"].get(name, {})) == list(slicings["test"][name])
        and all(is_partition(slicings[split][name], len(told.labels)) for split, told in answers.items())
    ]
    found: dict[str, Any] = {}
    for metric in MIX_METRICS:
        if any(part[metric][1].sum() == 0 for part in parts.values()):
            found[metric] = {"slicing": None, "reason": "no tumour"}
            continue
        mixes = {name: multipliers(parts["valid"][metric], slicings["valid"][name], minimum_n) for name in usable}
        if not mixes or min(change for _, change in mixes.values()) > -_TOLERANCE:
            reason = f"no slicing of valid has two slices of {minimum_n} patches that score differently"
            found[metric] = {"slicing": None, "reason": reason}
            continue
        chosen = min(mixes, key=lambda name: mixes[name][1])
        times, change = mixes[chosen]
        on_test = _on_test(parts["test"][metric], slicings["test"][chosen], times, answers["test"].groups, rules)
        found[metric] = {"slicing": chosen, "reason": None, "change_on_valid": change, **on_test}
    return found


def _on_test(
    parts: tuple[np.ndarray, np.ndarray],
    members: Members,
    times: np.ndarray,
    groups: Groups | None,
    rules: EvaluationSettings,
) -> dict[str, Any]:
    weights = np.ones(len(parts[0]))
    for places, factor in zip(members.values(), times, strict=True):
        weights[places] = factor
    weights /= weights.mean()
    slices = [
        {
            "value": value,
            "n": len(places),
            "share": len(places) / len(weights),
            "mixed_share": float(weights[places].sum() / len(weights)),
            # One number for both mixes: all patches of a slice weigh the same.
            "score": float(parts[0][places].sum() / below) if (below := parts[1][places].sum()) else None,
        }
        for value, places in members.items()
    ]
    return {**mixed(parts, weights, groups, rules), "slices": slices}


# --- A slice that fails while the global figure stays


@dataclass(frozen=True)
class Failing:
    """How many tumours of a slice can fail before the ROC-AUC of all patches has fallen by UNSEEN."""

    slice: str
    value: str
    n: int
    tumours: int
    failing: int
    share: float
    sensitivity: float
    sensitivity_failing: float
    roc_auc: float
    roc_auc_failing: float


def failing_unseen(name: str, value: str, places: np.ndarray, told: Answers) -> Failing:
    """A slice whose found tumours fail, the surest first: each is missed from then on.

    It gets the median probability of the slice's healthy patches, or one just below the threshold where that median is
    called tumour. The surest first is the case that shows soonest: tumours that rank low already cost less.
    """
    labels, probabilities = told.labels, told.probabilities
    tumours = places[labels[places] == 1]
    found = tumours[probabilities[tumours] >= told.threshold]
    found = found[np.argsort(-probabilities[found], kind="stable")]
    healthy = float(np.median(probabilities[places[labels[places] == 0]]))
    healthy = min(healthy, float(np.nextafter(told.threshold, 0)))
    negatives = probabilities[labels == 0]
    lost = placements(probabilities[found], negatives) - placements(np.array([healthy]), negatives)
    drops = np.cumsum(lost) / int(labels.sum())
    seen = np.flatnonzero(drops >= UNSEEN)
    failing = int(seen[0]) if len(seen) else len(found)
    after = probabilities.copy()
    after[found[:failing]] = healthy
    rates = [float(np.mean(p[tumours] >= told.threshold)) for p in (probabilities, after)]
    areas = [roc_auc(labels[places], p[places]) for p in (probabilities, after)]
    assert areas[0] is not None and areas[1] is not None  # both classes are there
    return Failing(name, value, len(places), len(tumours), failing, failing / len(tumours), *rates, *areas)


def fail_unseen(slicings: Mapping[str, Members], told: Answers, minimum_n: int) -> list[Failing]:
    """Slices of minimum_n patches and MINIMUM_CLASS_N of each class that can lose a tumour, the furthest first."""
    found = [
        failing_unseen(name, value, places, told)
        for name, members in slicings.items()
        if name != "all"
        for value, places in members.items()
        if len(places) >= minimum_n and MINIMUM_CLASS_N <= told.labels[places].sum() <= len(places) - MINIMUM_CLASS_N
    ]
    return sorted((one for one in found if one.failing), key=lambda one: (-one.share, -one.n, one.slice, one.value))
