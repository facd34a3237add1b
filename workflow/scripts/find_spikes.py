"""Find the steps whose gradient norm stands out, in every variant and seed, and trace each to the patches of its batch.

Reads: steps.csv and layers.csv of every variant and seed, settings.json of every variant, the table of the training
    split.
Writes: spikes.json: what was found in each run, the chance of a false alarm, layers, steps against epochs.
    spikes.csv: every step above the limit, and of a run without one the step that stands out most.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.determinism import epoch_batches
from pcam.dynamics import (
    LEAST_NEIGHBOURS,
    LEVEL,
    NEIGHBOURS,
    SCALE_STEPS,
    Judged,
    Run,
    Steps,
    compare_batches,
    describe_run,
    false_alarms,
    judge_run,
    read_layers,
    read_steps,
    recurring,
)
from pcam.files import InputError, finite_or_none, read_csv, write_csv, write_json
from pcam.settings import read_train_settings
from pcam.stage import run_stage

COLUMNS = (
    "variant", "seed", "step", "epoch", "above_limit", "grad_norm", "expected", "ratio", "z", "loss", "loss_z",
    "learning_rate", "layer", "layer_ratio", "hardest_row", "hardest_label", "hardest_loss", "rows",
)  # fmt: skip


def rows_of_steps(steps: Steps, rows: np.ndarray, seed: int, batch_size: int, path: str) -> np.ndarray:
    """File rows int64 (n,batch) of the patches that each step saw.

    Raises: InputError when the hardest patch that a step recorded is not among them: then table or order is another.
    """
    size = min(batch_size, len(rows))
    epochs = np.unique(steps.epoch)
    seen = np.concatenate([rows[epoch_batches(seed, int(epoch) - 1, len(rows), size)] for epoch in epochs])
    if len(seen) != len(steps.step) or not (seen == steps.hardest_row[:, None]).any(axis=1).all():
        raise InputError(f"{path}: its batches are not those of the {len(rows)} training rows at hand; train again")
    return seen


def trace_step(run: Judged, at: int, seen: np.ndarray, labels: Mapping[int, str]) -> dict[str, Any]:
    """What spikes.csv says of one step, which saw the file rows `seen`."""
    steps, found = run.steps, run.norm
    rises = {layer: float(run.layers[layer][at] / told.expected[at]) for layer, told in run.by_layer.items()}
    layer = max(rises, key=lambda name: rises[name])
    hardest = int(steps.hardest_row[at])
    return {
        "step": int(steps.step[at]),
        "epoch": int(steps.epoch[at]),
        "above_limit": int(found.z[at] > found.limit),
        "grad_norm": float(steps.grad_norm[at]),
        "expected": float(found.expected[at]),
        "ratio": float(steps.grad_norm[at] / found.expected[at]),
        "z": float(found.z[at]),
        "loss": float(steps.loss[at]),
        "loss_z": finite_or_none(run.loss.z[at]),
        "learning_rate": float(steps.learning_rate[at]),
        "layer": layer,
        "layer_ratio": rises[layer],
        "hardest_row": hardest,
        "hardest_label": labels[hardest],
        "hardest_loss": float(steps.hardest_loss[at]),
        "rows": " ".join(map(str, seen.tolist())),
    }


def find_spikes(
    steps_paths: Mapping[Run, str],
    layers_paths: Mapping[Run, str],
    settings_paths: Mapping[str, str],
    table_path: str,
    json_path: str,
    csv_path: str,
    *,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when a file is missing, or steps and training table do not belong together."""
    table = read_csv(table_path, ("row", "label"))
    rows = np.array([int(line["row"]) for line in table])
    labels = {int(line["row"]): line["label"] for line in table}
    alarms: dict[int, dict[str, Any]] = {}
    described, traced = [], []
    deviations, batches = {}, {}
    for (variant, seed), path in steps_paths.items():
        steps = read_steps(path)
        batch_size = read_train_settings(settings_paths[variant]).batch_size
        seen = rows_of_steps(steps, rows, seed, batch_size, path)
        run = judge_run(steps, read_layers(layers_paths[variant, seed]))
        deviations[variant, seed], batches[variant, seed] = run.norm.z, seen
        name, n = {"variant": variant, "seed": seed}, len(steps.step)
        alarms[n] = alarms.get(n) or false_alarms(n)
        described.append({**name, **describe_run(run), "false_alarms": alarms[n]})
        listed = run.norm.spikes if len(run.norm.spikes) else run.norm.ranked[:1]
        traced += [{**name, **trace_step(run, int(at), seen[at], labels)} for at in listed]
        print(f"{variant} seed {seed}: {len(run.norm.spikes)} spikes in {n} steps, limit z {run.norm.limit:.2f}")
    write_csv(csv_path, COLUMNS, ([line[column] for column in COLUMNS] for line in traced))
    document = {
        "runs": described,
        "level": LEVEL,
        "neighbours": NEIGHBOURS,
        "least_neighbours": LEAST_NEIGHBOURS,
        "scale_steps": SCALE_STEPS,
        "batches": compare_batches(deviations, batches),
        "recurring": recurring(traced),
        "provenance": provenance,
    }
    write_json(json_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        runs = [(variant, seed) for variant, seed in snakemake.params.runs]
        find_spikes(
            dict(zip(runs, snakemake.input.steps, strict=True)),
            dict(zip(runs, snakemake.input.layers, strict=True)),
            dict(zip(snakemake.params.variants, snakemake.input.settings, strict=True)),
            snakemake.input.rows,
            snakemake.output.json,
            snakemake.output.csv,
            provenance=provenance,
        )
