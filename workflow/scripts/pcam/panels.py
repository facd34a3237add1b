"""Panels of the champion's picture: curves with the operating point, confusion and calibration."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from sklearn.metrics import precision_recall_curve, roc_curve

from pcam.figures import BLUE, GREY, INK, ORANGE, RED, SKY, undefined_note
from pcam.metrics import calibration_bins, wilson_interval
from pcam.predictions import Predictions

ROLES = {"valid": "valid, chosen here", "test": "test, carried over"}
STYLES: dict[str, dict[str, Any]] = {
    "valid": {"color": SKY, "linestyle": "--", "linewidth": 1.4},
    "test": {"color": BLUE, "linewidth": 2},
}
UNIT = {"xlim": (-0.02, 1.02), "ylim": (-0.02, 1.02)}

Curve = Callable[[Predictions], tuple[np.ndarray, np.ndarray]]


def roc(told: Predictions) -> tuple[np.ndarray, np.ndarray]:
    x, y, _ = roc_curve(told.labels, told.probabilities)
    return x, y


def precision_recall(told: Predictions) -> tuple[np.ndarray, np.ndarray]:
    precision, recall, _ = precision_recall_curve(told.labels, told.probabilities)
    return recall, precision


def both_classes(told: Predictions) -> bool:
    return len(np.unique(told.labels)) == 2


def draw_curves(
    axes: Axes, curve: Curve, champion: Mapping[str, Predictions], others: Mapping[str, Predictions]
) -> bool:
    """The champion over thin lines of `others` ("variant/seed-n") on test; whether there was anything to draw."""
    if not all(map(both_classes, champion.values())):
        undefined_note(axes, "undefined: a split holds one class only")
        return False
    variants = [name.partition("/")[0] for name in others]
    for i, (variant, told) in enumerate(zip(variants, others.values(), strict=True)):
        label = f"test, {variants.count(variant)} seed(s) of {variant}" if variant not in variants[:i] else None
        axes.plot(*curve(told), color=GREY if variant == "baseline" else ORANGE, linewidth=0.7, label=label)
    for split, told in champion.items():
        axes.plot(*curve(told), **STYLES[split], label=f"champion on {ROLES[split]}")
    return True


def draw_point(axes: Axes, split: str, x: float | None, y: float | None, threshold: float) -> None:
    """The operating point: filled on test, hollow on valid."""
    if x is not None and y is not None:
        face, label = ("white", None) if split == "valid" else (RED, f"threshold {threshold:.3f} (hollow: valid)")
        point = axes.plot([x], [y], marker="o", markersize=8, linestyle="none", zorder=5, label=label)[0]
        point.set(markeredgecolor=RED, markerfacecolor=face)


def draw_confusion(axes: Axes, split: str, counts: Mapping[str, int]) -> None:
    cells = np.array([[counts["found"], counts["missed"]], [counts["alarms"], counts["cleared"]]])
    of_label = cells.sum(axis=1, keepdims=True)
    shares = cells / np.maximum(of_label, 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.1, aspect="auto")
    for (row, column), n in np.ndenumerate(cells):
        share = shares[row, column]
        colour = "white" if share > 0.6 else INK
        text = f"{n:,}\n{share:.1%}" if of_label[row] else "0"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set(xticks=[0, 1], yticks=[0, 1], title=f"Confusion on {split}", xlabel=f"called ({ROLES[split]})")
    axes.set_xticklabels(["tumour", "none"])
    axes.set_yticklabels(["tumour", "none"], rotation=90, va="center")
    axes.set_ylabel("label")
    axes.grid(False)


def draw_calibration(axes: Axes, split: str, labels: np.ndarray, told: Mapping[str, np.ndarray], bins: int) -> None:
    """Share of tumour by bin of equal counts with its Wilson interval, before and after the temperature."""
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for (when, probabilities), colour, marker in zip(told.items(), (GREY, BLUE), ("s", "o"), strict=True):
        number = calibration_bins(probabilities, bins)
        for b in np.unique(number):
            inside = number == b
            x, n, hits = float(probabilities[inside].mean()), int(inside.sum()), int(labels[inside].sum())
            axes.plot([x, x], wilson_interval(hits, n), color=colour, linewidth=1)
            axes.plot([x], [hits / n], marker=marker, color=colour, markersize=4.5, linestyle="none",
                      label=when if b == number.min() else None)  # fmt: skip
    axes.set(title=f"Calibration on {split}", xlabel="predicted probability", ylabel="share tumour", **UNIT)
    # Below the panel: within it, miscalibrated points lie in any corner.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, handletextpad=0.1, columnspacing=0.8)
