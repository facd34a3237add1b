"""Draw the search: value by trial with the best so far, and value against each searched setting. Crosses: failed.

Reads: results/search/trials.csv.
Writes: results/assets/search.png and its caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pcam.figures import COLOURS, GREY, INK, MARKERS, RED, drawing, log_axis, numbers, undefined_note, write_caption
from pcam.files import read_csv
from pcam.stage import run_stage

Trials = Sequence[Mapping[str, str]]


def in_state(trials: Trials, state: str) -> list[Mapping[str, str]]:
    return [row for row in trials if row["state"] == state]


def round_style(number: str) -> dict[str, object]:
    i = int(number)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": "none",
        "markersize": 7,
    }


def mark_failed(axes: Axes, x: np.ndarray) -> None:
    """Crosses at the foot of the panel, below all values: a failed trial has none."""
    if len(x):
        foot = np.full(len(x), 0.05)
        axes.margins(y=0.2)
        axes.plot(x, foot, "x", color=RED, markersize=7, label="failed", transform=axes.get_xaxis_transform())


def draw_history(axes: Axes, trials: Trials, metric: str) -> None:
    values = numbers(trials, "value")
    order = np.arange(len(values))
    for number in dict.fromkeys(row["round"] for row in trials):
        chosen = np.array([row["round"] == number for row in trials])
        axes.plot(order[chosen], values[chosen], label=f"round {number}", **round_style(number))
    axes.plot(order, np.fmax.accumulate(values), color=INK, linewidth=1, drawstyle="steps-post", label="best so far")
    mark_failed(axes, order[np.isnan(values)])
    axes.set(title="Value by trial", xlabel="trial, in order of proposal", ylabel=f"valid {metric}")
    axes.set_xticks(order if len(order) <= 20 else order[:: len(order) // 10])


def span_axis(axes: Axes, parameter: Mapping[str, Any]) -> None:
    """The x axis over all values that the search may choose, so that what it left out shows."""
    low, high = parameter["low"], parameter["high"]
    if parameter.get("log"):
        log_axis(axes, "x", [low, high])
        axes.set_xlim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 4, 5, 10], integer=parameter["type"] == "int"))
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def draw_setting(axes: Axes, trials: Trials, name: str, parameter: Mapping[str, Any], metric: str) -> None:
    if parameter["type"] == "categorical":
        choices = [str(choice) for choice in parameter["choices"]]
        x = np.array([choices.index(row[name]) for row in trials], float)
        axes.set_xticks(range(len(choices)), choices)
    else:
        x = numbers(trials, name)
        span_axis(axes, parameter)
    values = numbers(trials, "value")
    for number in dict.fromkeys(row["round"] for row in trials):
        chosen = np.array([row["round"] == number for row in trials])
        axes.plot(x[chosen], values[chosen], **round_style(number))
    mark_failed(axes, x[np.isnan(values)])
    axes.set(title=name.replace("_", " "), ylabel=f"valid {metric}")


def findings(trials: Trials, metric: str) -> list[str]:
    done, failed = in_state(trials, "COMPLETE"), in_state(trials, "FAIL")
    if not done:
        return [f"None of the {len(trials)} trials finished; their reasons stand in trials.csv."]
    values = numbers(done, "value")
    best = done[int(np.argmax(values))]
    rounds = len({row["round"] for row in trials})
    return [
        f"{len(trials)} trials in {rounds} round(s), {len(done)} finished:",
        f"the best validation {metric} is {values.max():.3f} (round {best['round']}, trial {best['trial']}),",
        f"the worst {values.min():.3f}.",
        *([f"{len(failed)} failed (crosses); the reasons stand in trials.csv."] if failed else []),
    ]


def plot_search(
    trials_path: str, png: str, caption: str, *, space: Mapping[str, Mapping[str, Any]], metric: str, label: str
) -> None:
    """Draw the history and a panel per searched setting. Raises: InputError when the table lacks one of them."""
    trials = read_csv(trials_path, ("round", "trial", "state", "value", *space))
    named = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}.get(metric, metric)
    panels = 1 + len(space)
    columns = min(3, panels)
    lines = -(-panels // columns)
    with drawing(png, label, 9, 2.9 * lines + 0.3) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in grid[panels:]:
            axes.axis("off")
        draw_history(grid[0], trials, named)
        for axes, (name, parameter) in zip(grid[1:panels], space.items(), strict=True):
            draw_setting(axes, trials, name, parameter, named)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower left", ncols=6)
        for axes in grid[:panels]:
            axes.yaxis.label.set_color(GREY)
            if not in_state(trials, "COMPLETE"):
                axes.set_yticks([])
                undefined_note(axes, "no trial finished")
    write_caption(caption, findings(trials, named), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_search(
            snakemake.input.trials,
            snakemake.output.png,
            snakemake.output.caption,
            space=snakemake.params.space,
            metric=snakemake.params.metric,
            label=snakemake.params.label,
        )
