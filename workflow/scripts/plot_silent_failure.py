"""Draw what one figure for the whole of test hides.

Reads: results/slices/silent.json.
Writes: results/assets/silent.png and its caption.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from pcam.figures import BLUE, GREEN, GREY, INK, ORANGE, RED, SKY, drawing, undefined_note, write_caption
from pcam.files import read_json
from pcam.stage import run_stage

SHOWN = 12  # slices of the calibration panel


def slice_name(row: Mapping[str, Any]) -> str:
    if row["slice"] in ("all", "range", "slide"):
        return str(row["value"])
    return f"{row['slice'].replace('_', ' ')} {row['value']}".replace(" -", " −")


def draw_risk(axes: Axes, selective: Mapping[str, Any]) -> None:
    """Risk against coverage beside the best possible order and a random one, with the limits chosen on valid."""
    curve, areas = selective["curve"], selective["areas"]
    axes.plot(curve["coverage"], curve["model"], color=BLUE, label=f"clearest first (area {areas['model']:.3f})")
    axes.plot(curve["coverage"], curve["best"], color=GREEN, linestyle="--", label=f"best order ({areas['best']:.3f})")
    axes.axhline(areas["random"], color=GREY, linestyle=":", label=f"random order ({areas['random']:.3f})")
    for target in selective["targets"]:
        if target["error"] is None or target["error"]["value"] is None:
            continue
        x, error = target["coverage"]["value"], target["error"]
        axes.plot([x, x], [error["low"], error["high"]], color=ORANGE, linewidth=1.4)
        axes.plot([x], [error["value"]], "o", color=ORANGE, markersize=6)
        axes.annotate(target["target"].replace(" of ", "\nof "), (x, error["low"]), (4, -2),
                      textcoords="offset points", fontsize=7.5, va="top", ha="center", color=INK,
                      bbox={"color": "white", "pad": 0.5})  # fmt: skip
    axes.set(
        xlim=(0, 1),
        ylim=(0, max(1.5 * areas["random"], 0.01)),
        xlabel="share of test answered",
        ylabel="share of wrong answers",
    )
    axes.set_title("Risk and coverage")
    axes.legend(loc="upper left", fontsize=8, frameon=True, edgecolor="none", framealpha=1)


def draw_confidence(axes: Axes, confidence: Mapping[str, Any]) -> None:
    """How sure right and wrong answers are."""
    edges = np.array(confidence["edges"])
    width = 0.42 * (edges[1] - edges[0])
    for name, colour, side in (("right", SKY, -0.5), ("wrong", RED, 0.5)):
        told = confidence[name]
        shares = np.array(told["counts"]) / max(1, told["n"])
        middle = (edges[:-1] + edges[1:]) / 2 + side * width
        axes.bar(middle, shares, width, color=colour, label=f"{name} (n = {told['n']:,})")
    axes.set(xlim=(0, 1), xlabel="probability of the class called", ylabel="share of these answers")
    axes.set_title("Confidence of right and wrong answers")
    axes.legend(loc="upper left", fontsize=8)


def draw_calibration(axes: Axes, calibration: Mapping[str, Any]) -> None:
    """The slices furthest off, claimed ones in orange and filled."""
    axes.set_title("Calibration by slice")
    tested = [row for row in calibration["slices"] if row["p"] is not None]
    if not (rows := sorted(tested, key=lambda row: (not row["claimed"], row["p"], -abs(row["gap"])))[:SHOWN]):
        undefined_note(axes, "no slice holds enough patches and slides")
        axes.set(xticks=[], yticks=[])
        return
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    for y, row in enumerate(rows):
        colour, face = (RED, RED) if row["claimed"] else (BLUE, "white")
        if row["low"] is not None:
            axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.6)
        axes.plot([row["gap"]], [y], "o", color=colour, markerfacecolor=face)
    axes.set_yticks(range(len(rows)), [f"{slice_name(row)} (n {row['n']:,})" for row in rows], fontsize=7.5)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="mean probability − share of tumour")


def draw_mix(axes: Axes, mix: Mapping[str, Any]) -> None:
    """Each metric as it is and under the worst mix of the same slices."""
    axes.set_title("Another mix, every slice the same")
    rows = [(name, told) for name, told in mix["metrics"].items() if told["slicing"] is not None]
    if not rows:
        undefined_note(axes, fill(next(iter(mix["metrics"].values()))["reason"], 36))
        axes.set(xticks=[], yticks=[])
        return
    for y, (_, told) in enumerate(rows):
        axes.plot([told["now"], told["mixed"]], [y, y], color=GREY, linewidth=1.2)
        axes.plot([told["now"] + told["low"], told["now"] + told["high"]], [y, y], color=ORANGE, linewidth=2.4)
        axes.plot([told["now"]], [y], "o", color=BLUE, label="as it is" if y == 0 else None)
        axes.plot([told["mixed"]], [y], "D", color=ORANGE, label="another mix" if y == 0 else None)
    ticks = [f"{name.replace('f_beta', 'F-beta')}\nby {told['slicing'].replace('_', ' ')}" for name, told in rows]
    axes.set_yticks(range(len(rows)), ticks, fontsize=8)
    axes.set(ylim=(len(rows) - 0.5, -0.9), xlabel="value on test")
    axes.legend(loc="upper left", ncols=2, fontsize=8)


def sentences(document: Mapping[str, Any]) -> list[str]:
    """The findings, with their numbers."""
    said, sure = [], document["confidence"]
    if mixes := [(told["change"], name, told) for name, told in document["mix"]["metrics"].items() if told["slicing"]]:
        _, name, told = min(mixes, key=lambda mix: mix[:2])
        said.append(
            f"{name.replace('f_beta', 'F-beta').capitalize()} goes from {told['now']:.3f} to {told['mixed']:.3f} under "
            f"another mix of the slices by {told['slicing'].replace('_', ' ')}, each of which scores as before."
        )
    for row in document["unseen"]["slices"][:1]:
        said.append(
            f"{row['failing']} of {row['tumours']} tumours of {slice_name(row)} can be lost before the ROC-AUC of test "
            f"falls by {document['unseen']['fall']}."
        )
    if sure["wrong"]["n"]:
        share = 100 * sure["wrong"]["sure"]["value"]
        said.append(f"{share:.0f} % of {sure['wrong']['n']:,} wrong answers are {sure['sure_from']} sure or more.")
    claimed = sum(row["claimed"] for row in document["calibration"]["slices"])
    said.append(f"Miscalibration is claimed on {claimed} of {document['calibration']['tested']} slices (filled; Holm).")
    kept, every = document["selective"]["targets"][0], document["selective"]["areas"]["random"]
    if kept["error"]["value"] is not None:
        said.append(
            f"With the least clear left to a person ({kept['target']}) {100 * kept['coverage']['value']:.0f} % of test "
            f"are answered, {100 * kept['error']['value']:.1f} % of them wrongly; of all it is {100 * every:.1f} %."
        )
    return said


def plot_silent_failure(silent_path: str, png: str, caption: str, *, label: str) -> None:
    """Four panels. Raises: InputError when the file is missing or damaged."""
    document = read_json(silent_path)
    with drawing(png, label, 11, 8.2) as figure:
        (risk, sure), (calibrated, mixed) = figure.subplots(2, 2)
        draw_risk(risk, document["selective"])
        draw_confidence(sure, document["confidence"])
        draw_calibration(calibrated, document["calibration"])
        draw_mix(mixed, document["mix"])
        for axis in (risk.xaxis, risk.yaxis, sure.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
    write_caption(caption, sentences(document), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_silent_failure(
            snakemake.input.silent, snakemake.output.png, snakemake.output.caption, label=snakemake.params.label
        )
