"""Tests that count slides (or leak groups) where patches of one depend on each other, for few and for many of them.

Two errors are reckoned, and the larger counts, in p-value and interval. (1) The sign of each slide's part is drawn at
random: that needs no formula for the error, whatever the sizes of the slides and however differently they answer. But
where a few bad slides carry all mistakes, a slice that holds none of them looks certain, as all its parts are alike.
(2) The slice's slides vary like all slides do: that sees the bad ones outside too, but needs tails like Student's,
which a small slice that holds a bad slide has not; there (1) sees but few parts. Null data with strong slides, with
few bad ones and with rare mistakes is simulated in tests/test_gaps.py. Of 30 slides of very unequal size that differ by
more than the classes do, the ROC-AUC alone has a level of up to 0.07 at 0.05; at 0.01 and below, where claims that are
corrected for their number lie, it is kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtr, stdtrit

from pcam.settings import EvaluationSettings

DRAWS = 9_999  # of each test; the least p is one in ten thousand
MOST_UNITS = 256  # more groups than this are pooled at random: it bounds the memory, 20 MB of signs
_TIE = 1e-9  # sums this near, as shares of the largest, are the same sum


@dataclass(frozen=True)
class Tested:
    """Two-sided p of a value being 0, and between which values the same test rejects none; None where it has no end."""

    value: float
    low: float | None
    high: float | None
    p: float

    def with_error(self, error: float, degrees: float, level: float) -> "Tested":
        """The test with the larger error of its own and of Student's with this standard error."""
        if error == 0:
            return self
        reach = float(stdtrit(degrees, 0.5 + level / 2)) * error
        p = max(self.p, float(2 * stdtr(degrees, -abs(self.value) / error)))
        if self.low is None or self.high is None:
            return Tested(self.value, None, None, p)
        return Tested(self.value, min(self.low, self.value - reach), max(self.high, self.value + reach), p)


@lru_cache(maxsize=4)
def signs_of(units: int, seed: int) -> np.ndarray:
    """Signs (D,units) of -1 and 1 that are not all 1: every pattern where there are at most DRAWS of them."""
    if 2**units - 1 <= DRAWS:
        patterns = np.arange(1, 2**units)[:, None] >> np.arange(units) & 1
        return 1.0 - 2.0 * patterns
    return 2.0 * np.random.default_rng([seed, units]).integers(0, 2, (DRAWS, units)) - 1.0


def pooled(ids: np.ndarray, seed: int) -> np.ndarray:
    """Numbers 0 .. U - 1 of groups ids (N,): groups are whole, and share a number where there are over MOST_UNITS."""
    numbers = np.unique(ids, return_inverse=True)[1]
    groups = int(numbers.max()) + 1
    if groups <= MOST_UNITS:
        return np.asarray(numbers)
    return np.asarray(np.random.default_rng([seed, groups]).permutation(groups)[numbers] % MOST_UNITS)


def widened(units: int) -> float:
    """What residuals, from which a mean was taken, are too small by."""
    return float(np.sqrt(units / (units - 1))) if units > 1 else 1.0


def exceeded(parts: np.ndarray, seed: int) -> np.ndarray:
    """Chance (S,), one-sided, that parts (U,S) of sums of residuals reach what they are in sum."""
    totals, signs = parts.sum(axis=0), signs_of(len(parts), seed)
    reached = widened(len(parts)) * (signs @ parts) >= totals - _TIE * np.abs(parts).sum(axis=0)
    return np.asarray((1 + reached.sum(axis=0)) / (len(signs) + 1))


def by_signs(parts: np.ndarray, shares: np.ndarray, *, level: float, seed: int, centred: bool) -> Tested:
    """Test and interval of the sum of parts (U,), which would be parts - d * shares (U,) without the d that is in them.

    The shares sum to 1. A value d is rejected where few draws take the sum of what is left further from 0 than it is;
    so each draw has an interval of the d that it does not speak against, and p is the share of those that hold 0.
    centred: the parts are sums of residuals.
    """
    value, signs = float(parts.sum()), signs_of(len(parts), seed)
    wide = widened(len(parts)) if centred else 1.0
    drawn, moved = wide * (signs @ parts), wide * (signs @ shares)
    known = np.abs(moved) < 1 - _TIE  # else the draw speaks against no value: all signs but those of small parts agree
    moved = np.where(known, moved, 0.0)
    ends = np.stack([(value - drawn) / (1 - moved), (value + drawn) / (1 + moved)])
    lows, highs = (np.where(known, of(ends, axis=0), end) for of, end in ((np.min, -np.inf), (np.max, np.inf)))
    tie = _TIE * float(np.abs(parts).sum())
    p = (1 + int(np.sum((lows <= tie) & (highs >= -tie)))) / (len(signs) + 1)
    least = int(np.floor((1 - level) * (len(signs) + 1) + _TIE))  # draws, with the data's own, that reject nothing
    if least < 1:
        return Tested(value, None, None, p)
    low, high = float(np.partition(lows, least - 1)[least - 1]), -float(np.partition(-highs, least - 1)[least - 1])
    if not np.isfinite([low, high]).all():
        return Tested(value, None, None, p)
    return Tested(value, low, high, p)


def like_all_variance(
    weights: Sequence[np.ndarray], residuals: Sequence[np.ndarray], units: Sequence[np.ndarray]
) -> float:
    """Variance of the sum over classes of weights times values, if the values of every group vary alike.

    weights, residuals and group numbers, (Nc,) of each class. How alike two patches of a group are is the mean product
    of their residuals, by class and between classes, taken over all groups.
    """
    count = 1 + max(int(own.max()) for own in units)
    n, total, weight = (
        np.array([np.bincount(own, weights=each, minlength=count) for own, each in zip(units, of, strict=True)])
        for of in ([np.ones(len(own)) for own in units], residuals, weights)
    )
    alike = np.zeros((len(units), len(units)))
    variance = 0.0
    for c, (w, r) in enumerate(zip(weights, residuals, strict=True)):
        pairs = float(np.sum(n[c] ** 2 - n[c]))
        alike[c, c] = max(0.0, float(np.sum(total[c] ** 2) - np.sum(r**2)) / pairs) if pairs else 0.0
        variance += float(np.mean(r**2) * np.sum(w**2) + alike[c, c] * (np.sum(weight[c] ** 2) - np.sum(w**2)))
    if len(units) == 2 and (pairs := float(np.sum(n[0] * n[1]))):
        most = float(np.sqrt(alike[0, 0] * alike[1, 1]))
        between = float(np.clip(np.sum(total[0] * total[1]) / pairs, -most, most))
        variance += 2 * between * float(np.sum(weight[0] * weight[1]))
    return max(variance, 0.0) * widened(count) ** 2


def compare_means(
    values: np.ndarray, members: np.ndarray, classes: Sequence[np.ndarray], ids: np.ndarray, rules: EvaluationSettings
) -> Tested:
    """mean(values of members) - mean(values of others), of each class and summed, by groups.

    values (N,), members (N,) bool; classes: one mask (N,) or two that share no patch; ids (N,) of the groups. Parts are
    products of residuals, with one mean for both sides: so their signs are free where there is no difference.
    """
    numbers = pooled(ids, rules.seed)
    parts, shares, weights, residuals = np.zeros(len(values)), np.zeros(len(values)), [], []
    for among in classes:
        apart = members[among] - members[among].mean()
        weights.append(apart / np.sum(apart**2))
        residuals.append(values[among] - values[among].mean())
        parts[among], shares[among] = weights[-1] * residuals[-1], weights[-1] * apart / len(classes)
    every = np.logical_or.reduce(list(classes))
    units = np.unique(numbers[every], return_inverse=True)[1]
    sums = [np.bincount(units, weights=each[every]) for each in (parts, shares)]
    found = by_signs(*sums, level=rules.level, seed=rules.seed, centred=True)
    own = np.unique(ids[every], return_inverse=True)[1]
    spread = np.empty(len(values), np.intp)
    spread[every] = own
    variance = like_all_variance(weights, residuals, [spread[among] for among in classes])
    return found.with_error(float(np.sqrt(variance)), max(1, int(own.max())), rules.level)


def least_units(units: Iterable[int | None], level: float) -> int:
    """In how many groups a slice and its rest must lie for a test to be claimed after all like it are corrected.

    units: of each test the groups with patches of its smaller part; None where patches are independent. The signs of
    that many groups are all drawn alike once in 2^(units - 1). The number follows from where patches lie, never from
    what is found (Tarone 1990): so it costs no level that tests of fewer groups are not made.
    """
    counts = [np.inf if count is None else count for count in units]
    least = 2
    while (tests := sum(count >= least for count in counts)) * 2.0 ** (1 - least) > level:
        least += 1
    return least if tests or not counts else int(np.ceil(1 + np.log2(len(counts) / level)))
