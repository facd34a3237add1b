"""Find patches that are damaged or made up, and damage that goes with the class.

Reads:  x and y of the three file splits; the survey; the groups of the leakage audit.
Writes: findings, stamps and damage by class as JSON, and every poisoned row as CSV (split,row,kind).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.audits import check_splits, findings
from pcam.facts import FILE_SPLITS
from pcam.files import read_csv, write_csv, write_json
from pcam.poison import POISON_KINDS, Poison, damage_by_class, find_poison
from pcam.stage import run_stage
from pcam.stamps import RECURRENCES
from pcam.survey import open_survey

Name = list[Any]  # [split, row]


def read_groups(leakage_path: str, sizes: Mapping[str, int]) -> np.ndarray:
    """(N,) group of each patch in the leakage audit's table, -1 for none."""
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    group = np.full(sum(sizes.values()), -1)
    for line in read_csv(leakage_path, ("split", "row", "group")):
        if line["group"]:
            group[starts[line["split"]] + int(line["row"])] = int(line["group"])
    return group


def describe_stamps(poison: Poison, labels: np.ndarray, names: list[Name], rows_listed: int) -> list[dict[str, Any]]:
    """Each stamp: its size, its pixels, how many patches bear it, where (top, left), and in which class."""
    told = []
    for number, stamp in enumerate(poison.stamps):
        bearers = np.flatnonzero(poison.marks[:, 0] == number)
        places = np.unique(poison.marks[bearers, 1:], axis=0)
        told.append(
            {
                "height": stamp.block.shape[0],
                "width": stamp.block.shape[1],
                "flat": stamp.flat,
                "pixels": stamp.block.tolist(),
                "patches": len(bearers),
                "places": len(places),
                "place": places[0].tolist() if len(places) == 1 else None,
                "classes": {str(label): int((labels[bearers] == label).sum()) for label in (0, 1)},
                "rows": [names[i] for i in bearers[:rows_listed].tolist()],
                "corners": poison.marks[bearers[:rows_listed], 1:].tolist(),
            }
        )
    return told


def audit_poison(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    survey_path: str,
    leakage_path: str,
    findings_path: str,
    rows_path: str,
    *,
    rows_listed: int,
    processes: int,
    provenance: Mapping[str, object],
) -> None:
    """Look for every kind of POISON_KINDS in every split; a finding lists at most `rows_listed` rows."""
    splits = check_splits(x_files, y_files)
    survey = open_survey(survey_path)
    sizes = {split: splits[split][0] for split in FILE_SPLITS}
    labels = np.concatenate([np.full(n, -1, np.int8) if y is None else y.astype(np.int8) for n, y in splits.values()])
    poison = find_poison(survey, labels, read_groups(leakage_path, sizes), x_files, processes=processes)

    names: list[Name] = [[split, row] for split in FILE_SPLITS for row in range(sizes[split])]
    found: list[dict[str, Any]] = []
    for kind in POISON_KINDS:
        for at, split in enumerate(FILE_SPLITS):
            n, known = splits[split]
            found += findings(kind, split, survey.row[poison.flags[kind] & (survey.split == at)], known, n, rows_listed)
    table = [
        (*names[i], kind)
        for i in np.flatnonzero(np.any(list(poison.flags.values()), axis=0)).tolist()
        for kind in POISON_KINDS
        if poison.flags[kind][i]
    ]
    by_class = damage_by_class(poison.flags, labels, survey.split)
    write_csv(rows_path, ("split", "row", "kind"), table)
    stamps = describe_stamps(poison, labels, names, rows_listed)
    document = {
        "provenance": provenance,
        "findings": found,
        "method": {"recurrences": RECURRENCES, "stamp_share_seen": poison.stamp_share_seen},
        "stamps": stamps,
        "by_class": by_class,
    }
    write_json(findings_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_poison(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            snakemake.input.survey,
            snakemake.input.leakage_rows,
            snakemake.output.findings,
            snakemake.output.rows,
            rows_listed=snakemake.params.rows_listed,
            processes=snakemake.threads,
            provenance=provenance,
        )
