"""Draw how often the champion errs in each discovered slice and in the rest, and patches of the slice.

Reads: results/slices/discovered.json, the test store.
Writes: results/assets/discovered.png and its caption.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pcam.figures import BLUE, FAINT, GREY, drawing, show_patch, undefined_note, write_caption
from pcam.files import InputError, read_json
from pcam.stage import run_stage
from pcam.store import open_store

SHOWN = 4  # slices at most
COLUMNS = 6  # of patches
PARTS = {"search": "half that found it", "confirm": "half that judged it", "test": "test"}
ROW_IN, WIDTH_IN = 1.9, 12.6
TITLE_CHARACTERS = 62  # of a line

Document = Mapping[str, Any]


def chosen(found: Document) -> list[Document]:
    """The confirmed slices, worst first; where there are none, the candidates that came nearest."""
    return list(found["confirmed"] or sorted(found["candidates"], key=lambda one: one["confirm"]["p"]))[:SHOWN]


def draw_rates(axes: Axes, found: Document) -> None:
    """Error rate with its interval in the slice (filled) and in the rest (hollow), by part of the data."""
    for y, part in enumerate(PARTS):
        for name, colour, off, face in (("error_rate", BLUE, -0.16, BLUE), ("rest_error_rate", GREY, 0.16, "white")):
            rate = found[part][name]
            if rate["value"] is None:
                axes.text(0.02, y + off, f"undefined: {rate['note']}", color=colour, va="center", fontsize=8)
                continue
            axes.plot([rate["low"], rate["high"]], [y + off, y + off], color=colour, linewidth=1.4)
            axes.plot([rate["value"]], [y + off], marker="o", color=colour, markerfacecolor=face, markersize=5.5)
    names = [f"{words}  (n {found[part]['n']:,}, {found[part]['positives']:,} tumour)" for part, words in PARTS.items()]
    axes.set_yticks(range(len(PARTS)), names, fontsize=8)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(PARTS) - 0.5, -0.5))
    axes.grid(axis="y", color=FAINT, linewidth=0.4)
    told = "confirmed" if found["confirmed"] else "not confirmed"
    p = found["confirm"]["p_corrected"]
    title = f"{found['words']}: {told} (corrected p {p:.2g})".replace("embedding cluster", "cluster")
    axes.set_title(fill(title, TITLE_CHARACTERS), fontsize=9)


def sentences(found: Document, shown: Sequence[Document]) -> list[str]:
    """The finding, what it rests on and how to read the picture."""
    looked, halves = sum(found["searched"]), [half["n"] for half in found["halves"]]
    asked = (
        f"{looked:,} slices of one or two attributes or of the champion's embedding were searched, each on one half of "
        f"valid ({halves[0]:,} and {halves[1]:,} patches, by {found['group']}), and {len(found['candidates'])} "
        f"candidates judged on the other half, by whole {found['group']}s where they are known."
    )
    if found["confirmed"]:
        worst = found["confirmed"][0]
        test, whole = worst["test"], worst["global_roc_auc"]["valid"]
        lines = [f"{len(found['confirmed'])} are confirmed."]
        rates = test["error_rate"]["value"], test["rest_error_rate"]["value"]
        there = f"{worst['words']}: test holds none of its patches."
        if None not in rates:
            there = (
                f"{worst['words']}: on test the champion errs on {rates[0]:.0%} of {test['n']:,} patches, on "
                f"{rates[1]:.0%} of the rest, and misses {test['missed']:,} of {test['positives']:,} tumours."
            )
        again = test["note"]
        if test["p"] is not None:
            again = f"there it {'shows again' if test['p'] <= found['level'] else 'does not show'}, p {test['p']:.2g}"
        lines.append(f"The worst is {there} A third look, which decides nothing: {again}.")
        if whole["change"] is not None:
            lines.append(f"Without it the ROC-AUC on valid would be {whole['without']:.3f}, not {whole['all']:.3f}.")
    else:
        lines = [f"None is confirmed at a level of {found['level']:g}; the picture shows those that came nearest."]
    if not shown:
        lines = ["No slice of the smallest size loses more than its class does."]
    return [
        *lines,
        asked,
        "Filled: share of wrong answers in the slice; hollow: in all other patches; lines: 95 % intervals. Patches: of "
        "test, those of the slice that cost the most, with row, label and probability of tumour.",
    ]


def draw_examples(cells: Sequence[Axes], found: Document, store: np.ndarray) -> None:
    for cell in cells:
        cell.set_axis_off()
    for cell, one in zip(cells, found["examples"], strict=False):
        cell.set_axis_on()
        cell.grid(False)
        label = "tumour" if one["label"] else "no tumour"
        show_patch(cell, store[one["place"]], f"row {one['row']}, {label}\np {one['probability']:.2f}")
    if not found["examples"]:
        undefined_note(cells[0], "no patch of test")


def plot_discovered(discovered_path: str, store_path: str, png: str, caption: str, *, label: str) -> None:
    """A row for each slice. Raises: InputError when the document is not whole, or not of this store."""
    found, store = read_json(discovered_path), open_store(store_path)
    try:
        shown = chosen(found)
        if any(one["place"] >= len(store) for line in shown for one in line["examples"]):
            raise InputError(f"{discovered_path}: names patches that {store_path} lacks; discover again")
        with drawing(png, label, WIDTH_IN, 0.5 + ROW_IN * max(len(shown), 1)) as figure:
            grid = figure.add_gridspec(max(len(shown), 1), 1 + COLUMNS, width_ratios=[3.2, *[1] * COLUMNS])
            if not shown:
                undefined_note(figure.add_subplot(grid[0, :]), "no slice to show")
            for line, one in enumerate(shown):
                axes = figure.add_subplot(grid[line, 0])
                draw_rates(axes, one)
                if line == len(shown) - 1:
                    axes.set_xlabel("share of wrong answers")
                draw_examples([figure.add_subplot(grid[line, 1 + k]) for k in range(COLUMNS)], one, store)
        write_caption(caption, sentences(found, shown), label)
    except KeyError as error:
        raise InputError(f"{discovered_path}: holds no {error}; discover again (rule discover_slices)") from None


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_discovered(
            snakemake.input.discovered,
            snakemake.input.store,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
