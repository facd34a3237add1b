"""Draw recall and precision of the audit on planted defects, with intervals and detection limits, by kind and variant.

Reads: results/audit/score.json.
Writes: results/assets/audit_score.png and its caption.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from pcam.damage import COPIES
from pcam.figures import BLUE, FAINT, GREY, INK, ORANGE, drawing, undefined_note, write_caption
from pcam.files import InputError, read_json
from pcam.scoring import NOT_REACHED
from pcam.stage import run_stage

LINE_IN = 0.225
LEAKAGE = {*(variant.kind for variant in COPIES), "overlap"}
PANELS = ("Poison", "Leakage")
LIMIT_AT = 1.08  # of the axis: where the column of detection limits begins
AMOUNTS = {"pixels": "{:g} px", "percent": "{:g} %", "values": "{:g} values", "quality": "quality {:g}",
           "sigma": "sigma {:g} px", "share": "share {:g}"}  # fmt: skip

Line = Mapping[str, Any]


def words(name: str) -> str:
    return name.replace("_", " ")


def is_kind(row: Line) -> bool:
    return row["variant"] is None and row["rate"] is None


def rows_of(lines: Sequence[Line]) -> list[Line]:
    """All rates together: each kind, then its variants where it has several (of a trigger each side is one).

    A trigger is found by how often it recurs, so its rates stand between.
    """
    pooled = [line for line in lines if line["rate"] is None and (line["planted"] or line["found"])]
    rows: list[Line] = []
    for kind in dict.fromkeys(line["kind"] for line in pooled):
        own = [line for line in pooled if line["kind"] == kind]
        parts = [line for line in own if line["variant"] and (line["level"] is None) != (kind == "trigger")]
        rows += [line for line in own if line["variant"] is None]
        rows += [
            line for line in lines if line["kind"] == kind == "trigger" and line["variant"] is None and line["rate"]
        ]
        rows += parts if len(parts) > 1 else []
    return rows


def limit_of(row: Line, limits: Sequence[Line]) -> str:
    """The detection limit of a row in words, "" when none is defined."""
    for found in limits if row["rate"] is None else ():
        level = row["level"] if found["by"] == "rate" else None
        if (found["kind"], found["variant"], found["level"]) == (row["kind"], row["variant"], level):
            if found["limit"] == NOT_REACHED:
                return NOT_REACHED
            if found["by"] == "rate":
                return f"from {100 * found['limit']:g} % planted"
            return f"{found['direction']} {AMOUNTS[found['by']].format(found['limit'])}"
    return ""


def name_of(row: Line) -> str:
    if row["variant"] is None:
        return words(row["kind"]) if row["rate"] is None else f"in {100 * row['rate']:g} % of a class"
    side = f" {row['level']:g} px" if row["level"] is not None else ""
    return f"{words(row['variant'])}{side}"


def draw_interval(axes: Axes, row: Line, name: str, y: float, colour: str, marker: str) -> None:
    if row[name] is not None:
        axes.plot(row[f"{name}_interval"], [y, y], color=colour, linewidth=1.3)
    value = [row[name]] if row[name] is not None else []
    axes.plot(value, [y] * len(value), marker, color=colour, markersize=5, label=name)


def draw_rows(axes: Axes, rows: Sequence[Line], limits: Sequence[Line], title: str, places: int) -> None:
    """A line a kind and a line a variant, from the top of as many places."""
    for y, row in enumerate(rows):
        if is_kind(row):
            axes.axhspan(y - 0.5, y + 0.5, color=FAINT, alpha=0.45, linewidth=0)
        draw_interval(axes, row, "recall", y - 0.14, BLUE, "o")
        draw_interval(axes, row, "precision", y + 0.18, ORANGE, "s")
        axes.text(LIMIT_AT, y, limit_of(row, limits), transform=axes.get_yaxis_transform(), va="center", fontsize=8,
                  color=INK if is_kind(row) else GREY, clip_on=False)  # fmt: skip
    names = [f"{name_of(row)}  ({row['planted']:,})" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
        tick.set(weight="bold" if is_kind(row) else "normal", color=INK if is_kind(row) else GREY)
    axes.set_ylim(places - 0.4, -0.6)
    axes.set_xlim(-0.03, 1.03)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("share, 95 % interval")
    axes.set_title(title)
    axes.text(LIMIT_AT, -0.8, "detected", transform=axes.get_yaxis_transform(), fontsize=8, weight="bold")


def findings(score: Mapping[str, Any], kinds: Sequence[Line]) -> list[str]:
    method = score["method"]
    rates = ", ".join(f"{100 * rate:g} %" for rate in method["rates"])
    where = ", ".join(f"{split} {n:,}" for split, n in method["patches"].items())
    planted = [kind for kind in kinds if kind["planted"]]
    exact = sum(kind["recall"] == 1 and kind["precision"] == 1 for kind in planted)
    sentences = [
        f"Defects planted into clean patches ({where}), each kind into a share of {rates} of them (a trigger: of one "
        f"class of train), plantings at each share: {method['repeats']}. In brackets the patches planted; right, the "
        f"smallest share or amount from which recall reaches {method['limit_recall']:g}.",
        f"Recall and precision are both 1.00 for {exact} of {len(planted)} kinds.",
    ]
    for name in ("recall", "precision"):
        worst = min((kind for kind in planted if kind[name] is not None), key=lambda kind: kind[name], default=None)
        if worst is not None and worst[name] < 1:
            low, high = worst[f"{name}_interval"]
            told = f"{worst[name]:.3f} [{low:.3f}, {high:.3f}], of {words(worst['kind'])}"
            sentences.append(f"The lowest {name} is {told}.")
    whole = [found for found in score["limits"] if found["variant"] is None]
    if missed := [words(found["kind"]) for found in whole if found["limit"] == NOT_REACHED]:
        sentences.append(f"Not reached at any share tried: {', '.join(missed)}.")
    clean, other = (sum(kind[f"false_on_{rest}"] for kind in kinds) for rest in ("clean", "planted"))
    return [*sentences, f"False alarms: {clean:,} on patches left clean, {other:,} on patches with another defect."]


def plot_score(score_path: str, png: str, caption: str, *, label: str) -> None:
    """Draw a panel for poison and one for leakage. Raises: InputError when the score is missing or of another form."""
    score = read_json(score_path)
    try:
        rows = rows_of(score["planted"])
        told = findings(score, [row for row in rows if is_kind(row)])
    except (KeyError, TypeError) as error:
        raise InputError(f"{score_path}: no score of planted defects ({error}); rebuild it") from None
    sides = [[row for row in rows if (row["kind"] in LEAKAGE) == (panel == "Leakage")] for panel in PANELS]
    places = max(map(len, sides))
    with drawing(png, label, 13, max(2.5, places * LINE_IN + 1.2)) as figure:
        for axes, side, panel in zip(figure.subplots(1, len(PANELS)), sides, PANELS, strict=True):
            if side:
                draw_rows(axes, side, score["limits"], panel, places)
            else:
                undefined_note(axes, "nothing was planted")
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles[:2], names[:2], loc="outside upper right", ncols=2)
    write_caption(caption, told, label)


if __name__ == "__main__":
    with run_stage(snakemake):
        plot_score(snakemake.input.score, snakemake.output.png, snakemake.output.caption, label=snakemake.params.label)
