"""Draw how one variant trained, all seeds: loss, validation ROC-AUC, gradient norms and learning rate.

Reads: results/train/{variant}/seed-{seed}/history.csv, steps.csv and layers.csv of every seed.
Writes: results/assets/training-{variant}.png and its caption.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pcam.documents import counted
from pcam.dynamics import Deviations, Steps, by_epoch, compare_granularity, find_deviations, read_layers, read_steps
from pcam.figures import COLOURS, GREY, INK, RED, drawing, log_axis, numbers, seed_styles, undefined_note, write_caption
from pcam.files import read_csv
from pcam.stage import run_stage

HISTORY = ("epoch", "train_loss", "valid_loss", "valid_roc_auc")
DASHES = ("-", "--", "-.", ":")
RING: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 7, "color": RED, "fillstyle": "none"}
MEDIAN: dict[str, Any] = {"marker": "o", "markersize": 3.5}
LARGEST: dict[str, Any] = {"marker": "^", "markersize": 3.5, "linewidth": 0.9, "linestyle": ":"}


@dataclass(frozen=True)
class Run:
    """What one seed left, and which of its gradient norms stand out."""

    history: Sequence[Mapping[str, str]]
    steps: Steps
    layers: Mapping[str, np.ndarray]
    found: Deviations


Runs, Files = Mapping[str, Run], tuple[str, str, str]  # by seed; history, steps, layers


def read_run(history: str, steps: str, layers: str) -> Run:
    table = read_steps(steps)
    return Run(read_csv(history, HISTORY), table, read_layers(layers), find_deviations(table.grad_norm))


def draw_histories(axes: Axes, runs: Runs, column: str, **style: Any) -> None:
    for seed, colour in seed_styles(list(runs)).items():
        history = runs[str(seed)].history
        axes.plot(numbers(history, "epoch"), numbers(history, column), **{"label": f"seed {seed}", **style, **colour})


def draw_steps(axes: Axes, runs: Runs) -> None:
    """Every step of every seed; what stands out in a ring."""
    for seed, colour in seed_styles(list(runs)).items():
        steps = runs[str(seed)].steps
        axes.plot(steps.step, steps.grad_norm, linewidth=0.6, alpha=0.7, **colour)
    for run in runs.values():
        axes.plot(run.steps.step[run.found.spikes], run.steps.grad_norm[run.found.spikes], **RING)
    axes.plot([], [], label=f"spike ({sum(len(run.found.spikes) for run in runs.values())})", **RING)
    axes.set(title="Gradient norm, every step", xlabel="step", ylabel="global L2 norm before the update")
    axes.legend(loc="upper right")


def draw_epochs(axes: Axes, runs: Runs) -> None:
    """The same norms as their epochs keep them."""
    for seed, colour in seed_styles(list(runs)).items():
        steps = runs[str(seed)].steps
        epochs, medians, largest = by_epoch(steps.epoch, steps.grad_norm)
        axes.plot(epochs, medians, **MEDIAN, **colour)
        axes.plot(epochs, largest, **LARGEST, **colour)
    axes.plot([], [], color=GREY, label="largest of the epoch", **LARGEST)
    axes.plot([], [], color=GREY, label="median of the epoch", **MEDIAN)
    axes.set(title="The same, once an epoch", xlabel="epoch", ylabel="global L2 norm")
    axes.legend(loc="upper right", ncols=2)


def draw_layers(axes: Axes, runs: Runs) -> None:
    """Running median of each layer's norm, the median of the seeds."""
    axes.set(title="Gradient norm by layer, running median", xlabel="step", ylabel="L2 norm")
    courses = np.median(
        [[find_deviations(norms).expected for norms in run.layers.values()] for run in runs.values()], 0
    )
    if not np.isfinite(courses).any():
        undefined_note(axes, "too few steps for a running median")
        return
    for name, course, (dash, colour) in zip(
        next(iter(runs.values())).layers, courses, product(DASHES, COLOURS), strict=False
    ):
        axes.plot(course, label=name, color=colour, linestyle=dash)
    log_axis(axes, "y", courses.ravel())
    axes.set_ylim(top=np.nanmax(courses) ** 1.25 / np.nanmin(courses) ** 0.25)  # a quarter more, for the legend
    axes.legend(ncols=min(len(courses), 6), loc="upper center", columnspacing=1, handlelength=1.4)


def draw_rate(axes: Axes, runs: Runs) -> None:
    steps = next(iter(runs.values())).steps  # the schedule does not depend on the seed
    axes.plot(steps.step, steps.learning_rate, color=INK)
    axes.set(title="Learning rate, the same for all seeds", xlabel="step", ylabel="learning rate", ylim=(0, None))


def findings(variant: str, runs: Runs) -> list[str]:
    """What the panels show, in sentences."""
    ends = [{name: float(run.history[-1][name] or "nan") for name in HISTORY} for run in runs.values()]
    aucs, gaps = [end["valid_roc_auc"] for end in ends], [end["valid_loss"] - end["train_loss"] for end in ends]
    seed = max(runs, key=lambda seed: float(np.max(runs[seed].steps.grad_norm)))
    largest = compare_granularity(runs[seed].steps.epoch, runs[seed].steps.grad_norm)["largest"]
    spikes = sum(len(run.found.spikes) for run in runs.values())
    return [
        f"Variant {variant}, {counted(len(runs), 'seed')}: validation ROC-AUC after the last epoch is {min(aucs):.3f}"
        f"{f' to {max(aucs):.3f}' if len(aucs) > 1 else ''}, the validation loss ends {np.mean(gaps):+.3f} from the "
        "training loss (mean of seeds).",
        f"The largest gradient norm of a step, {largest['grad_norm']:.3g} at step {largest['step']:,} of seed {seed}, "
        f"is {largest['ratio']:.1f} times the median of its epoch; steps that stand out as spikes: {spikes:,}.",
    ]


def plot_training(paths: Mapping[str, Files], png: str, caption: str, *, variant: str, label: str) -> None:
    """Draw the six panels; the mapping goes from seed to files. Raises: InputError when a file is missing."""
    runs = {seed: read_run(*files) for seed, files in paths.items()}
    with drawing(png, label, 11, 10) as figure:
        ((loss, auc), (by_step, once), (by_layer, rate)) = figure.subplots(3, 2)
        draw_histories(loss, runs, "train_loss", marker=".", linestyle="--", label="")
        draw_histories(loss, runs, "valid_loss", marker=".")
        loss.set(title="Loss: train dashed, valid solid", xlabel="epoch", ylabel="binary cross-entropy")
        loss.legend()
        draw_histories(auc, runs, "valid_roc_auc", marker="o", markersize=3)
        auc.set(title="Ranking on validation", xlabel="epoch", ylabel="valid ROC-AUC")
        draw_steps(by_step, runs)
        draw_epochs(once, runs)
        for axes in (by_step, once):
            log_axis(axes, "y", norms := np.concatenate([run.steps.grad_norm for run in runs.values()]))
            axes.set_ylim(0.9 * norms[norms > 0].min(), 2 * norms.max())  # equal, with room for the legend
        draw_layers(by_layer, runs)
        draw_rate(rate, runs)
        for axes in (loss, auc, once):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    write_caption(caption, findings(variant, runs), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        tables = zip(snakemake.input.histories, snakemake.input.steps, snakemake.input.layers, strict=True)
        plot_training(
            dict(zip(map(str, snakemake.params.seeds), tables, strict=True)),
            snakemake.output.png,
            snakemake.output.caption,
            variant=snakemake.wildcards.variant,
            label=snakemake.params.label,
        )
