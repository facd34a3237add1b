"""The report's live plots: specifications for Vega-Lite, their data, and the same figures as tables.

A plot has controls, each the parameter of its name in every panel, and a table whose rows follow the controls.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from pcam.documents import words
from pcam.files import read_csv, read_json
from pcam.predictions import Predictions, read_predictions

POINTS = 300  # thresholds to choose from: the curves look whole, and each is a few pixels of the slider
# All reach a contrast of 3 on the light and on the dark page, or are not needed to tell one thing from another.
BLUE, ORANGE, GREY, GREEN = "#2f7fd1", "#d9660a", "#8a96a3", "#1b9e77"
INK = "currentColor"
CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",  # the page's: Vega measures its texts before it places them
    "view": {"stroke": None},
    "axis": {"labelColor": INK, "titleColor": INK, "domainColor": INK, "tickColor": INK, "gridColor": INK,
             "gridOpacity": 0.15, "labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal"},
    "legend": {"labelColor": INK, "titleColor": INK, "orient": "top", "labelFontSize": 12, "titleFontSize": 12,
               "titleFontWeight": "normal"},
    "mark": {"aria": False},  # the table tells the figures: thousands of marks would drown a screen reader
}  # fmt: skip


class Control(TypedDict):
    """A slider over keys, or a choice of one; `texts` is what a reader sees of each key."""

    name: str
    label: str
    kind: str
    keys: list[Any]
    texts: list[str]
    value: Any


class Plot(TypedDict):
    """`told`: rows of the table below `head` for each state of the controls, their keys joined by a bar."""

    title: str
    help: str
    controls: list[Control]
    panels: list[dict[str, Any]]
    datasets: dict[str, list[dict[str, Any]]]
    head: list[str]
    told: dict[str, list[list[str]]]


def panel(description: str, controls: Sequence[Control], **parts: Any) -> dict[str, Any]:
    """One Vega-Lite view as wide as the page lets it be."""
    params = [{"name": control["name"], "value": control["value"]} for control in controls]
    return {
        "description": description,
        "width": "container",
        "height": 300,
        "params": params,
        "config": CONFIG,
        **parts,
    }


def axis(field: str, title: str, **scale: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "scale": scale}


def rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def decimal(value: float | None, digits: int = 3) -> str:
    return "undefined" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def thresholds_to_show(probabilities: np.ndarray, chosen: float) -> np.ndarray:
    """At most POINTS + 2 thresholds, ascending: quantiles of the probabilities, the chosen one, and 1."""
    quantiles = np.quantile(probabilities, np.linspace(0, 1, POINTS), method="inverted_cdf")
    return np.unique(np.concatenate([quantiles, [chosen, 1.0]]))


def confusion(told: Predictions, threshold: float) -> dict[str, int]:
    """Patches called tumour from the threshold on, as evaluate_champion counts them."""
    tumour, called = told.labels == 1, told.probabilities >= threshold
    return {
        "found": int(np.sum(tumour & called)),
        "missed": int(np.sum(tumour & ~called)),
        "alarms": int(np.sum(~tumour & called)),
        "cleared": int(np.sum(~tumour & ~called)),
    }


def threshold_plot(predictions: Mapping[str, str], evaluation_path: str) -> Plot:
    """ROC and precision against recall of each split, with the confusion at every threshold.

    `predictions`: split to its table. Raises: InputError when a file is missing or cannot be read.
    """
    chosen = float(read_json(evaluation_path)["threshold"])
    splits = {split: read_predictions(path) for split, path in predictions.items()}
    thresholds = thresholds_to_show(np.concatenate([told.probabilities for told in splits.values()]), chosen)
    points: list[dict[str, Any]] = []
    rows: dict[str, list[list[str]]] = {}
    for at, threshold in enumerate(thresholds.tolist()):
        rows[str(at)] = []
        for split, told in splits.items():
            n = confusion(told, threshold)
            recall, alarmed = rate(n["found"], n["found"] + n["missed"]), rate(n["alarms"], n["alarms"] + n["cleared"])
            precision = rate(n["found"], n["found"] + n["alarms"])
            points.append({"at": at, "split": split, "recall": recall, "alarmed": alarmed, "precision": precision})
            specificity = None if alarmed is None else 1 - alarmed
            rates = [decimal(value) for value in (recall, specificity, precision)]
            rows[str(at)].append([split, *(f"{count:,}" for count in n.values()), *rates])
    control: Control = {
        "name": "at", "label": "Threshold", "kind": "slider", "keys": list(range(len(thresholds))),
        "texts": [f"{threshold:.3f}{' (chosen on valid)' if threshold == chosen else ''}" for threshold in thresholds],
        "value": thresholds.tolist().index(chosen),
    }  # fmt: skip
    colour = {"field": "split", "type": "nominal", "title": None, "sort": list(splits),
              "scale": {"range": [ORANGE, BLUE]}}  # fmt: skip

    def curve(
        description: str, x: dict[str, Any], y: dict[str, Any], reference: list[dict[str, Any]]
    ) -> dict[str, Any]:
        place = {"x": x, "y": y, "color": colour}
        dashed = {"type": "line", "strokeDash": [3, 3], "color": INK, "opacity": 0.5}
        layers: list[dict[str, Any]] = [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {**place, "order": {"field": "at"}}},
            {"mark": {"type": "point", "size": 160, "filled": True, "opacity": 0}, "encoding": place},
            {"transform": [{"filter": "datum.at == at"}],
             "mark": {"type": "point", "size": 130, "filled": True, "opacity": 1}, "encoding": place},
        ]  # fmt: skip
        if reference:
            layers.insert(0, {"data": {"values": reference}, "mark": dashed, "encoding": {"x": x, "y": y}})
        return panel(description, [control], data={"name": "points"}, layer=layers)

    share = {"domain": [0, 1]}
    diagonal = [{"alarmed": 0, "recall": 0}, {"alarmed": 1, "recall": 1}]
    return {
        "title": "Move the threshold",
        "help": "Slide, or point at a curve: the table gives the confusion of the champion at that threshold.",
        "controls": [control],
        "panels": [
            curve("ROC of each split, with the threshold marked", axis("alarmed", "false positive rate", **share),
                  axis("recall", "true positive rate", **share), diagonal),
            curve("Precision against recall of each split, with the threshold marked",
                  axis("recall", "recall", **share), axis("precision", "precision", **share), []),
        ],
        "datasets": {"points": points},
        "head": ["split", "tumours found", "tumours missed", "false alarms", "cleared", "sensitivity", "specificity",
                 "precision"],
        "told": rows,
    }  # fmt: skip


def slices_plot(slices_path: str) -> Plot | None:
    """A metric with its interval on every slice of an attribute; None where nothing was sliced.

    Raises: InputError when the table is missing or lacks a column.
    """
    columns = ("slice", "value", "n", "metric", "estimate", "low", "high", "gap", "p_corrected", "status")
    rows = read_csv(slices_path, columns)
    attributes = list(dict.fromkeys(row["slice"] for row in rows if row["slice"] != "all"))
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    if not attributes:
        return None
    controls: list[Control] = [
        {"name": "metric", "label": "Metric", "kind": "choice", "keys": metrics, "texts": [*map(words, metrics)],
         "value": metrics[0]},
        {"name": "attribute", "label": "Attribute", "kind": "choice", "keys": attributes,
         "texts": [*map(words, attributes)], "value": attributes[0]},
    ]  # fmt: skip
    points = [
        {key: row[key] for key in ("slice", "value", "metric")}
        | {key: float(row[key]) for key in ("estimate", "low", "high")}
        for row in rows
        if row["estimate"] and row["low"]
    ]
    told = {
        f"{metric}|{attribute}": [
            [
                row["value"], f"{int(row['n']):,}", decimal(number(row["estimate"])),
                f"{decimal(number(row['low']))} to {decimal(number(row['high']))}" if row["low"] else "none",
                decimal(number(row["gap"])) if row["gap"] else "none",
                f"{float(row['p_corrected']):.2g}" if row["p_corrected"] else "not tested", row["status"],
            ]
            for row in rows
            if (row["metric"], row["slice"]) == (metric, attribute)
        ]
        for metric in metrics
        for attribute in attributes
    }  # fmt: skip
    up = {"field": "value", "type": "nominal", "title": None, "sort": None, "axis": {"labelLimit": 160}}
    wide = {"title": "estimate and interval; dashed: all patches", "scale": {"zero": False},
            "axis": {"tickCount": 5, "labelOverlap": True}}  # fmt: skip
    own = [{"filter": "datum.metric == metric && datum.slice == attribute"}]
    whole = [{"filter": "datum.metric == metric && datum.slice == 'all'"}]
    return {
        "title": "Look at an attribute",
        "help": "Choose a metric and an attribute: each of its slices with its interval, and the table with the gaps.",
        "controls": controls,
        "panels": [
            panel("The metric with its interval on every slice of the attribute", controls, data={"name": "points"},
                  height={"step": 24}, layer=[
                {"transform": whole, "mark": {"type": "rule", "strokeDash": [4, 4], "color": INK, "opacity": 0.7},
                 "encoding": {"x": {"field": "estimate", "type": "quantitative", **wide}}},
                {"transform": own, "mark": {"type": "rule", "strokeWidth": 2, "color": BLUE},
                 "encoding": {"y": up, "x": {"field": "low", "type": "quantitative", **wide}, "x2": {"field": "high"}}},
                {"transform": own, "mark": {"type": "point", "filled": True, "opacity": 1, "size": 80, "color": BLUE},
                 "encoding": {"y": up, "x": {"field": "estimate", "type": "quantitative", **wide}}},
            ]),
        ],
        "datasets": {"points": points},
        "head": ["slice", "n", "estimate", "interval", "gap to the rest", "p, corrected", "status"],
        "told": told,
    }  # fmt: skip


def number(text: str) -> float | None:
    return float(text) if text else None
