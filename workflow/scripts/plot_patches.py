"""Show clean patches of both classes and examples of every kind of poison that was found, in their own colours.

Leaks show in pairs (plot_leakage), suspicious labels beside what speaks against them (plot_poison).

Reads: the x file of each split; results/audit/patches.csv.
Writes: results/assets/patches.png and its caption.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from pcam.facts import FILE_SPLITS
from pcam.figures import drawing, grid_size_in, patch_grid, write_caption
from pcam.files import read_csv
from pcam.hdf5 import PatchReader
from pcam.policy import LEAKS
from pcam.stage import run_stage

COLUMNS = 8
NOTES = {
    "non_finite": "not-a-number shown as black",
    "out_of_range": "values above 255 shown as 255",
}
BLANK = {"blackout", "washout", "constant"}
ELSEWHERE = {"exact_duplicate", "label_suspect", *LEAKS}

Row = Mapping[str, str]


def spread(rows: Sequence[Row], count: int) -> list[Row]:
    """`count` rows at even distances, so that the examples come from the whole split."""
    if len(rows) <= count:
        return list(rows)
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).astype(int)]


def telling(kind: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Rows that show the kind itself: a black patch says nothing about duplicates as long as there are others."""
    if kind in BLANK:
        return rows
    return [row for row in rows if not BLANK & set(row["defects"].split(";"))] or rows


def groups_of(patches: Sequence[Row]) -> dict[str, list[Row]]:
    """Heading to rows: clean by class, then every defect that one patch shows, most frequent first."""
    clean = [row for row in patches if not set(row["defects"].split(";")) - {"", *ELSEWHERE}]
    kinds = Counter(kind for row in patches for kind in row["defects"].split(";") if kind and kind not in ELSEWHERE)
    groups = {
        "no finding, no tumour (label 0)": [row for row in clean if row["label"] == "0"],
        "no finding, tumour (label 1)": [row for row in clean if row["label"] == "1"],
    }
    for kind, _ in sorted(kinds.items(), key=lambda item: (-item[1], item[0])):
        groups[kind] = [row for row in patches if kind in row["defects"].split(";")]
    return groups


def plot_patches(x_paths: Mapping[str, str], patches_path: str, png: str, caption: str, *, label: str) -> None:
    """Draw a row of examples per kind. Raises: InputError when a file is missing or damaged."""
    patches = read_csv(patches_path, ("split", "row", "label", "defects"))
    groups = groups_of(patches)
    shown = []
    with ExitStack() as stack:
        readers = {split: stack.enter_context(PatchReader(x_paths[split])) for split in FILE_SPLITS}

        def example(row: Row) -> tuple[np.ndarray, str]:
            number = int(row["row"])
            return readers[row["split"]].read(number, number + 1)[
                0
            ], f"{row['split']} {number}, label {row['label'] or '?'}"

        for kind, rows in groups.items():
            note = f"; {NOTES[kind]}" if kind in NOTES else ""
            heading = f"{kind.replace('_', ' ')}: {len(rows):,} patch{'' if len(rows) == 1 else 'es'}{note}"
            shown.append((heading, [example(row) for row in spread(telling(kind, rows), COLUMNS)]))
    with drawing(png, label, *grid_size_in(len(shown), COLUMNS)) as figure:
        patch_grid(figure, shown)
    clean = sum(len(rows) for rows in list(groups.values())[:2])
    found = ", ".join(f"{kind.replace('_', ' ')} {len(rows):,}" for kind, rows in list(groups.items())[2:])
    write_caption(
        caption,
        [
            "Patches in their own colours, at even distances through the files; below each its split, row and label.",
            f"{len(patches) - clean:,} of {len(patches):,} patches carry a finding beside leaks and doubted labels"
            + (f" ({found})." if found else "."),
        ],
        label,
    )


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_patches(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            snakemake.input.patches,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
