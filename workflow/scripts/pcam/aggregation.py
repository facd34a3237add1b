"""Runs side by side: each judged at its own threshold, their metrics over the seeds, and what a variant changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam.intervals import Groups, estimate_metrics
from pcam.metrics import roc_auc_error, t_interval
from pcam.predictions import Predictions
from pcam.settings import EvaluationSettings, ThresholdSettings
from pcam.thresholds import choose


@dataclass(frozen=True)
class Evaluation:
    """How runs are judged: by which rule for the threshold, which groups of each split, which intervals."""

    threshold: ThresholdSettings
    groups: Mapping[str, Groups]
    rules: EvaluationSettings


def summarise(values: Sequence[float | None], level: float, *, differences: bool = False) -> dict[str, Any]:
    """Mean over seeds with sd and Student interval; null where a seed has no value, undefined with one seed."""
    summary: dict[str, Any] = {"mean": None, "sd": None, "interval": None, "kind": f"Student, n = {len(values)} seeds"}
    known = [value for value in values if value is not None]
    complete = len(known) == len(values)
    if complete:
        summary["mean"] = float(np.mean(known))
    if len(values) == 1:
        summary["sd"] = summary["interval"] = "undefined (n = 1)"
    elif complete and (interval := t_interval(known, level, differences=differences)) is not None:
        summary["sd"], summary["interval"] = float(np.std(known, ddof=1)), list(interval)
    return {**summary, "values": list(values), "n": len(values)}


def score_run(predictions: Mapping[str, Predictions], judged: Evaluation) -> dict[str, dict[str, Any]]:
    """Estimates of one run on each split as documents, at the threshold chosen on its own validation predictions.

    Raises: ValueError when validation holds one class only.
    """
    threshold = choose(predictions["valid"].labels, predictions["valid"].probabilities, judged.threshold)
    scored: dict[str, dict[str, Any]] = {}
    for split, told in predictions.items():
        estimates = estimate_metrics(
            told.labels,
            told.probabilities,
            threshold,
            beta=judged.threshold.beta,
            groups=judged.groups[split],
            rules=judged.rules,
        )
        scored[split] = {
            "estimates": {name: estimate.as_document() for name, estimate in estimates.items()},
            "threshold": threshold,
            "standard_error": roc_auc_error(told.labels, told.probabilities),
        }
    return scored


def side_by_side(scored: Sequence[Mapping[str, Any]], level: float) -> dict[str, Any]:
    """Summary of each metric over the seeds of a variant on one split, from `score_run` of each."""
    metrics = {}
    for name in scored[0]["estimates"]:
        estimates = [one["estimates"][name] for one in scored]
        metrics[name] = {**summarise([estimate["value"] for estimate in estimates], level), "estimates": estimates}
    metrics["threshold"] = summarise([one["threshold"] for one in scored], level)
    metrics["roc_auc"]["standard_errors"] = [one["standard_error"] for one in scored]
    return metrics


def difference(metrics: Mapping[str, Any], baseline: Mapping[str, Any], level: float) -> dict[str, Any]:
    """Each metric of a variant minus that of the baseline variant, seed by seed, from `side_by_side` of both."""
    found = {}
    for name, told in metrics.items():
        pairs = zip(told["values"], baseline[name]["values"], strict=True)
        values = [None if a is None or b is None else a - b for a, b in pairs]
        found[name] = summarise(values, level, differences=True)
    return found
