"""A baseline that sees colour and no structure: logistic regression on histograms, kept as plain numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcam.facts import PATCH_SHAPE
from pcam.files import InputError, read_json

BINS = 16
FEATURES = 3 * BINS
# 256 patches make 57 MB of indices.
_CHUNK = 256


def colour_histograms(store: np.ndarray) -> np.ndarray:
    """Share of a patch's pixels in each bin of each channel, float64 (N,48), of uint8 patches (N,96,96,3)."""
    pixels = PATCH_SHAPE[0] * PATCH_SHAPE[1]
    features = np.empty((len(store), FEATURES))
    offsets = BINS * np.arange(3)
    for start in range(0, len(store), _CHUNK):
        levels = store[start : start + _CHUNK].reshape(-1, pixels, 3) // (256 // BINS)
        n = len(levels)
        places = levels + offsets + FEATURES * np.arange(n)[:, None, None]
        counts = np.bincount(places.ravel(), minlength=n * FEATURES)
        features[start : start + n] = counts.reshape(n, FEATURES) / pixels
    return features


@dataclass(frozen=True)
class ColourBaseline:
    """Standardisation, coefficients and decision threshold of the regression."""

    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float
    threshold: float

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Probability of the positive class of histograms (N,48)."""
        logits = (features - self.mean) / self.scale @ self.coefficients + self.intercept
        return np.asarray(np.exp(-np.logaddexp(0.0, -logits)))

    def as_document(self) -> dict[str, Any]:
        """The same as numbers that JSON holds."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "scale", "coefficients")}
        return {**arrays, "intercept": self.intercept, "threshold": self.threshold}


def read_colour_baseline(path: str | Path) -> tuple[ColourBaseline, Mapping[str, Any]]:
    """The baseline and the whole document it stands in.

    Raises: InputError when the file is missing or does not hold the numbers of 48 features.
    """
    document = read_json(path)
    try:
        numbers = document["colour_histogram"]
        mean, scale, coefficients = (np.array(numbers[name], np.float64) for name in ("mean", "scale", "coefficients"))
        baseline = ColourBaseline(mean, scale, coefficients, float(numbers["intercept"]), float(numbers["threshold"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not the baselines of this pipeline ({error!r}); rebuild it") from None
    if any(array.shape != (FEATURES,) for array in (mean, scale, coefficients)):
        raise InputError(f"{path}: its arrays do not have {FEATURES} numbers each; rebuild it")
    return baseline, document
