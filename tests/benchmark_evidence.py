"""What measure_throughput and find_bottleneck leave, of figures chosen by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from find_bottleneck import MACHINE

from pcam.bottleneck import COLUMNS, saturation, speed_rows, steps_of


def point(mode: str, size: int, passes: Sequence[dict[str, float]], note: str | None = None) -> dict[str, Any]:
    """A point of passes of two batches each."""
    values = [2 * size / sum(seconds.values()) for seconds in passes]
    memory = {"allocated": None, "reserved": None, "driver": None, "resident": 2**20}
    made = {"mode": mode, "batch_size": size, "images_per_pass": 2 * size, "passes": list(passes), "values": values,
            "images_per_s": float(np.median(values)) if values else None,
            "memory": memory if values else None}  # fmt: skip
    return made if note is None else {**made, "note": note}


def measured(
    partition: str, parts: dict[str, float], *, sizes: Sequence[int] = (32,), loop_s: float | None = None
) -> dict[str, Any]:
    """What measure_throughput leaves where a step takes these seconds by part, whatever the batch size."""
    step = sum(parts.values()) if loop_s is None else loop_s
    points = []
    for size in sizes:
        points += [
            point("inference", size, [{"inference": step}] * 3),
            point("loop", size, [{"loop": 2 * step * factor} for factor in (0.99, 1.0, 1.01)]),
            point("parts", size, [{name: 2 * s * factor for name, s in parts.items()} for factor in (0.99, 1, 1.01)]),
            point("apart", size, [{name: s for name, s in parts.items()}] * 3),
        ]
    series = [{"model": "champion", "precision": "fp32", "parameters": 9, "note": None, "points": points}]
    return {**dict.fromkeys(MACHINE), "partition": partition, "node": "n1", "device": "a CPU", "job_id": "7",
            "batch_sizes": list(sizes), "series": series}  # fmt: skip


STEP = {"loading": 0.002, "transfer": 0.001, "forward": 0.02, "backward": 0.05, "optimiser": 0.007}


def benchmark_results() -> dict[str, Any]:
    """Table and JSON as the journal's tests want them: one partition, one batch size out of memory."""
    document = measured("local", STEP, sizes=(1, 8))
    document |= {"kind": "cpu", "threads": 1, "cpus_allowed": 2, "torch": "2.13.0", "memory_bytes": 3 * 2**30,
                 "load_average": {"before": 0.5, "after": 1.5, "cpus": 2}, "job_id": "local"}  # fmt: skip
    (series,) = document["series"]
    gone = [point(mode, 512, [], "out of memory") for mode in ("loop", "parts")]
    kept = [one for one in measured("local", STEP, sizes=(512,))["series"][0]["points"] if one["mode"] != "loop"]
    series["points"] += gone[:1] + kept
    document["batch_sizes"].append(512)
    lacking = {"model": "champion", "precision": "fp16", "parameters": None, "note": "no fp16 here", "points": []}
    document["series"].append(lacking)
    rows = [tuple("" if row[name] is None else row[name] for name in COLUMNS) for row in speed_rows(document)]
    found = {
        "machines": [{key: document[key] for key in MACHINE}],
        "steps": steps_of(document),
        "disagreeing": 0,
        "saturation": [{"partition": "local", **saturation(series, mode)} for mode in ("loop", "inference")],
        "absent": [{"partition": "local", **{key: lacking[key] for key in ("model", "precision", "note")}}],
    }
    return {"throughput": [COLUMNS, *rows], "bottleneck": found}


SHOWN = [
    ("throughput", 1, 6), ("bottleneck", "machines", 0, "load_average", "before"),
    ("bottleneck", "steps", 0, "parts_over_loop"), ("bottleneck", "steps", 0, "apart_over_loop"),
    ("bottleneck", "steps", 1, "parts", "transfer", "share"), ("bottleneck", "steps", 1, "step_s"),
    ("bottleneck", "saturation", 0, "highest"), ("bottleneck", "saturation", 1, "gain"),
]  # fmt: skip
