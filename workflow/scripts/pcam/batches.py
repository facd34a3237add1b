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

# Share of a GPU's free memory that a resident store may take; the rest is for activations.
RESIDENT_SHARE = 0.5


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

    `workers` threads gather ahead; 0 gathers when asked. The batches are the same whatever `workers` is.
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
    ) -> None:
        self.device, self.seed, self.augment, self.workers, self.controls = device, seed, augment, workers, controls
        self.n = len(split.labels)
        self.size = min(batch_size, self.n)
        self.per_epoch = self.n // self.size
        self._store = np.asarray(split.patches)
        self._labels = torch.from_numpy(split.labels.astype(np.float32)).to(device)
        self._resident = None
        if device.type == "cuda" and self._store.nbytes <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.from_numpy(np.array(self._store)).to(device)
        self._of_thread = threading.local()

    def order(self, epoch: int) -> np.ndarray:
        """Places (per_epoch, size) of an epoch's batches."""
        return epoch_batches(self.seed, epoch, self.n, self.size, self.controls)

    def of_epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from its step `first_step` on."""
        order = self.order(epoch)
        if self.workers == 0 or self._resident is not None:
            for step in range(first_step, self.per_epoch):
                yield self._gather(order[step], epoch, step)
            return
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.workers, thread_name_prefix="gather") as pool:
            for step in range(first_step, self.per_epoch):
                waiting.append(pool.submit(self._gather, order[step], epoch, step))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _gather(self, chosen: np.ndarray, epoch: int, step: int) -> Batch:
        places = torch.from_numpy(chosen).to(self.device, non_blocking=True)
        if self._resident is not None:
            patches = self._resident.index_select(0, places)
        else:
            buffer = torch.empty((len(chosen), *PATCH_SHAPE), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
            np.take(self._store, chosen, axis=0, out=buffer.numpy(), mode="clip")  # "raise" would copy once more
            patches = buffer.to(self.device, non_blocking=True)
        symmetries = None
        if self.augment:
            drawn = self._generator(epoch, step).integers(0, 8, len(chosen))
            symmetries = torch.from_numpy(drawn).to(self.device, non_blocking=True)
        return Batch(chosen, patches, self._labels.index_select(0, places), symmetries)

    def _generator(self, epoch: int, step: int) -> np.random.Generator:
        if not self.controls.augmentation_generator:
            return np.random.default_rng()
        if not self.controls.worker_seeding:  # each thread with a generator of its own, seeded by the operating system
            if not hasattr(self._of_thread, "generator"):
                self._of_thread.generator = np.random.default_rng()
            return self._of_thread.generator
        return generator_for(self.seed, "symmetry", epoch, step)
