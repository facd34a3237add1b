"""Draw the champion's metrics on every slice with their intervals, and say where one is undefined.

Reads: results/slices/slices.csv and slices.json.
Writes: results/assets/slices.png and its caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from pcam.figures import BLUE, FAINT, GREY, INK, RED, drawing, undefined_note, write_caption
from pcam.files import read_csv, read_json
from pcam.stage import run_stage

COLUMNS = ("slice", "value", "n", "positives", "metric", "estimate", "low", "high", "p_corrected", "status")
METRICS = {"roc_auc": "ROC-AUC", "sensitivity": "sensitivity", "specificity": "specificity"}
NAMED = 8  # most slides a figure shows, those with most patches; the table holds all
LINE_IN = 0.17

Slice = Mapping[str, str]
Line = tuple[str, dict[str, Slice]]  # name of a slice, and its row for each metric


def title_of(slicing: str) -> str:
    return slicing.replace("_", " ") if slicing != "range" else "ranges of the config"


def place_of(claim: Mapping[str, Any]) -> str:
    """A slice in words."""
    name = claim["slice"].replace("_", " ")
    return f"in {claim['value']}" if name in ("range", "hospital", "slide") else f"where {name} is {claim['value']}"


def lines_of(rows: Sequence[Slice], slicing: str) -> list[Line]:
    """The slices of a slicing, in the order of the table."""
    found: dict[str, dict[str, Slice]] = {}
    for row in rows:
        if row["slice"] == slicing:
            found.setdefault(row["value"], {})[row["metric"]] = row
    return list(found.items())


def largest(lines: Sequence[Line]) -> list[Line]:
    """The NAMED lines with most patches, in their order."""
    most = sorted(lines, key=lambda line: -int(line[1]["roc_auc"]["n"]))[:NAMED]
    return [line for line in lines if line in most]


def draw_column(axes: Axes, lines: Mapping[float, Mapping[str, Slice]], metric: str, level: float) -> None:
    """Dot and interval per slice; hollow and grey: too few patches or slides; red star: a gap beyond chance."""
    for y, by_metric in lines.items():
        row = by_metric[metric]
        if row["estimate"] == "":
            told = row["status"].removeprefix("undefined: ")
            axes.text(0.5, y, told, color=GREY, va="center", ha="center", fontsize=7,
                      transform=axes.get_yaxis_transform())  # fmt: skip
            continue
        claimed = row["p_corrected"] != "" and float(row["p_corrected"]) <= level
        colour = RED if claimed else GREY if row["status"].startswith("too few") else BLUE
        if row["low"] and row["high"]:
            axes.plot([float(row["low"]), float(row["high"])], [y, y], color=colour, linewidth=1.3)
        face = "white" if colour == GREY else colour
        marker, size = ("*", 9) if claimed else ("o", 4.5)
        axes.plot([float(row["estimate"])], [y], marker=marker, color=colour, markerfacecolor=face, markersize=size)
    axes.grid(axis="y", color=FAINT, linewidth=0.4)
    axes.tick_params(axis="x", labelsize=8)


def findings(rows: Sequence[Slice], summary: Mapping[str, Any], left_out: int) -> list[str]:
    """What the picture shows, in sentences."""
    parts = [row for row in rows if row["slice"] != "all"]
    slices = len({(row["slice"], row["value"]) for row in parts})
    claims = summary["claims"]
    units = f", by {summary['group']}" if summary["group"] != "patch" else ""
    tested = f"{summary['tested']} gaps to the rest tested together{units}"
    sentences = [f"{slices} slices of the test split, edges from valid; {tested}."]
    for claim in claims[:1]:
        first, where = "No slice here is shown to be weaker than the rest. A gap above it", "above"
        if claim["gap"] < 0:
            first, where = "The widest gap below the rest", "below"
        figure = f"{METRICS[claim['metric']]} {claim['estimate']:.3f} {place_of(claim)} (n {claim['n']:,})"
        sentences.append(f"{first} that chance does not explain: {figure}, {abs(claim['gap']):.3f} {where}.")
    if len(claims) > 1:
        sentences.append(f"{len(claims)} gaps are claimed (red stars).")
    if not summary["tested"]:
        enough = f" and {summary['group']}s ({summary['least_groups']})" if summary["least_groups"] else ""
        sentences.append(f"No gap was tested: none lies in enough patches{enough}.")
    elif not claims:
        sentences.append(f"None is claimed at the corrected level {summary['level']:g}: the gaps seen may be chance.")
    few = sum(row["status"].startswith("too few") for row in parts)
    undefined = sum(row["status"].startswith("undefined") for row in parts)
    sentences.append(f"{few} values rest on too few patches or slides (grey, hollow), {undefined} are undefined.")
    if left_out:
        sentences.append(f"Of the slides the {NAMED} with most patches are shown, {left_out} are not.")
    return sentences


def plot_slices(slices_path: str, summary_path: str, png: str, caption: str, *, label: str) -> None:
    """A line per slice, a column per metric. Raises: InputError when a file is missing or lacks a column."""
    rows, summary = read_csv(slices_path, COLUMNS), read_json(summary_path)
    whole = {row["metric"]: row["estimate"] for row in rows if row["slice"] == "all"}
    slicings = list(dict.fromkeys(row["slice"] for row in rows if row["slice"] != "all"))
    left_out, y = 0, 0.0
    heads: dict[float, str] = {}
    lines: dict[float, Mapping[str, Slice]] = {}
    names: list[str] = []
    for slicing in slicings:
        found = lines_of(rows, slicing)
        if slicing == "slide":
            left_out = max(0, len(found) - NAMED)
            found = largest(found)
        heads[y] = title_of(slicing)
        for value, by_metric in found:
            y += 1
            lines[y] = by_metric
            row = by_metric["roc_auc"]
            names.append(f"{value.removeprefix('camelyon16_')}  ({int(row['n']):,}, {int(row['positives']):,})")
        y += 1.4
    with drawing(png, label, 9, max(2.0, y * LINE_IN + 0.8)) as figure:
        if not slicings:
            undefined_note(figure.subplots(), "no slice was measured")
        else:
            panels = figure.subplots(1, len(METRICS), sharey=True)
            for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
                draw_column(axes, lines, metric, summary["level"])
                if whole[metric]:
                    axes.axvline(float(whole[metric]), color=INK, linewidth=0.8, linestyle=":")
                axes.set_title(title)
            for at, head in heads.items():
                panels[0].text(-0.03, at, head, fontsize=8.5, weight="bold", va="center", ha="right",
                               transform=panels[0].get_yaxis_transform())  # fmt: skip
            panels[0].set_yticks(list(lines), names, fontsize=7.5)
            panels[0].set_ylim(y - 0.7, -0.7)
            key = "dotted: all of test; in brackets: patches, of these with tumour"
            level = 100 * summary["interval_level"]
            figure.supxlabel(f"On test with {level:g} % intervals; {key}", fontsize=8.5, color=GREY)
    write_caption(caption, findings(rows, summary, left_out), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_slices(
            snakemake.input.slices,
            snakemake.input.summary,
            snakemake.output.png,
            snakemake.output.caption,
            label=snakemake.params.label,
        )
