"""Compare the splits: share of tumour, colour and texture, whether a model tells them apart, slides and hospitals.

Reads:  y and meta CSV of the three file splits, the features of their patches, the rows that other audits list.
Writes: findings of kinds prior_shift and covariate_shift, one a pair of splits, and what they rest on, as JSON.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pcam.cases import Cases, read_cases
from pcam.facts import COURSE_LABEL_COUNTS, FILE_SPLITS, LABEL_COUNTS, hospital_of
from pcam.files import write_json
from pcam.metrics import wilson_interval
from pcam.settings import ShiftSettings, from_mapping
from pcam.shift import compare_shares, compare_splits
from pcam.stage import run_stage

LEAST_PRIOR_SHIFT = 0.05  # difference in the share of tumour from which on it is called a shift
PAIRS = tuple(combinations(range(len(FILE_SPLITS)), 2))


def share_of_tumour(split: str, labels: np.ndarray | None) -> dict[str, Any] | None:
    """Counts of a file's labels, all of them, and which published counts they equal."""
    if labels is None:
        return None
    counts = tuple(np.bincount(labels, minlength=2).tolist())
    same = [
        *(f"PatchCamelyon {name}" for name, known in LABEL_COUNTS.items() if counts == known),
        *(f"the course's {name} file" for name, known in COURSE_LABEL_COUNTS.items() if counts == known),
    ]
    if split in COURSE_LABEL_COUNTS and counts == COURSE_LABEL_COUNTS[split]:
        same.append(f"every negative of PatchCamelyon {split} and a fifth of its positives")
    n, tumours = sum(counts), counts[1]
    return {
        "n": n,
        "tumours": tumours,
        "share": tumours / n,
        "interval": list(wilson_interval(tumours, n)),
        "counts_equal": same,
    }


def finding(kind: str, splits: list[str], n: list[int], p: float | None, level: float, effect: float | None) -> dict:
    """One pair of splits: `found` is None when it cannot be told."""
    found = None if p is None else p <= level
    return {"kind": kind, "splits": splits, "n": n, "p": p, "level": level, "effect": effect, "found": found}


def slides_of(cases: Cases) -> dict[str, Any]:
    """Slides and hospitals by split, and slides that stand in two splits; of sound patches whose slide is known."""
    slides = {split: Counter(cases.slide[cases.split == k].tolist()) for k, split in enumerate(FILE_SPLITS)}
    known = {split: {name: n for name, n in each.items() if name} for split, each in slides.items()}
    hospitals: dict[str, Counter[str]] = {split: Counter() for split in known}
    for split, each in known.items():
        for name, n in each.items():
            hospitals[split][hospital_of(name) or "unknown"] += n
    return {
        "known": any(known.values()),
        "slides": {split: len(each) for split, each in known.items()},
        "patches_with_slide": {split: sum(each.values()) for split, each in known.items()},
        "hospitals": {split: dict(sorted(each.items())) for split, each in hospitals.items()},
        "shared": {
            f"{FILE_SPLITS[a]}-{FILE_SPLITS[b]}": sorted(set(known[FILE_SPLITS[a]]) & set(known[FILE_SPLITS[b]]))
            for a, b in PAIRS
        },
    }


def audit_shift(
    y_files: Mapping[str, str],
    meta_files: Mapping[str, str],
    feature_files: Mapping[str, str],
    leakage_path: str,
    broken_paths: Sequence[str],
    findings_path: str,
    *,
    settings: ShiftSettings,
    provenance: Mapping[str, object],
) -> None:
    """`settings.level` is shared by the three pairs of each kind."""
    cases = read_cases(y_files, meta_files, feature_files, leakage_path, broken_paths)
    level = settings.level / len(PAIRS)
    prior = {split: share_of_tumour(split, cases.labels[split]) for split in FILE_SPLITS}
    found, shares, pairs = [], [], []
    for a, b in PAIRS:
        names = [FILE_SPLITS[a], FILE_SPLITS[b]]
        one, other = (prior[name] for name in names)
        if one is not None and other is not None:
            test = compare_shares((one["tumours"], other["tumours"]), (one["n"], other["n"]))
            shares.append({"splits": names, **test})
            found.append(finding("prior_shift", names, test["n"], test["p"], level, test["difference"]))
            # Slides differ in their share of tumour without anybody's doing: a small difference shifts nothing.
            found[-1]["found"] = bool(found[-1]["found"] and abs(test["difference"]) >= LEAST_PRIOR_SHIFT)
        else:
            known = [0 if side is None else side["n"] for side in (one, other)]
            found.append(finding("prior_shift", names, known, None, level, None))
        pair = compare_splits(cases, a, b, settings, level)
        pairs.append(pair)
        seen = pair["two_sample"] or {"p": None, "roc_auc": None}
        found.append(finding("covariate_shift", names, pair["n"], seen["p"], level, seen["roc_auc"]))
    write_json(
        findings_path,
        {
            "provenance": provenance,
            "findings": found,
            "method": {
                "grouped_by": cases.grouped_by,
                "patches_per_split": settings.patches,
                "folds": settings.folds,
                "level": settings.level,
                "level_of_one_pair": level,
                "excluded": cases.excluded,
            },
            "prior": {"splits": prior, "pairs": shares},
            "pairs": pairs,
            "slides": slides_of(cases),
        },
    )
    for each in found:
        print(
            f"{each['kind']} {'-'.join(each['splits'])}: found {each['found']}, p {each['p']}, effect {each['effect']}"
        )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_shift(
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_meta"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_features"] for split in FILE_SPLITS},
            snakemake.input.leakage,
            [snakemake.input.poison, snakemake.input.storage],
            snakemake.output.findings,
            settings=from_mapping(ShiftSettings, snakemake.params.settings),
            provenance=provenance,
        )
