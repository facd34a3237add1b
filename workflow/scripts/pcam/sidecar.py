"""The JSON beside the weights: what a model was trained as, and how its logits become probabilities. Needs no torch."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pcam.files import InputError, read_json

SIDECAR_KEYS = ("architecture", "preprocessing", "threshold", "digests", "data_source")


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
    threshold, temperature = document["threshold"], document.get("temperature")
    if threshold is not None and not _is_number(threshold):
        raise InputError(f"{path}: threshold is {threshold!r:.80}, not a number; restore the sidecar")
    if temperature is not None and not (_is_number(temperature) and temperature > 0):
        raise InputError(f"{path}: temperature is {temperature!r:.80}, not a number above 0; restore the sidecar")
    return document


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def probabilities_of(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Logistic function of logits / temperature in float64 (N,), stable at both ends."""
    return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64) / temperature))


def probabilities(logits: np.ndarray, sidecar: Mapping[str, Any]) -> np.ndarray:
    """Probabilities float64 (N,) of tumour, of the logits (N,) of a checkpoint with this sidecar.

    The sidecar's threshold belongs to these. Its temperature is null where none has been fitted.
    """
    temperature = sidecar.get("temperature")
    return probabilities_of(logits, 1.0 if temperature is None else temperature)
