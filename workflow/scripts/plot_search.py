"""Draw the search: value by trial with the best so far, what each setting is worth, and value against each setting.

Reads: results/search/trials.csv and recipe.json.
Writes: results/assets/search.png and its caption.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pcam.figures import COLOURS, GREY, INK, MARKERS, RED, drawing, numbers, span_axis, undefined_note, write_caption
from pcam.files import read_csv, read_json
from pcam.stage import run_stage

Trials = Sequence[Mapping[str, str]]


def phase_styles(trials: Trials) -> dict[str, dict[str, Any]]:
    """Rounds by colour and marker; the later rungs are hollow, for they trained for longer."""
    styles: dict[str, dict[str, Any]] = {}
    for row in trials:
        i = len(styles)
        marker = MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]  # another one when the colours start anew
        style = {"color": COLOURS[i % len(COLOURS)], "marker": marker, "markersize": 7}
        hollow = {"markerfacecolor": "none", "markeredgewidth": 1.8} if row["rung"] != "0" else {}
        styles.setdefault(row["phase"], {**style, "linestyle": "none", **hollow})
    return styles


def mark_failed(axes: Axes, x: np.ndarray) -> None:
    """Crosses at the foot of the panel, below all values: a failed trial has none."""
    if len(x):
        axes.margins(y=0.2)
        axes.plot(x, np.full(len(x), 0.05), "x", color=RED, markersize=7, label="failed",
                  transform=axes.get_xaxis_transform())  # fmt: skip


def draw_history(axes: Axes, trials: Trials, metric: str) -> None:
    """The best so far starts anew with each rung, whose values come from longer trainings."""
    values, order = numbers(trials, "value"), np.arange(len(trials))
    for phase, style in phase_styles(trials).items():
        at = np.array([row["phase"] == phase for row in trials])
        epochs = next(row["epochs"] for row in trials if row["phase"] == phase)
        unit = "epoch" if epochs == "1" else "epochs"
        axes.plot(order[at], values[at], label=f"{phase.replace('-', ' ')} ({epochs} {unit})", **style)
    for rung in dict.fromkeys(row["rung"] for row in trials):
        at = np.array([row["rung"] == rung for row in trials])
        best = np.fmax.accumulate(values[at])
        (line,) = axes.plot(order[at], best, color=INK, linewidth=1, drawstyle="steps-post")
        if rung == "0":
            line.set_label("best so far of its rung")
        else:
            axes.axvline(order[at][0] - 0.5, color=GREY, linewidth=1, linestyle=":")
    mark_failed(axes, order[np.isnan(values)])
    axes.set(title="Value by trial", xlabel="trial, in order of training")
    axes.set_ylabel(f"valid {metric}", color=GREY)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def draw_importance(axes: Axes, shares: Mapping[str, float] | None, reason: str | None) -> None:
    axes.set_title("What each setting explains")
    if shares is None:
        axes.set(xticks=[], yticks=[])
        undefined_note(axes, fill(reason or "", 28))
        return
    names = sorted(shares, key=lambda name: shares[name])
    bars = axes.barh([name.replace("_", " ") for name in names], [shares[name] for name in names], color=COLOURS[0])
    axes.bar_label(bars, fmt="{:.0%}", padding=3, fontsize=9)
    axes.set(xlabel="share of variation (fANOVA)", xlim=(0, 1.15 * max(shares.values())))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", visible=False)


def draw_setting(axes: Axes, trials: Trials, name: str, parameter: Mapping[str, Any], metric: str) -> None:
    """Trials that do not search the setting are left out; the title says when it is searched."""
    styles, trials = phase_styles(trials), [row for row in trials if row[name] != ""]
    if parameter["type"] == "categorical":
        choices = [str(choice) for choice in parameter["choices"]]
        x = np.array([choices.index(row[name]) for row in trials], float)
        axes.set_xticks(range(len(choices)), choices)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    else:
        x = numbers(trials, name)
        span_axis(axes, parameter)
    values = numbers(trials, "value")
    for phase, style in styles.items():
        at = np.array([row["phase"] == phase for row in trials], bool)
        axes.plot(x[at], values[at], **style)
    mark_failed(axes, x[np.isnan(values)])
    when = "".join(f" ({other} {', '.join(map(str, of))})" for other, of in parameter.get("when", {}).items())
    axes.set_title(name.replace("_", " ") + when)
    axes.set_ylabel(f"valid {metric}", color=GREY)
    if not trials:
        undefined_note(axes, "searched in no trial")


def findings(trials: Trials, recipe: Mapping[str, Any], metric: str) -> list[str]:
    again = sum(row["rung"] != "0" for row in trials)
    done, failed = ([row for row in trials if row["state"] == state] for state in ("COMPLETE", "FAIL"))
    said = [f"{len(trials) - again} proposed trials and {again} trained again for longer; {len(done)} finished."]
    if (chosen := recipe["chosen"]) is not None:
        lowest = np.nanmin(numbers(done, "value"))
        said.append(
            f"{chosen['name']} was chosen, with {chosen['value']:.3f} validation {metric}; lowest: {lowest:.3f}."
        )
    if shares := recipe["importance"]:
        most = max(sorted(shares), key=lambda name: shares[name])
        told = f"{most.replace('_', ' ')} explains most of the variation ({shares[most]:.0%})"
        said.append(f"{told}, as far as {len(trials) - again} trials tell.")
    return [*said, *([f"{len(failed)} failed (crosses); the reasons stand in trials.csv."] if failed else [])]


def plot_search(
    trials_path: str, recipe_path: str, png: str, caption: str, *, space: Mapping[str, Any], metric: str, label: str
) -> None:
    """Draw history, importance and a panel per searched setting. Raises: InputError when the table lacks one."""
    trials = read_csv(trials_path, ("phase", "trial", "rung", "state", "value", "epochs", *space))
    recipe = read_json(recipe_path)
    named = {"roc_auc": "ROC-AUC", "pr_auc": "PR-AUC"}.get(metric, metric)
    lines = -(-(2 + len(space)) // 3)
    with drawing(png, label, 10, 2.9 * lines + 0.5) as figure:
        grid = figure.subplots(lines, 3, squeeze=False).ravel()
        for axes in grid[2 + len(space) :]:
            axes.axis("off")
        draw_history(grid[0], trials, named)
        draw_importance(grid[1], recipe["importance"], recipe["importance_reason"])
        for axes, (name, parameter) in zip(grid[2:], space.items(), strict=False):
            draw_setting(axes, trials, name, parameter, named)
        figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        if not any(row["value"] for row in trials):
            for axes in (grid[0], *grid[2:]):
                axes.set_yticks([])
    write_caption(caption, findings(trials, recipe, named), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_search(
            snakemake.input.trials,
            snakemake.input.recipe,
            snakemake.output.png,
            snakemake.output.caption,
            space=snakemake.params.space,
            metric=snakemake.params.metric,
            label=snakemake.params.label,
        )
