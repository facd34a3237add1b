"""What a measurement of throughput says: speeds, the parts of a step, what holds it up, and where a batch is enough."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

COLUMNS = ("partition", "node", "device", "mode", "batch_size", "precision", "images_per_s", "job_id", "model", "low",
           "high", "memory_bytes", "note")  # fmt: skip
PART_COLUMNS = ("partition", "model", "precision", "batch_size", "part", "loop_s", "loop_low_s", "loop_high_s", "share",
                "apart_s")  # fmt: skip
PARTS = ("loading", "transfer", "forward", "backward", "optimiser")
COMPUTING = ("forward", "backward", "optimiser")
AGREEMENT = 0.10  # by which the sum of the parts may differ from the loop
OVERHEAD = 0.5  # share of a step that costs the same whatever its batch, above which computing is not what it waits for
PLATEAU = 0.95  # share of the highest throughput from which on a larger batch brings no more

Point = Mapping[str, Any]


def amount(value: float) -> str:
    """Images per second as a reader wants them: whole from 100 on, three digits below."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def points_of(series: Mapping[str, Any]) -> dict[tuple[str, int], Point]:
    """Points by mode and batch size."""
    return {(point["mode"], point["batch_size"]): point for point in series["points"]}


def memory_of(point: Point) -> int | None:
    """Peak bytes: of torch's allocator on a GPU, resident on a CPU."""
    memory = point["memory"] or {}
    used = memory.get("allocated")
    return memory.get("resident") if used is None else used


def loading_speeds(point: Point) -> list[float]:
    """Images per second from the store to the device, of each pass that ran the parts apart."""
    return [point["images_per_pass"] / (seconds["loading"] + seconds["transfer"]) for seconds in point["passes"]]


def speed_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of COLUMNS: inference, loading and loop of every batch size; one row for a precision that is not there."""
    machine = {key: document[key] for key in ("partition", "node", "device", "job_id")}
    rows = []
    for series in document["series"]:
        common = {**machine, "model": series["model"], "precision": series["precision"]}
        empty = {"images_per_s": None, "low": None, "high": None, "memory_bytes": None}
        if not series["points"]:
            rows.append({**common, **empty, "mode": "loop", "batch_size": None, "note": series["note"]})
        for (mode, size), point in points_of(series).items():
            if mode == "parts":
                continue
            values = loading_speeds(point) if mode == "apart" else point["values"]
            row = {**common, **empty, "mode": "loading" if mode == "apart" else mode, "batch_size": size}
            row |= {"note": point.get("note"), "memory_bytes": None if mode == "apart" else memory_of(point)}
            if values:
                row |= {"images_per_s": median(values), "low": min(values), "high": max(values)}
            rows.append(row)
    return rows


def saturation(series: Mapping[str, Any], mode: str) -> dict[str, Any]:
    """The smallest batch from which on throughput stays within 5 % of the highest, as far as the passes tell: a batch
    is slower where its fastest pass is. Null where that is only the largest or none, because it still rises there or
    falls again.

    `limit`: why no larger batch was measured, null when the largest of the config was.
    """
    points = [point for (kind, _), point in sorted(points_of(series).items()) if kind == mode]
    known = [point for point in points if point["images_per_s"] is not None]
    largest = known[-1]["batch_size"] if known else 0
    gone = next((p for p in points if p["batch_size"] > largest), None)
    told: dict[str, Any] = {"model": series["model"], "precision": series["precision"], "mode": mode,
                            "batch_size": None, "highest": None, "highest_at": None, "largest": None,
                            "at_largest": None, "gain": None,
                            "limit": gone and {"batch_size": gone["batch_size"], "note": gone["note"]}}  # fmt: skip
    if not known:
        return told
    best = max(known, key=lambda point: point["images_per_s"])
    short = [p["batch_size"] for p in known if max(p["values"]) < PLATEAU * best["images_per_s"]]
    enough = next((p["batch_size"] for p in known if p["batch_size"] > max(short, default=0)), largest)
    return told | {
        "batch_size": enough if enough < largest else None,
        "highest": best["images_per_s"],
        "highest_at": best["batch_size"],
        "largest": largest,
        "at_largest": known[-1]["images_per_s"],
        "gain": best["images_per_s"] / known[0]["images_per_s"],
    }


def part_times(timed: Point, apart: Point | None) -> dict[str, dict[str, Any]]:
    """Seconds of a batch by part: median and range in the loop, its share of the step, and the median apart."""
    batches = timed["images_per_pass"] / timed["batch_size"]
    in_loop = {part: [seconds[part] / batches for seconds in timed["passes"]] for part in PARTS}
    medians = {part: median(values) for part, values in in_loop.items()}
    alone: dict[str, float | None] = dict.fromkeys(PARTS)
    if apart is not None and apart["passes"]:
        batches = apart["images_per_pass"] / apart["batch_size"]
        alone = {part: median(seconds[part] / batches for seconds in apart["passes"]) for part in PARTS}
    return {
        part: {
            "loop_s": medians[part],
            "loop_low_s": min(values),
            "loop_high_s": max(values),
            "share": medians[part] / sum(medians.values()),
            "apart_s": alone[part],
        }
        for part, values in in_loop.items()
    }


def parts_over_loop(timed: Point, loop: Point) -> float:
    """The sum of the parts over the undisturbed loop, a batch: the median over passes that stood side by side."""
    pairs = zip(timed["values"], loop["values"], strict=False)  # images per second of either
    return median(undisturbed / marked for marked, undisturbed in pairs)


def bound_of(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """What takes most of a step: loading, transfer, or computing."""
    shares = {name: parts[name]["share"] for name in ("loading", "transfer")}
    shares["compute"] = sum(parts[name]["share"] for name in COMPUTING)
    return max(shares, key=lambda name: shares[name])


def fixed_share(series: Mapping[str, Any], size: int) -> float | None:
    """Share of a step that does not grow with its batch (starting kernels, Python), by a line through two batch sizes.

    The other size is the next larger one that was measured, for the largest the next smaller; None without any.
    """
    points = points_of(series)
    steps = {b: b / p["images_per_s"] for (mode, b), p in points.items() if mode == "loop" and p["images_per_s"]}
    larger, smaller = [b for b in steps if b > size], [b for b in steps if b < size]
    if size not in steps or not larger + smaller:
        return None
    other = min(larger) if larger else max(smaller)
    per_image = (steps[other] - steps[size]) / (other - size)
    return min(max(1 - per_image * size / steps[size], 0.0), 1.0)


def step_of(document: Mapping[str, Any], series: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Where the time of a training step goes at one batch size, and a sentence that follows from the figures."""
    points = points_of(series)
    loop, timed, apart = (points[mode, size] for mode in ("loop", "parts", "apart"))
    step: dict[str, Any] = {key: document[key] for key in ("partition", "node", "device", "job_id")}
    step |= {"model": series["model"], "precision": series["precision"], "batch_size": size, "images_per_s": None,
             "parts": None, "parts_over_loop": None, "agrees": None, "apart_over_loop": None, "largest_part": None,
             "fixed_share": None, "bottleneck": None}  # fmt: skip
    where = f"{document['partition']}, {series['model']}, {series['precision']}, batch size {size}"
    if not loop["values"] or not timed["values"]:
        note = next(point["note"] for point in (loop, timed) if not point["values"])
        return {**step, "verdict": f"{where}: the training step could not be measured: {note}."}
    parts, ratio = part_times(timed, apart), parts_over_loop(timed, loop)
    alone = [told["apart_s"] for told in parts.values()]
    largest, fixed = max(parts, key=lambda part: parts[part]["share"]), fixed_share(series, size)
    bound, reason = bound_of(parts), ""
    if bound == "compute" and fixed is not None and fixed > OVERHEAD:
        bound, reason = "overhead", f": {fixed:.0%} of it is the same at any batch size (starting kernels, Python)"
    elif bound == "compute" and fixed is None:
        reason = " (what of it is overhead, one batch size does not tell)"
    agrees = abs(ratio - 1) <= AGREEMENT
    shares = ", ".join(f"{part} {told['share']:.0%}" for part, told in parts.items())
    low, high = amount(min(loop["values"])), amount(max(loop["values"]))
    verdict = (
        f"{where}: {amount(loop['images_per_s'])} images/s ({low} to {high}, {len(loop['values'])} passes); {shares}. "
        f"{largest.capitalize()} takes most; the step is {bound}-bound{reason}. "
        f"The parts sum to {ratio:.0%} of the loop that no clock disturbs"
    )
    verdict += "." if agrees else f": over {AGREEMENT:.0%} apart, so these shares hold for the timed loop alone."
    return step | {
        "images_per_s": loop["images_per_s"],
        "step_s": size / loop["images_per_s"],
        "parts": parts,
        "parts_over_loop": ratio,
        "agrees": agrees,
        "apart_over_loop": None if None in alone else sum(alone) * loop["images_per_s"] / size,
        "largest_part": largest,
        "fixed_share": fixed,
        "bottleneck": bound,
        "verdict": verdict,
    }


def steps_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """step_of of every batch size of every series that has points."""
    return [
        step_of(document, series, size)
        for series in document["series"]
        for size in document["batch_sizes"]
        if series["points"]
    ]


def part_rows(steps: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Rows of PART_COLUMNS."""
    return [
        [step[key] for key in PART_COLUMNS[:4]] + [part] + [told[key] for key in PART_COLUMNS[5:]]
        for step in steps
        for part, told in (step["parts"] or {}).items()
    ]
