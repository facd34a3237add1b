"""Scores of a binary classifier and intervals that hold, on labels 0/1 and probabilities of the positive class.

A score that is undefined (one class only, no positive called) is None, never zero.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri, stdtrit

# scikit-learn is imported where it is used: that takes two seconds, and most jobs want an interval alone.

LEAST_PROBABILITY = 1e-7  # for the log loss, which a certainty that turns out wrong would make infinite


def wilson_interval(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson 1927); (0, 1) when n is 0. n may be an effective number."""
    if n == 0:
        return 0.0, 1.0
    z = float(ndtri(0.5 + level / 2))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)))
    # At the ends the formula gives 0 and 1 exactly, but not in floating point.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def t_interval(
    values: Sequence[float], level: float = 0.95, *, differences: bool = False
) -> tuple[float, float] | None:
    """Student interval of a mean over seeds; None for fewer than two values.

    It knows no bounds: where every value lies in 0..1, as those of all metrics but log loss do, it is cut to 0..1.
    Not so for `differences` of metrics, which may be negative even when none of those seen is.
    """
    if len(values) < 2:
        return None
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, 0.5 + level / 2)) * sd / float(np.sqrt(len(values)))
    if not differences and min(values) >= 0 and max(values) <= 1:
        return max(0.0, mean - half), min(1.0, mean + half)
    return mean - half, mean + half


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve; None when a class is missing."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores)) if len(np.unique(labels)) == 2 else None


def mid_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks (N,) from 1; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[place]


def placements(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of the others (M,) that lie below each score (N,), ties counted half."""
    ranked = np.sort(others)
    return (np.searchsorted(ranked, scores, "left") + np.searchsorted(ranked, scores, "right")) / (2 * len(ranked))


def roc_auc_influence(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """What each patch adds to the ROC-AUC's error: the squares sum to its variance (DeLong et al. 1988, by mid-ranks).

    Influences add up, over seeds as over subsets of the patches, which gives means and differences an error too. None
    with < 2 of a class.
    """
    positives, negatives = scores[labels == 1], scores[labels == 0]
    n_pos, n_neg = len(positives), len(negatives)
    if min(n_pos, n_neg) < 2:
        return None
    ranks = mid_ranks(np.concatenate([positives, negatives]))
    placed_pos = (ranks[:n_pos] - mid_ranks(positives)) / n_neg
    placed_neg = 1 - (ranks[n_pos:] - mid_ranks(negatives)) / n_pos
    influence = np.zeros(len(labels))
    for label, placed in ((1, placed_pos), (0, placed_neg)):
        influence[labels == label] = (placed - placed.mean()) / np.sqrt(len(placed) * (len(placed) - 1))
    return influence


def roc_auc_error(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Standard error of the ROC-AUC on these patches (DeLong); None with < 2 of a class."""
    influence = roc_auc_influence(labels, scores)
    return None if influence is None else float(np.sqrt(np.sum(influence**2)))


def pr_auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the precision-recall curve as average precision; None when a class is missing."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores)) if len(np.unique(labels)) == 2 else None


def pr_auc_influence(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """What each patch adds to the error of the PR-AUC: its derivative by the weight of the patch. None without tumour.

    Average precision is the mean over the positives of the precision at their score, so a patch acts in two ways: as
    one more term of the mean, and on the precision at every score up to its own.
    """
    positives = int(np.sum(labels == 1))
    if positives == 0:
        return None
    order = np.argsort(scores, kind="stable")  # lowest first
    ranked, truths = scores[order], (labels[order] == 1).astype(float)
    first = np.searchsorted(ranked, ranked, side="left")  # of its ties
    called = len(ranked) - first  # patches at this score or above
    found = (positives - np.concatenate([[0.0], np.cumsum(truths)]))[first]
    precision = found / called
    area = float(np.sum(truths * precision)) / positives
    last = np.searchsorted(ranked, ranked, side="right") - 1  # of its ties
    per_call = np.cumsum(truths / called)[last]
    lost = np.cumsum(truths * precision / called)[last]
    influence = np.empty(len(labels))
    influence[order] = (truths * (precision - area) + truths * per_call - lost) / positives
    return influence


def calibration_bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Bin (N,), from 0, of each patch: equal counts from the least probability to the highest, ties in one bin."""
    ranked = np.sort(probabilities)
    return np.searchsorted(ranked, probabilities, side="left") * bins // len(ranked)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int) -> float:
    """Mean over the patches of |mean probability - share of positives| of their bin (ECE), bins of equal counts."""
    excess = np.bincount(calibration_bins(probabilities, bins), weights=probabilities - labels, minlength=bins)
    return float(np.sum(np.abs(excess)) / len(labels))


def logit_interval(area: float, error: float, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of an area on the logit scale, so that it stays inside 0..1; None where it is undefined."""
    if not 0 < area < 1 or error == 0:
        return None
    z = float(ndtri(0.5 + level / 2))
    centre, half = np.log(area / (1 - area)), z * error / (area * (1 - area))
    return float(1 / (1 + np.exp(half - centre))), float(1 / (1 + np.exp(-half - centre)))


def roc_auc_interval(labels: np.ndarray, scores: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
    """DeLong interval on the logit scale; None where it is undefined."""
    area, error = roc_auc(labels, scores), roc_auc_error(labels, scores)
    return None if area is None or error is None else logit_interval(area, error, level)


def f_beta(labels: np.ndarray, decisions: np.ndarray, beta: float) -> float | None:
    """F-beta of decisions 0/1; None without any positive label."""
    from sklearn.metrics import fbeta_score

    if not np.any(labels == 1):
        return None
    return float(fbeta_score(labels, decisions, beta=beta, zero_division=0.0))


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Log loss (N,) of each patch, its probability kept LEAST_PROBABILITY away from 0 and 1."""
    given = np.clip(np.where(labels == 1, probabilities, 1 - probabilities), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    return -np.log(given)


def score(labels: np.ndarray, probabilities: np.ndarray, threshold: float, beta: float) -> dict[str, float | None]:
    """Every metric of one set of predictions; a patch is called positive when its probability reaches `threshold`."""
    decisions = (probabilities >= threshold).astype(int)
    positive, negative = labels == 1, labels == 0
    sensitivity = float(decisions[positive].mean()) if positive.any() else None
    specificity = float(np.mean(decisions[negative] == 0)) if negative.any() else None
    balanced = (sensitivity + specificity) / 2 if sensitivity is not None and specificity is not None else None
    return {
        "roc_auc": roc_auc(labels, probabilities),
        "pr_auc": pr_auc(labels, probabilities),
        "brier": float(np.mean((probabilities - labels) ** 2)),
        "log_loss": float(np.mean(log_losses(labels, probabilities))),
        "f_beta": f_beta(labels, decisions, beta),
        "accuracy": float(np.mean(decisions == labels)),
        "balanced_accuracy": balanced,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "precision": float(labels[decisions == 1].mean()) if decisions.any() else None,
    }
