"""Learn what validation patches and the champion's answers to them look like, and how far chance may take a set.

Reads: the champion's sidecar, its predictions on valid, the store and table of valid.
Writes: guard.json, which inference.py reads from beside the weights.
"""

from collections.abc import Mapping

import numpy as np

from pcam.drift import LEAST_UNITS, fit, units_of
from pcam.files import InputError, write_json
from pcam.guard import watched_values
from pcam.intervals import Groups, read_groups
from pcam.predictions import read_with_table
from pcam.sidecar import read_sidecar
from pcam.stage import run_stage
from pcam.store import open_store

PATCHES = 4096  # validation patches used at most


def watch_drift(
    weights_path: str,
    predictions_path: str,
    store_path: str,
    rows_path: str,
    guard_path: str,
    *,
    false_alarm_rate: float,
    seed: int,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when the sidecar is damaged, store and tables differ, or valid is too small."""
    sidecar, store, groups = read_sidecar(weights_path), open_store(store_path), read_groups(rows_path)
    predictions, table = read_with_table(predictions_path, rows_path)
    if len(store) != len(table):
        raise InputError(f"{store_path}: {len(store)} patches for {len(table)} rows of {rows_path}; rebuild them")
    if len(store) < LEAST_UNITS:
        raise InputError(f"{store_path}: {len(store)} patches; a guard needs {LEAST_UNITS} at least")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(store))[:PATCHES])
    labels = predictions.labels[chosen]
    if len(np.unique(labels)) < 2:
        raise InputError(f"{predictions_path}: patches of one class only; a guard needs both")
    values = watched_values(store[chosen], predictions.probabilities[chosen])
    own = Groups(groups.ids[chosen], groups.noun)
    guard = fit(values, labels, own, false_alarm_rate=false_alarm_rate, seed=seed)
    print(f"{len(chosen)} validation patches; {guard.holds_for}")
    write_json(
        guard_path,
        {
            **guard.as_document(),
            "n": len(chosen),
            "units": len(np.unique(units_of(own)[0])),
            # What the patches go through on their way to an answer: a guard belongs to one checkpoint.
            "weights": sidecar["digests"]["weights"],
            "preprocessing": sidecar["preprocessing"],
            "temperature": sidecar.get("temperature"),
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        watch_drift(
            snakemake.input.weights,
            snakemake.input.predictions,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output[0],
            false_alarm_rate=snakemake.params.false_alarm_rate,
            seed=snakemake.params.seed,
            provenance=provenance,
        )
