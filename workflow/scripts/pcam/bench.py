"""A model on a device, timed: the forward pass, the training loop, and the parts of its step, in the loop and apart.

A step has five parts. Loading gathers a batch from the store into the host's memory; transfer moves it to the device;
forward normalises it there and computes the loss; backward computes the gradients; the optimiser applies them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional

from pcam.batches import read_split
from pcam.bottleneck import PARTS
from pcam.checkpoint import load_checkpoint
from pcam.determinism import fix_device, seed_everything
from pcam.facts import PATCH_SHAPE
from pcam.machine import cpu_flags
from pcam.memory import keep_freed_memory
from pcam.model import Architecture, build_model
from pcam.preprocess import Preprocessing, normalise

CHAMPION = "champion"
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# What Linux calls the instructions of a processor that computes in a precision: x86, then Arm.
CPU_FLAGS = {"bf16": {"avx512_bf16", "amx_bf16", "bf16"}, "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"}}
TF32_SINCE = (8, 0)  # compute capability of the first GPUs with it (Ampere)
LEAD_IN = 2  # steps before the first mark on a GPU: with an empty queue the first loading has nothing to hide behind
LEARNING_RATE = 1e-6  # the optimiser does its work, and the weights stay where they are

Host = tuple[torch.Tensor, torch.Tensor]  # patches uint8 (B,96,96,3) and labels float32 (B,)
Seconds = dict[str, float]  # by what is timed


def absent_precisions(device: torch.device) -> dict[str, str]:
    """Why a precision can't be measured on a device, by name; the others can."""
    if device.type == "cpu":
        lacking = [name for name, flags in CPU_FLAGS.items() if not flags & cpu_flags()]
        why = {name: f"this processor has no arithmetic in {name}, and to imitate it is slow" for name in lacking}
        return {"tf32": "tf32 is a mode of a GPU's tensor cores", **why}
    absent, capability = {}, torch.cuda.get_device_capability(device)
    told = f"compute capability {'.'.join(map(str, capability))}"
    if capability < TF32_SINCE:
        absent["tf32"] = f"{told}: tf32 needs 8.0"
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        absent["bf16"] = f"{told}: this GPU has no bf16"
    return absent


@dataclass(frozen=True)
class Bench:
    """What is measured: a model on a device in a precision, and the patches it is fed from."""

    model: torch.nn.Module
    preprocessing: Preprocessing
    device: torch.device
    precision: str
    store: np.ndarray
    labels: np.ndarray

    def clock(self) -> float:
        """Seconds, once the device has done all it was asked to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def autocast(self) -> torch.autocast:
        dtype = DTYPES[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def gather(self, rows: np.ndarray) -> Host:
        """A batch in the host's memory, pinned where a GPU fetches it: as in training."""
        pinned = self.device.type == "cuda"
        patches = torch.empty((len(rows), *PATCH_SHAPE), dtype=torch.uint8, pin_memory=pinned)
        labels = torch.empty(len(rows), dtype=torch.float32, pin_memory=pinned)
        np.take(self.store, rows, axis=0, out=patches.numpy(), mode="clip")  # "raise" would copy once more
        labels.numpy()[:] = self.labels[rows]
        return patches, labels

    def transfer(self, host: Host) -> Host:
        patches, labels = (tensor.to(self.device, non_blocking=True) for tensor in host)
        return patches, labels


def open_bench(
    weights: str, store: str, rows: str, *, threads: int, architecture: Architecture | None, precision: str
) -> Bench:
    """The champion, or with an architecture a fresh model of it; without the average over symmetries, which costs
    eight passes where it is deployed.

    Raises: InputError when the checkpoint is damaged, or table and store do not match.
    """
    device = fix_device(threads)
    # The kernels of a training. One that has no deterministic form would stop a training, and is measured here. It also
    # imports what an optimiser's first step would import, while there is no limit on memory yet.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    keep_freed_memory()
    model, preprocessing, _ = load_checkpoint(weights)
    if architecture is not None:
        seed_everything(0)
        model = build_model(architecture)
    model.tta = False
    split = read_split(store, rows)
    return Bench(model.to(device), preprocessing, device, precision, np.asarray(split.patches), split.labels)


class Laps:
    """Marks between the parts of a step, and the seconds from each to the next.

    On a GPU a mark is an event in its queue: nothing waits for it, so the loop runs on as it would without, and what
    passes between two marks is what the part between them adds. Loading that hides behind the GPU's work adds nothing.
    """

    def __init__(self, bench: Bench) -> None:
        self.cuda = bench.device.type == "cuda"
        self.events: list[torch.cuda.Event] = []
        self.times: list[float] = []
        self.mark()

    def mark(self) -> None:
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)
        else:
            self.times.append(time.perf_counter())

    def seconds(self) -> list[float]:
        if self.cuda:
            torch.cuda.synchronize()
            return [first.elapsed_time(second) / 1000 for first, second in pairwise(self.events)]
        return [second - first for first, second in pairwise(self.times)]


class Trainer:
    """The training step without augmentation, which belongs to the recipe. In fp16 the loss is scaled."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.optimizer = torch.optim.AdamW(bench.model.parameters(), lr=LEARNING_RATE, fused=True)
        self.scaler = torch.amp.GradScaler(bench.device.type, enabled=bench.precision == "fp16")

    def forward(self, device: Host) -> torch.Tensor:
        patches, labels = device
        with self.bench.autocast():
            logits = self.bench.model(normalise(patches, self.bench.preprocessing))
        return functional.binary_cross_entropy_with_logits(logits.float(), labels)

    def backward(self, loss: torch.Tensor, *, again: bool = False) -> None:
        """`again`: keep what the forward pass saved, for another backward pass."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward(retain_graph=again)

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def step(self, rows: np.ndarray, mark: Callable[[], None] = lambda: None) -> None:
        host = self.bench.gather(rows)
        mark()
        batch = self.bench.transfer(host)
        mark()
        loss = self.forward(batch)
        mark()
        self.backward(loss)
        mark()
        self.update()
        mark()


def inference_pass(trainer: Trainer, batches: Sequence[np.ndarray]) -> Seconds:
    """Forward passes over one batch that already lies on the device."""
    bench = trainer.bench
    patches, _ = bench.transfer(bench.gather(batches[0]))
    resident = normalise(patches, bench.preprocessing)
    bench.model.eval()
    started = bench.clock()
    with torch.inference_mode():
        for _ in batches:
            with bench.autocast():
                bench.model(resident)
    return {"inference": bench.clock() - started}


def begin(trainer: Trainer, batches: Sequence[np.ndarray]) -> Laps:
    """The first mark of a pass of training steps: on a GPU while it still works off the steps before."""
    trainer.bench.model.train()
    trainer.bench.clock()
    if trainer.bench.device.type == "cuda":
        for rows in np.resize(np.stack(batches), (LEAD_IN, len(batches[0]))):
            trainer.step(rows)
    return Laps(trainer.bench)


def loop_pass(trainer: Trainer, batches: Sequence[np.ndarray]) -> Seconds:
    """Training steps from loading to optimiser, with a mark before the first and after the last."""
    laps = begin(trainer, batches)
    for rows in batches:
        trainer.step(rows)
    laps.mark()
    return {"loop": sum(laps.seconds())}


def parts_pass(trainer: Trainer, batches: Sequence[np.ndarray]) -> Seconds:
    """The same training steps with a mark after each part."""
    laps = begin(trainer, batches)
    for rows in batches:
        trainer.step(rows, laps.mark)
    seconds = laps.seconds()
    return {part: sum(seconds[i :: len(PARTS)]) for i, part in enumerate(PARTS)}


def apart_pass(trainer: Trainer, batches: Sequence[np.ndarray]) -> Seconds:
    """Each part by itself, as often as the loop does it: nothing else runs beside it."""
    bench = trainer.bench

    def timed(part: Callable[[np.ndarray], object]) -> float:
        started = bench.clock()
        for rows in batches:
            part(rows)
        return bench.clock() - started

    bench.model.train()
    seconds = {"loading": timed(bench.gather)}
    host = bench.gather(batches[0])
    seconds["transfer"] = timed(lambda _: bench.transfer(host))
    batch = bench.transfer(host)
    seconds["forward"] = timed(lambda _: trainer.forward(batch))
    loss = trainer.forward(batch)
    seconds["backward"] = timed(lambda _: trainer.backward(loss, again=True))
    seconds["optimiser"] = timed(lambda _: trainer.update())
    return seconds


MODES = {"inference": inference_pass, "loop": loop_pass, "parts": parts_pass, "apart": apart_pass}
