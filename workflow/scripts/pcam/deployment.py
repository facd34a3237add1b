"""What may happen to patches and to the model between the bench and the clinic, each in steps of strength."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from pcam.attributes import STAINS, stain_rows
from pcam.checkpoint import predict_logits
from pcam.damage import Damage, blurred, channels, jpeg, scaled, to_uint8
from pcam.files import InputError
from pcam.guard import Guard, read_guard, watched_values
from pcam.hdf5 import convert_lossless
from pcam.intervals import Groups, estimate_metrics
from pcam.memory import PREDICT_BATCH
from pcam.metrics import wilson_interval
from pcam.preprocess import Preprocessing, normalise
from pcam.readings import Verdict
from pcam.settings import EvaluationSettings
from pcam.sidecar import probabilities

METRICS = ("roc_auc", "f_beta")
FALSE_ALARM = "the guard already warns of the untouched patches"
FALSE_ANSWERS = "the watch already raises an alarm about the answers to the untouched patches"
IMAGENET = Preprocessing(
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
)  # the statistics that pretrained models come with


@dataclass(frozen=True)
class Step:
    """One strength of an issue, and what differs there from the champion's own way: pixels, statistics, arithmetic.

    strength: 0 where nothing differs. change: of the uint8 pixels of a patch. statistics: what normalises instead.
    unit_scale: the pixels come as floats in 0..1. precision: of autocast. other_device: the GPU, or
    the CPU when the champion ran on a GPU.
    """

    strength: float
    label: str
    change: Damage | None = None
    statistics: Preprocessing | None = None
    unit_scale: bool = False
    precision: torch.dtype | None = None
    other_device: bool = False


@dataclass(frozen=True)
class Issue:
    """An issue in steps of ascending strength, and in words what is meant to catch it."""

    name: str
    unit: str
    steps: tuple[Step, ...]
    guard: str


def stain_scaled(stain: str, factor: float) -> Damage:
    """The concentration of one stain times `factor`; the other one and what neither explains stay."""
    rows = stain_rows()
    factors = np.ones(3)
    factors[list(STAINS).index(stain)] = factor
    mixing = np.linalg.inv(rows) @ np.diag(factors) @ rows

    def damage(rng: np.random.Generator, patch: np.ndarray) -> np.ndarray:
        density = -np.log((patch.astype(np.float64) + 1) / 256)
        return to_uint8(256 * np.exp(-(density @ mixing)) - 1)

    return damage


def _percent(name: str, what: Callable[[float], Damage], guard: str) -> Issue:
    steps = (
        Step(percent, f"{percent:+d} %" if percent else "as it is", what(1 + percent / 100) if percent else None)
        for percent in (-50, -25, 0, 25, 50)
    )
    return Issue(name, "change, %", tuple(steps), guard)


PIXELS = "inference.py compares properties of the pixels with validation patches (guard.json)"
AS_IT_IS = Step(0, "as it is")
ISSUES = (
    _percent("haematoxylin", lambda factor: stain_scaled("haematoxylin", factor), PIXELS),
    _percent("eosin", lambda factor: stain_scaled("eosin", factor), PIXELS),
    _percent("brightness", scaled, PIXELS),
    Issue("blur", "sigma, px", (AS_IT_IS, *(Step(s, f"{s:g}", blurred(s)) for s in (0.5, 1.0, 2.0))), PIXELS),
    Issue(
        "JPEG",
        "100 - quality",
        (AS_IT_IS, *(Step(100 - q, f"quality {q}", jpeg(q, 2)) for q in (95, 80, 60, 30))),
        PIXELS,
    ),
    Issue(
        "normalisation",
        "",
        (
            Step(0, "its own"),
            Step(1, "ImageNet's", statistics=IMAGENET),
            Step(2, "scale 0..1", unit_scale=True),
            Step(3, "BGR", channels((2, 1, 0))),
        ),
        "mean and std travel in the checkpoint's sidecar and must be those in guard.json; inference.py refuses values "
        "that are no integers in 0..255; the order of channels shows in the colours of the pixels",
    ),
    Issue(
        "precision",
        "",
        (
            Step(0, "float32"),
            Step(1, "bfloat16", precision=torch.bfloat16),
            Step(2, "float16", precision=torch.float16),
        ),
        "inference.py knows float32 alone; its --watch sees another precision only where that moves the mean answer",
    ),
    Issue(
        "device",
        "",
        (Step(0, "as it is"), Step(1, "other", other_device=True)),
        "weights and arithmetic are the same float32 on either device; where there is another, the change is measured",
    ),
)


def stratified(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Ascending places of at most n patches, each class with its share of labels (N,) and one patch at least."""
    rng = np.random.default_rng(seed)
    n = min(n, len(labels))
    positives = round(n * float(labels.mean()))
    if 0 < labels.sum() < len(labels):
        positives = min(max(positives, 1), n - 1)
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:k] for c, k in ((1, positives), (0, n - positives))]
    return np.sort(np.concatenate(chosen))


def changed_patches(patches: np.ndarray, change: Damage | None, seed: int) -> np.ndarray:
    """uint8 (N,96,96,3) after the change; the same array where there is none."""
    if change is None:
        return patches
    rng = np.random.default_rng(seed)
    return np.stack([change(rng, patch) for patch in patches])


def statistics_of(step: Step, own: Preprocessing) -> Preprocessing:
    """What normalises at this step.

    Pixels x / 255 that are taken for pixels in 0..255 equal pixels x under mean and std 255 times as large.
    """
    if step.unit_scale:
        (r, g, b), (u, v, w) = own.mean, own.std
        return Preprocessing((255 * r, 255 * g, 255 * b), (255 * u, 255 * v, 255 * w))
    return step.statistics or own


def logits_at(
    model: torch.nn.Module,
    patches: np.ndarray,
    preprocessing: Preprocessing,
    device: torch.device,
    precision: torch.dtype | None = None,
) -> np.ndarray:
    """Logits float32 (N,) of uint8 patches (N,96,96,3), in the batches of pcam.training.predict; model evaluating."""

    def batches() -> Iterator[np.ndarray]:
        for start in range(0, len(patches), PREDICT_BATCH):
            batch = torch.from_numpy(np.array(patches[start : start + PREDICT_BATCH])).to(device)
            with _arithmetic(device, precision):
                yield predict_logits(model, normalise(batch, preprocessing)).float().cpu().numpy()

    return np.concatenate(list(batches()))


def _arithmetic(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if precision is None else torch.autocast(device.type, precision)


@dataclass(frozen=True)
class Bench:
    """The champion and the patches (n,96,96,3) that every step is measured on; logits (n,) as they are."""

    model: torch.nn.Module
    preprocessing: Preprocessing
    sidecar: Mapping[str, Any]
    guard_path: str
    guard: Guard
    device: torch.device
    patches: np.ndarray
    labels: np.ndarray
    groups: Groups
    logits: np.ndarray
    beta: float
    rules: EvaluationSettings

    @cached_property
    def before(self) -> Verdict:
        """What the guard says of the patches as they are."""
        return self.guard.check(watched_values(self.patches, probabilities(self.logits, self.sidecar)))

    def measure(self, step: Step) -> dict[str, Any]:
        """One point of an issue."""
        device = self.device
        if step.other_device:
            if device.type == "cpu" and not torch.cuda.is_available():
                return {"strength": step.strength, "label": "cuda", "status": "not run: no GPU"}
            device = torch.device("cpu" if device.type == "cuda" else "cuda")
        patches = changed_patches(self.patches, step.change, self.rules.seed)
        statistics = statistics_of(step, self.preprocessing)
        logits = logits_at(self.model.to(device), patches, statistics, device, step.precision)
        self.model.to(self.device)
        if not np.all(np.isfinite(logits)):
            return {"strength": step.strength, "label": step.label, "status": "failed: a logit is not finite"}
        threshold = self.sidecar["threshold"]
        before, now = (probabilities(values, self.sidecar) for values in (self.logits, logits))
        estimates = estimate_metrics(self.labels, now, threshold, beta=self.beta, groups=self.groups, rules=self.rules)
        flipped = int(np.sum((before >= threshold) != (now >= threshold)))
        verdict = self.guard.check(watched_values(patches, now))
        return {
            "strength": step.strength,
            "label": device.type if step.other_device else step.label,
            "status": "measured",
            **{name: estimates[name].as_document() for name in METRICS},
            "flipped": flipped / len(now),
            "flipped_interval": wilson_interval(flipped, len(now), self.rules.level),
            "largest_logit_change": float(np.abs(logits.astype(np.float64) - self.logits).max()),
            "guard": {
                **verdict.as_document(),
                "check": self.caught_by(step, statistics, verdict, patches),
                "note": self.heard_before(verdict),
            },
        }

    def heard_before(self, verdict: Verdict) -> str | None:
        """What this verdict repeats of that on the patches as they are; None: nothing."""
        if verdict.warns and self.before.warns:
            return FALSE_ALARM
        return FALSE_ANSWERS if verdict.answers.alarm and self.before.answers.alarm else None

    def caught_by(self, step: Step, statistics: Preprocessing, verdict: Verdict, patches: np.ndarray) -> str | None:
        """Which check of inference.py stops this step or warns of it, tried on what it would be given; None: none.

        A warning counts only where the guard was silent before, and one on the pixels only where the step changed them.
        """
        if step.unit_scale:
            try:
                convert_lossless(patches / np.float32(255))
            except ValueError as error:
                return f"pixels refused: {error}"
        if step.statistics is not None:
            try:
                used = {"mean": list(statistics.mean), "std": list(statistics.std)}
                read_guard(self.guard_path, {**self.sidecar, "preprocessing": used})
            except InputError:
                return "checkpoint refused: its statistics are not those in guard.json"
        if step.change is not None and verdict.warns and not self.before.warns:
            return f"warning: {verdict.worst.statistic}"
        answers = verdict.answers
        return f"--watch: {answers.statistic}" if answers.alarm and not self.before.answers.alarm else None
