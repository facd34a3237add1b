"""Images per second of a model on a device: the forward pass, loading, and the whole training step.

A batch that is too large for a GPU raises; one that is too large for the host gets its process killed. So one child
measures all points, taking turns, and says which one it works on. When it dies there, that point is measured in a child
of its own, because what the points before it left in memory may have been too much; if that dies too, that is the
result. Another child measures the other points from the start, so that all that are compared took turns in one process.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pcam.batches import read_split
from pcam.checkpoint import load_checkpoint
from pcam.children import run_child, tell
from pcam.determinism import fix_device
from pcam.files import InputError
from pcam.memory import is_out_of_memory
from pcam.preprocess import Preprocessing, normalise
from pcam.provenance import cpu_name

PRECISION = "fp32"
WARM_UP_BATCHES = 3
LEARNING_RATE = 1e-6  # the optimiser does its work, and the weights stay where they are

Pass = Callable[[Sequence[np.ndarray]], None]  # works off its batches of rows
Point = tuple[str, int]  # mode and batch size


@dataclass(frozen=True)
class Task:
    """Paths of weights, store and table of rows; threads; images and number of the passes at each point."""

    weights: str
    store: str
    rows: str
    threads: int
    images: int
    repeats: int


@dataclass(frozen=True)
class Bench:
    """What is measured: a model on a device, and the patches it is fed from."""

    model: torch.nn.Module
    preprocessing: Preprocessing
    device: torch.device
    store: np.ndarray
    labels: np.ndarray

    def clock(self) -> float:
        """Seconds, once the device has done all it was asked to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def load(self, rows: np.ndarray) -> torch.Tensor:
        """Store to batch to device to normalised floats."""
        return normalise(torch.from_numpy(self.store[rows]).to(self.device), self.preprocessing)


def open_bench(task: Task) -> Bench:
    """The network itself: without the average over symmetries, which costs eight of its passes where it is deployed.

    Raises: InputError when the checkpoint is damaged, or table and store do not match.
    """
    device = fix_device(task.threads)
    model, preprocessing, _ = load_checkpoint(task.weights)
    model.tta = False
    split = read_split(task.store, task.rows)
    return Bench(model.to(device), preprocessing, device, split.patches, split.labels)


def inference_pass(bench: Bench, batch_size: int) -> Pass:
    """Forward passes over one batch that already lies on the device."""
    resident = bench.load(np.resize(np.arange(len(bench.store)), batch_size))

    def work(batches: Sequence[np.ndarray]) -> None:
        bench.model.eval()
        with torch.inference_mode():
            for _ in batches:
                bench.model(resident)

    return work


def loading_pass(bench: Bench, batch_size: int) -> Pass:
    """Loading alone."""

    def work(batches: Sequence[np.ndarray]) -> None:
        for rows in batches:
            bench.load(rows)

    return work


def training_step(bench: Bench) -> Callable[[torch.Tensor, np.ndarray], None]:
    """Forward, backward and optimiser on a loaded batch; without augmentation, which belongs to the recipe."""
    optimizer = torch.optim.AdamW(bench.model.parameters(), lr=LEARNING_RATE)
    bench.model.train()

    def step(patches: torch.Tensor, rows: np.ndarray) -> None:
        labels = torch.from_numpy(bench.labels[rows]).to(bench.device, torch.float32)
        loss = functional.binary_cross_entropy_with_logits(bench.model(patches), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def loop_pass(bench: Bench, batch_size: int) -> Pass:
    """Training steps from loading to optimiser."""
    step = training_step(bench)

    def work(batches: Sequence[np.ndarray]) -> None:
        for rows in batches:
            step(bench.load(rows), rows)

    return work


def loading_share(bench: Bench, batches: Sequence[np.ndarray]) -> float:
    """Share of the loop's time that goes into loading; a pass of its own, because the clock waits for the device."""
    step, loading_s, started = training_step(bench), 0.0, bench.clock()
    for rows in batches:
        before = bench.clock()
        patches = bench.load(rows)
        loading_s += bench.clock() - before
        step(patches, rows)
    return loading_s / (bench.clock() - started)


MODES = {"inference": inference_pass, "loading": loading_pass, "loop": loop_pass}


def random_batches(n: int, batch_size: int, batches: int, seed: tuple[int, int]) -> list[np.ndarray]:
    """Rows in random order, other ones for another seed; a store smaller than a batch is gone through again."""
    order = np.random.default_rng(seed).permutation(n)
    return list(np.resize(order, (batches, batch_size)))


def time_pass(bench: Bench, mode: str, batch_size: int, batches: int, repeat: int) -> tuple[float, float | None]:
    """Images per second of one pass after a warm-up, and in the loop the share of loading."""
    work = MODES[mode](bench, batch_size)
    rows = random_batches(len(bench.store), batch_size, batches, (repeat, batch_size))
    work(rows[:WARM_UP_BATCHES])
    started = bench.clock()
    work(rows)
    speed = batches * batch_size / (bench.clock() - started)
    return speed, loading_share(bench, rows) if mode == "loop" and repeat == 0 else None


def empty_result(point: Point, images: int) -> dict[str, Any]:
    mode, size = point
    return {"mode": mode, "batch_size": size, "precision": PRECISION, "images_per_pass": max(1, images // size) * size,
            "images_per_s": None, "values": []}  # fmt: skip


def measure_points(bench: Bench, points: Sequence[Point], images: int, repeats: int) -> list[dict[str, Any]]:
    """Of each point every pass, and the median; null where the batch does not fit into memory.

    Passes of all points take turns. Passes in a row agree with each other even while something else slows the machine
    down; taken in turns, a disturbance meets all points alike and shows in their spread.
    """
    results = {point: empty_result(point, images) for point in points}
    for repeat in range(repeats):
        for (mode, size), result in results.items():
            if "note" in result:
                continue
            tell((mode, size))
            try:
                speed, share = time_pass(bench, mode, size, result["images_per_pass"] // size, repeat)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                result.update(values=[], note="out of memory")
                continue
            result["values"].append(speed)
            if share is not None:
                result["loading_share"] = share
    for result in results.values():
        if result["values"]:
            result["images_per_s"] = median(result["values"])
    return list(results.values())


def measure(task: Task, points: Sequence[Point]) -> dict[str, Any]:
    """A child's work: the name of the device, and the results of the points on it."""
    bench = open_bench(task)
    device = torch.cuda.get_device_name(bench.device) if bench.device.type == "cuda" else cpu_name()
    return {"device": device, "points": measure_points(bench, points, task.images, task.repeats)}


def measure_alone(task: Task, point: Point) -> dict[str, Any]:
    """The result of one point, in a child that does nothing else."""
    outcome = run_child(measure, task, [point])
    if outcome.error is not None:
        raise outcome.error
    if outcome.signal is not None:
        return {**empty_result(point, task.images), "note": outcome.reason}
    (result,) = outcome.value["points"]
    return {"note": "measured alone: beside the other points its process was killed", **result}


def measure_in_children(task: Task, batch_sizes: Sequence[int]) -> dict[str, Any]:
    """As `measure`, for every mode and batch size; a point whose process dies has null and a note.

    Raises: InputError as open_bench does, and when a child dies before its first pass, whatever the points.
    """
    points = [(mode, size) for size in batch_sizes for mode in MODES]
    together, alone = list(points), dict[Point, dict[str, Any]]()
    while (outcome := run_child(measure, task, together)).signal is not None:
        if outcome.told is None:
            raise InputError(f"benchmark: the process {outcome.reason} before it measured anything; free memory for it")
        together.remove(outcome.told)
        alone[outcome.told] = measure_alone(task, outcome.told)
    if outcome.error is not None:
        raise outcome.error
    results = {**dict(zip(together, outcome.value["points"], strict=True)), **alone}
    return {**outcome.value, "points": [results[point] for point in points]}
