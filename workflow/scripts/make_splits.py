"""Make the tables of the clean splits; carve a labelled test split from valid where none was handed out.

Reads: patches.csv (keep, labels), leakage_rows.csv (groups of shared tissue), meta CSVs (slides), gate.json (by order).
Writes: {train,valid,test,unlabelled}.csv with row, label, slide, group; splits.json with counts.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pcam.cheap_model import joined_units
from pcam.facts import FILE_SPLITS
from pcam.files import InputError, read_csv, write_csv, write_json
from pcam.stage import run_stage

COLUMNS = ("row", "label", "slide", "group")


@dataclass(frozen=True)
class Patch:
    row: int
    label: int | None
    slide: str
    group: str


def carve_test(patches: list[Patch], fraction: float, seed: int) -> tuple[list[Patch], list[Patch]]:
    """Divide labelled patches into (valid, test), stratified by class.

    Slides and groups of shared tissue stay whole. Units are taken in a seeded order, each that brings the class counts
    of test nearer to their share.
    """
    units: defaultdict[str, list[Patch]] = defaultdict(list)
    slides, groups = (np.array([getattr(patch, key) for patch in patches], str) for key in ("slide", "group"))
    for patch, unit in zip(patches, joined_units(slides, groups), strict=True):
        units[str(unit)].append(patch)
    target = fraction * np.bincount([patch.label for patch in patches], minlength=2)
    taken = np.zeros(2)
    test: list[Patch] = []
    names = sorted(units)
    for index in np.random.default_rng(seed).permutation(len(names)):
        unit = units[names[index]]
        counts = np.bincount([patch.label for patch in unit], minlength=2)
        if np.sum((taken + counts - target) ** 2) < np.sum((taken - target) ** 2):
            taken += counts
            test += unit
    chosen = {patch.row for patch in test}
    return [p for p in patches if p.row not in chosen], sorted(test, key=lambda p: p.row)


def kept_patches(
    table: list[dict[str, str]], slides: Mapping[tuple[str, int], str], groups: Mapping[tuple[str, int], str]
) -> dict[str, list[Patch]]:
    """Kept patches of each file split, by row."""
    kept: dict[str, list[Patch]] = {split: [] for split in FILE_SPLITS}
    for line in table:
        if line["keep"] == "1":
            key = (line["split"], int(line["row"]))
            label = int(line["label"]) if line["label"] else None
            kept[line["split"]].append(Patch(key[1], label, slides.get(key, ""), groups.get(key, "")))
    return kept


def read_slides(meta_paths: Mapping[str, str], patches: Mapping[str, int]) -> dict[tuple[str, int], str]:
    """Slide of each patch where a meta CSV is at hand.

    Raises: InputError when a meta CSV describes another number of patches, because its rows would name other slides.
    """
    for split, path in meta_paths.items():
        n = len(read_csv(path, ("wsi",)))
        if n not in (0, patches[split]):
            raise InputError(f"{path}: {n} rows for {patches[split]} patches; take the CSV that belongs to this x file")
    return {
        (split, row): line["wsi"]
        for split, path in meta_paths.items()
        for row, line in enumerate(read_csv(path, ("wsi",)))
    }


def make_splits(
    patches_path: str,
    leakage_path: str,
    meta_paths: Mapping[str, str],
    split_paths: Mapping[str, str],
    summary_path: str,
    *,
    test_fraction: float,
    split_seed: int,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when a split would be empty or hold one class only."""
    groups = {
        (g["split"], int(g["row"])): g["group"] for g in read_csv(leakage_path, ("split", "row", "group")) if g["group"]
    }
    table = read_csv(patches_path, ("split", "row", "label", "keep"))
    kept = kept_patches(table, read_slides(meta_paths, Counter(line["split"] for line in table)), groups)
    carved = any(patch.label is None for patch in kept["test"])
    splits = {"train": kept["train"], "valid": kept["valid"], "test": kept["test"], "unlabelled": []}
    files = {"train": "train", "valid": "valid", "test": "test", "unlabelled": "test"}
    if carved:
        splits["unlabelled"] = kept["test"]
        splits["valid"], splits["test"] = carve_test(kept["valid"], test_fraction, split_seed)
        files["test"] = "valid"
        print(f"no test labels at hand: {len(splits['test'])} patches of valid become the labelled test split")
    for name in FILE_SPLITS:
        classes = {patch.label for patch in splits[name]}
        if classes != {0, 1}:
            found = f"only label {classes.pop()}" if classes else "no patch"
            raise InputError(
                f"{patches_path}: {found} left for split {name} after cleaning; see results/audit/verdicts.json"
            )
    summary: dict[str, object] = {"test_carved_from_valid": carved, "provenance": provenance}
    for name, patches in splits.items():
        write_csv(split_paths[name], COLUMNS, ((p.row, p.label, p.slide, p.group) for p in patches))
        summary[name] = {
            "file": files[name],
            "n": len(patches),
            "positives": sum(patch.label == 1 for patch in patches),
            "slides": len({patch.slide for patch in patches if patch.slide}),
            "groups": len({patch.group for patch in patches if patch.group}),
        }
        print(f"{name}: {summary[name]}")
    write_json(summary_path, summary)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        make_splits(
            snakemake.input.patches,
            snakemake.input.leakage,
            {split: snakemake.input[f"{split}_meta"] for split in FILE_SPLITS},
            {split: snakemake.output[split] for split in ("train", "valid", "test", "unlabelled")},
            snakemake.output.summary,
            test_fraction=snakemake.params.test_fraction,
            split_seed=snakemake.params.split_seed,
            provenance=provenance,
        )
