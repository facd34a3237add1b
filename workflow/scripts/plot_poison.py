"""Show every stamped block enlarged beside patches that bear it, and the patches whose labels are most contradicted.

Reads: the x file of each split; results/audit/poison.json and labels.json.
Writes: results/assets/poison.png and its caption.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from pcam.facts import FILE_SPLITS
from pcam.figures import drawing, grid_size_in, outline, patch_grid, undefined_note, write_caption
from pcam.files import read_json
from pcam.hdf5 import PatchReader
from pcam.stage import run_stage

COLUMNS = 8
STAMPS = 6
FRAME_PX = 3  # between a stamp and its frame, which would cover it
SUSPECT_ROWS = 2  # rows of the most suspicious labels


def heading_of_stamp(stamp: Mapping[str, Any]) -> str:
    what = f"stamp of {stamp['height']} × {stamp['width']} pixels, {'one colour' if stamp['flat'] else 'textured'}"
    place = "always at one place" if stamp["place"] else f"at {stamp['places']:,} places"
    classes = f"no tumour {stamp['classes']['0']:,}, tumour {stamp['classes']['1']:,}"
    return f"{what}: {stamp['patches']:,} patches, {place} ({classes})"


def verdict_words(labels: Mapping[str, Any]) -> str:
    """Where flips are claimed, for heading and caption."""
    claimed = [split for split, entry in labels["splits"].items() if entry["verdict"] == "flips"]
    return f"flips are claimed in {' and '.join(claimed)}" if claimed else "flips are claimed in no split"


def told(poison: Mapping[str, Any], labels: Mapping[str, Any]) -> list[str]:
    """What the caption states."""
    stamps = poison["stamps"]
    bearing = sum(stamp["patches"] for stamp in stamps)
    number = f"{len(stamps)} stamped block{'' if len(stamps) == 1 else 's'}"
    found = f"{number} in {bearing:,} patches" if stamps else "No stamped block recurs in the patches"
    first = f", the first {STAMPS} shown" if len(stamps) > STAMPS else ""
    more = f"{first}; each enlarged on the left, and framed where it stands" if stamps else ""
    return [
        f"{found}{more}.",
        f"Flipped labels: {verdict_words(labels)}; shown are the labels that a model out of fold contradicts most, "
        "with the probability it gives the other class.",
    ]


def plot_poison(
    x_paths: Mapping[str, str], poison_path: str, labels_path: str, png: str, caption: str, *, label: str
) -> None:
    """Draw stamps, then suspects. Raises: InputError when a file is missing or damaged."""
    poison, labels = read_json(poison_path), read_json(labels_path)
    stamps, suspects = poison["stamps"][:STAMPS], labels["most_suspicious"][: COLUMNS * SUSPECT_ROWS]
    with ExitStack() as stack:
        readers = {split: stack.enter_context(PatchReader(x_paths[split])) for split in FILE_SPLITS}

        def patch(split: str, row: int) -> np.ndarray:
            return np.asarray(readers[split].read(row, row + 1)[0])

        rows: list[tuple[str, list[tuple[np.ndarray, str]]]] = []
        for stamp in stamps:
            block = np.array(stamp["pixels"], np.uint8)
            bearers = [(patch(*name), f"{name[0]} {name[1]}") for name in stamp["rows"][: COLUMNS - 1]]
            rows.append((heading_of_stamp(stamp), [(block, "the block, enlarged"), *bearers]))
        told_of = f"labels most contradicted ({verdict_words(labels)})"
        for start in range(0, len(suspects), COLUMNS):
            some = [
                (patch(s["split"], s["row"]), f"{s['split']} {s['row']}\nlabel {s['label']}, other {s['score']:.3f}")
                for s in suspects[start : start + COLUMNS]
            ]
            rows.append((told_of if start == 0 else f"{told_of}, next", some))
    with drawing(png, label, *grid_size_in(len(rows), COLUMNS)) as figure:
        if not rows:
            undefined_note(figure.subplots(), "no stamp found, no label to doubt")
        for stamp, (_, shown), axes in zip(stamps, rows, patch_grid(figure, rows), strict=False):
            for place, corner, _ in zip(axes[1:], stamp["corners"], shown[1:], strict=False):
                outline(place, *corner, stamp["height"], stamp["width"], margin=FRAME_PX)
    write_caption(caption, told(poison, labels), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_poison(
            {split: snakemake.input[f"{split}_x"] for split in FILE_SPLITS},
            snakemake.input.poison,
            snakemake.input.labels,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
