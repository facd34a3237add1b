"""Train two tiny models and write the losses and gradient norms of their steps, which a refactor must keep.

Use, after a change that is meant to change them: make golden. Patches are drawn with whole numbers alone, so that they
are the same on every machine and no change of the synthetic sample touches these losses.
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

import torch

from pcam.batches import LabelledPatches
from pcam.files import write_json
from pcam.preprocess import Preprocessing
from pcam.settings import TrainSettings
from pcam.training import train

RESNET = TrainSettings(
    model="resnet", width=8, depth=1, hidden=16, dropout=0.0, augment=True, tta=False, ema=0.9, label_smoothing=0.05,
    epochs=4, batch_size=8, learning_rate=1e-3, schedule="one_cycle", weight_decay=0.1, precision="float32",
    compile=False, workers=1, threads=1,
)  # fmt: skip
SETTINGS = {"resnet": RESNET, "mlp": replace(RESNET, model="mlp", learning_rate=1e-4)}
SEED = 7


def draw_patches(n: int, seed: int) -> LabelledPatches:
    """Blocks of colour, in half of the patches darker in the middle."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(100, 240, (n, 12, 12, 3), dtype=np.uint8)
    labels = rng.integers(0, 2, n).astype(np.uint8)
    blocks[labels == 1, 4:8, 4:8] -= 60
    return LabelledPatches(blocks.repeat(8, 1).repeat(8, 2), labels, np.arange(n))


def measure(settings: TrainSettings) -> dict[str, list[float]]:
    """Loss and gradient norm of 20 steps, validation loss of 4 epochs; on the CPU, also where there is a GPU."""
    plain = Preprocessing((0.65, 0.65, 0.65), (0.2, 0.2, 0.2))
    with mock.patch("torch.cuda.is_available", return_value=False):
        trained = train(settings, SEED, draw_patches(43, 1), draw_patches(16, 2), plain, resume=None, report=print)
    return {
        "loss": [row[2] for row in trained.steps],
        "grad_norm": [row[4] for row in trained.steps],
        "valid_loss": [row[2] for row in trained.history],
    }


def make() -> dict[str, Any]:
    return {name: {"settings": asdict(settings), **measure(settings)} for name, settings in SETTINGS.items()}


if __name__ == "__main__":
    write_json(sys.argv[1], {"torch": torch.__version__, **make()})
