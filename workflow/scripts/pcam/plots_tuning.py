"""The report's live plot of the search: value by trial, and parallel coordinates."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pcam.documents import words
from pcam.files import read_csv
from pcam.plots import BLUE, GREEN, GREY, INK, ORANGE, Control, Plot, axis, decimal, panel
from pcam.trials import BELOW, Trials, height, rung_values, ticks


def told_setting(text: str) -> str:
    """A setting to four digits; a choice as it is named."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text or "not searched"


def trial_rows(
    trials: Trials, name: str, values: Sequence[float], space: Mapping[str, Any], metric: str
) -> list[list[str]]:
    phase, trial = name.split("/trial-")
    row = next(row for row in trials if (row["phase"], row["trial"]) == (phase, trial))
    told = [[words(setting), told_setting(row[setting])] for setting in space]
    told += [[f"{words(metric)} on rung {rung}", decimal(value)] for rung, value in enumerate(values)]
    return [*told, ["state", row["state"] + (f": {row['reason']}" if row["reason"] else "")]]


def parallel_data(
    trials: Trials, values: Mapping[str, Sequence[float]], space: Mapping[str, Any], named: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Points of the lines, one for each trial and axis, and what is written at the axes; the last axis is the value."""
    known = [value for own in values.values() for value in own if math.isfinite(value)]
    low, high = (min(known), max(known)) if len(set(known)) > 1 else (0.0, 1.0)
    axes = {words(name): ticks(parameter) for name, parameter in space.items()}
    axes[named] = [(share, f"{low + share * (high - low):.3f}") for share in (0.0, 0.5, 1.0)]
    first = {f"{row['phase']}/trial-{row['trial']}": row for row in trials if row["rung"] == "0"}
    lines = []
    for name, own in values.items():
        value = own[0] if math.isfinite(own[0]) else None
        heights = [height(first[name][setting], parameter) for setting, parameter in space.items()]
        heights.append(BELOW if value is None else (value - low) / (high - low))
        lines += [{"at": name, "axis": at, "y": y, "value": value} for at, y in zip(axes, heights, strict=True)]
    return lines, [{"axis": at, "y": y, "text": text} for at, marks in axes.items() for y, text in marks]


def value_panel(control: Control, named: str) -> dict[str, Any]:
    place = {
        "x": axis("trial", "trial, in the order proposed", zero=False, nice=False, padding=14)
        | {"axis": {"tickMinStep": 1, "format": "d"}},
        "y": axis("value", named, zero=False, padding=10),
    }
    rung = {"field": "rung", "type": "nominal", "title": None}
    coloured = {**place, "shape": rung, "color": {**rung, "scale": {"range": [GREY, BLUE, GREEN]}}}
    ring = {"type": "point", "size": 260, "strokeWidth": 3, "opacity": 1, "color": ORANGE}
    layer = [
        {"mark": {"type": "point", "filled": True, "opacity": 1, "size": 90}, "encoding": coloured},
        {"transform": [{"filter": "datum.at == at"}], "mark": ring, "encoding": place},
    ]
    return panel(f"{named} on valid of each trial, by rung", [control], data={"name": "points"}, layer=layer)


def parallel_panel(control: Control, axes: Sequence[str]) -> dict[str, Any]:
    lines = {"orient": "top", "title": None, "domain": False, "ticks": False, "grid": True, "gridOpacity": 0.5}
    texts = {"labelAngle": 0, "labelLimit": 90, "labelPadding": 24, "labelExpr": "split(datum.label, ' ')"}
    place = {
        "x": {"field": "axis", "type": "nominal", "sort": list(axes), "axis": lines | texts},
        "y": {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [BELOW - 0.05, 1.05]}},
    }
    each = {**place, "detail": {"field": "at"}}
    shades = {"range": [GREY, BLUE], "zero": False}
    colour = {"field": "value", "type": "quantitative", "legend": None, "scale": shades}
    written = {"type": "text", "dx": -4, "align": "right", "fontSize": 11, "color": INK}
    layer = [
        {"mark": {"type": "line", "strokeWidth": 2.5}, "encoding": {**each, "color": colour}},
        {"transform": [{"filter": "datum.at == at"}], "mark": {"type": "line", "strokeWidth": 5, "color": ORANGE},
         "encoding": each},
        {"data": {"name": "marks"}, "mark": written, "encoding": {**place, "text": {"field": "text"}}},
    ]  # fmt: skip
    title = "Each trial as a line through its settings to its value on the first rung"
    return panel(title, [control], data={"name": "lines"}, layer=layer)


def tuning_plot(trials_path: str, space: Mapping[str, Any], metric: str) -> Plot | None:
    """Value by trial, and each trial as a line through its settings; None where no trial was made.

    Raises: InputError when the table is missing or lacks a column.
    """
    columns = ("phase", "trial", "rung", "state", "value", "epochs", "origin", "reason", *space)
    trials = read_csv(trials_path, columns)
    values, named = rung_values(trials), words(metric)
    if not values:
        return None
    best = max(values, key=lambda name: [value for value in values[name] if math.isfinite(value)][-1:])
    control: Control = {
        "name": "at", "label": "Trial", "kind": "choice", "keys": list(values), "texts": list(values), "value": best,
    }  # fmt: skip
    points = [
        {"at": name, "trial": i, "rung": f"rung {rung}", "value": value}
        for i, (name, own) in enumerate(values.items(), 1)
        for rung, value in enumerate(own)
        if math.isfinite(value)
    ]
    lines, marks = parallel_data(trials, values, space, named)
    return {
        "title": "Follow a trial",
        "help": "Choose a trial, or point at a dot or a line: it is marked in both panels, and the table gives it.",
        "controls": [control],
        "panels": [value_panel(control, named), parallel_panel(control, [*map(words, space), named])],
        "datasets": {"points": points, "lines": lines, "marks": marks},
        "head": ["of this trial", "value"],
        "told": {name: trial_rows(trials, name, own, space, metric) for name, own in values.items()},
    }
