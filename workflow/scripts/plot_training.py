"""Draw how one variant trained, all seeds: loss, validation ROC-AUC, gradient norm and learning rate.

Reads: results/train/{variant}/seed-{seed}/history.csv and steps.csv of every seed.
Writes: results/assets/training-{variant}.png and its caption.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pcam.figures import GREY, INK, drawing, log_axis, numbers, seed_styles, write_caption
from pcam.files import read_csv
from pcam.stage import run_stage

HISTORY = ("epoch", "train_loss", "valid_loss", "valid_roc_auc", "grad_norm_median")
STEPS = ("step", "epoch", "learning_rate", "grad_norm")

Table = Sequence[Mapping[str, str]]


def draw_loss(axes: Axes, histories: Mapping[str, Table]) -> None:
    for seed, style in seed_styles(list(histories)).items():
        rows = histories[str(seed)]
        axes.plot(numbers(rows, "epoch"), numbers(rows, "train_loss"), linestyle="--", linewidth=1.2, **style)
        axes.plot(numbers(rows, "epoch"), numbers(rows, "valid_loss"), label=f"seed {seed}", **style)
    axes.plot([], [], color=INK, linestyle="--", linewidth=1.2, label="train")
    axes.plot([], [], color=INK, label="valid")
    axes.set(title="Loss", xlabel="epoch", ylabel="binary cross-entropy")
    axes.legend(ncols=2)


def draw_auc(axes: Axes, histories: Mapping[str, Table]) -> None:
    for seed, style in seed_styles(list(histories)).items():
        rows = histories[str(seed)]
        axes.plot(
            numbers(rows, "epoch"),
            numbers(rows, "valid_roc_auc"),
            marker="o",
            markersize=3,
            label=f"seed {seed}",
            **style,
        )
    axes.set(title="Ranking on validation", xlabel="epoch", ylabel="valid ROC-AUC")


def draw_gradients(axes: Axes, histories: Mapping[str, Table], steps: Mapping[str, Table]) -> None:
    for seed, style in seed_styles(list(steps)).items():
        axes.plot(
            numbers(steps[str(seed)], "step"),
            numbers(steps[str(seed)], "grad_norm"),
            linewidth=0.5,
            alpha=0.45,
            **style,
        )
    for seed, style in seed_styles(list(steps)).items():
        epochs = numbers(steps[str(seed)], "epoch")
        last = [np.flatnonzero(epochs == epoch)[-1] for epoch in np.unique(epochs)]
        middles = numbers(steps[str(seed)], "step")[last] - len(epochs) / len(last) / 2
        median = numbers(histories[str(seed)], "grad_norm_median")
        axes.plot(middles, median, marker="o", markersize=4, markeredgecolor="white", markeredgewidth=0.6, **style)
    axes.plot([], [], color=GREY, linewidth=0.5, label="each step")
    axes.plot([], [], color=GREY, marker="o", markersize=4, label="median of the epoch")
    axes.set(title="Gradient norm before each update", xlabel="step", ylabel="global L2 norm")
    axes.margins(y=0.2)  # room for the legend
    log_axis(axes, "y", np.concatenate([numbers(rows, "grad_norm") for rows in steps.values()]))
    axes.legend(ncols=2, loc="upper right")


def draw_rate(axes: Axes, steps: Mapping[str, Table]) -> None:
    rows = next(iter(steps.values()))  # the schedule does not depend on the seed
    axes.plot(numbers(rows, "step"), numbers(rows, "learning_rate"), color=INK)
    axes.set(title="Learning rate, the same for all seeds", xlabel="step", ylabel="learning rate")
    axes.set_ylim(bottom=0)


def findings(variant: str, histories: Mapping[str, Table], steps: Mapping[str, Table]) -> list[str]:
    """What the four panels show, in sentences."""
    aucs = [numbers(rows, "valid_roc_auc")[-1] for rows in histories.values()]
    gaps = [numbers(rows, "valid_loss")[-1] - numbers(rows, "train_loss")[-1] for rows in histories.values()]
    norms = [numbers(rows, "grad_norm") for rows in steps.values()]
    ratio = max(float(np.max(norm) / np.median(norm)) for norm in norms)
    many = f"{len(aucs)} seeds" if len(aucs) > 1 else "1 seed"
    return [
        f"Variant {variant}, {many}: validation ROC-AUC after the last epoch is {min(aucs):.3f}"
        + (f" to {max(aucs):.3f}" if len(aucs) > 1 else "")
        + f", the validation loss ends {np.mean(gaps):+.3f} from the training loss (mean of seeds),",
        f"and the largest gradient norm of a step is {ratio:.1f} times the run's median.",
    ]


def plot_training(
    history_paths: Mapping[str, str],
    steps_paths: Mapping[str, str],
    png: str,
    caption: str,
    *,
    variant: str,
    label: str,
) -> None:
    """Draw the four panels; the mappings go from seed to file. Raises: InputError when a file is missing."""
    histories = {seed: read_csv(path, HISTORY) for seed, path in history_paths.items()}
    steps = {seed: read_csv(path, STEPS) for seed, path in steps_paths.items()}
    with drawing(png, label, 9, 6.4) as figure:
        ((loss, auc), (gradients, rate)) = figure.subplots(2, 2)
        draw_loss(loss, histories)
        draw_auc(auc, histories)
        draw_gradients(gradients, histories, steps)
        draw_rate(rate, steps)
        for axes in (loss, auc):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    write_caption(caption, findings(variant, histories, steps), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        seeds = [str(seed) for seed in snakemake.params.seeds]
        plot_training(
            dict(zip(seeds, snakemake.input.histories, strict=True)),
            dict(zip(seeds, snakemake.input.steps, strict=True)),
            snakemake.output.png,
            snakemake.output.caption,
            variant=snakemake.wildcards.variant,
            label=snakemake.params.label,
        )
