"""Switch each control of randomness off and train twice, in fresh processes: do the two part, where, by how much?

Reads: settings.json of the baseline, the store and the table of train, normalisation.json.
Writes: determinism.csv (a row a control), determinism.json (the verdict, and loss and gradient norm of every step).
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pcam.determinism_audit import (
    Trace,
    compare_traces,
    in_fresh_process,
    judge,
    observable,
    plan_trials,
    run_arm,
    short_recipe,
)
from pcam.files import InputError, read_csv, write_csv, write_json
from pcam.provenance import computed_on
from pcam.recipe import read_preprocessing
from pcam.settings import read_train_settings
from pcam.stage import run_stage, say

COLUMNS = (
    "control",
    "state_a",
    "state_b",
    "observable",
    "diverged",
    "first_step",
    "steps",
    "weight_difference",
    "loss_difference",
    "runs",
    "device",
)


def trace_document(trace: Trace) -> dict[str, Any]:
    return {"losses": trace.losses, "grad_norms": trace.grad_norms, "weights": trace.digest}


def audit_determinism(
    settings_path: str,
    store: str,
    table: str,
    normalisation_path: str,
    csv_path: str,
    json_path: str,
    *,
    seed: int,
    patches: int,
    epochs: int,
    provenance: Mapping[str, Any],
) -> None:
    """Trains on the first `patches` of train. A finding that breaks the audit is written, not raised.

    Raises: InputError when train is too small.
    """
    n = min(patches, len(read_csv(table, ("row", "label"))))
    if n < 4:
        raise InputError(f"{table}: {n} training patches; the audit of determinism needs at least 4")
    recipe = short_recipe(read_train_settings(settings_path), n, epochs)
    preprocessing = read_preprocessing(normalisation_path)
    rows: list[dict[str, Any]] = []
    traces: dict[str, dict[str, Any]] = {}
    trials = plan_trials(recipe)
    for trial in trials:
        first, second = (in_fresh_process(run_arm, arm, seed, store, table, n, preprocessing) for arm in trial.arms)
        computed_on(first.device_name)  # in processes of their own, which this one does not hear of
        found = compare_traces(first, second)
        rows.append(
            {
                "control": trial.control,
                "state_a": trial.arms[0].state,
                "state_b": trial.arms[1].state,
                "observable": observable(trial.control, found["diverged"], first.device),
                **found,
                "runs": len(trial.arms),
                "device": first.device_name,
            }
        )
        traces[trial.control] = {"a": trace_document(first), "b": trace_document(second)}
        parted = f"part at step {found['first_step']}" if found["diverged"] else "same bits"
        say(f"audit_determinism {len(rows)}/{len(trials)}: {trial.control}: {parted}")
    holds, sentence = judge(rows)
    print(sentence)
    told = [{**row, "diverged": "yes" if row["diverged"] else "no"} for row in rows]
    write_csv(csv_path, COLUMNS, ([row[column] for column in COLUMNS] for row in told))
    document = {
        "audit_holds": holds,
        "sentence": sentence,
        "torch_device": first.device,
        "seed": seed,
        "patches": n,
        "recipe": asdict(recipe),
        "controls": rows,
        "traces": traces,
        "provenance": provenance,
    }
    write_json(json_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_determinism(
            snakemake.input.settings,
            snakemake.input.train,
            snakemake.input.train_rows,
            snakemake.input.normalisation,
            snakemake.output.table,
            snakemake.output.summary,
            seed=snakemake.params.seed,
            patches=snakemake.params.patches,
            epochs=snakemake.params.epochs,
            provenance=provenance,
        )
