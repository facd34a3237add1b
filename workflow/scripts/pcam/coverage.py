"""How often the intervals hold the truth, on simulated predictions whose metrics are known.

Scores are normal, one standard deviation wide, those of tumour SEPARATION higher; the probabilities are the exact ones
given the score. So every metric follows from integrals. Labels are drawn patch by patch, as a sample of tissue is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit, log_expit, logit

from pcam import interval_methods as methods
from pcam.intervals import KINDS, PROPORTIONS, Units, area, balanced, calibration, proportion, ratio_parts
from pcam.metrics import pr_auc_influence, roc_auc_influence, t_interval, wilson_interval
from pcam.settings import EvaluationSettings

TARGET = (0.93, 0.97)  # for intervals of level 0.95
SEPARATION = 1.9  # a ROC-AUC of 0.91, about what the models here reach
SEEDS, SEED_MEAN, SEED_SPREAD = 3, 2.3, 0.2  # of a metric over seeds, on the logit scale


@dataclass(frozen=True)
class Case:
    """A kind of data set: patches in all, or 60 slides of 4 to 16 whose tumour and scores differ."""

    name: str
    patches: int | None
    prior: float
    slides: int | None = None
    shares: float = 2.0  # how alike slides are in tumour: of Beta(prior * shares, (1 - prior) * shares)
    between: float = 0.1  # share of the variance of scores that lies between slides


CASES = (
    Case("200 patches, 30 tumours on average", 200, 0.15),
    Case("200 patches, 100 tumours on average", 200, 0.5),
    Case("1,000 patches, 150 tumours on average", 1000, 0.15),
    Case("60 slides of 4 to 16 patches", None, 0.3, slides=60),
)


def true_metrics(prior: float, beta: float) -> dict[str, float]:
    """Every metric of the whole population, tumour called where its probability reaches the prior; but the ECE, 0."""
    scores, step = np.linspace(-12, 12 + SEPARATION, 200_001, retstep=True)
    tumour, other = stats.norm.pdf(scores, SEPARATION), stats.norm.pdf(scores)
    logits = logit(prior) + SEPARATION * scores - SEPARATION**2 / 2
    found, alarms = prior * stats.norm.sf(scores, SEPARATION), (1 - prior) * stats.norm.sf(scores)
    either, given = prior * tumour + (1 - prior) * other, expit(logits)
    entropy = -(given * log_expit(logits) + (1 - given) * log_expit(-logits))
    sensitivity = float(stats.norm.cdf(SEPARATION / 2))  # the cut lies midway between the classes
    hits, false = prior * sensitivity, (1 - prior) * (1 - sensitivity)
    return {
        "roc_auc": float(stats.norm.cdf(SEPARATION / np.sqrt(2))),
        "pr_auc": float(np.sum(tumour * found / (found + alarms)) * step),
        "accuracy": sensitivity,
        "sensitivity": sensitivity,
        "specificity": sensitivity,
        "precision": hits / (hits + false),
        "balanced_accuracy": sensitivity,
        "f_beta": (1 + beta**2) * hits / (hits + false + beta**2 * prior),
        "brier": float(np.sum(either * given * (1 - given)) * step),
        "log_loss": float(np.sum(either * entropy) * step),
    }


def draw_sets(case: Case, draws: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, Units]]:
    """Labels (N,), probabilities (N,) and units of each simulated data set."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        if case.slides is None:
            assert case.patches is not None
            units = Units(None, None, None, "")
            share, offset, own = np.full(case.patches, case.prior), np.zeros(case.patches), 1.0
        else:
            ids = np.repeat(np.arange(case.slides), rng.integers(4, 17, case.slides))
            units = Units(ids, case.slides, None, ", by slide")
            share = rng.beta(case.prior * case.shares, (1 - case.prior) * case.shares, case.slides)[ids]
            offset, own = np.sqrt(case.between) * rng.normal(size=case.slides)[ids], np.sqrt(1 - case.between)
        labels = (rng.random(len(share)) < share).astype(int)
        scores = SEPARATION * labels + offset + own * rng.normal(size=len(share))
        yield labels, expit(logit(case.prior) + SEPARATION * scores - SEPARATION**2 / 2), units


def areas(labels: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """ROC-AUC and average precision of scores without ties; scikit-learn's checks would take most of the time."""
    ranked = labels[np.argsort(-scores)]
    found = np.cumsum(ranked)
    positives = found[-1]
    alarms_above = np.cumsum(1 - ranked)[ranked == 1]
    return (
        float(1 - np.sum(alarms_above) / positives / (len(labels) - positives)),
        float(np.mean(found[ranked == 1] / (np.flatnonzero(ranked) + 1))),
    )


def measure_case(case: Case, beta: float, rules: EvaluationSettings) -> list[dict[str, Any]]:
    """Coverage of each interval over rules.coverage_draws data sets of this case, a row a metric."""
    bounds: dict[str, list[Any]] = {name: [] for name in KINDS}
    sums: dict[str, list[Any]] = {"f_beta": [], "brier": [], "log_loss": []}
    by = ""
    for labels, probabilities, units in draw_sets(case, rules.coverage_draws, rules.seed):
        by = units.by
        parts = ratio_parts(labels, probabilities, (probabilities >= case.prior).astype(int), beta)
        influences = (roc_auc_influence(labels, probabilities), pr_auc_influence(labels, probabilities))
        for name, value, influence in zip(("roc_auc", "pr_auc"), areas(labels, probabilities), influences, strict=True):
            bounds[name].append(None if influence is None else area(value, influence, labels, units, rules.level))
        for name in PROPORTIONS:
            bounds[name].append(proportion(*parts[name], units, rules.level))
        bounds["balanced_accuracy"].append(balanced(parts, units, rules.level))
        found = calibration(labels, probabilities, units, rules)
        bounds["ece"].append((found.value, found.null_high))
        for name, pairs in sums.items():
            pairs.append([units.sums(part) for part in parts[name]])
    for name, pairs in sums.items():
        method = methods.bootstrap_ratios if name == "f_beta" else methods.bootstrap_losses
        above, below = (np.stack([pair[i] for pair in pairs], axis=1) for i in (0, 1))
        bounds[name] = list(method(above, below, rules))
    truths = true_metrics(case.prior, beta)
    return [
        {
            "case": case.name,
            "metric": name,
            "kind": KINDS[name].format(rules.resamples) + by,
            **(describe_band(found) if name == "ece" else describe_coverage(found, truths[name])),
        }
        for name, found in bounds.items()
    ]


def measure_seeds(rules: EvaluationSettings) -> dict[str, Any]:
    """Coverage of Student's interval over seeds, of a metric that is normal on the logit scale."""
    rng = np.random.default_rng(rules.seed)
    values = expit(rng.normal(SEED_MEAN, SEED_SPREAD, (rules.coverage_draws, SEEDS)))
    points, weights = np.polynomial.hermite_e.hermegauss(60)
    truth = float(np.sum(weights * expit(SEED_MEAN + SEED_SPREAD * points)) / np.sum(weights))
    found = [t_interval(draw, rules.level) for draw in values.tolist()]
    return {
        "case": f"{SEEDS} seeds",
        "metric": "mean_over_seeds",
        "kind": "Student",
        **describe_coverage(found, truth),
    }


def describe_coverage(found: list[Any], truth: float) -> dict[str, Any]:
    """Share of intervals (low, high) that hold the truth; one that is undefined (None or NaN) is counted apart."""
    known = np.array([bounds for bounds in found if bounds is not None and np.all(np.isfinite(bounds))]).reshape(-1, 2)
    low, high = known.T
    holds = (low <= truth) & (truth <= high)
    width = float(np.mean(high - low)) if len(known) else None
    return {"truth": truth, **share_of(holds), "undefined": len(found) - len(known), "mean_width": width}


def describe_band(found: list[Any]) -> dict[str, Any]:
    """Share of ECEs of calibrated probabilities, in (value, null_high), that do not pass their band."""
    value, high = np.array(found).T
    return {"truth": None, **share_of(value <= high), "undefined": 0, "mean_width": float(np.mean(high))}


def share_of(holds: np.ndarray) -> dict[str, Any]:
    """The share with what chance leaves open of it, and whether it lies within the target; null without draws."""
    if not len(holds):
        return {"covered": None, "low": None, "high": None, "draws": 0, "within": None}
    share, draws = float(np.mean(holds)), len(holds)
    low, high = wilson_interval(int(holds.sum()), draws)
    within = TARGET[0] <= share <= TARGET[1]
    return {"covered": share, "low": low, "high": high, "draws": draws, "within": within}
