"""Find labels that contradict a cheap model out of fold, and measure on these very data what that finds.

Reads:  y and meta CSV of the three file splits, the features of their patches, the rows that other audits list.
Writes: findings of kind label_suspect, what they rest on and what planted flips show, as JSON; every suspect as CSV
        (split,row,kind,score), the score being the probability of the class that the patch does not carry.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from pcam.audits import findings
from pcam.cases import read_cases
from pcam.cheap_model import FIT_LIMIT, INVERSE_REGULARISATION
from pcam.facts import CLASSES, FILE_SPLITS
from pcam.features import FEATURES
from pcam.files import write_csv, write_json
from pcam.labels import (
    TOGETHER,
    cut_offs,
    judge_splits,
    level_of_test,
    logits_out_of_fold,
    score_plantings,
    smallest_rate,
    suspects,
    suspicion,
)
from pcam.settings import LabelSettings, from_mapping
from pcam.stage import run_stage

KIND = "label_suspect"
COLUMNS = ("split", "row", "kind", "score")


def audit_labels(
    y_files: Mapping[str, str],
    meta_files: Mapping[str, str],
    feature_files: Mapping[str, str],
    leakage_path: str,
    broken_paths: Sequence[str],
    findings_path: str,
    rows_path: str,
    *,
    settings: LabelSettings,
    rows_listed: int,
    provenance: Mapping[str, object],
) -> None:
    """Suspects are listed only of splits and classes where flips are claimed; a finding lists at most `rows_listed`."""
    every = read_cases(y_files, meta_files, feature_files, leakage_path, broken_paths)
    cases = every.chosen(every.label >= 0)
    logits = logits_out_of_fold(cases, cases.label, settings)
    judged, together = judge_splits(cases, logits, settings)
    planted = [] if logits is None else [score_plantings(cases, rate, settings) for rate in settings.rates]
    score = np.zeros(len(cases.label)) if logits is None else suspicion(cases.label, logits)
    candidate = np.zeros(len(cases.label), bool) if logits is None else suspects(cases.label, logits)

    found, suspect = [], np.zeros(len(cases.label), bool)
    for k, split in enumerate(FILE_SPLITS):
        for label, entry in judged[split]["classes"].items():
            mine = candidate & (cases.split == k) & (cases.label == int(label))
            suspect |= mine & entry["claimed"]
            entry["candidates"] = int(mine.sum())
        known = cases.labels[split]
        if known is not None:
            rows = cases.row[suspect & (cases.split == k)]
            own = findings(KIND, split, rows, known, len(known), rows_listed)
            found += [{**each, "verdict": judged[split]["verdict"]} for each in own]
    for name, entry in {**judged, TOGETHER: together}.items():
        entry["smallest_rate_seen"] = smallest_rate(planted, name)
    listed = np.argsort(-score, kind="stable")[: rows_listed if logits is not None else 0]
    document = {
        "provenance": provenance,
        "findings": found,
        "method": {
            "model": "logistic regression on shares of colours, gradients, curvatures and grain sizes",
            "features": FEATURES,
            "inverse_regularisation": INVERSE_REGULARISATION,
            "fitted_to_at_most": FIT_LIMIT,
            "folds": settings.folds,
            "grouped_by": cases.grouped_by,
            "units": len(np.unique(cases.unit)),
            "level": settings.level,
            "level_of_one_test": level_of_test(cases, settings),
            "least_rate": settings.least_rate,
            "smallest_rate_seen": "least planted rate from which on every planting led to the claim",
        },
        "cut_off": None if logits is None else dict(zip(map(str, CLASSES), cut_offs(cases.label, logits), strict=True)),
        "splits": judged,
        "together": together,
        "planted": planted,
        "most_suspicious": [
            {
                "split": FILE_SPLITS[cases.split[i]],
                "row": int(cases.row[i]),
                "label": int(cases.label[i]),
                "score": float(score[i]),
            }
            for i in listed
        ],
    }
    table = [(FILE_SPLITS[cases.split[i]], int(cases.row[i]), KIND, float(score[i])) for i in np.flatnonzero(suspect)]
    write_csv(rows_path, COLUMNS, table)
    write_json(findings_path, document)
    for split, entry in judged.items():
        print(f"{split}: {entry['verdict']} among {entry['n']} patches ({entry['reason']})")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_labels(
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_meta"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_features"] for split in FILE_SPLITS},
            snakemake.input.leakage,
            [snakemake.input.poison, snakemake.input.storage],
            snakemake.output.findings,
            snakemake.output.rows,
            settings=from_mapping(LabelSettings, snakemake.params.settings),
            rows_listed=snakemake.params.rows_listed,
            provenance=provenance,
        )
