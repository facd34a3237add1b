"""Measure images per second on this machine: the forward pass, loading, and the whole training step.

The forward pass is the network's own, once a patch: tta is off, whatever the champion does when it predicts.

Reads: the champion's weights, the training store and table.
Writes: partition-{partition}.csv (a row per mode and batch size), partition-{partition}.json (every timed pass).
"""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pcam.checkpoint import read_sidecar
from pcam.files import write_csv, write_json
from pcam.stage import run_stage, say
from pcam.throughput import Task, measure_in_children

COLUMNS = ("partition", "node", "device", "mode", "batch_size", "precision", "images_per_s", "job_id")


def measure_throughput(
    weights_path: str,
    store_path: str,
    rows_path: str,
    table_path: str,
    points_path: str,
    *,
    partition: str,
    batch_sizes: Sequence[int],
    repeats: int,
    images: int,
    threads: int,
    provenance: Mapping[str, Any],
) -> None:
    """A point whose process died has an empty cell, and a note that says what it died by.

    Raises: InputError when the checkpoint is damaged, or table and store do not match.
    """
    started, load_before = time.monotonic(), os.getloadavg()[0]
    task = Task(weights_path, store_path, rows_path, threads=threads, images=images, repeats=repeats)
    measured = measure_in_children(task, batch_sizes)
    points = measured["points"]
    for point in points:
        speed = point.get("note")
        if values := point["values"]:
            speed = f"{point['images_per_s']:.0f} images/s ({min(values):.0f} to {max(values):.0f})"
        print(f"{point['mode']}, batch size {point['batch_size']}: {speed}", flush=True)
    machine = {
        "partition": partition,
        "node": platform.node(),
        "device": measured["device"],
        "job_id": os.environ.get("SLURM_JOB_ID", "local"),
    }
    rows = [[{**machine, **point}[column] for column in COLUMNS] for point in points]
    write_csv(table_path, COLUMNS, rows)
    write_json(
        points_path,
        {
            **machine,
            "threads": threads,
            "architecture": read_sidecar(weights_path)["architecture"],
            "tta": False,
            # Jobs beside this one slow it down; the load tells whether there were any.
            "load_average": {"before": load_before, "after": os.getloadavg()[0], "cpus": os.cpu_count()},
            "points": points,
            "provenance": provenance,
        },
    )
    say(f"throughput on {partition}: {len(points)} points in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_throughput(
            snakemake.input.weights,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output.table,
            snakemake.output.points,
            partition=snakemake.wildcards.partition,
            batch_sizes=snakemake.params.batch_sizes,
            repeats=snakemake.params.repeats,
            images=snakemake.params.images,
            threads=snakemake.params.threads,
            provenance=provenance,
        )
