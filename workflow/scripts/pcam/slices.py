"""Slices of a split and what a classifier scores on each, with intervals, and words where a score is undefined."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam.hdf5 import CHUNK
from pcam.metrics import roc_auc, roc_auc_interval, wilson_interval
from pcam.predictions import Predictions

COLUMNS = ("slice", "value", "n", "positives", "metric", "estimate", "low", "high", "status")
METRICS = ("roc_auc", "sensitivity", "specificity")
# Fewer patches of a class than this carry no rate: one patch would move it by more than a tenth.
MINIMUM_CLASS_N = 10

Members = dict[str, np.ndarray]  # value of a slice to the places of its patches


@dataclass(frozen=True)
class Scored:
    """A row of slices.csv."""

    slice: str
    value: str
    n: int
    positives: int
    metric: str
    estimate: float | None
    low: float | None
    high: float | None
    status: str


def mean_brightness(store: np.ndarray) -> np.ndarray:
    """Mean grey value 0..255 of each patch, all channels alike, chunk by chunk."""
    parts = [
        store[start : start + CHUNK].reshape(-1, store[0].size).mean(axis=1) for start in range(0, len(store), CHUNK)
    ]
    return np.concatenate(parts)


def by_brightness(brightness: np.ndarray, bins: int) -> tuple[Members, list[float]]:
    """Quantile groups from dark to bright, and their edges; equal values stay together."""
    edges = np.quantile(brightness, np.linspace(0, 1, bins + 1))
    group = np.searchsorted(edges[1:-1], brightness, side="right")
    ends = {0: " (darkest)", bins - 1: " (brightest)"}
    return {f"q{i + 1}{ends.get(i, '')}": np.flatnonzero(group == i) for i in range(bins)}, [float(e) for e in edges]


def by_name(names: Sequence[str]) -> Members:
    """Groups of equal names, sorted; patches whose name is not known stand in none."""
    found = np.array(names)
    return {name: np.flatnonzero(found == name) for name in sorted(set(names) - {""})}


def proportion(hits: int, n: int) -> tuple[float, float, float]:
    low, high = wilson_interval(hits, n)
    return hits / n, low, high


def measure(metric: str, labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> tuple[float | None, ...]:
    """Estimate, low and high of one metric where it is defined."""
    called = probabilities >= threshold
    match metric:
        case "roc_auc":
            interval = roc_auc_interval(labels, probabilities)
            return (roc_auc(labels, probabilities), *(interval or (None, None)))
        case "sensitivity":
            return proportion(int(called[labels == 1].sum()), int((labels == 1).sum()))
        case "specificity":
            return proportion(int((~called[labels == 0]).sum()), int((labels == 0).sum()))
        case _:
            raise ValueError(f"no metric {metric!r}")


def score_slice(
    name: str, value: str, members: np.ndarray, predictions: Predictions, threshold: float, minimum_n: int
) -> Iterator[Scored]:
    """Every metric of one slice; what is undefined says so and has no estimate."""
    labels, probabilities = predictions.labels[members], predictions.probabilities[members]
    n, positives = len(labels), int(labels.sum())
    for metric in METRICS:
        estimate = low = high = None
        if positives == 0 and metric != "specificity":
            status = "undefined: no positives"
        elif positives == n and metric != "sensitivity":
            status = "undefined: no negatives"
        else:
            estimate, low, high = measure(metric, labels, probabilities, threshold)
            # A claim needs enough patches, and for ranking or a rate enough of the class that it is about.
            behind = {"sensitivity": positives, "specificity": n - positives}.get(metric, min(positives, n - positives))
            few = f"too few (n < {minimum_n})" if n < minimum_n else f"too few (class n < {MINIMUM_CLASS_N})"
            firm = n >= minimum_n and behind >= MINIMUM_CLASS_N and low is not None
            status = "ok" if firm else few
        yield Scored(name, value, n, positives, metric, estimate, low, high, status)


def widest_gaps(rows: Sequence[Scored]) -> list[dict[str, Any]]:
    """Per metric and slice the lowest and the highest estimate among the ones that carry a claim."""
    gaps = []
    for name, metric in dict.fromkeys((row.slice, row.metric) for row in rows if row.slice != "all"):
        firm = [row for row in rows if (row.slice, row.metric, row.status) == (name, metric, "ok")]
        if len(firm) < 2:
            continue
        lowest, highest = (pick(firm, key=lambda row: row.estimate or 0.0) for pick in (min, max))
        apart = lowest.high is not None and highest.low is not None and lowest.high < highest.low
        ends = {
            end: {"value": row.value, "n": row.n, "positives": row.positives, "estimate": row.estimate,
                  "interval": None if row.low is None else [row.low, row.high]}
            for end, row in (("lowest", lowest), ("highest", highest))
        }  # fmt: skip
        gap = {"slice": name, "metric": metric, "gap": (highest.estimate or 0.0) - (lowest.estimate or 0.0)}
        gaps.append({**gap, **ends, "intervals_apart": apart, "compared": len(firm)})
    return gaps
