"""Draw where and how far two trainings part with each control of randomness switched off.

Reads: results/reproducibility/determinism.json.
Writes: results/assets/determinism.png and its caption.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pcam.figures import BLUE, FAINT, GREY, drawing, log_axis, undefined_note, write_caption
from pcam.files import read_json
from pcam.stage import run_stage

ROW_IN, REST_IN = 0.36, 1.5  # height of a control's row, and of all that is no row


def loss_distances(summary: Mapping[str, Any]) -> np.ndarray:
    """Distance of the two losses float64 (controls, steps)."""
    runs = [summary["traces"][row["control"]] for row in summary["controls"]]
    return np.array([np.abs(np.subtract(run["a"]["losses"], run["b"]["losses"])) for run in runs])


def note_of(row: Mapping[str, Any]) -> str:
    """What a row without any difference says."""
    return {
        "not observable on this device": "same bits: not observable on this device",
        "nothing seen": "same bits: nothing seen in two runs",
    }.get(row["observable"], "same bits in every step")


def draw_steps(figure: Figure, axes: Axes, summary: Mapping[str, Any]) -> None:
    """A row a control, a cell a step: white where the two losses are equal to the bit."""
    distances, controls = loss_distances(summary), summary["controls"]
    steps = distances.shape[1]
    if (distances > 0).any():
        # At least a decade, so that a scale exists where all distances are alike.
        low, high = distances[distances > 0].min(), distances.max()
        shown = axes.pcolormesh(
            np.arange(steps + 1) - 0.5,
            np.arange(len(controls) + 1) - 0.5,
            np.ma.masked_less_equal(distances, 0),
            norm=LogNorm(min(low, high / 10), high),
            cmap=ListedColormap(colormaps["YlGnBu"](np.linspace(0.2, 1, 256))),  # its lightest are too near to white
            edgecolors="white",
            linewidth=0.6 if steps <= 60 else 0,
        )
        bar = figure.colorbar(shown, ax=axes, pad=0.015, aspect=30)
        bar.set_label("distance of the two losses")
        bar.outline.set_visible(False)
    for place, row in enumerate(controls):
        if not distances[place].any():
            axes.text((steps - 1) / 2, place, note_of(row), ha="center", va="center", color=GREY, fontsize=9)
    axes.hlines(np.arange(1, len(controls)) - 0.5, -0.5, steps - 0.5, color=FAINT, linewidth=0.6)
    axes.set(title="Loss, step by step", xlabel="step", xlim=(-0.5, steps - 0.5), ylim=(len(controls) - 0.5, -0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks(range(len(controls)), [f"{row['control']}" for row in controls])
    axes.get_yticklabels()[0].set_weight("bold")
    axes.tick_params(axis="y", length=0)
    axes.grid(False)


def draw_weights(axes: Axes, summary: Mapping[str, Any]) -> None:
    """The largest distance of a weight after training. A logarithmic axis has no zero: zero stands there as words."""
    controls = summary["controls"]
    sizes = np.array([row["weight_difference"] for row in controls])
    axes.set(title="Weights at the end", ylim=(len(controls) - 0.5, -0.5))
    axes.set_yticks(range(len(controls)), [""] * len(controls))
    axes.tick_params(axis="y", length=0)
    apart = np.flatnonzero(sizes > 0)
    if not len(apart):
        undefined_note(axes, "all weights are equal to the bit")
        return
    log_axis(axes, "x", sizes)
    low = 10 ** np.floor(np.log10(sizes[apart].min()))
    axes.set_xlim(low / 3, 4 * sizes.max())
    axes.grid(axis="y", visible=False)
    axes.hlines(apart, low / 3, sizes[apart], color=FAINT, linewidth=0.8)
    axes.plot(sizes[apart], apart, "o", color=BLUE, markersize=6)
    for place in np.flatnonzero(sizes == 0):
        axes.text(low / 3, place, " exactly 0", ha="left", va="center", color=GREY, fontsize=9)
    axes.set_xlabel("largest distance of a weight")


def findings(summary: Mapping[str, Any]) -> list[str]:
    """What the picture shows, in sentences."""
    off = summary["controls"][1:]
    hidden = [row["control"] for row in off if row["observable"].startswith("not ")]
    first, device = summary["controls"][0], summary["controls"][0]["device"]
    lines = [
        f"Two trainings of {first['steps']} steps on {summary['patches']} patches with one control off, each in a "
        f"fresh process, seed {summary['seed']}, on {device}: {summary['sentence']}.",
        "White: the two losses are equal to the bit, which the gradients need not be.",
    ]
    if hidden:
        lines.append(f"Not observable on this device: {', '.join(hidden)}.")
    if not summary["audit_holds"]:
        lines.append("The audit does not hold.")
    return lines


def plot_determinism(summary_path: str, png: str, caption: str, *, label: str) -> None:
    """Draw both panels. Raises: InputError when the file is missing."""
    summary = read_json(summary_path)
    with drawing(png, label, 9.5, len(summary["controls"]) * ROW_IN + REST_IN) as figure:
        steps, weights = figure.subplots(1, 2, width_ratios=(3, 1.6))
        draw_steps(figure, steps, summary)
        draw_weights(weights, summary)
    write_caption(caption, findings(summary), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_determinism(
            snakemake.input.summary, snakemake.output.png, snakemake.output.caption, label=snakemake.params.label
        )
