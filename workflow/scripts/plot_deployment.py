"""Draw what each deployment issue does to the champion, step by step, and which steps a check catches.

Reads: deployment.json.
Writes: results/assets/deployment.png and its caption.
"""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from pcam.figures import BLUE, FAINT, GREY, INK, ORANGE, drawing, write_caption
from pcam.files import read_json
from pcam.stage import run_stage

COLUMNS = 4
MEASURED = "measured"


def draw_issue(axes: Axes, issue: Mapping[str, Any], bottom: float) -> None:
    """One panel: metrics with intervals and the share of changed decisions at each step; caught steps are marked."""
    points = issue["points"]
    places = blended_transform_factory(axes.transData, axes.transAxes)
    for at, point in enumerate(points):
        if point["status"] != MEASURED:
            axes.text(at, 0.5, point["status"].replace(": ", ":\n"), ha="center", va="center", transform=places,
                      color=GREY, fontsize=8)  # fmt: skip
            continue
        axes.bar(at, point["flipped"], width=0.6, color=FAINT, label="decisions changed" if at == 0 else None)
        caught = point["guard"]["check"] is not None
        if point["strength"] != 0:
            axes.plot(at, 1.045, "v" if caught else "x", color=INK if caught else GREY, markersize=6,
                      transform=places, clip_on=False)  # fmt: skip
    known = [(at, point) for at, point in enumerate(points) if point["status"] == MEASURED]
    line = "o-" if issue["unit"] else "o"  # kinds of normalisation have no order
    for name, colour, aside in (("roc_auc", BLUE, -0.07), ("f_beta", ORANGE, 0.07)):
        drawn = [(at + aside, point[name]) for at, point in known if point[name]["value"] is not None]
        for place, metric in drawn:
            if metric["low"] is not None:
                axes.plot([place, place], [metric["low"], metric["high"]], color=colour, linewidth=1.2)
        label = {"roc_auc": "ROC-AUC", "f_beta": "F-beta"}[name]
        axes.plot([place for place, _ in drawn], [metric["value"] for _, metric in drawn], line, color=colour,
                  markersize=4, label=label)  # fmt: skip
    labels = [point["label"].removesuffix(" %").removeprefix("quality ") for point in points]
    axes.set_xticks(range(len(points)), labels, fontsize=8)
    axes.set(xlim=(-0.5, len(points) - 0.5), ylim=(bottom, 1), xlabel=issue["unit"].replace("100 - quality", "quality"))
    axes.grid(axis="x", visible=False)
    axes.set_title(issue["name"], pad=14)


def draw_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    marks = [axes.plot([], [], mark, color=colour, markersize=6)[0] for mark, colour in (("v", INK), ("x", GREY))]
    figure.legend([*handles, *marks], [*labels, "a check catches it", "nothing catches it"], loc="outside lower left",
                  ncols=5)  # fmt: skip


def told(measured: Mapping[str, Any]) -> list[str]:
    """What the caption states."""
    baseline, n = measured["baseline"], measured["n"]
    auc = baseline["roc_auc"]["value"]
    known = "not defined: one class only" if auc is None else f"{auc:.3f}"
    sentences = [f"On {n:,} test patches as they are: ROC-AUC {known}."]
    if baseline["guard"]["note"] is not None:
        sentences.append(f"{baseline['guard']['note'].capitalize()}, so no warning of it counts as a catch.")
    missed = []
    for issue in measured["issues"]:
        points = [point for point in issue["points"] if point["status"] == MEASURED and point["strength"] != 0]
        if not points:
            sentences.append(f"{issue['name'].capitalize()}: {issue['points'][-1]['status']}.")
            continue
        worst = max(points, key=lambda point: float(point["flipped"]))
        caught = f"caught ({worst['guard']['check']})" if worst["guard"]["check"] else "not caught"
        sentences.append(
            f"{issue['name'].capitalize()}: most decisions change at {worst['label']}, {100 * worst['flipped']:.1f} %; "
            f"{caught}."
        )
        missed += [
            f"{issue['name']} {point['label']} ({100 * point['flipped']:.1f} %)"
            for point in points
            if point["guard"]["check"] is None and point["flipped"] > 0
        ]
    sentences.append(f"Decisions change and nothing catches it: {', '.join(missed) or 'nowhere'}.")
    return sentences


def plot_deployment(deployment_path: str, png: str, caption: str, *, label: str) -> None:
    """A panel for each issue. Raises: InputError when the file is missing or damaged."""
    measured = read_json(deployment_path)
    issues = measured["issues"]
    rows = -(-len(issues) // COLUMNS)
    with drawing(png, label, 11.5, 0.6 + 2.7 * rows) as figure:
        grid = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False)
        for axes in grid.flat[len(issues) :]:
            axes.set_visible(False)
        for axes, issue in zip(grid.flat, issues, strict=False):
            draw_issue(axes, issue, 0)
        draw_legend(figure, grid.flat[0])
    write_caption(
        caption,
        [
            *told(measured),
            "Bars: share of decisions that change. Lines: 95 % intervals. Ticks of stain and brightness: %.",
        ],
        label,
    )


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_deployment(
            snakemake.input.deployment,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
