"""Draw the champion's metric on every slice with its interval, and list the slices where it is undefined.

Reads: results/slices/slices.csv.
Writes: results/assets/slices.png and its caption.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes

from pcam.figures import BLUE, FAINT, GREY, INK, drawing, undefined_note, write_caption
from pcam.files import read_csv
from pcam.stage import run_stage

COLUMNS = ("slice", "value", "n", "positives", "metric", "estimate", "low", "high", "status")
LINE_IN = 0.27

Slice = Mapping[str, str]


def is_whole(row: Slice) -> bool:
    return row["slice"] == "all"


def draw_slices(axes: Axes, rows: Sequence[Slice], title: str) -> None:
    """Dot and interval per slice, from the top; slices below the smallest n in grey, undefined ones in words."""
    for y, row in enumerate(rows):
        firm = row["status"] == "ok"
        colour = INK if is_whole(row) else BLUE if firm else GREY
        if row["estimate"] == "":
            axes.text(0.5, y, row["status"], color=GREY, va="center", ha="center", fontsize=8, backgroundcolor="white",
                      transform=axes.get_yaxis_transform())  # fmt: skip
            continue
        if row["low"] and row["high"]:
            axes.plot([float(row["low"]), float(row["high"])], [y, y], color=colour, linewidth=1.4)
        face = colour if firm else "white"
        axes.plot([float(row["estimate"])], [y], marker="o", color=colour, markerfacecolor=face, markersize=6)
    whole = [float(row["estimate"]) for row in rows if is_whole(row) and row["estimate"]]
    if whole:
        axes.axvline(whole[0], color=INK, linewidth=0.8, linestyle=":")
    names = [f"{row['value']}  (n {int(row['n']):,}, {int(row['positives']):,} tumour)" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_title(title)
    axes.grid(axis="y", color=FAINT, linewidth=0.4)


def findings(rows: Sequence[Slice], minimum_n: int) -> list[str]:
    parts = [row for row in rows if not is_whole(row)]
    firm = [row for row in parts if row["status"] == "ok" and row["estimate"]]
    undefined = sum(row["estimate"] == "" for row in parts)
    sentences = [f"{len(parts)} slices of the test split, each with its 95 % interval where one exists."]
    if firm:
        worst, best = (pick(firm, key=lambda row: float(row["estimate"])) for pick in (min, max))
        sentences.append(
            f"Of those with at least {minimum_n} patches the lowest {firm[0]['metric'].replace('_', '-').upper()} is "
            f"{float(worst['estimate']):.3f} ({worst['slice']} {worst['value']}, n {int(worst['n']):,}) and the "
            f"highest {float(best['estimate']):.3f} ({best['slice']} {best['value']}, n {int(best['n']):,})."
        )
    few = len(parts) - len(firm) - undefined
    sentences.append(f"{few} hold too few patches for a claim (grey, hollow); in {undefined} the metric is undefined.")
    return sentences


def plot_slices(slices_path: str, png: str, caption: str, *, minimum_n: int, label: str) -> None:
    """Draw a panel per kind of slice. Raises: InputError when the table is missing or lacks a column."""
    rows = read_csv(slices_path, COLUMNS)
    if rows:
        rows = [row for row in rows if row["metric"] == rows[0]["metric"]]
    whole = [row for row in rows if is_whole(row)]
    kinds = list(dict.fromkeys(row["slice"] for row in rows if not is_whole(row)))
    groups = {kind: [*whole, *(row for row in rows if row["slice"] == kind)] for kind in kinds}
    lines = [len(group) + 2.6 for group in groups.values()]
    with drawing(png, label, 9, max(2.0, sum(lines) * LINE_IN + 0.6)) as figure:
        if not groups:
            undefined_note(figure.subplots(), "no slice was measured")
        else:
            panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": lines})
            for axes, (kind, group) in zip(panels[:, 0], groups.items(), strict=True):
                draw_slices(axes, group, f"By {kind.replace('_', ' ')}")
            panels[-1, 0].set_xlabel(
                f"{rows[0]['metric'].replace('_', '-').upper()} on test, 95 % interval (dotted: all of test)"
            )
    write_caption(caption, findings(rows, minimum_n), label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_slices(
            snakemake.input.slices,
            snakemake.output.png,
            snakemake.output.caption,
            minimum_n=snakemake.params.minimum_n,
            label=snakemake.params.label,
        )
