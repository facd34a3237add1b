"""Score the baselines on valid and test: colour histogram, always tumour, the majority class of train.

Reads: baseline_weights.json, the stores and tables of valid and test.
Writes: baselines.json with {name: {split: {metric: value, n, positives, estimates: {metric: value and interval}}}}.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.colour import colour_histograms, read_colour_baseline
from pcam.files import InputError, read_csv, write_json
from pcam.intervals import Groups, estimate_metrics, read_groups
from pcam.metrics import roc_auc_error
from pcam.settings import EvaluationSettings, from_mapping
from pcam.stage import run_stage
from pcam.store import open_store

SPLITS = ("valid", "test")
NEED_PROBABILITIES = ("brier", "log_loss", "ece")


def score_answers(
    labels: np.ndarray,
    probabilities: np.ndarray,
    threshold: float,
    beta: float,
    groups: Groups,
    rules: EvaluationSettings,
) -> dict[str, Any]:
    """Every metric, once as plain value and once with its interval."""
    estimates = estimate_metrics(labels, probabilities, threshold, beta=beta, groups=groups, rules=rules)
    return {
        **{name: estimate.value for name, estimate in estimates.items()},
        "roc_auc_standard_error": roc_auc_error(labels, probabilities),
        "threshold": threshold,
        "estimates": {name: estimate.as_document() for name, estimate in estimates.items()},
    }


def score_constant(
    labels: np.ndarray, answer: int, beta: float, groups: Groups, rules: EvaluationSettings
) -> dict[str, Any]:
    """Metrics of the same answer for every patch. It states no probability, so what needs one is undefined."""
    scored = score_answers(labels, np.full(len(labels), float(answer)), 0.5, beta, groups, rules)
    for name in NEED_PROBABILITIES:
        told = {key: value for key, value in scored["estimates"][name].items() if key != "null_high"}
        undefined = {"value": None, "low": None, "high": None, "note": "a constant answer states no probability"}
        scored["estimates"][name] = {**told, **undefined}
    return {**scored, **dict.fromkeys((*NEED_PROBABILITIES, "roc_auc_standard_error", "threshold"))}


def score_baselines(
    weights_path: str,
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    out_path: str,
    *,
    beta: float,
    rules: EvaluationSettings,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when the fitted numbers are damaged, or table and store do not match."""
    baseline, fitted = read_colour_baseline(weights_path)
    constants = {"always_tumour": 1, "train_majority": int(fitted["train"]["majority"])}
    document: dict[str, dict[str, Any]] = {name: {} for name in (*constants, "colour_histogram")}
    for split in SPLITS:
        labels = np.array([int(line["label"]) for line in read_csv(tables[split], ("row", "label"))], np.int64)
        store = open_store(stores[split])
        if len(labels) != len(store):
            raise InputError(
                f"{stores[split]}: {len(store)} patches for the {len(labels)} rows of {tables[split]}; rebuild it"
            )
        groups = read_groups(tables[split])
        counts = {"n": len(labels), "positives": int(labels.sum())}
        for name, answer in constants.items():
            document[name][split] = {**score_constant(labels, answer, beta, groups, rules), **counts}
        probabilities = baseline.probabilities(colour_histograms(store))
        document["colour_histogram"][split] = {
            **score_answers(labels, probabilities, baseline.threshold, beta, groups, rules),
            **counts,
        }
        for name, scored in document.items():
            roc_auc, f_beta = (scored[split][metric] for metric in ("roc_auc", "f_beta"))
            print(f"{name} on {split}: roc_auc {roc_auc}, f_beta {f_beta} ({counts['n']} patches)")
    write_json(out_path, {**document, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        score_baselines(
            snakemake.input.weights,
            {split: snakemake.input[split] for split in SPLITS},
            {split: snakemake.input[f"{split}_rows"] for split in SPLITS},
            snakemake.output[0],
            beta=snakemake.params.beta,
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )
