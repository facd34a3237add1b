"""How far a classifier's probabilities can be trusted: how sure its wrong answers are, calibration by slice, and what
is gained by leaving doubtful patches to a person.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pcam.gaps import holm, known_groups, note_of
from pcam.group_tests import Tested, by_signs, least_units, pooled
from pcam.intervals import Groups, calibration, estimate_proportion, units_of
from pcam.settings import EvaluationSettings
from pcam.slices import Answers, Members

SURE = 0.9
CONFIDENCE_BINS = 10
ECE_PER_BIN = 10  # patches a bin needs for the ECE to be told
KEPT = 0.8  # share of the patches that the model answers itself
CURVE_POINTS = 100


# --- Confidence of wrong answers


def confidence(told: Answers, rules: EvaluationSettings) -> dict[str, Any]:
    """How sure wrong and right answers are: the probability of the class that was called."""
    sure, wrong = np.where(told.called, told.probabilities, 1 - told.probabilities), told.wrong
    found: dict[str, Any] = {"sure_from": SURE, "edges": np.linspace(0, 1, CONFIDENCE_BINS + 1).tolist()}
    for name, mask in (("wrong", wrong), ("right", ~wrong)):
        share = estimate_proportion(mask & (sure >= SURE), mask, told.groups, rules, f"no {name} answer")
        counts = np.histogram(sure[mask], CONFIDENCE_BINS, (0, 1))[0]
        median = float(np.median(sure[mask])) if mask.any() else None
        found[name] = {"n": int(mask.sum()), "median": median, "sure": share.as_document(), "counts": counts.tolist()}
    for name, mask in (("missed", wrong & told.tumour), ("alarms", wrong & ~told.tumour)):
        share = estimate_proportion(mask & (sure >= SURE), mask, told.groups, rules, f"no {name}")
        found[name] = {"n": int(mask.sum()), "sure": share.as_document()}
    among = sure >= SURE
    found["wrong_among_sure"] = estimate_proportion(
        wrong & among, among, told.groups, rules, "no sure answer"
    ).as_document()
    return found


# --- Calibration by slice


@dataclass(frozen=True)
class Miscalibration:
    """Mean probability less share of tumour of a slice: above 0 the champion sees too much tumour there.

    groups: slides or leak groups that hold the slice, where they are what the test counts. p is None where they are too
    few for any claim, low and high where they are too few for an interval; `note` says so.
    """

    slice: str
    value: str
    n: int
    positives: int
    gap: float
    low: float | None
    high: float | None
    p: float | None
    groups: int | None
    note: str | None
    ece: float | None
    ece_null_high: float | None


def likeness(told: Answers, ids: np.ndarray) -> float:
    """How alike the labels of a group (ids (N,), 0 .. G - 1) come out beyond their probabilities: 0 not, 1 all."""
    spread = np.sqrt(told.probabilities * (1 - told.probabilities))
    off = told.probabilities - told.labels
    pairs = [np.sum(np.bincount(ids, weights=each) ** 2) - np.sum(each**2) for each in (off - off.mean(), spread)]
    return float(np.clip(pairs[0] / pairs[1], 0, 1)) if pairs[1] > 0 else 0.0


def miscalibration(
    name: str, value: str, places: np.ndarray, told: Answers, alike: float, rules: EvaluationSettings
) -> Miscalibration:
    """One slice with its interval, by slide or leak group where they are known (pcam.group_tests).

    The error is the larger of what the patches or groups show and of what right probabilities would give, with groups
    as alike as over all patches (`likeness`): patches that come out the same way show none.
    """
    y, p = told.labels[places], told.probabilities[places]
    off, n = p - y, len(places)
    gap = float(off.mean())
    groups, note, held = known_groups(told.groups), note_of(told.groups), None
    spread = np.sqrt(p * (1 - p)) / n
    if groups is None:
        error = float(np.sqrt(max(off.var() / (n - 1), np.sum(spread**2))))
        exact = Tested(gap, gap, gap, float(gap == 0))
        found = exact if error == 0 else replace(exact, p=0.0).with_error(error, n - 1, rules.level)
    else:
        own = np.unique(groups.ids[places], return_inverse=True)[1]
        held, units = int(own.max()) + 1, pooled(own, rules.seed)
        parts, shares = np.bincount(units, weights=off / n), np.bincount(units) / n
        found = by_signs(parts, shares, level=rules.level, seed=rules.seed, centred=False)
        expected = (1 - alike) * np.sum(spread**2) + alike * np.sum(np.bincount(own, weights=spread) ** 2)
        found = found.with_error(float(np.sqrt(expected)), max(1, held - 1), rules.level)
        if found.low is None or found.high is None:
            note = f"too few {groups.noun}s for an interval ({held})"
    ece, high = None, None
    if n >= ECE_PER_BIN * rules.ece_bins:
        there = None if told.groups is None else replace(told.groups, ids=told.groups.ids[places])
        estimate = calibration(y, p, units_of(there, [np.ones(n, bool)], rules), rules)
        ece, high = estimate.value, estimate.null_high
    ends = found.low, found.high, found.p
    return Miscalibration(name, value, n, int(y.sum()), gap, *ends, held, note, ece, high)


def calibration_by_slice(
    slicings: Mapping[str, Members],
    told: Answers,
    rules: EvaluationSettings,
    minimum_n: int,
    level: float,
) -> list[dict[str, Any]]:
    """Every slice of minimum_n patches, as JSON holds it. level: chance to claim a gap anywhere where there is none."""
    groups = known_groups(told.groups)
    alike = 0.0 if groups is None else likeness(told, np.unique(groups.ids, return_inverse=True)[1])
    rows = [
        miscalibration(name, value, places, told, alike, rules)
        for name, members in slicings.items()
        for value, places in members.items()
        if len(places) >= minimum_n
    ]
    if groups is not None:
        least = least_units([row.groups for row in rows], level)
        rows = [
            replace(row, p=None, note=f"too few {groups.noun}s ({row.groups}, {least} needed)")
            if row.groups is not None and row.groups < least else row
            for row in rows
        ]  # fmt: skip
    corrected = holm(np.array([np.nan if row.p is None else row.p for row in rows])).tolist()
    return [
        {**vars(row), "p_corrected": None if row.p is None else c, "claimed": row.p is not None and c <= level}
        for row, c in zip(rows, corrected, strict=True)
    ]


# --- Selective prediction


def margins(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Distance (N,) of each probability from the threshold on the logit scale: how clear a decision is."""
    inside = np.clip(np.append(probabilities, threshold), 1e-12, 1 - 1e-12)
    logits = np.log(inside / (1 - inside))
    return np.abs(logits[:-1] - logits[-1])


def risk_coverage(wrong: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Share of wrong answers among the k clearest, (N,) for k = 1 .. N; of equally clear ones any may come first.

    wrong (N,) bool, clear (N,): the higher, the sooner a patch is answered.
    """
    order = np.argsort(-clear, kind="stable")
    ranked = clear[order]
    first = np.searchsorted(-ranked, -ranked, side="left")
    last = np.searchsorted(-ranked, -ranked, side="right")
    sums = np.concatenate([[0.0], np.cumsum(wrong[order])])
    # Among ties each one counts as the tie's mean.
    each = (sums[last] - sums[first]) / (last - first)
    return np.cumsum(each) / np.arange(1, len(wrong) + 1)


def selective(answers: Mapping[str, Answers], rules: EvaluationSettings) -> dict[str, Any]:
    """Risk and coverage on test, with the area under the curve; limits of clearness chosen on valid, carried to test.

    answers: by split, "valid" and "test".
    """
    wrong = {split: told.wrong for split, told in answers.items()}
    clear = {split: margins(told.probabilities, told.threshold) for split, told in answers.items()}
    groups = answers["test"].groups
    errors, n = wrong["test"], len(wrong["test"])
    curve = risk_coverage(errors, clear["test"])
    places = np.unique(np.ceil(np.linspace(1 / CURVE_POINTS, 1, CURVE_POINTS) * n).astype(int) - 1)
    areas = {"model": curve, "best": risk_coverage(errors, -errors.astype(float))}
    return {
        "n": n,
        "errors": int(errors.sum()),
        "areas": {**{name: float(risks.mean()) for name, risks in areas.items()}, "random": float(errors.mean())},
        "curve": {"coverage": ((places + 1) / n).tolist(), **{k: v[places].tolist() for k, v in areas.items()}},
        "all": kept(errors, np.ones(n, bool), groups, rules),
        "targets": [
            {"target": target, "limit": limit, **kept(errors, clear["test"] >= limit, groups, rules)}
            if limit is not None else {"target": target, "limit": None, "coverage": None, "error": None}
            for target, limit in limits_of(wrong["valid"], clear["valid"]).items()
        ],
    }  # fmt: skip


def limits_of(wrong: np.ndarray, clear: np.ndarray) -> dict[str, float | None]:
    """Least clearness of an answer by target, from valid; None where no limit reaches the target."""
    ranked = np.sort(clear)[::-1]
    risks = risk_coverage(wrong, clear)
    ends = np.append(ranked[:-1] > ranked[1:], True)  # a limit cannot part ties
    good = np.flatnonzero(ends & (risks <= wrong.mean() / 2))
    return {
        f"{100 * KEPT:g} % of valid answered": float(ranked[int(np.ceil(KEPT * len(ranked))) - 1]),
        "half the error rate of valid": float(ranked[good[-1]]) if len(good) else None,
    }


def kept(wrong: np.ndarray, answered: np.ndarray, groups: Groups | None, rules: EvaluationSettings) -> dict[str, Any]:
    """Share of patches answered, and share of wrong answers among them, with intervals."""
    every = np.ones(len(wrong), bool)
    return {
        "coverage": estimate_proportion(answered, every, groups, rules).as_document(),
        "error": estimate_proportion(wrong & answered, answered, groups, rules, "nothing is answered").as_document(),
    }
