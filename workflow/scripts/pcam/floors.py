"""Whether labels contradict a model more than it errs: errors fade where a model is sure, random flips do not.

The chance that a patch carries label 1 is fitted as a logistic curve of the model's log odds between two floors. A
floor above chance means labels that are wrong however sure the model is. What it costs: labels wrong only on patches
that are hard to tell look like errors of the model, and are not claimed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit

from pcam.facts import CLASSES

HIGHEST_FLOOR = 0.45  # beyond that a label carries hardly any information
_BINS = 2000  # groups of neighbouring log odds the curve is fitted to: bounds the time


@dataclass(frozen=True)
class Floor:
    """Share of labels of one class among patches that are surely of the other: estimate and 95 % interval."""

    rate: float
    low: float
    high: float


class FloorCurve:
    """P(label 1) = floor 1 + (1 - floor 0 - floor 1) * logistic(slope * log odds + shift), by maximum likelihood."""

    def __init__(self, labels: np.ndarray, logits: np.ndarray) -> None:
        order = np.argsort(logits, kind="stable")
        starts = np.unique(np.linspace(0, len(order), _BINS, endpoint=False).astype(np.int64))
        self.counts = np.diff(np.append(starts, len(order)))
        self.tumours = np.add.reduceat(labels[order], starts)
        self.logits = np.add.reduceat(logits[order], starts) / self.counts
        self.best, self.floors = self._fit({})

    def _loss(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log-likelihood and its gradient; values: slope, shift, floor 0, floor 1."""
        slope, shift, floor_0, floor_1 = values
        rising = expit(slope * self.logits + shift)
        height = 1 - floor_0 - floor_1
        p = np.clip(floor_1 + height * rising, 1e-12, 1 - 1e-12)
        loss = -np.sum(self.tumours * np.log(p) + (self.counts - self.tumours) * np.log1p(-p))
        by_p = (self.counts - self.tumours) / (1 - p) - self.tumours / p
        by_argument = by_p * height * rising * (1 - rising)
        return float(loss), np.array(
            [by_argument @ self.logits, by_argument.sum(), -(by_p @ rising), by_p @ (1 - rising)]
        )

    def _fit(self, within: Mapping[int, tuple[float, float]]) -> tuple[float, np.ndarray]:
        """Least loss and its floors, some held within bounds, from three starts: there may be several hollows."""
        limits = [within.get(label, (0.0, HIGHEST_FLOOR)) for label in CLASSES]
        tried = []
        for start in (0.0, 0.05, 0.2):
            first = [1.0, 0.0, *(float(np.clip(start, low, high)) for low, high in limits)]
            bounds = [(0.0, 50.0), (-50.0, 50.0), *limits]
            found = minimize(self._loss, first, jac=True, method="L-BFGS-B", bounds=bounds)
            tried.append((float(found.fun), found.x[2:]))
        return min(tried, key=lambda each: each[0])

    def deviance(self, within: Mapping[int, tuple[float, float]]) -> float:
        """Twice the log-likelihood lost when floors are held within bounds."""
        return max(0.0, 2 * (self._fit(within)[0] - self.best))

    def claimed(self, least: float, level: float) -> bool:
        """Whether a floor is above `least`: likelihood-ratio test at `level`.

        The limit is that of two degrees of freedom, more than two one-sided floors cost: patches of one slide resemble
        each other, which no likelihood of single patches knows.
        """
        limit = float(stats.chi2.ppf(1 - level, len(CLASSES)))
        return self.deviance({label: (0.0, least) for label in CLASSES}) > limit

    def floor(self, label: int) -> Floor:
        """Estimate and 95 % profile-likelihood interval, to .0005, of the floor of one label."""
        limit, rate = float(stats.chi2.ppf(0.95, 1)), float(self.floors[label])
        ends = []
        for outside in (0.0, HIGHEST_FLOOR):
            inside = rate
            if self.deviance({label: (outside, outside)}) <= limit:
                inside = outside
            while abs(outside - inside) > 0.0005:
                middle = (inside + outside) / 2
                held = self.deviance({label: (middle, middle)}) <= limit
                inside, outside = (middle, outside) if held else (inside, middle)
            ends.append(inside)
        return Floor(rate, *ends)
