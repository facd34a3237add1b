"""The JSON beside the weights: what a model was trained as, and how its logits become probabilities. Needs no torch."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pcam.files import InputError, read_json

SIDECAR_KEYS = ("architecture", "preprocessing", "threshold", "digests", "data_source")

HIGHEST_THRESHOLD = float(np.nextafter(1, 2))  # calls no patch tumour, even where a probability is 1


def sidecar_path(weights: str | Path) -> Path:
    return Path(weights).with_suffix(".json")


def read_sidecar(weights: str | Path) -> dict[str, Any]:
    """Raises: InputError when the sidecar is missing, lacks a key, or holds what no checkpoint of ours states."""
    path = sidecar_path(weights)
    document = read_json(path)
    for key in SIDECAR_KEYS:
        if key not in document:
            raise InputError(f"{path}: key {key!r} is missing; it is no sidecar of this pipeline")
    for key in ("architecture", "preprocessing", "digests"):
        if not isinstance(document[key], Mapping):
            raise InputError(f"{path}: {key} is {document[key]!r:.80}, not a JSON object; restore the sidecar")
    if not isinstance(document["data_source"], str):
        raise InputError(f"{path}: data_source is {_told(document['data_source'])}, not a text; restore the sidecar")
    for key, allowed, told in (("mean", _is_number, "three numbers"), ("std", _is_above_0, "three numbers above 0")):
        values = document["preprocessing"].get(key)
        if not (isinstance(values, list) and len(values) == 3 and all(map(allowed, values))):
            raise InputError(f"{path}: preprocessing.{key} is {_told(values)}, not {told}; restore the sidecar")
    threshold, temperature = document["threshold"], document.get("temperature")
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= HIGHEST_THRESHOLD):
        raise InputError(f"{path}: threshold is {_told(threshold)}, not a number from 0 to 1; restore the sidecar")
    if temperature is not None and not _is_above_0(temperature):
        raise InputError(f"{path}: temperature is {_told(temperature)}, not a number above 0; restore the sidecar")
    return document


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def _is_above_0(value: Any) -> bool:
    return _is_number(value) and value > 0


def _told(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def probabilities_of(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logistic function of logits / temperature in float64 (N,), stable at both ends."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64) / temperature))


def probabilities(logits: np.ndarray, sidecar: Mapping[str, Any]) -> np.ndarray:
    """Probabilities float64 (N,) of tumour, of the logits (N,) of a checkpoint with this sidecar.

    The sidecar's threshold belongs to these. Its temperature is null where none has been fitted.
    """
    temperature = sidecar.get("temperature")
    return probabilities_of(logits, 1.0 if temperature is None else temperature)
