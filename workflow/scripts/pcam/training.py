"""One explicit training loop. Order, augmentation and dropout are functions of (seed, epoch, step) and nothing else.

On one kind of CPU, equal settings, data and seed give equal weights, bit for bit: also when the run was interrupted.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from pcam.checkpoint import load_tensors, save_tensors
from pcam.files import InputError
from pcam.metrics import roc_auc
from pcam.model import Architecture, build_model
from pcam.preprocess import Preprocessing, augment_d4, normalise
from pcam.settings import TrainSettings

# Streams of random numbers, so that no two uses share one.
_ORDER, _SYMMETRY, _DROPOUT = 0, 1, 2
PREDICT_BATCH = 256
HISTORY_COLUMNS = (
    "epoch",
    "train_loss",
    "valid_loss",
    "valid_roc_auc",
    "learning_rate",
    "grad_norm_median",
    "grad_norm_max",
)
STEPS_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm")


@dataclass(frozen=True)
class LabelledPatches:
    """uint8 patches (N,96,96,3), labels uint8 (N,), and the rows of the source file they stand in."""

    patches: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Trained:
    model: torch.nn.Module
    history: list[list[float]]
    steps: list[list[float]]


def make_deterministic(threads: int) -> torch.device:
    """Fix the thread count, deterministic kernels, no autotuner, no TF32; give the device to compute on.

    The thread count comes from the config: another number of threads sums in another order and gives other bits.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def architecture_of(settings: TrainSettings) -> Architecture:
    return Architecture(model=settings.model, width=settings.width, hidden=settings.hidden, dropout=settings.dropout)


def learning_rate_at(settings: TrainSettings, step: int, total: int) -> float:
    """Learning rate of step 0..total-1.

    `one_cycle` (Smith and Topin 2018): a cosine up over the first 30 % of the steps, a cosine down; or `constant`.
    """
    if settings.schedule == "constant":
        return settings.learning_rate
    start, end, turn = settings.learning_rate / 25, settings.learning_rate / 1e4, 0.3 * total
    if step < turn:
        low, progress = start, 1 - step / turn
    else:
        low, progress = end, (step - turn) / max(total - 1 - turn, 1)
    return low + (settings.learning_rate - low) * (1 + math.cos(math.pi * progress)) / 2


def epoch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """Order in which an epoch visits the n patches."""
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(n)


def _derived_seed(seed: int, stream: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, stream, epoch, step)).generate_state(1, np.uint64)[0] >> 1)


def predict(
    model: torch.nn.Module, patches: np.ndarray, preprocessing: Preprocessing, device: torch.device
) -> np.ndarray:
    """Logits float32 (N,) of uint8 patches (N,96,96,3), in evaluation mode, batch by batch."""
    was_training = model.training
    model.eval()
    logits = np.empty(len(patches), np.float32)
    with torch.inference_mode():
        for start in range(0, len(patches), PREDICT_BATCH):
            batch = torch.from_numpy(np.ascontiguousarray(patches[start : start + PREDICT_BATCH])).to(device)
            logits[start : start + len(batch)] = model(normalise(batch, preprocessing)).cpu().numpy()
    model.train(was_training)
    return logits


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Logistic function in float64, stable at both ends."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))


class _ResumeState:
    """What a killed run needs to go on: written after each epoch, removed when the run is finished."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = path, digest

    def load(self) -> dict[str, Any] | None:
        if not self.path.exists():
            return None
        try:
            state = load_tensors(self.path)
        except InputError as error:
            print(f"resume state is damaged, starting afresh: {error}", flush=True)
            return None
        if state.get("digest") != self.digest:
            print("resume state belongs to other settings, data or code: starting afresh", flush=True)
            return None
        return state

    def save(self, **state: Any) -> None:
        save_tensors(self.path, {"digest": self.digest, **state})

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def train(
    settings: TrainSettings,
    seed: int,
    train_split: LabelledPatches,
    valid_split: LabelledPatches,
    preprocessing: Preprocessing,
    *,
    resume_path: Path,
    digest: str,
    report: Callable[[str], None],
) -> Trained:
    """Train one model from scratch, or from `resume_path` when that state carries `digest`.

    `history` has a row an epoch (HISTORY_COLUMNS), `steps` a row a step (STEPS_COLUMNS). `report` gets a line an epoch.
    The resume state is left behind for the caller to remove once the outputs are written.

    Raises: InputError when there are fewer than two training patches or the loss stops being finite.
    """
    if len(train_split.labels) < 2:
        raise InputError(f"training split: {len(train_split.labels)} patches after cleaning; training needs at least 2")
    device = make_deterministic(settings.threads)
    torch.manual_seed(seed)
    model = build_model(architecture_of(settings)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    n = len(train_split.labels)
    batch_size = min(settings.batch_size, n)
    steps_per_epoch = n // batch_size  # the rest of an epoch waits for another order: all batches have one size
    total = settings.epochs * steps_per_epoch
    history: list[list[float]] = []
    steps: list[list[float]] = []
    first_epoch = 0

    resume = _ResumeState(resume_path, digest)
    if (state := resume.load()) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history, steps, first_epoch = state["history"], state["steps"], state["epoch"]
        report(f"resumed after epoch {first_epoch} of {settings.epochs}")

    for epoch in range(first_epoch, settings.epochs):
        model.train()
        order = epoch_order(seed, epoch, n)
        losses, norms, rates = [], [], []
        for step in range(steps_per_epoch):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            patches = torch.from_numpy(train_split.patches[chosen]).to(device)
            labels = torch.from_numpy(train_split.labels[chosen]).to(device, torch.float32)
            if settings.augment:
                symmetries = np.random.default_rng((seed, _SYMMETRY, epoch, step)).integers(0, 8, len(chosen))
                patches = augment_d4(patches, torch.from_numpy(symmetries).to(device))
            rate = learning_rate_at(settings, epoch * steps_per_epoch + step, total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(_derived_seed(seed, _DROPOUT, epoch, step))
            loss = functional.binary_cross_entropy_with_logits(model(normalise(patches, preprocessing)), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            norms.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
            optimizer.step()
            losses.append(loss.detach())
            rates.append(rate)
        # One synchronisation an epoch: reading a value each step would hold the device up.
        epoch_losses = torch.stack(losses).cpu().tolist()
        epoch_norms = torch.stack(norms).cpu().tolist()
        for step, (loss_value, rate, norm) in enumerate(zip(epoch_losses, rates, epoch_norms, strict=True)):
            if not (math.isfinite(loss_value) and math.isfinite(norm)):
                rows = train_split.rows[order[step * batch_size : (step + 1) * batch_size]]
                raise InputError(
                    f"training diverged: loss {loss_value}, gradient norm {norm} at epoch {epoch + 1}, step {step} "
                    f"with learning rate {rate:.3g} on train rows {', '.join(map(str, rows[:8]))}…; "
                    "lower train.learning_rate"
                )
            steps.append([epoch * steps_per_epoch + step, epoch + 1, loss_value, rate, norm])

        logits = predict(model, valid_split.patches, preprocessing, device)
        valid_loss = float(np.mean(np.logaddexp(0, logits) - logits * valid_split.labels))
        auc = roc_auc(valid_split.labels, logits)
        train_loss = float(np.mean(epoch_losses))
        history.append(
            [epoch + 1, train_loss, valid_loss, math.nan if auc is None else auc, rates[-1],
             float(np.median(epoch_norms)), max(epoch_norms)]
        )  # fmt: skip
        report(
            f"epoch {epoch + 1}/{settings.epochs} loss {train_loss:.4f} valid loss {valid_loss:.4f} ROC-AUC {auc:.4f}"
        )
        resume.save(
            epoch=epoch + 1, model=model.state_dict(), optimizer=optimizer.state_dict(), history=history, steps=steps
        )
    return Trained(model, history, steps)
