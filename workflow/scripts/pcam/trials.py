"""The search's table of trials as its two pictures of parallel coordinates need it, the drawn and the live one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Trials = Sequence[Mapping[str, str]]
BELOW = -0.14  # height of a setting that a trial does not search, and of the end of a failed one


def height(value: str, parameter: Mapping[str, Any]) -> float:
    """Where on its axis, from 0 to 1, a setting stands; a logarithmic one by its logarithm."""
    if value == "":
        return BELOW
    if parameter["type"] == "categorical":
        choices = [str(choice) for choice in parameter["choices"]]
        return choices.index(value) / (len(choices) - 1)
    low, high, at = (float(part) for part in (parameter["low"], parameter["high"], value))
    if parameter.get("log"):
        low, high, at = np.log(low), np.log(high), np.log(at)
    return float((at - low) / (high - low))


def ticks(parameter: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Height and text of what is written at a setting's axis: its choices, or its bounds and the value between."""
    if parameter["type"] == "categorical":
        choices = [str(choice) for choice in parameter["choices"]]
        return [(height(choice, parameter), choice) for choice in choices]
    low, high = parameter["low"], parameter["high"]
    middle = np.sqrt(low * high) if parameter.get("log") else (low + high) / 2
    return [(0.0, f"{low:g}"), (0.5, f"{middle:.2g}"), (1.0, f"{high:g}")]


def value_of(row: Mapping[str, str]) -> float:
    """The value that a row of the table gives; NaN where it has none."""
    return float(row["value"] or "nan")


def rung_values(trials: Trials) -> dict[str, list[float]]:
    """Values of each proposed trial, by name, on the rungs in turn; NaN where it failed, none where it never came."""
    values = {f"{row['phase']}/trial-{row['trial']}": [value_of(row)] for row in trials if row["rung"] == "0"}
    for row in trials:
        if row["rung"] != "0" and row["origin"]:
            values[row["origin"]] += [value_of(row)]
    return values
