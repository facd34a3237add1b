"""Measure images per second on this machine: models, precisions and batch sizes, and the parts of a training step.

The forward pass is the network's own, once a patch: tta is off, whatever the champion does when it predicts.

Reads: the champion's weights, the training store and table.
Writes: partition-{partition}.csv (a row per model, precision, mode and batch size), partition-{partition}.json (every
timed pass and the memory).
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pcam.bench import CHAMPION
from pcam.bottleneck import COLUMNS, speed_rows
from pcam.files import write_csv, write_json
from pcam.settings import TrainSettings, from_mapping
from pcam.sidecar import read_sidecar
from pcam.stage import run_stage, say
from pcam.throughput import Task, measure_all
from pcam.training import architecture_of


def measure_throughput(
    weights_path: str,
    store_path: str,
    rows_path: str,
    table_path: str,
    points_path: str,
    *,
    partition: str,
    models: Mapping[str, Mapping[str, Any]],
    precisions: Sequence[str],
    batch_sizes: Sequence[int],
    repeats: int,
    images: int,
    seconds: float,
    threads: int,
    provenance: Mapping[str, Any],
) -> None:
    """`models`: the recipes of the models beside the champion. A point that could not be measured has an empty cell,
    and a note that says why.

    Raises: InputError when the checkpoint is damaged, or table and store do not match.
    """
    started, load_before = time.monotonic(), os.getloadavg()[0]
    architectures = {name: architecture_of(from_mapping(TrainSettings, recipe)) for name, recipe in models.items()}
    task = Task(weights_path, store_path, rows_path, threads=threads, images=images, repeats=repeats, seconds=seconds,
                models=architectures)  # fmt: skip
    machine, series = measure_all(task, precisions, batch_sizes)
    document = {
        "partition": partition,
        **machine,
        "architectures": {CHAMPION: read_sidecar(weights_path)["architecture"], **architectures},
        "tta": False,
        "batch_sizes": sorted(batch_sizes),
        # Jobs beside this one slow it down; the load tells whether there were any.
        "load_average": {"before": load_before, "after": os.getloadavg()[0], "cpus": os.cpu_count()},
        "series": series,
        "provenance": provenance,
    }
    rows = speed_rows(document)
    for row in rows:
        speed = f"{row['images_per_s']:.4g} images/s" if row["images_per_s"] else row["note"]
        print(f"{row['model']}, {row['precision']}, {row['mode']}, batch size {row['batch_size']}: {speed}", flush=True)
    write_csv(table_path, COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    write_json(points_path, document)
    say(f"throughput on {partition}: {len(rows)} points in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_throughput(
            snakemake.input.weights,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output.table,
            snakemake.output.points,
            partition=snakemake.wildcards.partition,
            models=snakemake.params.models,
            precisions=snakemake.params.precisions,
            batch_sizes=snakemake.params.batch_sizes,
            repeats=snakemake.params.repeats,
            images=snakemake.params.images,
            seconds=snakemake.params.seconds,
            threads=snakemake.params.threads,
            provenance=provenance,
        )
