"""Whether two splits come from one distribution: shares of tumour, named features, a model that tells them apart.

Colour and texture are compared on sound patches of units (slides, leak groups) that stand in one split alone. Their
null distributions come from giving whole units to the splits anew, because patches of one slide resemble each other.
Shares of tumour describe the files as they are, all labels of them, and are compared patch by patch.
"""

from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from pcam.cases import Cases
from pcam.facts import FILE_SPLITS
from pcam.features import KINDS, summaries
from pcam.metrics import wilson_interval
from pcam.settings import ShiftSettings

RIDGE = 30.0  # added to the sums of squares of standardised features: steadies folds with few patches


def compare_shares(tumours: tuple[int, int], n: tuple[int, int]) -> dict[str, Any]:
    """Two-proportion z-test with the pooled variance, and Newcombe's interval of the difference (second - first)."""
    shares = [k / m for k, m in zip(tumours, n, strict=True)]
    pooled = sum(tumours) / sum(n)
    error = float(np.sqrt(pooled * (1 - pooled) * (1 / n[0] + 1 / n[1])))
    z = (shares[1] - shares[0]) / error if error else 0.0
    (low_0, high_0), (low_1, high_1) = (wilson_interval(k, m) for k, m in zip(tumours, n, strict=True))
    difference = shares[1] - shares[0]
    return {
        "difference": difference,
        "interval": [
            difference - float(np.hypot(shares[1] - low_1, high_0 - shares[0])),
            difference + float(np.hypot(high_1 - shares[1], shares[0] - low_0)),
        ],
        "z": z,
        "p": float(2 * stats.norm.sf(abs(z))),
        "n": list(n),
    }


def on_both_sides(keys: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mask (N,) of patches whose key, an array of str in which "" is none, occurs in both splits."""
    _, number = np.unique(keys, return_inverse=True)
    seen = np.zeros((number.max(initial=-1) + 1, 2), bool)
    seen[number, second.astype(np.int64)] = True
    both = seen[:, 0] & seen[:, 1]
    return np.asarray(both[number] & (keys != ""))


def lone_units(slides: np.ndarray, groups: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit (N,) of each patch, its slide or else its leak group or else itself; and which patches stand in one split
    alone, by slide and by leak group."""
    own = np.char.add("p", np.arange(len(slides)).astype(str))
    by_group = np.where(groups != "", np.char.add("g", groups), own)
    units = np.where(slides != "", np.char.add("s", slides), by_group)
    return np.unique(units, return_inverse=True)[1], ~on_both_sides(slides, second) & ~on_both_sides(groups, second)


def matched(second: np.ndarray, labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Indices, ascending, of patches of two splits with the same number of each label in both, `limit` in each at most.

    Else a test between splits would find the share of tumour again. Patches without label (-1) count as one label.
    """
    places = {(k, side): np.flatnonzero((labels == k) & (second == side)) for k in np.unique(labels) for side in (0, 1)}
    sizes = {k: min(len(places[k, 0]), len(places[k, 1])) for k in np.unique(labels)}
    total = max(1, sum(sizes.values()))
    rng = np.random.default_rng(seed)
    taken = [rng.choice(mine, sizes[k] * min(limit, total) // total, replace=False) for (k, _), mine in places.items()]
    return np.sort(np.concatenate(taken))


def permuted_sides(units: np.ndarray, second: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Sides 0/1 (N, 1 + permutations): the true ones, then those of units dealt to the two splits at random.

    A permutation keeps the number of units of each side, not that of patches.
    """
    _, first, number = np.unique(units, return_index=True, return_inverse=True)
    of_unit, rng = second[first], np.random.default_rng(seed)
    columns = [of_unit, *(of_unit[rng.permutation(len(of_unit))] for _ in range(permutations))]
    return np.stack(columns, axis=1)[number]


def unit_folds(units: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold (N,) of each patch: whole units, large ones first, dealt without a look at the sides."""
    _, number = np.unique(units, return_inverse=True)
    size = np.bincount(number)
    order = np.lexsort((np.random.default_rng(seed).permutation(len(size)), -size))
    fold = np.empty(len(size), np.int64)
    fold[order] = np.arange(len(size)) % folds
    return fold[number]


def ridge_scores(features: np.ndarray, sides: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Out-of-fold scores (N,P) of least squares with a ridge, for every column of sides (N,P) at once.

    One factorisation a fold serves all permutations: that is why it is not the logistic regression.
    """
    scores = np.empty(sides.shape)
    with threadpool_limits(1):
        for k in np.unique(fold):
            train, held = fold != k, fold == k
            mean, spread = features[train].mean(axis=0), features[train].std(axis=0)
            scale = np.where(spread > 0, spread, 1.0)
            known, new = (features[train] - mean) / scale, (features[held] - mean) / scale
            target = sides[train] - sides[train].mean(axis=0)
            weights = np.linalg.solve(known.T @ known + RIDGE * np.eye(known.shape[1]), known.T @ target)
            # The mean of a fold is no evidence for a side: where a slide is held out, it would count against its split.
            scores[held] = new @ weights
    return scores


def areas(sides: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """ROC-AUC of every column, by mid-ranks; .5 where a side is empty."""
    positives = sides.sum(axis=0)
    negatives = len(sides) - positives
    ranks = stats.rankdata(scores, axis=0)
    sums = np.where(sides == 1, ranks, 0.0).sum(axis=0)
    pairs = positives * negatives
    return np.where(pairs > 0, (sums - positives * (positives + 1) / 2) / np.maximum(pairs, 1), 0.5)


@dataclass(frozen=True)
class Comparison:
    """Two splits: what is compared, features (N,F) and sides 0/1 (N, 1 + permutations), the true one first."""

    features: np.ndarray
    sides: np.ndarray
    fold: np.ndarray

    def two_sample(self) -> dict[str, Any]:
        """ROC-AUC with which a model out of fold tells the splits apart, against its null distribution."""
        areas_ = areas(self.sides, ridge_scores(self.features.astype(np.float64), self.sides, self.fold))
        null = areas_[1:]
        return {
            "roc_auc": float(areas_[0]),
            "p": float((1 + np.sum(null >= areas_[0])) / (1 + len(null))),
            "permutations": len(null),
            "null_mean": float(null.mean()),
            "null_quantile_95": float(np.quantile(null, 0.95)),
            "null": np.round(null, 4).tolist(),
        }

    def named_features(self) -> list[dict[str, Any]]:
        """Of each named property the standardised mean difference (second - first), KS, and two p-values.

        `p` is that of the property alone, `p_all` holds for all of them together: how often a permutation has any
        difference as large (Westfall and Young 1993).
        """
        values = summaries(self.features)
        spread = values.std(axis=0)
        standard = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        ones = self.sides.sum(axis=0)
        with threadpool_limits(1):
            in_second = standard.T @ self.sides / np.maximum(ones, 1)
            in_first = standard.T @ (1 - self.sides) / np.maximum(len(standard) - ones, 1)
        difference = in_second - in_first
        size, largest = np.abs(difference), np.abs(difference[:, 1:]).max(axis=0)
        first, second = (values[self.sides[:, 0] == side] for side in (0, 1))
        return [
            {
                "feature": name,
                "difference_sd": float(difference[i, 0]),
                "mean_bins": [float(first[:, i].mean()), float(second[:, i].mean())],
                "ks": float(stats.ks_2samp(first[:, i], second[:, i]).statistic),
                "p": float((1 + np.sum(size[i, 1:] >= size[i, 0])) / (1 + len(largest))),
                "p_all": float((1 + np.sum(largest >= size[i, 0])) / (1 + len(largest))),
            }
            for i, (name, _) in enumerate(KINDS)
        ]


def compare_splits(cases: Cases, one: int, other: int, settings: ShiftSettings, level: float) -> dict[str, Any]:
    """Covariates of two splits, on patches matched by label; no test where none could reach `level`."""
    mine = cases.chosen((cases.split == one) | (cases.split == other))
    units, apart = lone_units(mine.slide, mine.group, mine.split == other)
    pool, units = mine.chosen(apart), units[apart]
    second = (pool.split == other).astype(np.int64)
    labelled = all(cases.labels[FILE_SPLITS[k]] is not None for k in (one, other))
    labels = pool.label if labelled else np.full(len(second), -1)
    taken = matched(second, labels, settings.patches, settings.seed)
    units, sides = units[taken], second[taken]
    counts = [len(np.unique(units[sides == side])) for side in (0, 1)]
    entry: dict[str, Any] = {
        "splits": [FILE_SPLITS[one], FILE_SPLITS[other]],
        "n": [int((sides == side).sum()) for side in (0, 1)],
        "units": counts,
        "left_out_in_both": int((~apart).sum()),
        "matched_on_label": labelled,
    }
    none = {**entry, "two_sample": None, "features": []}
    if min(counts) < 2:
        return {**none, "reason": "fewer than two units on a side"}
    # Few slides can be dealt to two splits in few ways, and few permutations see few of them.
    least_p = max(1 / (1 + settings.permutations), 1 / comb(sum(counts), counts[0]))
    if least_p > level:
        return {**none, "reason": f"no p-value below {least_p:.3g} is possible, and {level:.3g} is needed"}
    comparison = Comparison(
        pool.features[taken],
        permuted_sides(units, sides, settings.permutations, settings.seed),
        unit_folds(units, settings.folds, settings.seed),
    )
    return {**entry, "two_sample": comparison.two_sample(), "features": comparison.named_features(), "reason": None}
