"""Find patches that stand in the data more than once: the same picture in any form, the same tissue, the same place.

Reads:  x, y and meta of the three file splits; the survey.
Writes: findings, pairs, groups and examples as JSON, and every leaking row as CSV
        (split,row,kind,group,partner_splits,content): `group` is the component over all pairs that pixels prove,
        `content` the number of the set of pixel-identical patches, both over all splits and empty where there is none.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam import slides
from pcam.audits import check_splits, findings
from pcam.facts import FILE_SPLITS
from pcam.files import write_csv, write_json
from pcam.leakage import DUPLICATES, PIXEL_KINDS, class_mix, clusters, examples, find_leakage
from pcam.overlaps import LARGEST_SHIFT_PX
from pcam.stage import run_stage
from pcam.survey import ANCHOR_SHARE, TEXTURE_STEP, open_survey

COLUMNS = ("split", "row", "kind", "group", "partner_splits", "content")


def numbered(sets: np.ndarray) -> list[int | None]:
    """For each patch the number of its set when that has two members or more; sets are counted from 0 in order."""
    _, inverse, counts = np.unique(sets, return_inverse=True, return_counts=True)
    number = np.cumsum(counts > 1) - 1
    return [int(number[i]) if counts[i] > 1 else None for i in inverse]


def audit_leakage(
    x_files: Mapping[str, str],
    y_files: Mapping[str, str],
    meta_files: Mapping[str, str],
    survey_path: str,
    findings_path: str,
    rows_path: str,
    *,
    rows_listed: int,
    processes: int,
    provenance: Mapping[str, object],
) -> None:
    """Look for every kind within and across splits."""
    splits = check_splits(x_files, y_files)
    survey = open_survey(survey_path)
    sizes = {split: splits[split][0] for split in FILE_SPLITS}
    labels = np.concatenate([np.full(n, -1, np.int8) if y is None else y.astype(np.int8) for n, y in splits.values()])
    leakage = find_leakage(survey, labels, x_files, processes=processes)
    places = slides.read_places(meta_files, sizes)
    unit, measured_on = slides.pixel_unit(places, leakage.overlaps)
    near = slides.coordinate_pairs(places, unit)
    meta_flags, meta_partners = slides.meta_leakage(places, survey.split, near)
    flags, partners = leakage.flags | meta_flags, leakage.partners | meta_partners
    comparable = survey.patches.lossless & ~survey.patches.uniform
    compared, confirmed = slides.confirmed_share(near, leakage.overlaps, leakage.content, comparable)

    names: list[list[Any]] = [[split, row] for split in FILE_SPLITS for row in range(sizes[split])]
    content = numbered(leakage.content)
    group = [None if number < 0 else number for number in leakage.group.tolist()]
    found: list[dict[str, Any]] = []
    table: list[tuple[Any, ...]] = []
    for kind in (*PIXEL_KINDS, *slides.META_KINDS):
        for at, split in enumerate(FILE_SPLITS):
            mine = flags[kind] & (survey.split == at)
            blank = {"of_which_blank": survey.row[mine & leakage.blank]} if kind in DUPLICATES else {}
            n, known = splits[split]
            found += findings(kind, split, survey.row[mine], known, n, rows_listed, blank)
        for i in np.flatnonzero(flags[kind]).tolist():
            bits = int(partners[kind][i])
            told = ";".join(name for bit, name in enumerate(FILE_SPLITS) if bits >> bit & 1)
            table.append((*names[i], kind, group[i], told, content[i]))
    where = [f"{one}-{other}" for k, one in enumerate(FILE_SPLITS) for other in FILE_SPLITS[k:]]
    group_sizes = np.bincount(np.bincount(leakage.group[leakage.group >= 0]))
    document = {
        "provenance": provenance,
        "findings": found,
        "method": {
            "largest_shift_px": LARGEST_SHIFT_PX,
            "anchor_share": ANCHOR_SHARE,
            "texture_step": TEXTURE_STEP,
            "patches_compared": int(comparable.sum()),
            "slides_known": int((places.slide >= 0).sum()),
            "splits_with_slides": slides.known_splits(places.slide >= 0, survey.split),
            "splits_with_coordinates": slides.known_splits(np.isfinite(places.at).all(axis=1), survey.split),
        },
        "coordinates": {
            "unit_per_px": unit,
            "unit_measured_on": measured_on,
            "pairs": len(near),
            "pairs_comparable": compared,
            "pairs_confirmed": confirmed,
        },
        "pairs": {k: dict(zip(where, m[np.triu_indices(3)].tolist(), strict=True)) for k, m in leakage.counts.items()},
        "class_mix": {kind: class_mix(pairs, labels) for kind, pairs in leakage.pairs.items()},
        "group_sizes": {str(size): int(group_sizes[size]) for size in np.flatnonzero(group_sizes)},
        "clusters": clusters(leakage, survey, labels, names),
        "examples": examples(leakage, survey.split, names),
    }
    write_csv(rows_path, COLUMNS, table)
    write_json(findings_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        audit_leakage(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_y"] for split in FILE_SPLITS},
            {split: snakemake.input[f"{split}_meta"] for split in FILE_SPLITS},
            snakemake.input.survey,
            snakemake.output.findings,
            snakemake.output.rows,
            rows_listed=snakemake.params.rows_listed,
            processes=snakemake.threads,
            provenance=provenance,
        )
