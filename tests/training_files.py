"""A small training from files, in this process or one of its own. Run as a script, it trains; faults can be planted."""

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow" / "scripts"))

from pcam import survival
from pcam.files import write_csv, write_json
from pcam.recipe import Outputs, train_recipe
from pcam.settings import TrainSettings

SETTINGS = TrainSettings(
    model="resnet", width=4, depth=1, hidden=8, dropout=0.1, augment=True, tta=True, ema=0.9, label_smoothing=0.0,
    epochs=4, batch_size=8, learning_rate=3e-3, schedule="one_cycle", weight_decay=0.01, precision="float32",
    compile=False, workers=1, threads=1,
)  # fmt: skip
NAMES = {"weights": "weights.pt", "sidecar": "weights.json", "history": "history.csv", "steps": "steps.csv",
         "layers": "layers.csv"}  # fmt: skip


def make_inputs(folder: Path, **changes: object) -> Path:
    """Stores, tables, normalisation and settings of a training that takes moments."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 40), ("valid", 16)):
        labels = np.arange(n) % 2
        pixels = rng.integers(0, 200, (n, 96, 96, 3), dtype=np.uint8)
        pixels[labels == 1, 32:64, 32:64] += 50
        np.save(folder / f"{split}.npy", pixels)
        write_csv(folder / f"{split}.csv", ("row", "label"), [(row + 100, label) for row, label in enumerate(labels)])
    write_json(folder / "normalisation.json", {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]})
    write_json(folder / "settings.json", {**asdict(SETTINGS), **changes})
    return folder


def outputs(folder: Path) -> Outputs:
    return Outputs(**{name: str(folder / file) for name, file in NAMES.items()})


def train_in(inputs: Path, folder: Path, *, seed: int = 0, code: str = "c", report=print) -> None:
    train_recipe(
        str(inputs / "settings.json"),
        {split: str(inputs / f"{split}.npy") for split in ("train", "valid")},
        {split: str(inputs / f"{split}.csv") for split in ("train", "valid")},
        str(inputs / "normalisation.json"),
        outputs(folder),
        seed=seed,
        data_label="test",
        report=report,
        provenance={"code": code},
    )


def result(folder: Path) -> dict[str, bytes]:
    """Content of all outputs of a training."""
    return {file: (folder / file).read_bytes() for file in NAMES.values()}


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _plant(fault: str) -> None:
    """Make this process kill itself at its second save: halfway through writing, or between the two renames."""
    whole, saves = survival.write_bytes, []

    def write(path: Path, content: bytes) -> None:
        saves.append(path)
        if len(saves) == 2:
            if fault == "half":
                (path.parent / f".{path.name}.abcdef").write_bytes(content[: len(content) // 2])
            if fault == "torn":  # what a file system without atomic renames could leave
                path.write_bytes(content[: len(content) // 2])
            _die()
        whole(path, content)

    survival.write_bytes = write


if __name__ == "__main__":
    fault = sys.argv[3]

    def report(line: str) -> None:
        print(line, flush=True)
        if fault == "ask" and line.startswith("epoch 2/"):
            sys.stdin.readline()

    if fault in ("half", "torn", "between"):
        _plant(fault)
    train_in(Path(sys.argv[1]), Path(sys.argv[2]), report=report)
