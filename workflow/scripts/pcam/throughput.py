"""Images per second of models in several precisions on a device, and what each part of a training step takes.

A batch that is too large for a GPU raises; one that is too large for the host does so within the memory that is free
at the start, and beyond it gets its process killed. So a child measures all points of a model in a precision, taking
turns, and says which one it works on. When it dies there, that point is measured in a child of its own, because what
the points before it left in memory may have been too much; if that dies too, that is the result, and larger batches of
the same kind are not tried. Another child measures the other points from the start, so that all that are compared took
turns in one process.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from pcam.bench import CHAMPION, MODES, Bench, Trainer, absent_precisions, open_bench
from pcam.children import run_child, tell
from pcam.files import InputError
from pcam.machine import describe_machine, forget_peak, limit_memory, peak_memory
from pcam.memory import free_bytes, is_out_of_memory
from pcam.model import Architecture

WARM_UP = 2  # batches before the first timed pass of a point
# The forward pass alone first, while no optimiser lies in memory; then the modes that are compared, side by side.
STAGES = (("inference",), ("loop", "parts", "apart"))
LEAST_REPEATS = 3  # passes, however long they take: fewer have no median

Point = tuple[str, int]  # mode and batch size


@dataclass(frozen=True)
class Task:
    """Paths of weights, store and table of rows; threads; images and number of the passes at each point, and seconds
    that they may take; architectures of the models beside the champion."""

    weights: str
    store: str
    rows: str
    threads: int
    images: int
    repeats: int
    seconds: float
    models: dict[str, Architecture]

    def open(self, model: str, precision: str) -> Bench:
        return open_bench(
            self.weights, self.store, self.rows, threads=self.threads, precision=precision,
            architecture=None if model == CHAMPION else self.models[model],
        )  # fmt: skip


def random_batches(n: int, batch_size: int, batches: int, seed: tuple[int, int]) -> list[np.ndarray]:
    """Rows in random order, other ones for another seed; a store smaller than a batch is gone through again."""
    order = np.random.default_rng(seed).permutation(n)
    return list(np.resize(order, (batches, batch_size)))


def empty_result(point: Point) -> dict[str, Any]:
    mode, size = point
    return {"mode": mode, "batch_size": size, "images_per_pass": None, "images_per_s": None, "values": [],
            "passes": [], "memory": None}  # fmt: skip


def time_pass(trainer: Trainer, task: Task, result: dict[str, Any], repeat: int) -> None:
    """Add a pass to the result. The first one warms up before, and finds out how many batches fit into its time."""
    work, size, device = MODES[result["mode"]], result["batch_size"], trainer.bench.device
    most = max(1, task.images // size)
    batches = random_batches(len(trainer.bench.store), size, most, (repeat, size))
    if repeat == 0:
        forget_peak(device)
        for _ in range(WARM_UP):
            batch_s = sum(work(trainer, batches[:1]).values())
        fitting = int(task.seconds / task.repeats / max(batch_s, 1e-9))
        result["images_per_pass"] = size * min(most, max(1, fitting))
    seconds = work(trainer, batches[: result["images_per_pass"] // size])
    result["passes"].append(seconds)
    result["values"].append(result["images_per_pass"] / sum(seconds.values()))
    if repeat == 0:
        result["memory"] = peak_memory(device)


def measure_points(bench: Bench, points: Sequence[Point], task: Task) -> list[dict[str, Any]]:
    """Of each point every pass, and the median; null where the batch does not fit into memory, or into the time.

    Passes of all points take turns. Passes in a row agree with each other even while something else slows the machine
    down; taken in turns, a disturbance meets all points alike and shows in their spread. What a smaller batch took
    tells whether a larger one is worth beginning.
    """
    results = {point: empty_result(point) for point in points}
    trainer, spent, pace = Trainer(bench), dict.fromkeys(points, 0.0), dict[str, float]()
    for repeat in range(task.repeats):
        for point, result in results.items():
            mode, size = point
            if "note" in result or (repeat >= LEAST_REPEATS and spent[point] > task.seconds):
                continue
            # On a GPU a small batch tells nothing of a larger one, which takes about as long.
            pace_s = pace.get(mode, 0.0) if bench.device.type == "cpu" else 0.0
            least = pace_s * size * (WARM_UP + LEAST_REPEATS)
            if repeat == 0 and least > task.seconds:
                result["note"] = (
                    f"skipped: {LEAST_REPEATS} passes would take about {least:,.0f} s; benchmark.seconds allows "
                    f"{task.seconds:g} s"
                )
                continue
            tell(point)
            started = time.perf_counter()
            try:
                time_pass(trainer, task, result, repeat)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                result.update(values=[], passes=[], note="out of memory")
            finally:
                bench.model.zero_grad(set_to_none=True)
            spent[point] += time.perf_counter() - started
            if repeat == 0 and result["values"]:
                pace[mode] = 1 / result["values"][0]
    for result in results.values():
        if result["values"]:
            result["images_per_s"] = median(result["values"])
    return list(results.values())


def measure(task: Task, model: str, precision: str, points: Sequence[Point]) -> dict[str, Any]:
    """A child's work: the machine, what precisions it lacks and why, and the results of the points on it."""
    bench = task.open(model, precision)
    limit_memory(bench.device, free_bytes(bench.device))
    absent = absent_precisions(bench.device)
    return {
        "machine": describe_machine(bench.device),
        "absent": absent,
        "parameters": sum(parameter.numel() for parameter in bench.model.parameters()),
        "points": [] if precision in absent else measure_points(bench, points, task),
    }


def measure_alone(task: Task, model: str, precision: str, point: Point) -> dict[str, Any]:
    """The result of one point, in a child that does nothing else."""
    outcome = run_child(measure, task, model, precision, [point])
    if outcome.error is not None:
        raise outcome.error
    if outcome.signal is not None:
        return {**empty_result(point), "note": outcome.reason}
    (result,) = outcome.value["points"]
    return {"note": "measured alone: beside the other points its process was killed", **result}


def measure_in_children(task: Task, model: str, precision: str, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """As `measure`, for every mode and batch size; a point whose process dies has null and a note.

    Raises: InputError as open_bench does, and when a child dies before its first pass, whatever the points.
    """
    sizes = sorted(batch_sizes)
    points = [(mode, size) for modes in STAGES for size in sizes for mode in modes]
    together, others = list(points), dict[Point, dict[str, Any]]()
    while (outcome := run_child(measure, task, model, precision, together)).signal is not None:
        if outcome.told is None:
            raise InputError(f"benchmark: the process {outcome.reason} before it measured anything; free memory for it")
        mode, size = outcome.told
        together.remove(outcome.told)
        others[outcome.told] = measure_alone(task, model, precision, outcome.told)
        if others[outcome.told]["values"]:
            continue
        for point in [point for point in together if point[0] == mode and point[1] > size]:
            together.remove(point)
            others[point] = {**empty_result(point), "note": f"not tried: a process died at batch size {size}"}
    if outcome.error is not None:
        raise outcome.error
    absent = precision in outcome.value["absent"]
    results = others if absent else {**dict(zip(together, outcome.value["points"], strict=True)), **others}
    return {**outcome.value, "points": [results[point] for point in points if point in results]}


def measure_all(
    task: Task, precisions: Sequence[str], batch_sizes: Sequence[int]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The machine, and a list with an entry a model and precision: points, or null and the reason.

    Raises: InputError as measure_in_children does.
    """
    machine, absent = dict[str, Any](), dict[str, str]()
    series = []
    for model in (CHAMPION, *task.models):
        for precision in precisions:
            measured: dict[str, Any] = {"parameters": None, "points": []}
            if precision not in absent:
                measured = measure_in_children(task, model, precision, batch_sizes)
                machine, absent = measured["machine"], measured["absent"]
            entry = {"model": model, "precision": precision, "parameters": measured["parameters"],
                     "note": absent.get(precision), "points": measured["points"]}  # fmt: skip
            series.append(entry)
    return machine, series
