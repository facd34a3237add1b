"""Put the measurements of all partitions into one table, and name what holds up a training step on each.

Reads: partition-{partition}.csv and partition-{partition}.json of every partition.
Writes: throughput.csv; bottleneck.json (share of loading in a step, verdict).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pcam.files import read_csv, read_json, write_csv, write_json
from pcam.stage import run_stage

COLUMNS = ("partition", "node", "device", "mode", "batch_size", "precision", "images_per_s", "job_id")
HALF = 0.5


def speed_of(point: Mapping[str, Any]) -> str:
    speed = point["images_per_s"]
    return f"no measurement ({point['note']})" if speed is None else f"{speed:.0f} images/s"


def step_of(measured: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """Where the time of a training step goes at one batch size, with a sentence that follows from the figures."""
    points = {point["mode"]: point for point in measured["points"] if point["batch_size"] == batch_size}
    speeds = {mode: point["images_per_s"] for mode, point in points.items()}
    step = {key: measured[key] for key in ("partition", "node", "device")}
    step |= {"batch_size": batch_size, "images_per_s": speeds}
    where = f"{measured['partition']}, batch size {batch_size}"
    if speeds["loop"] is None:
        return {**step, "loading_share": None, "loading_share_apart": None, "bottleneck": None,
                "verdict": f"{where}: the training step could not be measured: {points['loop']['note']}."}  # fmt: skip
    share = points["loop"]["loading_share"]
    bottleneck = "loading" if share >= HALF else "computing"
    values = points["loop"]["values"]
    verdict = (
        f"{where}: the training step runs at {speeds['loop']:.0f} images/s (median of {len(values)} passes, "
        f"{min(values):.0f} to {max(values):.0f}) and spends {share:.0%} of its time loading, "
        f"so {bottleneck} is the bottleneck; loading alone reaches {speed_of(points['loading'])}, "
        f"the forward pass alone {speed_of(points['inference'])}."
    )
    # What loading would take of the step if it ran as fast there as it does alone: the two differ where they interfere.
    apart = speeds["loop"] / speeds["loading"] if speeds["loading"] else None
    return {**step, "loading_share": share, "loading_share_apart": apart, "bottleneck": bottleneck,
            "load_average": measured["load_average"], "verdict": verdict}  # fmt: skip


def collect_throughput(
    table_paths: Sequence[str],
    points_paths: Sequence[str],
    throughput_path: str,
    bottleneck_path: str,
    *,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when a measurement is missing or lacks a column."""
    rows = [row for path in table_paths for row in read_csv(path, COLUMNS)]
    steps = []
    for path in points_paths:
        measured = read_json(path)
        batch_sizes = dict.fromkeys(point["batch_size"] for point in measured["points"])
        steps += [step_of(measured, batch_size) for batch_size in batch_sizes]
    for step in steps:
        print(step["verdict"])
    write_csv(throughput_path, COLUMNS, ([row[column] for column in COLUMNS] for row in rows))
    write_json(bottleneck_path, {"steps": steps, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        collect_throughput(
            snakemake.input.tables,
            snakemake.input.points,
            snakemake.output.throughput,
            snakemake.output.bottleneck,
            provenance=provenance,
        )
