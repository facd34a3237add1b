"""Find patches whose values are no picture: NaN and infinity, values outside 0..255, one colour all over.

Reads:  x and y of the three file splits.
Writes: findings as JSON, and every poisoned row as CSV (split,row,kind).
"""

from collections.abc import Mapping

import numpy as np

from pcam.audits import POISON_KINDS, check_splits, findings, look, poison_masks
from pcam.facts import FILE_SPLITS
from pcam.files import write_csv, write_json
from pcam.hdf5 import PatchReader
from pcam.stage import run_stage


def poisoned_rows(x_path: str) -> dict[str, np.ndarray]:
    """Rows of one x file by kind of poison, ascending."""
    rows: dict[str, list[np.ndarray]] = {kind: [] for kind in POISON_KINDS}
    with PatchReader(x_path) as reader:
        for start, patches in reader.chunks():
            for kind, mask in poison_masks(look(patches)).items():
                rows[kind].append(start + np.flatnonzero(mask))
    return {kind: np.concatenate(parts) for kind, parts in rows.items()}


def audit_poison(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    findings_path: str,
    rows_path: str,
    *,
    rows_listed: int,
    provenance: Mapping[str, object],
) -> None:
    """Look for every kind of poison in every split; a finding lists at most `rows_listed` rows."""
    splits = check_splits(x_files, y_files)
    found, table = [], []
    for split in FILE_SPLITS:
        n, labels = splits[split]
        rows = poisoned_rows(x_files[split])
        for kind in POISON_KINDS:
            found += findings(kind, split, rows[kind], labels, n, rows_listed)
        table += sorted(
            (int(row), POISON_KINDS.index(kind), split, kind) for kind in POISON_KINDS for row in rows[kind]
        )
    write_csv(rows_path, ("split", "row", "kind"), ((split, row, kind) for row, _, split, kind in table))
    write_json(findings_path, {"provenance": provenance, "findings": found})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_poison(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            snakemake.output.findings,
            snakemake.output.rows,
            rows_listed=snakemake.params.rows_listed,
            provenance=provenance,
        )
