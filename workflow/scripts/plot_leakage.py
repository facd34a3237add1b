"""Show pairs of patches of every kind of leak side by side, shared tissue outlined, and the largest groups.

Reads: the x file of each split; results/audit/leakage.json; results/audit/patches.csv for label and fate.
Writes: results/assets/leakage.png and its caption.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pcam.damage import shared_parts
from pcam.facts import FILE_SPLITS
from pcam.figures import drawing, grid_size_in, outline, patch_grid, undefined_note, write_caption
from pcam.files import read_csv, read_json
from pcam.hdf5 import PatchReader
from pcam.stage import run_stage

PAIRS = 4  # of each kind
COLUMNS = 2 * PAIRS
GROUPS = 4
SHOWN_FIRST = ("train-test", "valid-test", "train-valid")  # what leaks into a verdict comes first

Name = Sequence[Any]  # [split, row]


def across(example: Mapping[str, Any]) -> int:
    """Rank of a pair: those that stand across splits first."""
    where = "-".join(sorted((example["a"][0], example["b"][0]), key=FILE_SPLITS.index))
    return SHOWN_FIRST.index(where) if where in SHOWN_FIRST else len(SHOWN_FIRST)


def chosen_pairs(examples: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Up to PAIRS examples of each kind, those across splits first."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for example in examples:
        by_kind.setdefault(example["kind"], []).append(example)
    return {kind: sorted(some, key=across)[:PAIRS] for kind, some in by_kind.items()}


def heading_of_pairs(kind: str, pairs: Mapping[str, int]) -> str:
    """Such as "overlap: 19 pairs, 12 across splits"."""
    crossing = sum(n for where, n in pairs.items() if len(set(where.split("-"))) > 1)
    note = "; framed: the tissue that the two share" if kind == "overlap" else ""
    return f"{kind.replace('_', ' ')}: {sum(pairs.values()):,} pairs, {crossing:,} across splits{note}"


def heading_of_group(cluster: Mapping[str, Any]) -> str:
    splits = ", ".join(f"{split} {n:,}" for split, n in cluster["splits"].items())
    names = {"0": "no tumour", "1": "tumour", "unknown": "label unknown"}
    classes = ", ".join(f"{names[label]} {n:,}" for label, n in sorted(cluster["classes"].items()))
    return f"a group of {cluster['size']:,} patches that share pixels ({splits}; {classes})"


def frame_shared(pair: tuple[Axes, Axes], shift: tuple[int, int]) -> None:
    """Outline in both patches what they share, when the second lies `shift` (dy, dx) pixels from the first."""
    for axes, (rows, columns) in zip(pair, shared_parts(*shift), strict=True):
        outline(axes, rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start)


def told(leakage: Mapping[str, Any]) -> str:
    """The finding as the caption states it."""
    crossing = {
        kind: sum(n for where, n in pairs.items() if len(set(where.split("-"))) > 1)
        for kind, pairs in leakage["pairs"].items()
    }
    every = sum(sum(pairs.values()) for pairs in leakage["pairs"].values())
    if not every:
        return "No two patches share pixels."
    kinds = ", ".join(f"{kind.replace('_', ' ')} {n:,}" for kind, n in crossing.items() if n)
    across_splits = f"{sum(crossing.values()):,} of them across splits ({kinds})" if kinds else "none across splits"
    largest = max(int(size) for size in leakage["group_sizes"])
    return f"{every:,} pairs of patches share pixels, {across_splits}; the largest group holds {largest:,} patches."


def plot_leakage(
    x_paths: Mapping[str, str], leakage_path: str, patches_path: str, png: str, caption: str, *, label: str
) -> None:
    """Draw pairs by kind, then groups. Raises: InputError when a file is missing or damaged."""
    leakage = read_json(leakage_path)
    pairs, clusters = chosen_pairs(leakage["examples"]), leakage["clusters"][:GROUPS]
    shown = {tuple(name) for some in pairs.values() for pair in some for name in (pair["a"], pair["b"])}
    shown |= {tuple(name) for cluster in clusters for name in cluster["members"]}
    fate: dict[tuple[str, int], str] = {}
    for row in read_csv(patches_path, ("split", "row", "label", "keep")):
        name = row["split"], int(row["row"])
        if name in shown:
            fate[name] = f"label {row['label'] or '?'}, {'kept' if row['keep'] == '1' else 'dropped'}"
    with ExitStack() as stack:
        readers = {split: stack.enter_context(PatchReader(x_paths[split])) for split in FILE_SPLITS}

        def drawn(name: Name) -> tuple[np.ndarray, str]:
            split, row = name
            return readers[split].read(row, row + 1)[0], f"{split} {row}\n{fate[split, row]}"

        of_pairs = [
            (heading_of_pairs(kind, leakage["pairs"][kind]), [drawn(p[side]) for p in some for side in ("a", "b")])
            for kind, some in pairs.items()
        ]
        of_groups = [(heading_of_group(c), [drawn(name) for name in c["members"][:COLUMNS]]) for c in clusters]
    lines = len(of_pairs) + len(of_groups)
    with drawing(png, label, *grid_size_in(lines, COLUMNS)) as figure:
        if not lines:
            undefined_note(figure.subplots(), "no two patches share pixels")
        grid = patch_grid(figure, of_pairs, paired=True)
        patch_grid(figure, of_groups, first_line=len(of_pairs))
        for some, axes in zip(pairs.values(), grid, strict=True):
            for i, pair in enumerate(some):
                if "shift_px" in pair:
                    frame_shared((axes[2 * i], axes[2 * i + 1]), pair["shift_px"])
    write_caption(
        caption,
        [
            told(leakage),
            "Pairs stand side by side in their own colours, those across splits first where the audit lists any; "
            "below each patch its split, row and label, and what the policy did.",
        ],
        label,
    )


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_leakage(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            snakemake.input.leakage,
            snakemake.input.patches,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
