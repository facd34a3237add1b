"""Fit the champion's temperature and choose its threshold, on validation alone, and store both beside its weights.

Reads: selection.json, the chosen weights, the store and table of valid.
Writes: the champion's weights.pt and weights.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.checkpoint import load_checkpoint, save_checkpoint
from pcam.determinism import fix_device
from pcam.files import InputError, read_csv, read_json
from pcam.intervals import read_groups, units_of
from pcam.settings import EvaluationSettings, ThresholdSettings, from_mapping
from pcam.sidecar import probabilities
from pcam.stage import run_stage
from pcam.store import open_store
from pcam.thresholds import TEMPERATURE_BOUNDS, choose, fit_temperature, threshold_interval, value_of
from pcam.training import predict

TARGETS = {"f_beta": None, "sensitivity": "sensitivity", "cost": "missed_cost"}  # setting that a rule aims at
NO_TEMPERATURE = "none: the best lies outside {:g} to {:g}, as the scores part valid too well or not at all"


def choose_threshold(
    selection_path: str,
    store_path: str,
    rows_path: str,
    weights_path: str,
    sidecar_path: str,
    *,
    rule: ThresholdSettings,
    rules: EvaluationSettings,
    threads: int,
    provenance: Mapping[str, Any],
) -> None:
    """The threshold follows from the tempered probabilities by the rule.

    Raises: InputError when no candidate was chosen, the checkpoint is damaged, store and table do not match, or valid
    lacks a class.
    """
    device = fix_device(threads)
    chosen = read_json(selection_path)["chosen"]
    model, preprocessing, sidecar = load_checkpoint(chosen["weights"])
    labels = np.array([int(line["label"]) for line in read_csv(rows_path, ("label",))])
    patches = open_store(store_path)
    if len(labels) != len(patches):
        raise InputError(
            f"{store_path}: {len(patches)} patches for the {len(labels)} rows of {rows_path}; rebuild the store"
        )
    logits = predict(model.to(device), patches, preprocessing, device)
    units = units_of(read_groups(rows_path), (labels == 1, labels == 0), rules)
    try:
        temperature = fit_temperature(labels, logits)
        tempered = probabilities(logits, {"temperature": temperature})
        threshold = choose(labels, tempered, rule)
        interval = threshold_interval(labels, tempered, rule, units.ids, rules.level)
    except ValueError as error:
        raise InputError(f"{rows_path}: {error}, and valid holds one; give it patches of the other") from None
    value, target = value_of(labels, tempered, threshold, rule), TARGETS[rule.rule]
    note = NO_TEMPERATURE.format(*TEMPERATURE_BOUNDS) if temperature is None else None
    print(f"{chosen['name']}: temperature {note or f'{temperature:.4f}'}")
    print(f"threshold {threshold:.4f} by {rule.rule}, which is {value:.4f} on {len(labels)} validation patches")
    document = {
        **sidecar,
        "name": chosen["name"],
        "variant": chosen["variant"],
        "temperature": temperature,
        "temperature_note": note,
        "threshold": threshold,
        "threshold_rule": {
            "rule": rule.rule,
            "beta": rule.beta,
            "target": None if target is None else getattr(rule, target),
            "split": "valid",
            "value_on_valid": value,
            "n": len(labels),
            "interval": interval,
            "interval_kind": "test inversion" + units.by,
            "interval_note": units.note,
        },
        "trained_by": sidecar["provenance"],
        "provenance": provenance,
    }
    save_checkpoint(weights_path, sidecar_path, model, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        choose_threshold(
            snakemake.input.selection,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output.weights,
            snakemake.output.sidecar,
            rule=from_mapping(ThresholdSettings, snakemake.params.rule),
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            threads=snakemake.params.threads,
            provenance=provenance,
        )
