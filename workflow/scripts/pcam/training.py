"""One explicit training loop. Order, augmentation and dropout are functions of (seed, epoch, step) and nothing else.

On one kind of CPU, equal settings, data and seed give equal weights, bit for bit: also when the run was interrupted.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from pcam.batches import Batch, Batches, LabelledPatches
from pcam.determinism import ALL_ON, Controls, fix_device, seed_dropout, seed_everything
from pcam.files import InputError, TrainingFailed
from pcam.memory import (
    PREDICT_BATCH,
    check_memory,
    is_out_of_memory,
    keep_freed_memory,
    memory_advice,
    out_of_memory_advice,
)
from pcam.metrics import roc_auc
from pcam.model import Architecture, build_model, layer_of
from pcam.preprocess import Preprocessing, augment_d4, normalise
from pcam.progress import Progress
from pcam.schedules import learning_rate_at
from pcam.settings import TrainSettings
from pcam.survival import ResumeState

SAVE_EVERY_S = 60.0  # a killed run loses at most this much, or an epoch if that is shorter
HISTORY_COLUMNS = (
    "epoch",
    "train_loss",
    "valid_loss",
    "valid_roc_auc",
    "learning_rate",
    "grad_norm_median",
    "grad_norm_max",
)
STEPS_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "hardest_row", "hardest_loss")
LAYERS_COLUMNS = ("step", "epoch")  # and a column a layer: the norm of its gradient
# Columns of a step's record before the gradient norms of the parameters.
_LOSS, _HARDEST, _HARDEST_LOSS, _NORMS = 0, 1, 2, 3


@dataclass(frozen=True)
class Trained:
    """history: rows of HISTORY_COLUMNS; steps: rows of STEPS_COLUMNS; layers: gradient norm of each layer per step."""

    model: torch.nn.Module
    history: list[list[float]]
    steps: list[list[float]]
    layers: dict[str, list[float]]


def architecture_of(settings: TrainSettings) -> Architecture:
    return Architecture(
        model=settings.model,
        width=settings.width,
        depth=settings.depth,
        hidden=settings.hidden,
        dropout=settings.dropout,
        tta=settings.tta,
    )


def predict(
    model: torch.nn.Module, patches: np.ndarray, preprocessing: Preprocessing, device: torch.device
) -> np.ndarray:
    """Logits float32 (N,) of uint8 patches (N,96,96,3), in evaluation mode, batch by batch."""
    was_training = model.training
    model.eval()
    logits = np.empty(len(patches), np.float32)
    with torch.inference_mode():
        for start in range(0, len(patches), PREDICT_BATCH):
            batch = torch.from_numpy(np.array(patches[start : start + PREDICT_BATCH])).to(device)
            logits[start : start + len(batch)] = model(normalise(batch, preprocessing)).cpu().numpy()
    model.train(was_training)
    return logits


class Learner:
    """A model with its optimiser and the running average of its weights. One call is one training step."""

    def __init__(self, settings: TrainSettings, preprocessing: Preprocessing, device: torch.device) -> None:
        self.settings, self.preprocessing, self.device = settings, preprocessing, device
        keep_freed_memory()
        self.model = build_model(architecture_of(settings)).to(device)
        self.model.tta = False  # while training, validation is a measure of progress: eight times the work buys little
        if settings.compile:  # the compiler has a switch of its own, which fix_device leaves alone
            torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())
        self.forward = torch.compile(self.model) if settings.compile else self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.average = copy.deepcopy(self.model) if settings.ema else self.model
        self.parameters = list(self.model.parameters())
        self.layers = [layer_of(name) for name, _ in self.model.named_parameters()]
        # Batch norm's running statistics are averaged as well; its count of batches, an integer, is of no use here.
        self._pairs = [
            [t for t in model.state_dict().values() if t.is_floating_point()] for model in (self.average, self.model)
        ]

    def step(self, batch: Batch, rate: float) -> torch.Tensor:
        """Forward, backward, norms and update. The record of the step (_NORMS + parameters,) stays on the device:
        mean loss, place of the hardest patch in the batch, its loss, gradient norm of each parameter."""
        patches = batch.patches if batch.symmetries is None else augment_d4(batch.patches, batch.symmetries)
        smoothing = self.settings.label_smoothing
        targets = batch.labels * (1 - smoothing) + smoothing / 2
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            logits = self.forward(normalise(patches, self.preprocessing))
        losses = functional.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
        loss = losses.mean()
        loss.backward()
        norms = torch._foreach_norm([p.grad for p in self.parameters if p.grad is not None])
        hardest_loss, hardest = losses.detach().max(0)
        self.optimizer.step()
        if self.settings.ema:
            averaged, current = self._pairs
            torch._foreach_lerp_(averaged, current, 1 - self.settings.ema)
        return torch.stack([loss.detach(), hardest.float(), hardest_loss, *norms])

    def state(self) -> dict[str, object]:
        """Everything that a step changes."""
        average = {"average": self.average.state_dict()} if self.settings.ema else {}
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), **average}

    def load(self, state: dict[str, dict[str, object]]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.settings.ema:
            self.average.load_state_dict(state["average"])


class Records:
    """The record of every step. They come home from the device together: reading each step would hold it up."""

    def __init__(self, learner: Learner, batches: Batches, rates: Sequence[float], rows: np.ndarray) -> None:
        self.all = torch.zeros(len(rates), _NORMS + len(learner.parameters))
        self.batches, self.rates, self.rows = batches, rates, rows
        self.done, self.away = 0, list[torch.Tensor]()

    def restore(self, records: torch.Tensor) -> None:
        self.done = len(records)
        self.all[: self.done] = records

    def add(self, record: torch.Tensor) -> None:
        self.away.append(record)

    def bring_home(self) -> torch.Tensor:
        """All records so far. Raises: TrainingFailed at the first step whose loss or gradient is not finite."""
        if self.away:
            fresh = torch.stack(self.away).cpu()
            bad = (~torch.isfinite(fresh).all(1)).nonzero()
            if len(bad):
                raise TrainingFailed(self._divergence(self.done + int(bad[0, 0]), fresh[int(bad[0, 0])]))
            self.all[self.done : self.done + len(fresh)] = fresh
            self.done += len(fresh)
            self.away.clear()
        return self.all[: self.done]

    def _divergence(self, at: int, record: torch.Tensor) -> str:
        epoch, step = divmod(at, self.batches.per_epoch)
        norm = float(torch.linalg.vector_norm(record[_NORMS:]))
        shown = ", ".join(map(str, self.rows[self.batches.order(epoch)[step][:8]]))
        return (
            f"training diverged: loss {float(record[_LOSS])}, gradient norm {norm} at epoch {epoch + 1}, step {at}, "
            f"with learning rate {self.rates[at]:.3g} on train rows {shown}…; lower train.learning_rate"
        )


def run_epoch(learner: Learner, records: Records, epoch: int, first_step: int = 0) -> Iterator[int]:
    """Train on what an epoch holds from `first_step` on. Yields after each step how many the training has done.

    Raises: TrainingFailed when the device runs out of memory.
    """
    batches = records.batches
    done = epoch * batches.per_epoch + first_step
    learner.model.train()
    for step, batch in enumerate(batches.of_epoch(epoch, first_step), first_step):
        seed_dropout(batches.seed, epoch, step, batches.controls)
        try:
            records.add(learner.step(batch, records.rates[done]))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingFailed(out_of_memory_advice(batches.size, done)) from None
        done += 1
        yield done


@memory_advice()
def train(
    settings: TrainSettings,
    seed: int,
    train_split: LabelledPatches,
    valid_split: LabelledPatches,
    preprocessing: Preprocessing,
    *,
    resume: ResumeState | None,
    report: Callable[[str], None],
    on_epoch: Callable[[Sequence[float]], None] = lambda row: None,
    controls: Controls = ALL_ON,
) -> Trained:
    """Train one model from scratch, or from the state in `resume`, which stays for the caller to remove.

    `report` gets a line an epoch, and one every half minute in longer epochs; `on_epoch` gets each row of history,
    those of a resumed training's earlier epochs too.

    Raises: InputError when there are fewer than two training patches; TrainingFailed when there is too little memory,
    or a loss or a gradient is not finite.
    """
    if len(train_split.labels) < 2:
        raise InputError(f"training split: {len(train_split.labels)} patches after cleaning; training needs at least 2")
    device = fix_device(settings.threads, controls)
    batch_size = min(settings.batch_size, len(train_split.labels))
    need = check_memory(architecture_of(settings), batch_size, device)
    seed_everything(seed, controls)
    learner = Learner(settings, preprocessing, device)
    batches = Batches(
        train_split, device, seed=seed, batch_size=batch_size, augment=settings.augment, workers=settings.workers,
        controls=controls, reserve=need,
    )  # fmt: skip
    per_epoch, total = batches.per_epoch, settings.epochs * batches.per_epoch
    rates = [learning_rate_at(settings, step, total) for step in range(total)]
    records = Records(learner, batches, rates, train_split.rows)
    history: list[list[float]] = []
    done = 0
    if resume is not None and (state := resume.load()) is not None:
        learner.load(state)
        history, done = state["history"], state["done"]
        records.restore(state["records"])
        report(f"resumed after step {done} of {total}")
        for row in history:
            on_epoch(row)

    progress = Progress(report, settings.epochs, total, done, batch_size)
    saved = time.monotonic()
    for epoch in range(done // per_epoch, settings.epochs):
        first_step = done % per_epoch
        for done in run_epoch(learner, records, epoch, first_step):
            progress.within(epoch, done - epoch * per_epoch, per_epoch, done)
            if resume is not None and done % per_epoch and time.monotonic() - saved > SAVE_EVERY_S:
                resume.save(done=done, history=history, records=records.bring_home().clone(), **learner.state())
                saved = time.monotonic()
        so_far = records.bring_home()
        history.append(_history_row(learner, valid_split, so_far[-per_epoch:], epoch, rates[done - 1]))
        progress.epoch(history[-1], done)
        on_epoch(history[-1])
        if resume is not None:
            resume.save(done=done, history=history, records=so_far.clone(), **learner.state())
            saved = time.monotonic()
    if not all(bool(torch.isfinite(t).all()) for t in learner.average.state_dict().values()):
        raise TrainingFailed("training diverged: its weights or statistics are not finite; lower train.learning_rate")
    learner.average.tta = settings.tta
    return Trained(learner.average, history, *_per_step(records, learner.layers))


def _history_row(
    learner: Learner, valid: LabelledPatches, records: torch.Tensor, epoch: int, rate: float
) -> list[float]:
    logits = predict(learner.average, valid.patches, learner.preprocessing, learner.device)
    valid_loss = float(np.mean(np.logaddexp(0, logits) - logits * valid.labels))
    auc = roc_auc(valid.labels, logits)
    norms = torch.linalg.vector_norm(records[:, _NORMS:].double(), dim=1)
    return [
        epoch + 1,
        float(records[:, _LOSS].double().mean()),
        valid_loss,
        math.nan if auc is None else auc,
        rate,
        float(norms.quantile(0.5)),
        float(norms.max()),
    ]


def _per_step(records: Records, layers: Sequence[str]) -> tuple[list[list[float]], dict[str, list[float]]]:
    """Rows of STEPS_COLUMNS, and the gradient norm of each layer at each step."""
    squares = records.all[:, _NORMS:].double() ** 2
    norms = squares.sum(1).sqrt().tolist()
    steps: list[list[float]] = []
    for step, (record, norm) in enumerate(zip(records.all.tolist(), norms, strict=True)):
        epoch, within = divmod(step, records.batches.per_epoch)
        if within == 0:
            order = records.batches.order(epoch)
        row = int(records.rows[order[within][int(record[_HARDEST])]])
        steps.append([step, epoch + 1, record[_LOSS], records.rates[step], norm, row, record[_HARDEST_LOSS]])
    places = {layer: [i for i, name in enumerate(layers) if name == layer] for layer in dict.fromkeys(layers)}
    return steps, {layer: squares[:, columns].sum(1).sqrt().tolist() for layer, columns in places.items()}
