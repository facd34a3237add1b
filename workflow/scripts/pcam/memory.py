"""Memory that a training will need, predicted from its model before it starts; too much is refused with advice."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from pcam.facts import PATCH_SHAPE
from pcam.files import TrainingFailed
from pcam.model import Architecture, build_model

# Weights, gradients, AdamW's two moments, the averaged weights, and a gradient on its way.
COPIES = 6
# While the state is saved, twice all of these but the gradients lie in memory as well; the batch no longer does.
SAVED_COPIES = 8
# What libraries still load and compile, from this prediction to the first step, in a process that has imported them.
LOADED_BYTES = 128 * 2**20
# A convolution's workspace, the gradients of activations that live at one time, and what the allocator cannot fill, as
# a share of what is saved. tests/test_memory.py holds the sum of all this against trainings.
WORKSPACE = 1.0
# Patches that are predicted at a time, whatever the device: another number would give other last bits.
PREDICT_BATCH = 64
# What their prediction keeps at one time, in patches of a training step.
PREDICTED_AS = PREDICT_BATCH // 4

# Names of settings of glibc's allocator (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Need:
    """Bytes that a training adds to its process: whatever the batch size, and with each patch of a batch."""

    fixed: int
    per_patch: int
    saving: int

    def total(self, batch_size: int) -> int:
        return self.fixed + max(batch_size * self.per_patch, PREDICTED_AS * self.per_patch, self.saving)

    def largest_batch(self, free: int) -> int:
        """The largest batch whose total is at most `free`; 0 when none is."""
        return (free - self.fixed) // self.per_patch if self.total(1) <= free else 0


def predict_need(architecture: Architecture) -> Need:
    """Count what the backward pass saves for one patch, on torch's meta device, where nothing is allocated."""
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage.nbytes()
        alive.append(storage)  # an address is an identity only while its owner lives
        return tensor

    alive: list[torch.UntypedStorage] = []
    with torch.device("meta"):
        model = build_model(architecture).train()
        weights = sum(p.nbytes for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
        own = {p.untyped_storage()._cdata for p in model.parameters()}
        patches = torch.empty(2, PATCH_SHAPE[2], PATCH_SHAPE[0], PATCH_SHAPE[1])
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(patches).sum()
    activations = sum(size for address, size in saved.items() if address not in own) // 2
    # A patch comes as bytes, is turned by a table of places, and becomes floats: about two patches of floats.
    per_patch = patches.nbytes + int((1 + WORKSPACE) * activations)
    return Need(LOADED_BYTES + COPIES * weights, per_patch, SAVED_COPIES * weights)


def free_bytes(device: torch.device) -> int:
    """Memory that the device, or this job's control group, can still give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = int(psutil.virtual_memory().available)
    return min([free, *(limit - used for limit, used in _group_limits())])


def _group_limits() -> list[tuple[int, int]]:
    """Limit and use of memory of the control groups (version 2 or 1) that hold this process: Slurm sets them.

    Pages of files that can be dropped do not count as used, though the kernel counts them.
    """
    found = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup") / controllers
        *names, dropped = ("memory.max", "memory.current", "inactive_file") if not controllers else (
            "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")  # fmt: skip
        folder = root / group.lstrip("/")
        for place in (folder, *folder.parents):
            if not place.is_relative_to(root):
                break
            try:
                limit, used = ((place / name).read_text().strip() for name in names)
                told = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
            except OSError:
                continue
            if limit != "max" and int(limit) < 2**60:
                found.append((int(limit), int(used) - int(told.get(dropped, 0))))
    return found


def check_memory(architecture: Architecture, batch_size: int, device: torch.device, free: int | None = None) -> int:
    """Bytes that a training of this batch size will need.

    Raises: TrainingFailed when that is more than there is, with the largest batch size that would fit.
    """
    free = free_bytes(device) if free is None else free
    need = predict_need(architecture)
    if need.total(batch_size) <= free:
        return need.total(batch_size)
    largest = need.largest_batch(free)
    mlp = architecture["model"] == "mlp"
    size = f"train.hidden {architecture['hidden']}" if mlp else f"train.width {architecture['width']}"
    way_out = f"train.batch_size to at most {largest}" if largest >= 1 else f"a smaller {size.split()[0]}"
    raise TrainingFailed(
        f"memory: a {architecture['model']} with {size} and train.batch_size {batch_size} needs about "
        f"{need.total(batch_size) / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free on {device.type}; set {way_out}"
    )


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed. On the host and in cuBLAS torch has no class for that, only these words."""
    words = (
        "can't allocate memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: out of memory",
    )
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


@contextmanager
def memory_advice() -> Iterator[None]:
    """For what surrounds the steps: loading, building, validating. A function can wear it as its decorator.

    Raises: TrainingFailed, one line, in place of an allocation's failure.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingFailed(
            "memory: the device ran out of it outside a training step; set a smaller train.batch_size or train.width, "
            "or free the device of other processes"
        ) from None


def out_of_memory_advice(batch_size: int, step: int) -> str:
    """What to tell when the prediction was too low and the device gave out."""
    return (
        f"memory: the device ran out of it at step {step} with train.batch_size {batch_size}; "
        f"set train.batch_size to {max(batch_size // 2, 1)}, or free the device of other processes"
    )


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step.

    By default glibc returns large blocks to the system at once, and gets them back page by page: thousands of page
    faults a step, a fifth of its time and more on a busy machine. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_MMAP_THRESHOLD, 2**30) or mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that glibc before 2.35 takes
