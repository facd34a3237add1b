"""Put the measurements of all partitions into one table, and name what holds up a training step on each.

Reads: partition-{partition}.json of every partition.
Writes: throughput.csv; parts.csv (seconds of each part of a step); bottleneck.json (verdicts, saturation, machines).
"""

from collections.abc import Mapping, Sequence

from pcam.bottleneck import COLUMNS, PART_COLUMNS, part_rows, saturation, speed_rows, steps_of
from pcam.files import read_json, write_csv, write_json
from pcam.stage import run_stage

MACHINE = ("partition", "node", "device", "kind", "cpu", "cpus_allowed", "threads", "torch", "cuda", "cudnn", "driver",
           "compute_capability", "mig", "memory_bytes", "job_id", "slurm_partition", "load_average")  # fmt: skip


def find_bottleneck(
    points_paths: Sequence[str],
    throughput_path: str,
    parts_path: str,
    bottleneck_path: str,
    *,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when a measurement is missing."""
    documents = [read_json(path) for path in points_paths]
    rows = [row for document in documents for row in speed_rows(document)]
    steps = [step for document in documents for step in steps_of(document)]
    for step in steps:
        print(step["verdict"])
    write_csv(throughput_path, COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    write_csv(parts_path, PART_COLUMNS, part_rows(steps))
    write_json(
        bottleneck_path,
        {
            "machines": [{key: document[key] for key in MACHINE} for document in documents],
            "steps": steps,
            "disagreeing": sum(step["agrees"] is False for step in steps),
            "saturation": [
                {"partition": document["partition"], **saturation(series, mode)}
                for document in documents
                for series in document["series"]
                for mode in ("loop", "inference")
                if series["points"]
            ],
            "absent": [
                {key: {**document, **series}[key] for key in ("partition", "model", "precision", "note")}
                for document in documents
                for series in document["series"]
                if not series["points"]
            ],
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        find_bottleneck(
            snakemake.input,
            snakemake.output.throughput,
            snakemake.output.parts,
            snakemake.output.bottleneck,
            provenance=provenance,
        )
