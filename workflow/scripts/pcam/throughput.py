"""Images per second of a model on a device: the forward pass, loading, and the whole training step."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pcam.preprocess import Preprocessing, normalise

PRECISION = "fp32"
WARM_UP_BATCHES = 3
LEARNING_RATE = 1e-6  # the optimiser does its work, and the weights stay where they are

Pass = Callable[[Sequence[np.ndarray]], None]  # works off its batches of rows


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


def measure_points(bench: Bench, batch_sizes: Sequence[int], images: int, repeats: int) -> list[dict[str, Any]]:
    """A point per batch size and mode: every pass, the median; null where the batch does not fit into device memory.

    Passes of all points take turns. Passes in a row agree with each other even while something else slows the machine
    down; taken in turns, a disturbance meets all points alike and shows in their spread.
    """
    points: list[dict[str, Any]] = [
        {"mode": mode, "batch_size": size, "precision": PRECISION, "images_per_pass": max(1, images // size) * size,
         "images_per_s": None, "values": []}
        for size in batch_sizes for mode in MODES
    ]  # fmt: skip
    for repeat in range(repeats):
        for point in points:
            if "note" in point:
                continue
            size = point["batch_size"]
            try:
                speed, share = time_pass(bench, point["mode"], size, point["images_per_pass"] // size, repeat)
            except torch.OutOfMemoryError:
                point.update(values=[], note="out of memory")
                continue
            point["values"].append(speed)
            if share is not None:
                point["loading_share"] = share
    for point in points:
        if point["values"]:
            point["images_per_s"] = median(point["values"])
    return points
