"""Score the champion on valid, where it was chosen, and on test, where all is carried over, with intervals.

Reads: the champion's weights.json and its predictions on valid and test; the tables of these splits, for their groups.
Writes: evaluation.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.files import InputError, read_json, write_json
from pcam.intervals import Groups, estimate_metrics, estimate_proportion, read_groups
from pcam.metrics import f_beta
from pcam.predictions import Predictions, read_logits, read_with_table
from pcam.settings import EvaluationSettings, from_mapping
from pcam.sidecar import probabilities_of
from pcam.stage import run_stage

ROLES = {"valid": "chosen here", "test": "carried over"}
CALIBRATION = ("ece", "brier", "log_loss")


def read_split(predictions_path: str, rows_path: str) -> tuple[Predictions, Groups]:
    """Predictions and groups of a split. Raises: InputError when they are of different rows."""
    return read_with_table(predictions_path, rows_path)[0], read_groups(rows_path)


def confusion(labels: np.ndarray, called: np.ndarray) -> dict[str, int]:
    """Patches with tumour found and missed, and without tumour called all the same (alarms) and cleared."""
    tumour = labels == 1
    return {
        "found": int(np.sum(tumour & called)),
        "missed": int(np.sum(tumour & ~called)),
        "alarms": int(np.sum(~tumour & called)),
        "cleared": int(np.sum(~tumour & ~called)),
    }


def per_thousand(happened: np.ndarray, groups: Groups, rules: EvaluationSettings) -> dict[str, Any]:
    """How many of 1,000 patches this happens to, (N,) bool, with its interval."""
    share = estimate_proportion(happened, np.ones(len(happened), bool), groups, rules).as_document()
    return {**share, **{key: 1000 * share[key] for key in ("value", "low", "high")}}


def evaluate_split(
    told: Predictions, groups: Groups, threshold: float, beta: float, rules: EvaluationSettings
) -> dict[str, Any]:
    """Metrics with intervals, confusion, and what goes wrong in 1,000 patches."""
    called, tumour = told.probabilities >= threshold, told.labels == 1
    estimates = estimate_metrics(told.labels, told.probabilities, threshold, beta=beta, groups=groups, rules=rules)
    return {
        "n": len(told.labels),
        "metrics": {name: estimate.as_document() for name, estimate in estimates.items()},
        "confusion": confusion(told.labels, called),
        "per_1000": {
            "missed": per_thousand(tumour & ~called, groups, rules),
            "false_alarms": per_thousand(~tumour & called, groups, rules),
        },
    }


def calibration(estimates: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    values = {name: estimates[name]["value"] for name in CALIBRATION}
    return {**values, "null_high": estimates["ece"].get("null_high")}


def evaluate_champion(
    sidecar_path: str,
    predictions_paths: Mapping[str, str],
    rows_paths: Mapping[str, str],
    out_path: str,
    *,
    beta: float,
    rules: EvaluationSettings,
    provenance: Mapping[str, Any],
) -> None:
    """Paths by split, "valid" and "test".

    Raises: InputError when a table is missing, unlabelled or of other rows, or the sidecar has no threshold.
    """
    sidecar = read_json(sidecar_path)
    threshold = sidecar["threshold"]
    if threshold is None:
        raise InputError(f"{sidecar_path}: threshold is null; choose_threshold has to come first")
    document: dict[str, Any] = {"name": sidecar["name"], "beta": beta, "threshold": threshold}
    always, beats, tempered = {}, {}, {}
    for split, role in ROLES.items():
        told, groups = read_split(predictions_paths[split], rows_paths[split])
        scores = evaluate_split(told, groups, threshold, beta, rules)
        document[split] = {"role": role, **scores}
        raw = Predictions(told.rows, told.labels, probabilities_of(read_logits(predictions_paths[split])))
        untempered = evaluate_split(raw, groups, threshold, beta, rules)["metrics"]
        tempered[split] = {"before": calibration(untempered), "after": calibration(scores["metrics"])}
        always[split] = f_beta(told.labels, np.ones(len(told.labels), int), beta)
        value = scores["metrics"]["f_beta"]["value"]
        beats[split] = None if value is None or always[split] is None else value > always[split]
        print(f"{split} ({role}): F{beta:g} {value} against {always[split]} of always tumour")
    write_json(
        out_path,
        {
            **document,
            "calibration": tempered,
            "temperature": sidecar["temperature"],
            "temperature_note": sidecar["temperature_note"],
            "always_tumour": always,
            "beats_always_tumour": beats,
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        evaluate_champion(
            snakemake.input.sidecar,
            dict(zip(ROLES, snakemake.input.predictions, strict=True)),
            dict(zip(ROLES, snakemake.input.rows, strict=True)),
            snakemake.output[0],
            beta=snakemake.params.beta,
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )
