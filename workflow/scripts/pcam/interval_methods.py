"""How an interval follows from arrays, one function a method. Which metric takes which: pcam.intervals.

A unit is a patch, or a slide or leak group where patches of one depend on each other. Draws depend on the seed and the
number of units alone, so metrics and models of the same patches see the same draws.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from threadpoolctl import threadpool_limits

from pcam.metrics import calibration_bins, logit_interval, wilson_interval
from pcam.settings import EvaluationSettings

_CELLS = 1_000_000  # draws times units held at a time: 8 MB
_SLACK = 1e-12  # ratios this near are the same ratio, summed in another order


@lru_cache(maxsize=4)
def _resampled(units: int, draws: int, seed: int, block: int) -> np.ndarray:
    """(draws, units): how often a draw with replacement holds each unit. The same for every metric and model."""
    rng = np.random.default_rng([seed, units, block])
    picked = rng.integers(0, units, (draws, units)) + units * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * units).reshape(draws, units).astype(np.float64)


@lru_cache(maxsize=4)
def _uniforms(n: int, draws: int, seed: int, block: int) -> np.ndarray:
    """(draws, n) between 0 and 1, to draw labels by."""
    return np.random.default_rng([seed, n, block]).random((draws, n))


def _blocks(width: int, draws: int) -> Iterator[tuple[int, int]]:
    """Number and draws of each block, so that a block holds at most _CELLS cells."""
    most = max(1, _CELLS // width)
    for block, start in enumerate(range(0, draws, most)):
        yield block, min(most, draws - start)


def ece_null_high(probabilities: np.ndarray, rules: EvaluationSettings) -> float:
    """What the ECE of perfectly calibrated probabilities (N,) stays below with a chance of rules.level.

    The labels are drawn from the probabilities one by one: patches are taken as independent.
    """
    bins = calibration_bins(probabilities, rules.ece_bins)
    expected = np.bincount(bins, weights=probabilities, minlength=rules.ece_bins)
    # Counts are exact in float32, in whatever order they are summed.
    members = np.eye(rules.ece_bins, dtype=np.float32)[bins]
    found = []
    for block, draws in _blocks(len(probabilities), rules.resamples):
        labels = _uniforms(len(probabilities), draws, rules.seed, block) < probabilities
        positives = labels.astype(np.float32) @ members
        found.append(np.abs(positives - expected).sum(axis=1) / len(probabilities))
    return float(np.quantile(np.concatenate(found), rules.level))


def ece_null_high_by_group(
    labels: np.ndarray, probabilities: np.ndarray, ids: np.ndarray, rules: EvaluationSettings
) -> float:
    """The same where the labels of a group (ids 0 .. G - 1) depend on each other: the signs of whole groups are drawn.

    If calibration is perfect, what a group adds to a bin is as often above as below; the sizes are those seen. Where
    calibration is far off they are larger than chance, and the band is a little too wide.
    """
    added = np.zeros((int(ids.max()) + 1, rules.ece_bins))
    np.add.at(added, (ids, calibration_bins(probabilities, rules.ece_bins)), probabilities - labels)
    found = []
    for block, draws in _blocks(len(added), rules.resamples):
        signs = np.where(_uniforms(len(added), draws, rules.seed, block) < 0.5, -1.0, 1.0)
        found.append(np.abs(np.einsum("dg,gb->db", signs, added)).sum(axis=1) / len(labels))
    return float(np.quantile(np.concatenate(found), rules.level))


def bootstrap_ratios(above: np.ndarray, below: np.ndarray, rules: EvaluationSettings) -> np.ndarray:
    """Intervals (M,2) of M ratios sum(above) / sum(below) of sums over units, each array (U,M), such as F-beta.

    BCa (Efron 1987), its normal quantiles exchanged for Student's. NaN where the draws do not tell: all of them lie on
    one side of the value. A draw whose sum(below) is 0 says nothing and is left out.
    """
    drawn = []
    with threadpool_limits(1):
        for block, draws in _blocks(len(above), rules.resamples):
            times = _resampled(len(above), draws, rules.seed, block)
            with np.errstate(invalid="ignore"):
                drawn.append((times @ above) / (times @ below))
    return np.array([_bca(*one, rules.level) for one in zip(above.T, below.T, np.concatenate(drawn).T, strict=True)])


def _bca(above: np.ndarray, below: np.ndarray, drawn: np.ndarray, level: float) -> tuple[float, float]:
    units, value = len(above), above.sum() / below.sum()
    influence = above - value * below
    drawn = drawn[np.isfinite(drawn)]
    share = (np.mean(drawn < value - _SLACK) + np.mean(drawn <= value + _SLACK)) / 2
    if not 0 < share < 1 or np.ptp(drawn) < _SLACK:
        return np.nan, np.nan
    bias = ndtri(share)
    acceleration = np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5)
    reach = stdtrit(units - 1, 0.5 + level / 2) * np.sqrt(units / (units - 1))
    tails = bias + np.array([-reach, reach])
    low, high = np.quantile(drawn, ndtr(bias + tails / (1 - acceleration * tails)))
    return float(low), float(high)


def bootstrap_losses(above: np.ndarray, below: np.ndarray, rules: EvaluationSettings) -> np.ndarray:
    """Intervals (M,2) of M mean losses sum(above) / sum(below) of positive sums over units, each array (U,M).

    Studentised bootstrap on the log scale: losses are skew, and their error grows with them. NaN where the interval
    would pass the loss of the worst unit, because then a few units carry the mean.
    """
    drawn = []
    with threadpool_limits(1):
        for block, draws in _blocks(len(above), rules.resamples):
            times = _resampled(len(above), draws, rules.seed, block)
            total, mean = times @ above, (times @ above) / (times @ below)
            # The squared error of the mean, as a share of it, expanded so that it follows from sums alone.
            squares = times @ above**2 - 2 * mean * (times @ (above * below)) + mean**2 * (times @ below**2)
            error = np.sqrt(np.maximum(squares, 0)) / total
            centred = np.log(mean * below.sum(axis=0) / above.sum(axis=0))
            with np.errstate(divide="ignore", invalid="ignore"):
                drawn.append(np.where(error > 0, centred / error, np.sign(centred) * np.inf))
    value = above.sum(axis=0) / below.sum(axis=0)
    error = np.sqrt(np.sum((above - value * below) ** 2, axis=0)) / above.sum(axis=0)
    tails = np.quantile(np.concatenate(drawn), [0.5 + rules.level / 2, 0.5 - rules.level / 2], axis=0, method="nearest")
    with np.errstate(over="ignore"):
        bounds = value * np.exp(-np.where(error > 0, tails, 0.0) * error)
    sound = (bounds[1] < np.max(above / below, axis=0)) & (bounds[0] > 0) & (error > _SLACK)
    return np.where(sound, bounds, np.nan).T


def area_interval(area: float, influence: np.ndarray, degrees: float, level: float) -> tuple[float, float] | None:
    """Interval on the logit scale from independent influences, by Student's quantile for these degrees of freedom."""
    widened = float(stdtrit(degrees, 0.5 + level / 2) / ndtri(0.5 + level / 2))
    return logit_interval(area, widened * float(np.sqrt(np.sum(influence**2))), level)


def class_degrees(influence: np.ndarray, labels: np.ndarray) -> float:
    """Degrees of freedom of a variance that is the sum of those of two classes (Satterthwaite 1946)."""
    parts = [(np.sum(influence[labels == label] ** 2), max(1, np.sum(labels == label) - 1)) for label in (0, 1)]
    total = sum(part for part, _ in parts)
    return float(total**2 / sum(part**2 / n for part, n in parts)) if total > 0 else 1.0


def by_group(influence: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Influences (G,) of whole groups, 0 .. G - 1, scaled so that their squares sum to a variance without bias."""
    sums = np.bincount(ids, weights=influence)
    return sums * np.sqrt(len(sums) / (len(sums) - 1))


def effective_patches(hits: np.ndarray, among: np.ndarray, ids: np.ndarray) -> float:
    """For how many independent patches sum(hits) / sum(among) would vary as it does over these groups.

    hits and among: (N,) bool; ids (N,), 0 .. G - 1. Where all patches agree their variance says nothing; each group
    that holds any then counts as one patch.
    """
    rate = float(hits.sum() / among.sum())
    variance = float(np.sum(proportion_influence(hits, among, ids) ** 2))
    if variance == 0:
        return float(len(np.unique(ids[among])))
    return min(float(among.sum()), rate * (1 - rate) / variance)


def proportion_by_group(hits: np.ndarray, among: np.ndarray, ids: np.ndarray, level: float) -> tuple[float, float]:
    """Wilson interval of sum(hits) / sum(among) for the effective patches, by Student's quantile (Korn, Graubard 1998).

    Arrays as in `effective_patches`.
    """
    widened = stdtrit(len(np.unique(ids[among])) - 1, 0.5 + level / 2) / ndtri(0.5 + level / 2)
    effective = effective_patches(hits, among, ids) / float(widened) ** 2
    return wilson_interval(float(hits.sum() / among.sum()) * effective, effective, level)


def proportion_influence(hits: np.ndarray, among: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """What each group (G,) adds to the error of sum(hits) / sum(among)."""
    return by_group((hits - hits.sum() / among.sum() * among) / among.sum(), ids)


def mean_interval(
    one: tuple[float, float, float], other: tuple[float, float, float], correlation: float
) -> tuple[float, float]:
    """Interval of the mean of two estimates, each as value, low and high (MOVER: Zou and Donner 2008)."""
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    down, up = (
        float(np.sqrt(max(0.0, x * x + y * y + 2 * correlation * x * y))) / 2
        for x, y in ((a - a_low, b - b_low), (a_high - a, b_high - b))
    )
    return (a + b) / 2 - down, (a + b) / 2 + up
