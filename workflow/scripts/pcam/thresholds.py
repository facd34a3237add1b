"""The decision threshold by a rule, its interval, and the temperature, all from labelled predictions.

A patch is called tumour when its probability reaches the threshold. Nothing here knows of a split; the callers hand in
those of valid.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, stdtrit

from pcam.settings import ThresholdSettings

# A best temperature beyond these says that the data do not determine one: labels that the scores part without a mistake
# drive it to 0, where probabilities round to 1 and their order is lost; scores without any order drive it to infinity.
TEMPERATURE_BOUNDS = (0.1, 10.0)
_SLACK = 1e-12  # sums of weights are inexact; no share of whole patches lies this near to another

# A quality (cuts,) to be maximised, of what the cuts call: tumour found and all called, then tumour and all there is.
Quality = Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]


def quality(rule: ThresholdSettings) -> Quality:
    """What the rule maximises; of equal cuts the highest threshold counts."""

    def f_beta(found: np.ndarray, called: np.ndarray, tumours: float, total: float) -> np.ndarray:
        return (1 + rule.beta**2) * found / (called + rule.beta**2 * tumours)

    def enough(found: np.ndarray, called: np.ndarray, tumours: float, total: float) -> np.ndarray:
        return (found >= (rule.sensitivity - _SLACK) * tumours).astype(float)

    def saved(found: np.ndarray, called: np.ndarray, tumours: float, total: float) -> np.ndarray:
        return rule.missed_cost * (found - tumours) - (called - found)

    return {"f_beta": f_beta, "sensitivity": enough, "cost": saved}[rule.rule]


def choose(
    labels: np.ndarray, probabilities: np.ndarray, rule: ThresholdSettings, weights: np.ndarray | None = None
) -> float:
    """The threshold by the rule, from labels 0/1 and probabilities, each (N,).

    It lies midway between two probabilities, so that a last bit of difference on another device flips no decision.
    weights (N,): how often each patch counts; a patch of weight 0 is not there.

    Raises: ValueError when a class is missing, because then every threshold is as good as another.
    """
    counted = np.ones(len(labels)) if weights is None else weights
    there = np.flatnonzero(counted > 0)
    if len(np.unique(labels[there])) < 2:
        raise ValueError("a threshold needs both classes")
    order = there[np.argsort(-probabilities[there], kind="stable")]
    return _choose_ranked(labels[order], probabilities[order], counted[order], rule)


def _choose_ranked(labels: np.ndarray, ranked: np.ndarray, weights: np.ndarray, rule: ThresholdSettings) -> float:
    """`choose` for patches of positive weight that stand in order, the most probable first."""
    called, found = np.cumsum(weights), np.cumsum(weights * labels)
    # Cut k calls the first k patches. Only where the next probability is lower does a threshold separate the two.
    cuts = np.concatenate([[0], np.flatnonzero(np.append(ranked[:-1] > ranked[1:], True)) + 1])
    values = quality(rule)(
        np.append(0.0, found)[cuts], np.append(0.0, called)[cuts], float(found[-1]), float(called[-1])
    )
    best = int(cuts[np.flatnonzero(values >= values.max() - _SLACK * max(1.0, abs(values.max())))[0]])
    if best == 0:  # to call none must be possible even where a probability is 1
        return float(max((1 + ranked[0]) / 2, np.nextafter(ranked[0], 2)))
    following = ranked[best] if best < len(ranked) else 0.0
    return float((ranked[best - 1] + following) / 2)


def value_of(labels: np.ndarray, probabilities: np.ndarray, threshold: float, rule: ThresholdSettings) -> float:
    """What the rule is about, at this threshold: F-beta, sensitivity, or the cost per patch in false alarms."""
    from sklearn.metrics import fbeta_score  # here, as in pcam.metrics

    called, tumour = probabilities >= threshold, labels == 1
    if rule.rule == "sensitivity":
        return float(np.mean(called[tumour]))
    if rule.rule == "cost":
        return float(np.mean(rule.missed_cost * (tumour & ~called) + (called & ~tumour)))
    return float(fbeta_score(labels, called, beta=rule.beta, zero_division=0.0))


def prior_weights(labels: np.ndarray, prior: float) -> np.ndarray:
    """Weights (N,) under which a share `prior` (0..1) of these patches, which hold both classes, is tumour."""
    share = float(np.mean(labels))
    return np.where(labels == 1, prior / share, (1 - prior) / (1 - share))


def threshold_interval(
    labels: np.ndarray,
    probabilities: np.ndarray,
    rule: ThresholdSettings,
    ids: np.ndarray | None,
    level: float,
) -> tuple[float, float]:
    """The thresholds that these patches do not tell from the best one, or, by rule sensitivity, from its target.

    Between two cuts the rule's gain is a sum over the patches between them; a cut is refused when that sum is further
    from zero than chance takes it. Its variance is the larger of what the groups show and of what it is when nothing is
    gained, which makes it wide rather than narrow. A percentile bootstrap of a place, unlike that of a mean, is not
    one that holds.

    ids (N,) int: patches of one number vary together; None: every patch by itself.

    Raises: ValueError when a class is missing.
    """
    threshold = choose(labels, probabilities, rule)
    order = np.argsort(-probabilities, kind="stable")
    labels, ranked = labels[order], probabilities[order]
    units = np.arange(len(labels)) if ids is None else np.unique(ids, return_inverse=True)[1][order]
    best, tumours = int(np.sum(ranked >= threshold)), float(labels.sum())
    sums: np.ndarray = np.zeros(int(units.max()) + 1)
    fixed, per_patch, walks = 0.0, 0.0, [(best, 1), (best, -1)]  # walks: first cut and direction
    gains = _gains(labels, best, rule)
    if rule.rule == "sensitivity":  # the sum is of tumour found above the target, from none called on
        sums, walks = -rule.sensitivity * np.bincount(units, weights=labels), [(0, 1)]
        fixed = rule.sensitivity * (1 - rule.sensitivity) * tumours
    else:
        per_patch = float(gains.max() * -gains.min())
    critical = float(stdtrit(int(units.max()), 0.5 + level / 2))
    kept = [
        cut
        for start, sign in walks
        for cut, gained, variance in _walk(gains, units, sums, start, sign)
        if cut in (0, len(ranked)) or ranked[cut - 1] > ranked[cut]
        if gained**2 <= critical**2 * max(variance, fixed + per_patch * abs(cut - best)) + _SLACK
    ]
    low = float(ranked[max(kept)]) if max(kept) < len(ranked) else 0.0
    high = float(ranked[min(kept) - 1]) if min(kept) > 0 else max(1.0, threshold)
    return low, high


def _gains(labels: np.ndarray, best: int, rule: ThresholdSettings) -> np.ndarray:
    """What the rule gains by calling each patch (N,) as well, to a scale; F-beta is linear near its best value."""
    if rule.rule == "sensitivity":
        return labels.astype(float)
    if rule.rule == "cost":
        return np.where(labels == 1, rule.missed_cost, -1.0)
    weight = 1 + rule.beta**2
    return weight * labels - weight * labels[:best].sum() / (best + rule.beta**2 * labels.sum())


def _walk(
    gains: np.ndarray, units: np.ndarray, sums: np.ndarray, cut: int, sign: int
) -> Iterator[tuple[int, float, float]]:
    """Cuts from one on, up or down, with what is gained to there and the variance that the units show of it."""
    held = sums.tolist()
    gained, variance = float(sums.sum()), float(np.sum(sums**2))
    yield cut, gained, variance
    steps = np.arange(cut, len(gains)) if sign > 0 else np.arange(cut - 1, -1, -1)
    for unit, gain in zip(units[steps].tolist(), (sign * gains[steps]).tolist(), strict=True):
        variance += 2 * held[unit] * gain + gain * gain
        gained, held[unit], cut = gained + gain, held[unit] + gain, cut + sign
        yield cut, gained, variance


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float | None:
    """The temperature T for which sigmoid(logit / T) has the least log loss (Guo et al. 2017).

    None where it would lie outside TEMPERATURE_BOUNDS.

    Raises: ValueError when a class is missing.
    """
    if len(np.unique(labels)) < 2:
        raise ValueError("a temperature needs both classes")
    logits = logits.astype(np.float64)

    def slope(log_temperature: float) -> float:
        """Derivative of the log loss by 1/T, in which it is convex: falls with T, through 0 at the best."""
        return float(np.mean(logits * (expit(logits / np.exp(log_temperature)) - labels)))

    lowest, highest = np.log(TEMPERATURE_BOUNDS)
    if slope(lowest) <= 0 or slope(highest) >= 0:
        return None
    return float(np.exp(brentq(slope, lowest, highest, xtol=1e-12)))
