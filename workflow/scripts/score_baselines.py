"""Score the baselines on valid and test: colour histogram, always tumour, the majority class of train.

Reads: baseline_weights.json, the stores and tables of valid and test.
Writes: baselines.json with {name: {split: {metric: value, n}}}.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.colour import colour_histograms, read_colour_baseline
from pcam.files import InputError, read_csv, write_json
from pcam.metrics import roc_auc_error, score
from pcam.stage import run_stage
from pcam.store import open_store

SPLITS = ("valid", "test")


def score_constant(labels: np.ndarray, answer: int, beta: float) -> dict[str, Any]:
    """Metrics of the same answer for every patch. It states no probability: Brier score and log loss are undefined."""
    scores = score(labels, np.full(len(labels), float(answer)), 0.5, beta)
    return {**scores, "brier": None, "log_loss": None, "roc_auc_standard_error": None, "threshold": None}


def score_baselines(
    weights_path: str,
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    out_path: str,
    *,
    beta: float,
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
        counts = {"n": len(labels), "positives": int(labels.sum())}
        for name, answer in constants.items():
            document[name][split] = {**score_constant(labels, answer, beta), **counts}
        probabilities = baseline.probabilities(colour_histograms(store))
        document["colour_histogram"][split] = {
            **score(labels, probabilities, baseline.threshold, beta),
            "roc_auc_standard_error": roc_auc_error(labels, probabilities),
            "threshold": baseline.threshold,
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
            provenance=provenance,
        )
