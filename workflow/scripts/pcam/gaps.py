"""Gaps between a slice and the rest of its split: estimate, interval, p-value, and p-values corrected for their number.

Where slides or leak groups are known, test and interval count them (pcam.group_tests). By patch, a slice may be small
and its score near 1, where the usual error of a difference is far too small: a slice without a mistake would have none
at all. So the variance of a ROC-AUC's gap counts no less than if both parts were like all patches together, and
Student's quantile takes the degrees of freedom of the small classes. tests/test_gaps.py measures how often chance alone
is claimed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import hypergeom

from pcam.group_tests import compare_means
from pcam.intervals import Groups
from pcam.metrics import mid_ranks, placements, roc_auc_influence, wilson_interval
from pcam.settings import EvaluationSettings

CLASSES = {"roc_auc": (0, 1), "sensitivity": (1,), "specificity": (0,)}  # that a metric needs, by name
TWO_METHODS = "p by Fisher's exact test, the interval by Newcombe: near the level they may disagree"
NO_SLIDES = "slides are not known: patches that share no tissue count as independent"


@dataclass(frozen=True)
class Gap:
    """Slice minus rest.

    p: two-sided. low and high: at the level of the settings; None where the test has no such end.
    groups: slides or leak groups with patches of the rarer class in the smaller part; None where patches count.
    note: what is taken as independent where that is not whole slides, that p and interval are of different methods, or
    why there is no interval.
    """

    value: float
    low: float | None
    high: float | None
    p: float
    groups: int | None
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


def known_groups(groups: Groups | None) -> Groups | None:
    """The groups, unless each patch is one of its own."""
    return None if groups is None or groups.count == len(groups.ids) else groups


def note_of(groups: Groups | None) -> str | None:
    """What a test by these groups takes as independent where that is not whole slides."""
    return None if groups is not None and groups.noun == "slide" else NO_SLIDES


class Gaps:
    """Gaps of one metric (roc_auc, sensitivity or specificity) between parts of the same patches.

    labels 0/1 and probabilities (N,); tumour is called from `threshold` on.
    """

    def __init__(
        self,
        metric: str,
        labels: np.ndarray,
        probabilities: np.ndarray,
        *,
        threshold: float,
        groups: Groups | None,
        rules: EvaluationSettings,
    ) -> None:
        self.metric, self.labels, self.probabilities, self.rules = metric, labels, probabilities, rules
        self.right = (probabilities >= threshold) == (labels == 1)
        self.classes = [labels == label for label in CLASSES[metric]]
        self.groups, self.note = known_groups(groups), note_of(groups)

    @cached_property
    def _like_all(self) -> np.ndarray:
        """What each patch adds to the error of the ROC-AUC of all."""
        influence = roc_auc_influence(self.labels, self.probabilities)
        assert influence is not None
        return influence

    def to_rest(self, members: np.ndarray) -> Gap:
        """Gap of members (N,) bool to the other patches; each part must hold two patches of each class needed."""
        if self.groups is not None:
            return self._by_group(members, self.groups)
        if self.metric == "roc_auc":
            return self._of_areas(members)
        return self._of_shares(members)

    def _by_group(self, members: np.ndarray, groups: Groups) -> Gap:
        """Placements of tumours and of the others each have the area as their mean, so either counts for half of it."""
        values = self.right.astype(float)
        if self.metric == "roc_auc":
            for part in (members, ~members):
                others, tumours = (part & held for held in self.classes)
                values[tumours] = placements(self.probabilities[tumours], self.probabilities[others])
                values[others] = placements(-self.probabilities[others], -self.probabilities[tumours])
                values[part] -= values[others].mean() / 2
        count = min(len(np.unique(groups.ids[part & c])) for part in (members, ~members) for c in self.classes)
        if all(np.ptp(values[c]) == 0 for c in self.classes):
            return Gap(0.0, None, None, 1.0, count, "neither part has any spread")
        found = compare_means(values, members, self.classes, groups.ids, self.rules)
        if found.low is None or found.high is None:
            return Gap(found.value, None, None, found.p, count, f"too few {groups.noun}s for an interval ({count})")
        return Gap(found.value, max(-1.0, found.low), min(1.0, found.high), found.p, count, self.note)

    def _of_areas(self, members: np.ndarray) -> Gap:
        values, n, own, like_all = [], [], [], []
        for part in (members, ~members):
            labels, probabilities = self.labels[part], self.probabilities[part]
            influence = roc_auc_influence(labels, probabilities)
            assert influence is not None
            values.append(_area(labels, probabilities))
            for label, held in enumerate(self.classes):
                n.append(int(np.sum(part & held)))
                own.append(float(np.sum(influence[labels == label] ** 2)))
                like_all.append(float(np.sum(self._like_all[held] ** 2) * np.sum(held)) / n[-1])
        gap, terms = values[0] - values[1], np.array(max(own, like_all, key=sum))
        variance = float(terms.sum())
        if variance == 0:
            return Gap(gap, None, None, 1.0, None, "neither part has any spread")
        degrees = variance**2 / float(np.sum(terms**2 / (np.array(n) - 1)))  # Satterthwaite 1946
        error = float(np.sqrt(variance))
        reach = float(stdtrit(degrees, 0.5 + self.rules.level / 2)) * error
        p = 2 * float(stdtr(degrees, -abs(gap) / error))
        return Gap(gap, max(-1.0, gap - reach), min(1.0, gap + reach), p, None, self.note)

    def _of_shares(self, members: np.ndarray) -> Gap:
        """Compared exactly (Fisher), with the interval of Newcombe 1998."""
        (among,) = self.classes
        parts = members & among, ~members & among
        (a, n), (b, m) = ((int(self.right[part].sum()), int(part.sum())) for part in parts)
        possible = np.arange(max(0, a + b - m), min(n, a + b) + 1)
        chances = hypergeom.pmf(possible, n + m, a + b, n)
        p = float(chances[chances <= chances[possible == a] * (1 + 1e-7)].sum())  # sums differ in their last bits
        (a_low, a_high), (b_low, b_high) = (wilson_interval(*counts, self.rules.level) for counts in ((a, n), (b, m)))
        x, y = a / n, b / m
        low, high = x - y - np.hypot(x - a_low, b_high - y), x - y + np.hypot(a_high - x, y - b_low)
        note = "; ".join(filter(None, (self.note, TWO_METHODS)))
        return Gap(x - y, float(low), float(high), min(1.0, p), None, note)


def _area(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """ROC-AUC by ranks: scikit-learn takes many times as long, which a simulation notices."""
    positives = int(np.sum(labels == 1))
    above = mid_ranks(probabilities)[labels == 1].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(labels) - positives)))
