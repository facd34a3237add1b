"""Draw by which attributes the champion's errors differ from its right answers.

Reads: results/slices/errors.json.
Writes: results/assets/error-patterns.png and its caption.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pcam.figures import BLUE, GREY, INK, RED, drawing, undefined_note, write_caption
from pcam.files import read_json
from pcam.stage import run_stage

REACH = 2.5  # standard deviations on either side; what lies beyond is told in figures
TITLES = {"missed": "Missed against found tumours", "alarms": "False alarms against cleared patches"}


def draw_contrasts(axes: Axes, pattern: Mapping[str, Any], title: str) -> None:
    """A dot and its interval for each attribute; red: claimed, hollow: not told from chance."""
    axes.set_title(title)
    if pattern["contrasts"] is None:
        undefined_note(axes, fill(f"not compared: {pattern['reason']}", 36))
        axes.set(xticks=[], yticks=[])
        return
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    rows = pattern["contrasts"]
    for y, row in enumerate(rows):
        if row["difference"] is None:
            axes.text(0, y, row["note"], color=GREY, fontsize=8, va="center", backgroundcolor="white")
            continue
        colour = RED if row["claimed"] else BLUE
        if abs(row["difference"]) > REACH:
            side = "right" if row["difference"] > 0 else "left"
            ends = "no interval" if row["low"] is None else f"{row['low']:+.1f} to {row['high']:+.1f}"
            text = f"{row['difference']:+.1f} ({ends})".replace("-", "−")
            axes.text(np.sign(row["difference"]) * REACH, y, text, color=colour, fontsize=8, va="center", ha=side,
                      backgroundcolor="white")  # fmt: skip
            continue
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2 if row["claimed"] else 1.4)
        face = colour if row["claimed"] else "white"
        axes.plot([row["difference"]], [y], "o", color=colour, markerfacecolor=face, markersize=6)
    axes.set_yticks(range(len(rows)), [row["attribute"].replace("_", " ") for row in rows])
    axes.set(xlim=(-REACH, REACH), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xlabel(f"difference in sd of the right answers\n({pattern['errors']:,} against {pattern['correct']:,})")


def plot_error_patterns(errors_path: str, png: str, caption: str, *, label: str) -> None:
    """A panel for each kind of error. Raises: InputError when the file is missing or damaged."""
    patterns = read_json(errors_path)["patterns"]
    with drawing(png, label, 9, 4.2) as figure:
        panels = figure.subplots(1, 2, sharey=all(pattern["contrasts"] for pattern in patterns.values()))
        for axes, (kind, title) in zip(panels, TITLES.items(), strict=True):
            draw_contrasts(axes, patterns[kind], title)
    words = " ".join(f"{pattern['words'][0].upper()}{pattern['words'][1:]}." for pattern in patterns.values())
    how = "Orange and filled: claimed after Holm's correction over all attributes and both kinds of error."
    write_caption(caption, [words, how], label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_error_patterns(
            snakemake.input.errors, snakemake.output.png, snakemake.output.caption, label=snakemake.params.label
        )
