"""Draw the share of tumour of each file, and how well a model tells two splits apart against its null distribution.

Reads: results/audit/shift.json.
Writes: results/assets/shift.png and its caption.
"""

from collections.abc import Mapping
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pcam.figures import BLUE, GREY, ORANGE, SKY, drawing, undefined_note, write_caption
from pcam.files import read_json
from pcam.stage import run_stage


def draw_priors(axes: Axes, priors: Mapping[str, Any]) -> None:
    """Share of tumour by file with its interval."""
    for at, prior in enumerate(priors.values()):
        if prior is None:
            axes.text(0.02, at, "labels unknown", va="center", color=GREY)
            continue
        low, high = prior["interval"]
        axes.plot([low, high], [at, at], color=BLUE, linewidth=2.5)
        axes.plot(prior["share"], at, "o", color=BLUE)
        axes.annotate(f"{100 * prior['share']:.1f} %", (prior["share"], at), (0, 7), textcoords="offset points",
                      ha="center", fontsize=9)  # fmt: skip
    axes.set(xlim=(0, 1), ylim=(len(priors) - 0.5, -0.7), xlabel="share of tumour, 95 % interval")
    names = [f"{split}\nn = {prior['n']:,}" if prior else split for split, prior in priors.items()]
    axes.set_yticks(range(len(names)), names)
    axes.set_title("Prior: share of tumour by file")


def draw_pair(axes: Axes, pair: Mapping[str, Any], found: bool | None) -> None:
    """Null distribution of one pair of splits and what was seen."""
    names, test = " and ".join(pair["splits"]), pair["two_sample"]
    axes.set_yticks([])
    if test is None:
        axes.set_title(f"{names}:\ncannot tell", fontsize=10)
        axes.set_xticks([])
        undefined_note(axes, fill(pair["reason"], 28))
        return
    verdict = "a shift" if found else "no shift shown"
    axes.hist(test["null"], bins=np.linspace(0, 1, 51), color=SKY, label="splits dealt at random")
    axes.axvline(test["null_quantile_95"], color=GREY, linestyle=":", label="their 95 % quantile")
    axes.axvline(test["roc_auc"], color=ORANGE, label="the true splits")
    axes.set(xlim=(0, 1), xlabel="ROC-AUC of telling them apart")
    axes.set_title(f"{names}:\n{verdict} (p {test['p']:.3f})", fontsize=10)


def told(findings: list[Mapping[str, Any]]) -> list[str]:
    """What the caption states."""
    sentences = []
    for kind, what in (("prior_shift", "share of tumour"), ("covariate_shift", "colour and texture")):
        mine = [finding for finding in findings if finding["kind"] == kind]
        shifted = ", ".join(" and ".join(finding["splits"]) for finding in mine if finding["found"])
        unknown = ", ".join(" and ".join(finding["splits"]) for finding in mine if finding["found"] is None)
        sentences.append(
            f"Shift in {what}: {shifted or 'none shown'}" + (f"; cannot tell: {unknown}." if unknown else ".")
        )
    return sentences


def plot_shift(shift_path: str, png: str, caption: str, *, label: str) -> None:
    """Priors above, a panel for each pair of splits below. Raises: InputError when the file is missing or damaged."""
    shift = read_json(shift_path)
    found = {tuple(f["splits"]): f["found"] for f in shift["findings"] if f["kind"] == "covariate_shift"}
    with drawing(png, label, 10, 5.8) as figure:
        legend: tuple[list[Any], list[Any]] = ([], [])
        grid = figure.add_gridspec(2, len(shift["pairs"]))
        draw_priors(figure.add_subplot(grid[0, :]), shift["prior"]["splits"])
        for at, pair in enumerate(shift["pairs"]):
            axes = figure.add_subplot(grid[1, at])
            draw_pair(axes, pair, found.get(tuple(pair["splits"])))
            if pair["two_sample"] is not None:
                legend = axes.get_legend_handles_labels()
        if legend[0]:
            figure.legend(*legend, loc="outside lower left", ncols=3)
    write_caption(
        caption,
        [
            *told(shift["findings"]),
            "Patches are matched by label; the null distribution deals whole slides or groups to the splits anew.",
        ],
        label,
    )


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_shift(
            snakemake.input.shift,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
