"""Fit the limits of a watch, and measure how often it raises an alarm on sound sets and on shifted ones."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from pcam.guard import CAP, Guard, distances_from, reference_of
from pcam.intervals import Groups
from pcam.metrics import wilson_interval
from pcam.readings import Verdict

DRAWS = 1000  # sets drawn for the limits
FOLDS = 20  # parts of the slides that are held out in turn
FAR = 2.0  # a patch is strange beyond this many times the farthest distance of a validation patch
LEAST_UNITS = 4  # slides or leak groups below which those held out say nothing

SIZES = (16, 64, 128, 256)  # of the sets that alarms are counted on
SETS = 200  # of each size
SPLITS = 5  # of the slides in halves: one makes a guard, the other is sound
PRIORS = (0.1, 0.167, 0.3, 0.7)  # share of tumour; 16.7 % is that of the course's training patches


def held_out_distances(values: np.ndarray, units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signed distances (N,P) of each patch from a reference that knows no patch of its unit."""
    names = rng.permutation(np.unique(units))
    distances = np.empty(values.shape)
    for fold in np.array_split(names, min(FOLDS, len(names))):
        mine = np.isin(units, fold)
        distances[mine] = distances_from(values[mine], *reference_of(values[~mine]))
    return distances


def members_of(units: np.ndarray) -> list[np.ndarray]:
    """Places of the patches of each unit, for units (N,)."""
    order = np.argsort(units, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(units[order])) + 1)


def drawn_set(rng: np.random.Generator, members: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Places of `size` patches: whole units, drawn with replacement, the patches of each in random order."""
    mean_size = sum(map(len, members)) / len(members)
    taken: list[np.ndarray] = []
    count = 0
    while count < size:
        for unit in rng.integers(len(members), size=int((size - count) / mean_size) + 1):
            taken.append(rng.permutation(members[unit]) if len(members[unit]) > 1 else members[unit])
            count += len(members[unit])
    return np.concatenate(taken)[:size]


def units_of(groups: Groups) -> tuple[np.ndarray, str]:
    """Unit (N,) of each patch, and in words what the limits therefore hold for."""
    if groups.count < LEAST_UNITS:
        return np.arange(len(groups.ids)), (
            f"too few {groups.noun}s ({groups.count}): patches are taken as independent, so other slides may raise "
            "more alarms"
        )
    if groups.noun != "slide":
        return groups.ids, "slides are unknown: sets that hold few slides may raise more alarms than the stated share"
    return groups.ids, f"sets of whole slides, drawn from {groups.count} slides"


def fit(values: np.ndarray, labels: np.ndarray, groups: Groups, *, false_alarm_rate: float, seed: int) -> Guard:
    """The guard of reference statistics (N,P) of patches with labels 0/1 (N,), N >= 4, both classes among them.

    Sets are drawn from held-out distances; the limits then leave room for the reference's own chance: a set of m units
    against k has variance 1/m + 1/k, and a spread known from k units needs Student's quantile for the normal one.
    """
    rng = np.random.default_rng(seed)
    units, holds_for = units_of(groups)
    distances = held_out_distances(values, units, rng)
    capped = np.clip(distances, -CAP, CAP)
    members = members_of(units)
    sizes = 2 ** np.arange(int(np.log2(len(values))) + 1)
    means = np.empty((DRAWS, len(sizes), values.shape[1]))
    for draw in range(DRAWS):
        drawn = capped[drawn_set(rng, members, int(sizes[-1]))]
        means[draw] = np.cumsum(drawn, axis=0)[sizes - 1] / sizes[:, None]
    centre, spread = means.mean(axis=0), means.std(axis=0) + 1e-9
    # One width for all statistics, in standard deviations: the largest of them passes it at the stated rate.
    width = np.quantile(np.abs((means - centre) / spread).max(axis=2), 1 - false_alarm_rate, axis=0)
    tail = false_alarm_rate / (2 * values.shape[1])
    student = stats.t.isf(tail, len(members) - 1) / stats.norm.isf(tail)
    in_set = np.maximum(1, sizes * len(members) / len(values))
    room = (width * student * np.sqrt(1 + in_set / len(members)))[:, None] * spread
    median, low, high = reference_of(values)
    far = FAR * np.abs(distances).max(axis=0)
    far[-1] = FAR  # beyond any distance of an answer: one answer makes no patch strange
    return Guard(
        mean=values.mean(axis=0, dtype=np.float64),
        median=median,
        low=low,
        high=high,
        sizes=sizes,
        least=centre - room,
        most=centre + room,
        far=far,
        classes=np.array([values[labels == label, -1].mean() for label in (0, 1)]),
        prior=float(labels.mean()),
        false_alarm_rate=false_alarm_rate,
        holds_for=holds_for,
    )


def undefined(size: int, reason: str) -> dict[str, Any]:
    """A point that nothing could be counted on."""
    return {"size": size, "sets": 0, **dict.fromkeys(("alarms", "low", "high", "pixels", "answers")), "note": reason}


def count_alarms(size: int, disjoint: float, draw: Callable[[], Verdict], level: float) -> dict[str, Any]:
    """Share of SETS drawn verdicts that are an alarm: of any statistic, of the pixels, of the answers.

    A set holds no patch twice, so each is what a fresh one would be; but the sets overlap. Their interval goes by an
    effective number no larger than that of the disjoint sets among the patches, because the mean over all subsets of a
    size varies at most as that over disjoint ones (Hoeffding 1948).
    """
    if disjoint < 2:
        return undefined(size, "fewer patches than two sets need")
    verdicts = [draw() for _ in range(SETS)]
    told = [(verdict.alarm, verdict.warns, verdict.answers.alarm) for verdict in verdicts]
    rate, pixels, answers = np.mean(told, axis=0).tolist()
    effective = 1 / (1 / SETS + 1 / np.floor(disjoint))
    low, high = wilson_interval(rate * effective, effective, level)
    return {
        "size": size, "sets": SETS, "alarms": rate, "low": low, "high": high, "pixels": pixels, "answers": answers,
        "note": None,
    }  # fmt: skip


def disjoint_sets(members: Sequence[np.ndarray], size: int) -> float:
    """How many sets of `size` patches the units would fill, each set with units of its own."""
    return min(len(members), sum(map(len, members)) / size)


def whole_units(rng: np.random.Generator, members: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Places of `size` patches, none twice: those of units in random order; of the last unit as many as are wanted."""
    order = rng.permutation(len(members))
    wanted = np.searchsorted(np.cumsum([len(members[unit]) for unit in order]), size) + 1
    return np.concatenate([rng.permutation(members[unit]) for unit in order[:wanted]])[:size]


def on_sound_sets(guard: Guard, values: np.ndarray, groups: Groups, *, level: float, seed: int) -> list[dict[str, Any]]:
    """A point for each of SIZES: alarms of the guard on sets of whole units of statistics (N,P)."""
    rng, members = np.random.default_rng(seed), members_of(units_of(groups)[0])

    def draw(size: int) -> Callable[[], Verdict]:
        return lambda: guard.check(values[whole_units(rng, members, size)])

    return [count_alarms(size, disjoint_sets(members, size), draw(size), level) for size in SIZES]


def on_unseen_units(
    values: np.ndarray, labels: np.ndarray, groups: Groups, *, false_alarm_rate: float, level: float, seed: int
) -> tuple[list[dict[str, Any]], str | None]:
    """A point for each of SIZES: alarms of guards made of one half of the units, on sets of the other half's.

    With them, in words, what the limits of these guards hold for.
    """
    rng = np.random.default_rng(seed)
    units = units_of(groups)[0]
    names = np.unique(units)
    pairs = []
    for _ in range(SPLITS):
        first = np.isin(units, rng.permutation(names)[: len(names) // 2])
        for mine in (first, ~first):
            if len(np.unique(labels[mine])) < 2 or mine.sum() < LEAST_UNITS:
                continue
            half = Groups(units[mine], groups.noun)
            guard = fit(values[mine], labels[mine], half, false_alarm_rate=false_alarm_rate, seed=seed)
            places = np.flatnonzero(~mine)
            pairs.append((guard, [places[own] for own in members_of(units[places])]))
    if not pairs:
        return [undefined(size, f"a half of the {groups.noun}s holds one class only") for size in SIZES], None
    fewest = min((members for _, members in pairs), key=lambda members: sum(map(len, members)))

    def draw(size: int) -> Callable[[], Verdict]:
        def drawn() -> Verdict:
            guard, members = pairs[rng.integers(len(pairs))]
            return guard.check(values[whole_units(rng, members, size)])

        return drawn

    points = [count_alarms(size, disjoint_sets(fewest, size), draw(size), level) for size in SIZES]
    return points, pairs[0][0].holds_for


def on_other_prior(
    guard: Guard, values: np.ndarray, labels: np.ndarray, prior: float, *, level: float, seed: int
) -> list[dict[str, Any]]:
    """A point for each of SIZES: alarms on sets drawn patch by patch, each with tumour at the chance `prior`."""
    rng = np.random.default_rng(seed)
    without, tumour = (np.flatnonzero(labels == label) for label in (0, 1))

    def draw(size: int) -> Callable[[], Verdict]:
        def drawn() -> Verdict:
            count = int(np.clip(rng.binomial(size, prior), size - len(without), len(tumour)))
            chosen = (rng.permutation(without)[: size - count], rng.permutation(tumour)[:count])
            return guard.check(values[np.concatenate(chosen)])

        return drawn

    def disjoint(size: int) -> float:
        reserve = 3 * np.sqrt(size * prior * (1 - prior))  # of a class, or its count could not vary as chance has it
        return float(min(len(without) / (size * (1 - prior) + reserve), len(tumour) / (size * prior + reserve)))

    return [count_alarms(size, disjoint(size), draw(size), level) for size in SIZES]
