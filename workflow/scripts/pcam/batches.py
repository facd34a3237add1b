"""Shuffled uint8 batches of a split: gathered from the memory-mapped store without Python per sample.

On a GPU the whole store lies in its memory when it fits; else threads gather ahead into pinned memory. No HDF5 file is
open here, and no process is forked.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from pcam.determinism import ALL_ON, Controls, epoch_batches, generator_for
from pcam.facts import PATCH_SHAPE
from pcam.files import InputError, read_csv
from pcam.store import open_store

# Patches that are gathered at a time, for several small batches: each hand-over from thread to thread takes a while.
STRETCH = 128


@dataclass(frozen=True)
class LabelledPatches:
    """uint8 patches (N,96,96,3), labels uint8 (N,), and the rows of the source file they stand in."""

    patches: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Batch:
    """On the device: patches uint8 (B,96,96,3), labels float32 (B,), symmetries int64 (B,) or None.

    `chosen`: places int64 (B,) of the patches in their split, on the host.
    """

    chosen: np.ndarray
    patches: torch.Tensor
    labels: torch.Tensor
    symmetries: torch.Tensor | None


def read_split(store_path: str, rows_path: str) -> LabelledPatches:
    """Raises: InputError when table and store differ in length."""
    table = read_csv(rows_path, ("row", "label"))
    patches = open_store(store_path)
    if len(table) != len(patches):
        raise InputError(
            f"{store_path}: {len(patches)} patches for the {len(table)} rows of {rows_path}; rebuild the store"
        )
    labels = np.array([int(line["label"]) for line in table], np.uint8)
    return LabelledPatches(patches, labels, np.array([int(line["row"]) for line in table]))


class Batches:
    """The batches of every epoch of a training, all of one size: what is left of an epoch waits for another order.

    reserve: bytes of a GPU that the training needs itself; the store lies there when it fits beside them.  `workers`
    threads gather ahead; 0 gathers when asked. The batches are the same whatever `workers` is.
    """

    def __init__(
        self,
        split: LabelledPatches,
        device: torch.device,
        *,
        seed: int,
        batch_size: int,
        augment: bool,
        workers: int,
        controls: Controls = ALL_ON,
        reserve: int = 0,
    ) -> None:
        self.device, self.seed, self.augment, self.workers, self.controls = device, seed, augment, workers, controls
        self.n = len(split.labels)
        self.size = min(batch_size, self.n)
        self.per_epoch = self.n // self.size
        # With a control off, each batch is drawn by whichever thread gets it, as it would be without this care.
        self.stretch = max(STRETCH // self.size, 1) if controls == ALL_ON else 1
        self._store = np.asarray(split.patches)
        self._labels = torch.from_numpy(split.labels.astype(np.float32)).to(device)
        self._resident = None
        if device.type == "cuda" and self._store.nbytes + reserve <= torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.from_numpy(np.array(self._store)).to(device)
        self._of_thread = threading.local()

    def order(self, epoch: int) -> np.ndarray:
        """Places (per_epoch, size) of an epoch's batches."""
        return epoch_batches(self.seed, epoch, self.n, self.size, self.controls)

    def of_epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from its step `first_step` on."""
        order = self.order(epoch)
        # All at once: between two steps a draw takes ten times as long, for its code has left the caches.
        ahead = self.augment and self.controls.worker_seeding
        drawn = self._draw(epoch, range(self.per_epoch)) if ahead else None

        def gather(start: int) -> list[Batch]:
            steps = range(start, min(start + self.stretch, self.per_epoch))
            symmetries = None
            if self.augment:
                symmetries = self._draw(epoch, steps) if drawn is None else drawn[start : steps.stop]
            return self._gather(order[start : steps.stop], symmetries)

        starts = range(first_step, self.per_epoch, self.stretch)
        if self.workers == 0 or self._resident is not None:
            for start in starts:
                yield from gather(start)
            return
        waiting: deque[Future[list[Batch]]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="gather") as pool:
            for start in starts:
                waiting.append(pool.submit(gather, start))
                if len(waiting) > 2 * self.workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _gather(self, chosen: np.ndarray, symmetries: np.ndarray | None) -> list[Batch]:
        """The batches of a stretch of steps, from their places (steps, size) and symmetries (steps, size)."""
        flat = chosen.ravel()
        places = torch.from_numpy(flat).to(self.device, non_blocking=True)
        if self._resident is not None:
            patches = self._resident.index_select(0, places)
        else:
            buffer = torch.empty((len(flat), *PATCH_SHAPE), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
            np.take(self._store, flat, axis=0, out=buffer.numpy(), mode="clip")  # "raise" would copy once more
            patches = buffer.to(self.device, non_blocking=True)
        labels = self._labels.index_select(0, places)
        turned = None if symmetries is None else torch.from_numpy(symmetries).to(self.device, non_blocking=True)
        parts = zip(chosen, patches.split(self.size), labels.split(self.size), strict=True)
        return [Batch(one, x, y, None if turned is None else turned[i]) for i, (one, x, y) in enumerate(parts)]

    def _draw(self, epoch: int, steps: range) -> np.ndarray:
        """Symmetries int64 (steps, size)."""
        return np.stack([self._generator(epoch, step).integers(0, 8, self.size) for step in steps])

    def _generator(self, epoch: int, step: int) -> np.random.Generator:
        if not self.controls.augmentation_generator:
            return np.random.default_rng()
        if not self.controls.worker_seeding:  # each thread with a generator of its own, seeded by the operating system
            if not hasattr(self._of_thread, "generator"):
                self._of_thread.generator = np.random.default_rng()
            return self._of_thread.generator
        return generator_for(self.seed, "symmetry", epoch, step)
