"""Three splits on disk and the whole audit stage over them, for the tests of the audits."""

from pathlib import Path

import numpy as np
from apply_policy import apply_policy
from audit_checksums import audit_checksums
from audit_leakage import audit_leakage
from audit_poison import audit_poison
from audit_storage import audit_storage
from survey_patches import survey_patches

from pcam import policy
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import read_csv, read_json, write_csv, write_json
from pcam.hdf5 import write_labels, write_patches

DROP = {
    **{kind: "keep" if kind in policy.SUSPICIONS else "drop" for kind in (*policy.DEFECTS, *policy.OF_SPLITS)},
    "float_storage": "convert",
}
PROVENANCE = {"rule": "test"}
META = ("wsi", "coord_y", "coord_x")


def tissue(n: int, seed: int) -> np.ndarray:
    """Independent textured patches."""
    return np.random.default_rng(seed).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


class Data:
    """Three splits on disk and the whole audit stage over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.x = {split: tissue(12, seed) for seed, split in enumerate(FILE_SPLITS)}
        self.meta: dict[str, list[tuple[str, float, float]]] = {}  # slide, coord_y, coord_x
        self.y: dict[str, np.ndarray | None] = {split: np.arange(12, dtype=np.uint8) % 2 for split in FILE_SPLITS}

    def path(self, split: str, part: str) -> str:
        return str(self.folder / pcam_filename(split, part))

    def paths(self, part: str) -> dict[str, str]:
        return {split: self.path(split, part) for split in FILE_SPLITS}

    def write(self) -> "Data":
        for split in FILE_SPLITS:
            write_patches(self.path(split, "x.h5"), self.x[split])
            write_labels(self.path(split, "y.h5"), self.y[split], len(self.x[split]))
            write_csv(self.path(split, "meta.csv"), META, self.meta.get(split, []))
        return self

    def result(self, name: str) -> str:
        return str(self.folder / "results" / name)

    def audit(self) -> "Data":
        pair = self.paths("x.h5"), self.paths("y.h5")
        metas, alone = self.paths("meta.csv"), {"processes": 1, "provenance": PROVENANCE}
        listed = {"rows_listed": 5, **alone}
        survey, leaking = self.result("survey"), self.result("leakage_rows.csv")
        audit_checksums(*pair, metas, None, self.result("checksums.json"), **alone)
        audit_storage(*pair, self.result("storage.json"), self.result("storage_rows.csv"), **listed)
        survey_patches(self.paths("x.h5"), survey, processes=1)
        audit_leakage(*pair, metas, survey, self.result("leakage.json"), leaking, **listed)
        audit_poison(*pair, survey, leaking, self.result("poison.json"), self.result("poison_rows.csv"), **listed)
        # What the cheap model says has tests of its own.
        write_csv(self.result("labels_rows.csv"), ("split", "row", "kind", "score"), [])
        write_json(self.result("shift.json"), {"findings": []})
        write_json(
            self.result("labels.json"), {"splits": {split: {"verdict": "none claimed"} for split in FILE_SPLITS}}
        )
        return self

    def judge(self, actions: dict | None = None, waive: dict | None = None) -> dict:
        apply_policy(
            self.paths("y.h5"),
            self.result("checksums.json"),
            *(self.result(f"{name}.json") for name in ("storage", "poison", "shift", "leakage", "labels")),
            [self.result(f"{name}_rows.csv") for name in ("poison", "storage", "leakage", "labels")],
            self.result("patches.csv"),
            self.result("verdicts.json"),
            policy=DROP if actions is None else actions,
            waive=waive or {},
            provenance=PROVENANCE,
        )
        return read_json(self.result("verdicts.json"))

    def rows(self, name: str, kind: str) -> set[tuple[str, int]]:
        table = read_csv(self.result(f"{name}_rows.csv"))
        return {(line["split"], int(line["row"])) for line in table if line["kind"] == kind}

    def findings(self, name: str, kind: str) -> list[dict]:
        return [found for found in read_json(self.result(f"{name}.json"))["findings"] if found["kind"] == kind]

    def dropped(self) -> set[tuple[str, int]]:
        table = read_csv(self.result("patches.csv"))
        return {(line["split"], int(line["row"])) for line in table if line["keep"] == "0"}

    def defects(self) -> dict[tuple[str, int], str]:
        table = read_csv(self.result("patches.csv"))
        return {(line["split"], int(line["row"])): line["defects"] for line in table if line["defects"]}


def windows(seed: int, places: list[tuple[int, int]], canvas: np.ndarray | None = None) -> np.ndarray:
    """Patches cut from one textured canvas; places in pixels."""
    if canvas is None:
        canvas = np.random.default_rng(seed).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    return np.stack([canvas[top : top + 96, left : left + 96] for top, left in places])
