"""Data for the audits that learn: splits whose features and labels are drawn, not cut from pictures."""

from pathlib import Path

import numpy as np

from pcam.facts import FILE_SPLITS
from pcam.features import FEATURES
from pcam.files import write_csv
from pcam.hdf5 import write_labels

SIZES = {"train": 800, "valid": 300, "test": 300}
LEAKAGE = ("split", "row", "kind", "group", "partner_splits", "content")


class Drawn:
    """Three splits: labels, features that tell them, and what the other audits would list."""

    def __init__(self, folder: Path, seed: int = 0, signal: float = 0.6, sizes: dict[str, int] = SIZES) -> None:
        self.folder = folder
        rng = np.random.default_rng(seed)
        self.y: dict[str, np.ndarray | None] = {s: rng.integers(0, 2, n).astype(np.uint8) for s, n in sizes.items()}
        self.features = {s: rng.normal(size=(n, FEATURES)).astype(np.float32) for s, n in sizes.items()}
        for split, labels in self.y.items():
            assert labels is not None
            self.features[split][:, :10] += signal * (2.0 * labels[:, None] - 1)
        self.slides: dict[str, list[str]] = {s: [] for s in sizes}
        self.groups: list[tuple[str, int, int]] = []
        self.broken: list[tuple[str, int]] = []

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def paths(self, kind: str) -> dict[str, str]:
        return {split: self.path(f"{split}_{kind}") for split in FILE_SPLITS}

    def write(self) -> tuple[dict[str, str], dict[str, str], dict[str, str], str, list[str]]:
        """The first five arguments of audit_labels and audit_shift."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for split in FILE_SPLITS:
            write_labels(self.path(f"{split}_y.h5"), self.y[split], len(self.features[split]))
            write_csv(self.path(f"{split}_meta.csv"), ("", "wsi"), enumerate(self.slides[split]))
            np.save(self.path(f"{split}_features.npy"), self.features[split])
        write_csv(
            self.path("leakage_rows.csv"), LEAKAGE, [(s, row, "overlap", group, s, "") for s, row, group in self.groups]
        )
        half = len(self.broken) // 2
        for name, rows in (("poison", self.broken[:half]), ("storage", self.broken[half:])):
            write_csv(self.path(f"{name}_rows.csv"), ("split", "row", "kind"), [(*row, "blackout") for row in rows])
        broken = [self.path("poison_rows.csv"), self.path("storage_rows.csv")]
        return (
            self.paths("y.h5"),
            self.paths("meta.csv"),
            self.paths("features.npy"),
            self.path("leakage_rows.csv"),
            broken,
        )
