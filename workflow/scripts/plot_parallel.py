"""Draw every trial of the search as a line through its settings to its value on each rung it trained for.

Reads: results/search/trials.csv.
Writes: results/assets/search-parallel.png and its caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from pcam.figures import GREY, INK, RED, drawing, write_caption
from pcam.files import read_csv
from pcam.stage import run_stage
from pcam.trials import BELOW, Trials, height, rung_values, ticks

MAP = matplotlib.colormaps["cividis"]  # one for every common kind of colour blindness


def draw_axis(axes: Axes, x: int, title: str, marks: Sequence[tuple[float, str]]) -> None:
    axes.plot([x, x], [0, 1], color=GREY, linewidth=1, zorder=1)
    axes.text(x, 1.07, title, ha="center", va="bottom", weight="bold", fontsize=10)
    for at, text in marks:
        axes.plot([x - 0.02, x + 0.02], [at, at], color=GREY, linewidth=1, zorder=1)
        axes.text(x - 0.04, at, text, ha="right", va="center", fontsize=8, color=INK, zorder=4,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8})  # fmt: skip


def value_scale(values: Sequence[float]) -> Normalize:
    """From the lowest to the highest known value; where there are not two, 0 to 1, which holds every value."""
    known = [value for value in values if np.isfinite(value)]
    return Normalize(min(known), max(known)) if len(set(known)) > 1 else Normalize(0, 1)


def draw_colours(axes: Axes, x: int, heights: Normalize, colours: Normalize) -> None:
    """The scale of the colours, along the first rung's axis at x, from the lowest value there to the highest."""
    low, high = heights(colours.vmin), heights(colours.vmax)
    axes.imshow(np.linspace(0, 1, 256)[:, None], cmap=MAP, extent=(x - 0.02, x + 0.02, low, high), origin="lower",
                aspect="auto", zorder=1.5)  # fmt: skip


def draw_lines(axes: Axes, trials: Trials, space: Mapping[str, Any], metric: str) -> None:
    """Colour says the value on the first rung, thickness how many rungs a trial trained for."""
    values = rung_values(trials)
    first = [row for row in trials if row["rung"] == "0"]
    scale, colours = (
        value_scale([v for own in values.values() for v in own]),
        value_scale([own[0] for own in values.values()]),
    )
    for x, (name, parameter) in enumerate(space.items()):
        draw_axis(axes, x, name.replace("_", "\n"), ticks(parameter))
    epochs = dict.fromkeys(row["epochs"] for row in sorted(trials, key=lambda row: int(row["rung"])))
    marks = [(at, f"{scale.inverse(at):.3f}") for at in (0.0, 0.5, 1.0)]
    for x, budget in enumerate(epochs, len(space)):
        draw_axis(axes, x, f"{metric}\n{budget} epoch{'' if budget == '1' else 's'}", marks)
    if len({own[0] for own in values.values() if np.isfinite(own[0])}) > 1:
        draw_colours(axes, len(space), scale, colours)
    for row, own in zip(first, values.values(), strict=True):
        line = [height(row[name], parameter) for name, parameter in space.items()]
        ends = [BELOW if np.isnan(value) else float(scale(value)) for value in own]
        colour = RED if np.isnan(own[0]) else MAP(float(colours(own[0])))
        axes.plot(line + ends, color=colour, linewidth=1.0 + 1.2 * (len(own) - 1), alpha=0.9, zorder=2 + 0.1 * len(own),
                  linestyle="--" if np.isnan(own[0]) else "-", solid_joinstyle="round")  # fmt: skip
        for x, value in enumerate(own, len(space)):
            if np.isnan(value):
                axes.plot(x, BELOW, "x", color=RED, markersize=7, zorder=5)


def findings(trials: Trials, metric: str) -> list[str]:
    known = {name: [value for value in own if np.isfinite(value)] for name, own in rung_values(trials).items()}
    name = max(known, key=lambda of: (len(known[of]), known[of][-1:]))
    if not known[name]:
        return [f"None of the {len(trials)} trials finished, so no line has an end."]
    return [
        f"Each line is a proposed trial; its colour repeats its validation {metric} on the first rung, as along that",
        f"axis, and one that went on is thicker. {name} ends highest on rung {len(known[name]) - 1}, with "
        f"{known[name][-1]:.3f}.",
        "Below an axis: not searched in this trial; a cross: failed.",
    ]


def plot_parallel(
    trials_path: str, png: str, caption: str, *, space: Mapping[str, Any], metric: str, label: str
) -> None:
    """Raises: InputError when the table lacks a column."""
    trials = read_csv(trials_path, ("phase", "trial", "rung", "state", "value", "epochs", "origin", *space))
    named = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}.get(metric, metric)
    columns = len(space) + len({row["rung"] for row in trials})
    with drawing(png, label, max(6.0, 1.6 * columns), 4.4) as figure:
        axes = figure.subplots()
        axes.axis("off")
        axes.set(xlim=(-0.45, columns - 0.75), ylim=(-0.2, 1.25))
        draw_lines(axes, trials, space, named)
        axes.text(-0.42, BELOW, "not searched,\nor failed", ha="left", va="center", fontsize=8, color=GREY)
    write_caption(caption, findings(trials, named), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_parallel(
            snakemake.input.trials,
            snakemake.output.png,
            snakemake.output.caption,
            space=snakemake.params.space,
            metric=snakemake.params.metric,
            label=snakemake.params.label,
        )
