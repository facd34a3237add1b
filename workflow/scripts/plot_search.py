"""Draw the search: value by trial with the best so far, and value against each searched setting.

Reads: results/search/trials.csv.
Writes: results/assets/search.png and its caption.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from pcam.figures import COLOURS, GREY, INK, MARKERS, drawing, log_axis, numbers, undefined_note, write_caption
from pcam.files import read_csv
from pcam.stage import run_stage

Trials = Sequence[Mapping[str, str]]


def finished(trials: Trials) -> list[Mapping[str, str]]:
    return [row for row in trials if row["value"] not in ("", "nan")]


def round_style(number: str) -> dict[str, object]:
    i = int(number)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": "none",
        "markersize": 7,
    }


def draw_history(axes: Axes, trials: Trials, metric: str) -> None:
    values = numbers(trials, "value")
    order = np.arange(len(values))
    for number in dict.fromkeys(row["round"] for row in trials):
        chosen = np.array([row["round"] == number for row in trials])
        axes.plot(order[chosen], values[chosen], label=f"round {number}", **round_style(number))
    axes.plot(order, np.fmax.accumulate(values), color=INK, linewidth=1, drawstyle="steps-post", label="best so far")
    axes.set(title="Value by trial", xlabel="trial, in order of proposal", ylabel=f"valid {metric}")
    axes.set_xticks(order if len(order) <= 20 else order[:: len(order) // 10])
    axes.legend()


def draw_setting(axes: Axes, trials: Trials, name: str, parameter: Mapping[str, object], metric: str) -> None:
    for number in dict.fromkeys(row["round"] for row in trials):
        rows = [row for row in trials if row["round"] == number]
        if parameter["type"] == "categorical":
            choices = [str(choice) for choice in parameter["choices"]]  # type: ignore[attr-defined]
            x = np.array([choices.index(row[name]) for row in rows], float)
            axes.set_xticks(range(len(choices)), choices)
        else:
            x = numbers(rows, name)
        axes.plot(x, numbers(rows, "value"), **round_style(number))
    if parameter.get("log"):
        log_axis(axes, "x", numbers(trials, name))
    axes.set(title=name.replace("_", " "), ylabel=f"valid {metric}")


def findings(trials: Trials, metric: str) -> list[str]:
    done = finished(trials)
    if not done:
        return [f"None of the {len(trials)} trials finished."]
    values = numbers(done, "value")
    best = done[int(np.argmax(values))]
    rounds = len({row["round"] for row in trials})
    return [
        f"{len(trials)} trials in {rounds} round(s), {len(done)} finished:",
        f"the best validation {metric} is {values.max():.3f} (round {best['round']}, trial {best['trial']}),",
        f"the worst {values.min():.3f}.",
    ]


def plot_search(
    trials_path: str, png: str, caption: str, *, space: Mapping[str, Mapping[str, object]], metric: str, label: str
) -> None:
    """Draw the history and a panel per searched setting. Raises: InputError when the table lacks one of them."""
    trials = read_csv(trials_path, ("round", "trial", "state", "value", *space))
    done = finished(trials)
    named = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}.get(metric, metric)
    panels = 1 + len(space)
    columns = min(3, panels)
    lines = -(-panels // columns)
    with drawing(png, label, 9, 2.9 * lines + 0.3) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in grid[panels:]:
            axes.axis("off")
        if done:
            draw_history(grid[0], trials, named)
            for axes, (name, parameter) in zip(grid[1:panels], space.items(), strict=True):
                draw_setting(axes, done, name, parameter, named)
        else:
            for axes in grid[:panels]:
                undefined_note(axes, "no trial finished")
        for axes in grid[:panels]:
            axes.yaxis.label.set_color(GREY)
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
