"""Gaps between a slice and the rest of its split: estimate, interval, p-value, and p-values corrected for their number.

A slice may be small and its score near 1, where the usual error of a difference is far too small: a slice without a
mistake would have none at all. So the variance of a gap counts no less than if both parts were like all patches
together, and Student's quantile takes the degrees of freedom of the small classes. tests/test_gaps.py measures how
often chance alone is claimed: less often than allowed where a slice holds few patches of a class.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import hypergeom

from pcam.interval_methods import by_group
from pcam.intervals import Groups, units_of
from pcam.metrics import mid_ranks, roc_auc_influence, wilson_interval
from pcam.settings import EvaluationSettings

CLASSES = {"roc_auc": (0, 1), "sensitivity": (1,), "specificity": (0,)}  # that a metric needs, by name


@dataclass(frozen=True)
class Gap:
    """Slice minus rest.

    p: two-sided. low and high: at the level of the settings; None where neither part has an error to go by.
    note: what is taken as independent where that is not whole slides or leak groups.
    """

    value: float
    low: float | None
    high: float | None
    p: float
    note: str | None


def holm(p: np.ndarray) -> np.ndarray:
    """p-values (P,) corrected so that one at or below a level happens by chance at most that often (Holm 1979).

    Undefined ones are NaN, count as not tested, and stay NaN.
    """
    out = np.full(len(p), np.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    out[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return out


def _area(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """ROC-AUC by ranks: scikit-learn takes many times as long, which a simulation notices."""
    positives = int(np.sum(labels == 1))
    above = mid_ranks(probabilities)[labels == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(labels) - positives)))


def _measure(metric: str, labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> tuple[float, np.ndarray]:
    """The metric and what each patch (N,) adds to its error: the squares sum to the variance."""
    if metric == "roc_auc":
        influence = roc_auc_influence(labels, probabilities)
        assert influence is not None
        return _area(labels, probabilities), influence
    among = labels == CLASSES[metric][0]
    right = (probabilities >= threshold)[among] == labels[among]
    influence = np.zeros(len(labels))
    influence[among] = (right - right.mean()) / np.sqrt(len(right) * (len(right) - 1))
    return float(right.mean()), influence


def gap_to_rest(
    metric: str,
    labels: np.ndarray,
    probabilities: np.ndarray,
    members: np.ndarray,
    *,
    threshold: float,
    groups: Groups | None,
    rules: EvaluationSettings,
) -> Gap:
    """Gap of roc_auc, sensitivity or specificity between members (N,) bool and the other patches.

    labels 0/1 and probabilities (N,); tumour is called from `threshold` on. Each part must hold two patches of each
    class that the metric needs. By slide or leak group where both parts have enough of them, else by patch; shares by
    patch are compared exactly (Fisher), with the interval of Newcombe 1998.
    """
    parts = (members, ~members)
    of_class = {label: labels == label for label in CLASSES[metric]}
    units = units_of(groups, [part & held for part in parts for held in of_class.values()], rules)
    if units.ids is None and metric != "roc_auc":
        one, other = (_counts(metric, labels, probabilities, part, threshold) for part in parts)
        return _of_shares(one, other, rules, units.note)
    _, whole = _measure(metric, labels, probabilities, threshold)
    values, added, n, own, like_all = [], np.zeros(len(labels)), [], [], []
    for part, sign in zip(parts, (1, -1), strict=True):
        value, influence = _measure(metric, labels[part], probabilities[part], threshold)
        values.append(value)
        added[part] = sign * influence
        for held in of_class.values():
            n.append(int(np.sum(part & held)))
            own.append(float(np.sum(added[part & held] ** 2)))
            like_all.append(float(np.sum(whole[held] ** 2) * np.sum(held)) / n[-1])
    gap, terms = values[0] - values[1], np.array(max(own, like_all, key=sum))
    variance = float(terms.sum())
    if variance == 0:
        return Gap(gap, None, None, 1.0, "neither part has any spread")
    degrees = variance**2 / float(np.sum(terms**2 / (np.array(n) - 1)))  # Satterthwaite 1946
    if units.ids is not None and units.groups is not None:
        variance = max(variance, float(np.sum(by_group(added, units.ids) ** 2)))
        degrees = min(degrees, units.groups - 1)
    error = float(np.sqrt(variance))
    reach = float(stdtrit(degrees, 0.5 + rules.level / 2)) * error
    p = 2 * float(stdtr(degrees, -abs(gap) / error))
    return Gap(gap, max(-1.0, gap - reach), min(1.0, gap + reach), p, units.note)


def _counts(
    metric: str, labels: np.ndarray, probabilities: np.ndarray, part: np.ndarray, threshold: float
) -> tuple[int, int]:
    """How many patches of a part are answered rightly, among how many of the metric's class."""
    among = part & (labels == CLASSES[metric][0])
    return int(np.sum((probabilities[among] >= threshold) == labels[among])), int(among.sum())


def _of_shares(one: tuple[int, int], other: tuple[int, int], rules: EvaluationSettings, note: str | None) -> Gap:
    (a, n), (b, m) = one, other
    possible = np.arange(max(0, a + b - m), min(n, a + b) + 1)
    chances = hypergeom.pmf(possible, n + m, a + b, n)
    p = float(chances[chances <= chances[possible == a] * (1 + 1e-7)].sum())  # sums differ in their last bits
    (a_low, a_high), (b_low, b_high) = (wilson_interval(*counts, rules.level) for counts in (one, other))
    x, y = a / n, b / m
    low, high = x - y - np.hypot(x - a_low, b_high - y), x - y + np.hypot(a_high - x, y - b_low)
    return Gap(x - y, float(low), float(high), min(1.0, p), note)
