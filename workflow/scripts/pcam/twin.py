"""Whether two trainings gave the same bits, and if not, what parts them first. No path enters a fingerprint."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcam.checkpoint import load_tensors, tensors_digest
from pcam.files import InputError, document_digest, read_csv, read_json
from pcam.preprocess import Preprocessing
from pcam.sidecar import read_sidecar

# The order in which a difference is named: one further up can explain all that are further down.
CAUSES = ("versions", "device", "data", "config", "code")
HASHES = ("weights", "losses", "predictions")
SIDES = ("here", "there")  # what the two runs of a comparison are called


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Weights by name. Raises: InputError when they are damaged or not those that their sidecar describes."""
    state = load_tensors(path)
    if tensors_digest(state) != read_sidecar(path)["digests"].get("weights"):
        raise InputError(f"{path}: not the weights that its sidecar describes; train them again")
    return state


def make_fingerprint(
    weights_path: str, steps_path: str, predictions_path: str, tables: Mapping[str, str], preprocessing: Preprocessing
) -> dict[str, Any]:
    """What a teammate needs to compare: hashes of the results, and the five causes that can change them.

    `tables`: the tables of train and valid.
    """
    state, sidecar = load_weights(weights_path), read_sidecar(weights_path)
    losses = [[line["step"], line["loss"]] for line in read_csv(steps_path, ("step", "loss"))]
    logits = [[line["row"], line["logit"]] for line in read_csv(predictions_path, ("row", "logit"))]
    data = {"source": sidecar["data_source"]}
    for split, path in tables.items():
        rows = [[line["row"], line["label"]] for line in read_csv(path, ("row", "label"))]
        data |= {f"{split}_patches": len(rows), f"{split}_rows": document_digest(rows)}
    data["normalisation"] = document_digest([list(preprocessing.mean), list(preprocessing.std)])
    data["digest"] = sidecar["digests"]["data"]  # the pixels as well
    return {
        "hashes": {
            "weights": tensors_digest(state),
            "losses": document_digest(losses),
            "predictions": document_digest(logits),
        },
        **sidecar["runtime"],
        "data": data,
        "config": {
            "seed": sidecar["seed"],
            "settings": sidecar["settings"],
            "digest": document_digest([sidecar["seed"], sidecar["settings"]]),
        },
        "code": {"digest": sidecar["digests"]["code"]},
    }


def read_fingerprint(path: str | Path) -> dict[str, Any]:
    """A fingerprint.json. Raises: InputError when it is missing, or is none."""
    way_out = "set reproducibility.fingerprint to the fingerprint.json of a run of this pipeline"
    try:
        document = read_json(path)
    except InputError as error:
        raise InputError(f"{str(error).removesuffix('; rebuild it')}; {way_out}") from None
    for name in ("hashes", *CAUSES):
        if not isinstance(document.get(name), dict):
            raise InputError(f"{path}: key {name!r} is missing or no object; {way_out}")
    for name in HASHES:
        if not isinstance(document["hashes"].get(name), str):
            raise InputError(f"{path}: key 'hashes.{name}' is missing or no text; {way_out}")
    return document


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    """Nested objects as one, its keys joined by dots."""
    if not isinstance(value, Mapping):
        return {at: value}
    return {key: leaf for name, child in value.items() for key, leaf in _flat(child, f"{at}.{name}".strip(".")).items()}


def differing_causes(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What differs in two fingerprints, hashes left out, in the order of the causes."""
    found = []
    for cause in CAUSES:
        mine, other = _flat(here[cause]), _flat(there[cause])
        for name in dict.fromkeys((*mine, *other)):
            if mine.get(name) != other.get(name):
                found.append({"cause": cause, "what": name, "here": mine.get(name), "there": other.get(name)})
    return found


def told(difference: Mapping[str, Any], sides: tuple[str, str] = SIDES) -> str:
    """One difference in words; of a list, such as instruction sets, only what one side lacks.

    `sides`: what the two runs are called.
    """
    here, there = difference["here"], difference["there"]
    if isinstance(here, list) and isinstance(there, list):
        here, there = ([item for item in mine if item not in other] for mine, other in ((here, there), (there, here)))
    values = [
        ("nothing more" if side == [] else ", ".join(side) if isinstance(side, list) else side)
        for side in (here, there)
    ]
    shown = [
        f"{'none' if value is None else str(value)[:60]} {side}" for value, side in zip(values, sides, strict=True)
    ]
    return f"{difference['cause']} ({difference['what']}: {', '.join(shown)})"


def verdict(differing: Sequence[str], causes: Sequence[Mapping[str, Any]], sides: tuple[str, str] = SIDES) -> str:
    """`differing`: names of results with other bits; `causes`: see differing_causes; `sides`: see told."""
    if not differing:
        if not causes:
            return "the same bits, with equal versions, device, data, config and code"
        return f"the same bits, although something differs; the first is {told(causes[0], sides)}"
    what = f"other bits in {', '.join(differing)}"
    if causes:
        return f"{what}; the first difference is {told(causes[0], sides)}"
    return f"{what}; unexplained: versions, device, data, config and code are equal"


def compare_fingerprints(here: Mapping[str, Any], there: Mapping[str, Any]) -> dict[str, Any]:
    """Which hashes agree, every cause that differs, and the verdict, which names the first."""
    equal = {name: here["hashes"][name] == there["hashes"][name] for name in HASHES}
    causes = differing_causes(here, there)
    return {
        "same_bits": all(equal.values()),
        "verdict": verdict([name for name, same in equal.items() if not same], causes),
        "equal": equal,
        "first_difference": causes[0] if causes else None,
        "differences": causes,
        "hashes": {name: there["hashes"][name] for name in HASHES},
    }


def compare_tables(
    first_path: str, twin_path: str, where: Sequence[str], columns: Sequence[str] = ()
) -> dict[str, Any]:
    """Compare two tables cell by cell, as written, which is to the bit.

    `where`: the columns that say which row it is. `columns`: what to compare, all but `where` without it.
    """
    counted, differing, largest, earliest = 0, 0, 0.0, None
    nothing: dict[str, str] = {}
    for first, twin in zip_longest(read_csv(first_path, where), read_csv(twin_path, where), fillvalue=nothing):
        for column in columns or [name for name in dict.fromkeys((*first, *twin)) if name not in where]:
            counted += 1
            mine, other = first.get(column), twin.get(column)
            if mine == other:
                continue
            differing += 1
            size = _distance(mine, other)
            largest = max(largest, size or 0.0)
            place = {name: int(float((first or twin)[name])) for name in where}
            earliest = earliest or {**place, "column": column, "first": mine, "twin": other, "size": size}
    return _comparison(counted, differing, largest, earliest)


def compare_weights(first: Mapping[str, torch.Tensor], twin: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Compare weights value by value, to the bit."""
    counted, differing, largest, earliest = 0, 0, 0.0, None
    for name in dict.fromkeys((*first, *twin)):
        pair = [state[name].numpy() for state in (first, twin) if name in state]
        counted += pair[0].size
        if len(pair) < 2 or pair[0].shape != pair[1].shape or pair[0].dtype != pair[1].dtype:
            n, size = pair[0].size, None
        else:
            same = np.ascontiguousarray(pair[0]).view(np.uint8) == np.ascontiguousarray(pair[1]).view(np.uint8)
            n = int((~same.reshape(pair[0].size, -1).all(1)).sum())
            size = float(np.max(np.abs(pair[0].astype(np.float64) - pair[1]))) if n else 0.0
        differing += n
        largest = max(largest, size if size is not None and math.isfinite(size) else 0.0)
        if n and earliest is None:
            earliest = {"tensor": name, "size": size if size is None or math.isfinite(size) else None}
    return _comparison(counted, differing, largest, earliest)


def _distance(mine: str | None, other: str | None) -> float | None:
    """Distance of two numbers, None where one is no finite number."""
    try:
        size = abs(float(mine) - float(other))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return size if math.isfinite(size) else None


def _comparison(counted: int, differing: int, largest: float, earliest: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "equal": not differing,
        "values": counted,
        "differing": differing,
        "largest_difference": largest,
        "first_difference": earliest,
    }


def first_difference(compared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The earliest place at which two trainings part: by step, then by epoch, then predictions or weights."""
    parted = [{"in": name, **found["first_difference"]} for name, found in compared.items() if not found["equal"]]
    # A row of an epoch is written after the epoch's last step.
    return min(parted, key=lambda at: (at.get("epoch", math.inf), at.get("step", math.inf)), default=None)
