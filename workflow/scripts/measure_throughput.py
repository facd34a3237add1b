"""Measure images per second on this machine: the forward pass, loading, and the whole training step.

Reads: the champion's weights, the training store and table.
Writes: partition-{partition}.csv (a row per mode and batch size), partition-{partition}.json (every timed pass).
"""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from pcam.checkpoint import load_checkpoint
from pcam.files import InputError, read_csv, write_csv, write_json
from pcam.provenance import cpu_name
from pcam.stage import run_stage, say
from pcam.store import open_store
from pcam.throughput import Bench, measure_points
from pcam.training import make_deterministic

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
    """Raises: InputError when the checkpoint is damaged, or table and store do not match."""
    started = time.monotonic()
    device = make_deterministic(threads)
    model, preprocessing, sidecar = load_checkpoint(weights_path)
    labels = np.array([int(line["label"]) for line in read_csv(rows_path, ("label",))], np.uint8)
    store = open_store(store_path)
    if len(labels) != len(store):
        raise InputError(f"{store_path}: {len(store)} patches for the {len(labels)} rows of {rows_path}; rebuild it")
    bench = Bench(model.to(device), preprocessing, device, store, labels)
    load_before = os.getloadavg()[0]
    points = measure_points(bench, batch_sizes, images, repeats)
    for point in points:
        speed = point.get("note")
        if values := point["values"]:
            speed = f"{point['images_per_s']:.0f} images/s ({min(values):.0f} to {max(values):.0f})"
        print(f"{point['mode']}, batch size {point['batch_size']}: {speed}", flush=True)
    machine = {
        "partition": partition,
        "node": platform.node(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "job_id": os.environ.get("SLURM_JOB_ID", "local"),
    }
    rows = [[{**machine, **point}[column] for column in COLUMNS] for point in points]
    write_csv(table_path, COLUMNS, rows)
    write_json(
        points_path,
        {
            **machine,
            "threads": threads,
            "architecture": sidecar["architecture"],
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
