"""Draw the learning rate schedules by name, and validation under the schedule of baseline and under the others trained.

Reads: settings.json of baseline and of the variants that differ in the schedule alone, their history.csv, baseline's
    first steps.csv, and schedules.json where there is such a variant.
Writes: results/assets/schedules.png and its caption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pcam.documents import counted, words
from pcam.dynamics import Steps, read_steps
from pcam.figures import COLOURS, drawing, numbers, undefined_note, write_caption
from pcam.files import InputError, read_csv, read_json
from pcam.schedules import learning_rate_at
from pcam.settings import TrainSettings, read_train_settings
from pcam.stage import run_stage

NAMES = ("one_cycle", "cosine", "step", "constant")
DASHES = {"one_cycle": "-", "cosine": "--", "step": "-.", "constant": ":"}
HISTORY = ("epoch", "valid_roc_auc", "valid_loss")

Table, Words = Sequence[Mapping[str, str]], Mapping[str, str]


def colours_of(used: str) -> dict[str, str]:
    """Of each schedule, the same in every panel; the first is that of the schedule in use."""
    return dict(zip((used, *(name for name in NAMES if name != used)), COLOURS, strict=False))


def rates_of(settings: TrainSettings, name: str, total: int) -> np.ndarray:
    """Learning rate float64 (total,) of every step under a schedule."""
    named = replace(settings, schedule=name)
    return np.array([learning_rate_at(named, step, total) for step in range(total)])


def check_rates(settings: TrainSettings, steps: Steps, path: str) -> None:
    """Raises: InputError when the rates of the training are not those of the schedule it names."""
    drawn = rates_of(settings, settings.schedule, len(steps.step))
    if len(off := np.flatnonzero(~np.isclose(drawn, steps.learning_rate, rtol=1e-6))):
        at = int(off[0])
        raise InputError(
            f"{path}: the learning rate of step {at} is {steps.learning_rate[at]:g}, and {settings.schedule} gives "
            f"{drawn[at]:g}; train again"
        )


def draw_rates(axes: Axes, settings: TrainSettings, total: int, colours: Words) -> None:
    """Every schedule with the highest rate and the steps of baseline, the one in use on top."""
    for name in sorted(NAMES, key=lambda name: name == settings.schedule):
        used = name == settings.schedule
        axes.plot(
            rates_of(settings, name, total), color=colours[name], linewidth=2.6 if used else 1.4,
            linestyle="-" if used else DASHES[name], label=f"{name} (baseline)" if used else name,
        )  # fmt: skip
    axes.set(title="Schedules by name", xlabel="step", ylabel="learning rate")
    axes.set_ylim(0, settings.learning_rate * 1.32)  # room for the legend
    axes.legend(ncols=2, loc="upper center")


def draw_curves(
    axes: Axes, histories: Mapping[str, Sequence[Table]], column: str, schedules: Words, colours: Words
) -> None:
    """Every seed thin, the mean over seeds thick; the axis spans the last three quarters, where curves are compared."""
    ends = []
    for variant, tables in histories.items():
        style = {"color": colours[schedules[variant]], "linestyle": "-" if variant == "baseline" else "--"}
        curves = [numbers(table, column) for table in tables]
        epochs = numbers(tables[0], "epoch")
        for curve in curves:
            axes.plot(epochs, curve, linewidth=0.8, alpha=0.45, **style)
        axes.plot(epochs, np.mean(curves, axis=0), linewidth=2.2, label=f"{variant}: {schedules[variant]}", **style)
        ends.append(np.concatenate([curve[len(curve) // 4 :] for curve in curves]))
    known = np.concatenate(ends)
    if not np.isfinite(known).any():
        undefined_note(axes, "undefined: valid holds one class")
        return
    low, high = np.nanmin(known), np.nanmax(known)
    margin = 0.08 * (high - low or 0.01)
    axes.set_ylim(low - margin, high + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def findings(settings: TrainSettings, total: int, document: Mapping[str, Any] | None) -> list[str]:
    """What the panels show, in sentences."""
    left = f"Left, the four schedules over the {total:,} steps of baseline, which uses {settings.schedule}."
    if document is None:
        return [left, "No variant differs from baseline in its schedule alone, so none is compared."]
    told = []
    for one in document["comparisons"]:
        what = f"{words(one['metric'])}, {settings.schedule} less {one['schedule']}: {one['mean']:+.4f}"
        spread = "interval undefined" if one["interval"] is None else "[{:+.4f}, {:+.4f}]".format(*one["interval"])
        told.append(f"{what} ({spread}; n = {one['n']}): {one['verdict']}")
    return [
        left,
        f"Middle and right, every epoch on valid: {counted(len(document['seeds']), 'seed')}, the mean thick.",
        f"At the end, seed by seed, with 95 % intervals: {'; '.join(told)}.",
    ]


def plot_schedules(
    settings_paths: Mapping[str, str],
    steps_path: str,
    history_paths: Mapping[str, Sequence[str]],
    comparison_path: str | None,
    png: str,
    caption: str,
    *,
    label: str,
) -> None:
    """Draw three panels; baseline comes first in the mappings, which go from variant to file.

    Raises: InputError when a file is missing, or baseline was trained at other rates than its schedule gives.
    """
    recipes = {variant: read_train_settings(path) for variant, path in settings_paths.items()}
    settings, steps = recipes["baseline"], read_steps(steps_path)
    check_rates(settings, steps, steps_path)
    histories = {variant: [read_csv(path, HISTORY) for path in paths] for variant, paths in history_paths.items()}
    schedules, colours = {name: recipe.schedule for name, recipe in recipes.items()}, colours_of(settings.schedule)
    document = read_json(comparison_path) if comparison_path else None
    with drawing(png, label, 12.5, 4.2) as figure:
        rates, auc, loss = figure.subplots(1, 3)
        draw_rates(rates, settings, len(steps.step), colours)
        draw_curves(auc, histories, "valid_roc_auc", schedules, colours)
        auc.set(title="Ranking on validation", xlabel="epoch", ylabel="valid ROC-AUC")
        auc.legend(loc="lower right")
        draw_curves(loss, histories, "valid_loss", schedules, colours)
        loss.set(title="Loss on validation", xlabel="epoch", ylabel="binary cross-entropy")
    write_caption(caption, findings(settings, len(steps.step), document), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        variants = ["baseline", *snakemake.params.variants]
        many = len(snakemake.params.seeds)
        histories = list(snakemake.input.histories)
        plot_schedules(
            dict(zip(variants, snakemake.input.settings, strict=True)),
            snakemake.input.steps,
            {variant: histories[i * many : (i + 1) * many] for i, variant in enumerate(variants)},
            snakemake.input.get("comparison"),
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
