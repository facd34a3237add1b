"""Whether labels contradict a model more than it errs: errors fade where a model is sure, random flips do not.

The chance that a patch carries label 1 is fitted as a logistic curve of the model's log odds between two floors. A
floor above chance means labels that are wrong however sure the model is. What it costs: labels wrong only on patches
that are hard to tell look like errors of the model, and are not claimed.
"""

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
    """Share of labels of one class among surely other patches: estimate, interval, and whether flips are claimed."""

    rate: float
    low: float
    high: float
    claimed: bool


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

    def _fit(self, fixed: dict[int, float]) -> tuple[float, np.ndarray]:
        """Least loss and floors with some floors fixed, from three starts: the surface may have several hollows."""
        bounds = [(0.0, 50.0), (-50.0, 50.0), *((fixed.get(c, 0.0), fixed.get(c, HIGHEST_FLOOR)) for c in CLASSES)]
        tried = []
        for start in (0.0, 0.05, 0.2):
            floors = [fixed.get(c, start) for c in CLASSES]
            found = minimize(self._loss, [1.0, 0.0, *floors], jac=True, method="L-BFGS-B", bounds=bounds)
            tried.append((float(found.fun), found.x[2:]))
        return min(tried, key=lambda each: each[0])

    def deviance(self, label: int, floor: float) -> float:
        """Twice the loss of likelihood when the floor of this label is held at `floor`."""
        return max(0.0, 2 * (self._fit({label: floor})[0] - self.best))

    def crossing(self, label: int, limit: float, inside: float, outside: float) -> float:
        """Where the deviance reaches `limit` between a floor inside the interval and a bound, to .0005."""
        if self.deviance(label, outside) <= limit:
            return outside
        while abs(outside - inside) > 0.0005:
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if self.deviance(label, middle) <= limit else (inside, middle)
        return inside

    def claimed(self, label: int, least: float, level: float) -> bool:
        """Whether the floor of this label is above `least`: a one-sided likelihood-ratio test at `level`."""
        limit = float(stats.chi2.ppf(1 - 2 * level, 1))
        return bool(self.floors[label] > least and self.deviance(label, least) > limit)

    def floor(self, label: int, least: float, level: float) -> Floor:
        """Estimate and 95 % profile-likelihood interval."""
        limit, rate = float(stats.chi2.ppf(0.95, 1)), float(self.floors[label])
        low, high = (self.crossing(label, limit, rate, bound) for bound in (0.0, HIGHEST_FLOOR))
        return Floor(rate, low, high, self.claimed(label, least, level))
