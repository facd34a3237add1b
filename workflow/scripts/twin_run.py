"""Compare one training with its twin, the same seed trained again in a job of its own, and with a teammate's.

Reads: weights, history, steps, layers and predictions of both; the tables and the normalisation they were trained
with; a teammate's fingerprint.json, if the config names one.
Writes: twin.json (the verdict and every comparison), fingerprint.json (for a teammate to compare with).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcam.files import write_json
from pcam.recipe import Outputs, read_preprocessing
from pcam.sidecar import read_sidecar
from pcam.stage import run_stage
from pcam.twin import (
    compare_fingerprints,
    compare_tables,
    compare_weights,
    differing_causes,
    first_difference,
    load_weights,
    make_fingerprint,
    read_fingerprint,
    verdict,
)


def compare_runs(first: Outputs, twin: Outputs, predictions: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """Every result of two trainings, compared to the bit."""
    step = ("step", "epoch")
    return {
        "weights": compare_weights(load_weights(first.weights), load_weights(twin.weights)),
        "losses": compare_tables(first.steps, twin.steps, step, ["loss"]),
        "steps": compare_tables(first.steps, twin.steps, step),
        "layers": compare_tables(first.layers, twin.layers, step),
        "history": compare_tables(first.history, twin.history, ("epoch",)),
        "predictions": compare_tables(*predictions, ("row",)),
    }


def twin_run(
    first: Outputs,
    twin: Outputs,
    predictions: tuple[str, str],
    tables: Mapping[str, str],
    normalisation_path: str,
    fingerprint_path: str | None,
    twin_path: str,
    own_fingerprint_path: str,
    *,
    variant: str,
    provenance: Mapping[str, Any],
) -> None:
    """`predictions`: of the first training and of its twin. `fingerprint_path`: a teammate's.

    Raises: InputError when weights do not belong to their sidecar, or the teammate's file is no fingerprint.
    """
    if fingerprint_path:
        print(f"reproducibility.fingerprint: {Path(fingerprint_path).resolve()}")
    theirs = read_fingerprint(fingerprint_path) if fingerprint_path else None
    preprocessing = read_preprocessing(normalisation_path)
    mine, twins = (
        make_fingerprint(run.weights, run.steps, path, tables, preprocessing)
        for run, path in zip((first, twin), predictions, strict=True)
    )
    compared = compare_runs(first, twin, predictions)
    differing = [name for name, found in compared.items() if not found["equal"]]
    sidecars = {name: read_sidecar(run.weights) for name, run in (("first", first), ("twin", twin))}
    document = {
        "variant": variant,
        "seed": mine["config"]["seed"],
        "same_bits": not differing,
        "verdict": verdict(differing, differing_causes(mine, twins)),
        "first_difference": first_difference(compared),
        "compared": compared,
        "jobs": {name: sidecar["provenance"]["rule"] for name, sidecar in sidecars.items()},
        "weights": {name: sidecar["digests"]["weights"] for name, sidecar in sidecars.items()},
        "teammate": None if theirs is None else compare_fingerprints(mine, theirs),
        "provenance": provenance,
    }
    print(f"twin: {document['verdict']}")
    if document["teammate"]:
        print(f"teammate: {document['teammate']['verdict']}")
    write_json(own_fingerprint_path, {**mine, "provenance": provenance})
    write_json(twin_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        names = Outputs.__annotations__
        twin_run(
            Outputs(**{name: snakemake.input[f"first_{name}"] for name in names}),
            Outputs(**{name: snakemake.input[f"twin_{name}"] for name in names}),
            (snakemake.input.first_predictions, snakemake.input.twin_predictions),
            {split: snakemake.input[f"{split}_rows"] for split in ("train", "valid")},
            snakemake.input.normalisation,
            snakemake.params.fingerprint,
            snakemake.output.twin,
            snakemake.output.fingerprint,
            variant=snakemake.params.variant,
            provenance=provenance,
        )
