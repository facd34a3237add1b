"""Fit what a model must beat: a logistic regression on colour histograms, on train, its threshold chosen on valid.

Reads: the stores and tables of train and valid. Never test.
Writes: baseline_weights.json: plain numbers, and the majority class of train.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from pcam.colour import BINS, ColourBaseline, colour_histograms
from pcam.files import InputError, read_csv, write_json
from pcam.metrics import f_beta
from pcam.settings import ThresholdSettings, from_mapping
from pcam.stage import run_stage
from pcam.store import open_store
from pcam.thresholds import choose

INVERSE_REGULARISATION = 1.0  # scikit-learn's own default: a baseline is not tuned
MAXIMUM_ITERATIONS = 2000


def read_features(store_path: str, rows_path: str) -> tuple[np.ndarray, np.ndarray]:
    """Histograms and labels of a split. Raises: InputError when table and store differ in length."""
    labels = np.array([int(line["label"]) for line in read_csv(rows_path, ("row", "label"))], np.int64)
    store = open_store(store_path)
    if len(labels) != len(store):
        raise InputError(f"{store_path}: {len(store)} patches for the {len(labels)} rows of {rows_path}; rebuild it")
    return colour_histograms(store), labels


def fit_regression(features: np.ndarray, labels: np.ndarray) -> ColourBaseline:
    """The regression on standardised features, threshold still 0.5; one BLAS thread, so that the bits are the same."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    with threadpool_limits(1):
        fitted = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=MAXIMUM_ITERATIONS).fit(
            (features - mean) / scale, labels
        )
    return ColourBaseline(mean, scale, fitted.coef_[0], float(fitted.intercept_[0]), 0.5)


def fit_baselines(
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    out_path: str,
    *,
    rule: ThresholdSettings,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when a split holds one class only, or table and store do not match."""
    features, labels = read_features(stores["train"], tables["train"])
    valid_features, valid_labels = read_features(stores["valid"], tables["valid"])
    for split, found in (("train", labels), ("valid", valid_labels)):
        if len(np.unique(found)) < 2:
            raise InputError(f"{tables[split]}: one class only; a baseline needs both")
    baseline = fit_regression(features, labels)
    probabilities = baseline.probabilities(valid_features)
    threshold = choose(valid_labels, probabilities, rule)
    value = f_beta(valid_labels, (probabilities >= threshold).astype(int), rule.beta)
    positives = int(labels.sum())
    write_json(
        out_path,
        {
            "colour_histogram": {
                **replace(baseline, threshold=threshold).as_document(),
                "bins_per_channel": BINS,
                "inverse_regularisation": INVERSE_REGULARISATION,
                "threshold_rule": {
                    **asdict(rule),
                    "metric": "f_beta",
                    "split": "valid",
                    "value_on_valid": value,
                    "n": len(valid_labels),
                },
            },
            # Of equal classes the answer is "no tumour": nothing argues for an alarm.
            "train": {"n": len(labels), "positives": positives, "majority": int(2 * positives > len(labels))},
            "provenance": provenance,
        },
    )
    print(f"colour histogram: {len(labels)} training patches, threshold {threshold:.4f}, f_beta {value:.4f} on valid")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        fit_baselines(
            {split: snakemake.input[split] for split in ("train", "valid")},
            {split: snakemake.input[f"{split}_rows"] for split in ("train", "valid")},
            snakemake.output[0],
            rule=from_mapping(ThresholdSettings, snakemake.params.threshold),
            provenance=provenance,
        )
