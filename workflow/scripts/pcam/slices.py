"""Slices of a split and what a classifier scores on each: interval, gap to the rest, and words where either is missing.

A slice is made of attributes, slide and hospital, never of what a model says.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pcam.attributes import ATTRIBUTES
from pcam.facts import hospital_of
from pcam.gaps import CLASSES, Gaps, holm
from pcam.group_tests import least_units
from pcam.intervals import Estimate, Groups, estimate_area, estimate_proportion
from pcam.settings import EvaluationSettings, SliceSettings

METRICS = tuple(CLASSES)
# Fewer patches of a class than this carry no rate: one patch would move it by more than a tenth.
MINIMUM_CLASS_N = 10

Members = dict[str, np.ndarray]  # value of a slice to the places of its patches, ascending


@dataclass(frozen=True)
class Scored:
    """A row of slices.csv; `note` alone stands only in slices.json.

    gap: to all other patches; groups: slides or leak groups that its test counts, those with patches of the rarer class
    in the smaller part, None where it counts patches; p: of that gap, two-sided, corrected for all gaps tested in
    p_corrected.
    status: ok, or why there is no estimate or no claim.
    """

    slice: str
    value: str
    n: int
    positives: int
    metric: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    gap: float | None = None
    gap_low: float | None = None
    gap_high: float | None = None
    groups: int | None = None
    p: float | None = None
    p_corrected: float | None = None
    status: str = "ok"
    note: str | None = None


COLUMNS = tuple(name for name in Scored.__dataclass_fields__ if name != "note")


@dataclass(frozen=True)
class Answers:
    """What a model said of a split: labels 0/1 and probabilities (N,), tumour from `threshold` on."""

    labels: np.ndarray
    probabilities: np.ndarray
    threshold: float
    groups: Groups | None

    @property
    def called(self) -> np.ndarray:
        return self.probabilities >= self.threshold

    @property
    def tumour(self) -> np.ndarray:
        return self.labels == 1

    @property
    def wrong(self) -> np.ndarray:
        return self.called != self.tumour


def quantile_edges(values: np.ndarray, quantiles: int) -> np.ndarray:
    """Edges (E,) float64 between the quantile groups of finite values (N,), ascending and distinct, each one a value.

    Fewer than quantiles - 1 where many values are equal; none where all are.
    """
    shares = np.linspace(0, 1, quantiles + 1)[1:-1]
    edges = np.unique(np.quantile(values.astype(np.float64), shares, method="inverted_cdf"))
    return np.asarray(edges[edges < values.max()])


def by_edges(values: np.ndarray, edges: np.ndarray) -> Members:
    """Groups of values (N,) from low to high, each above its lower edge and up to its upper one, named by them.

    No groups where there are no edges: all patches are alike.
    """
    if not len(edges):
        return {}
    group = np.searchsorted(edges, values, side="left")
    told = _distinct(edges)
    names = [f"up to {told[0]}", *(f"{low} to {high}" for low, high in pairwise(told)), f"above {told[-1]}"]
    return {name: np.flatnonzero(group == i) for i, name in enumerate(names)}


def _distinct(edges: np.ndarray) -> list[str]:
    """The edges in as few digits, at least three, as tell them apart."""
    told: list[str] = []
    for digits in range(3, 18):
        told = [np.format_float_positional(edge, digits, unique=False, fractional=False, trim="-") for edge in edges]
        if len(set(told)) == len(told):
            break
    return told


def by_name(names: Sequence[str]) -> Members:
    """Groups of equal names, sorted; patches whose name is not known stand in none."""
    found = np.array(names)
    return {name: np.flatnonzero(found == name) for name in sorted(set(names) - {""})}


def by_ranges(attributes: np.ndarray, ranges: Mapping[str, Mapping[str, Any]]) -> Members:
    """The config's own slices of attributes (N,A): low included, high not, either end open where it is missing."""
    found = {}
    for name, spec in ranges.items():
        values = attributes[:, ATTRIBUTES.index(spec["attribute"])]
        inside = (values >= spec.get("low", -np.inf)) & (values < spec.get("high", np.inf))
        found[name] = np.flatnonzero(inside)
    return found


def slicings_of(
    attributes: np.ndarray, edges: Mapping[str, np.ndarray], ranges: Mapping[str, Any], slides: Sequence[str]
) -> dict[str, Members]:
    """Every slice by slicing: all, range, each attribute, hospital, slide; slicings without a slice are left out."""
    found = {"all": {"all": np.arange(len(slides))}, "range": by_ranges(attributes, ranges)}
    found |= {name: by_edges(attributes[:, i], edges[name]) for i, name in enumerate(ATTRIBUTES)}
    found |= {"hospital": by_name([hospital_of(slide) for slide in slides]), "slide": by_name(slides)}
    return {name: members for name, members in found.items() if members}


def estimate(metric: str, told: Answers, inside: np.ndarray, rules: EvaluationSettings) -> Estimate:
    """A metric of the patches inside (N,) bool, with the interval that the evaluation gives the whole split."""
    labels, probabilities = told.labels[inside], told.probabilities[inside]
    groups = None if told.groups is None else replace(told.groups, ids=told.groups.ids[inside])
    if metric == "roc_auc":
        return estimate_area(metric, labels, probabilities, groups, rules)
    among = labels == CLASSES[metric][0]
    right = (probabilities >= told.threshold) == (labels == 1)
    return estimate_proportion(right & among, among, groups, rules)


def lacking(metric: str, labels: np.ndarray, minimum_n: int) -> str | None:
    """Why patches with these labels (n,) carry no claim on a metric; None when they do."""
    if len(labels) == 0:
        return "undefined: no patches"
    counts = {name: int(np.sum(labels == label)) for label, name in ((0, "negatives"), (1, "positives"))}
    needed = [name for label, name in ((1, "positives"), (0, "negatives")) if label in CLASSES[metric]]
    for name in needed:
        if counts[name] == 0:
            return f"undefined: no {name}"
    if len(labels) < minimum_n:
        return f"too few (n < {minimum_n})"
    few = min(counts[name] for name in needed) < MINIMUM_CLASS_N
    return f"too few (class n < {MINIMUM_CLASS_N})" if few else None


def score_slice(
    name: str, value: str, members: np.ndarray, told: Answers, gaps: Mapping[str, Gaps], minimum_n: int
) -> Iterable[Scored]:
    """Every metric of one slice, p-values uncorrected."""
    inside = np.zeros(len(told.labels), bool)
    inside[members] = True
    for metric, compared in gaps.items():
        row = Scored(name, value, int(inside.sum()), int(told.labels[inside].sum()), metric)
        short = lacking(metric, told.labels[inside], minimum_n)
        if short is not None and short.startswith("undefined"):
            yield replace(row, status=short)
            continue
        found = estimate(metric, told, inside, compared.rules)
        row = replace(row, estimate=found.value, low=found.low, high=found.high, status=short or "ok", note=found.note)
        if short is not None or inside.all():
            yield row
        elif (beside := lacking(metric, told.labels[~inside], minimum_n)) is not None:
            yield replace(row, status=f"no gap: in the rest {beside}")
        else:
            gap = compared.to_rest(inside)
            yield replace(
                row, gap=gap.value, gap_low=gap.low, gap_high=gap.high, groups=gap.groups, p=gap.p, note=gap.note
            )


def score_slices(
    slicings: Mapping[str, Members], told: Answers, settings: SliceSettings, rules: EvaluationSettings
) -> tuple[list[Scored], int | None]:
    """Every metric of every slice, with p-values corrected for all the gaps tested.

    And in how many slides or leak groups a slice and its rest must lie for its gap to be tested; None by patch.
    """
    answers = told.labels, told.probabilities
    gaps = {metric: Gaps(metric, *answers, threshold=told.threshold, groups=told.groups, rules=rules)
            for metric in METRICS}  # fmt: skip
    rows = [
        row
        for name, slices in slicings.items()
        for value, members in slices.items()
        for row in score_slice(name, value, members, told, gaps, settings.minimum_n)
    ]
    counts = [row.groups for row in rows if row.p is not None]
    if told.groups is None or None in counts:
        least = None
    else:
        least = least_units(counts, settings.level)
        rows = [_if_enough(row, least, told.groups.noun) for row in rows]
    corrected = holm(np.array([np.nan if row.p is None else row.p for row in rows]))
    rows = [
        row if row.p is None else replace(row, p_corrected=float(p)) for row, p in zip(rows, corrected, strict=True)
    ]
    return rows, least


def _if_enough(row: Scored, least: int, noun: str) -> Scored:
    """The row without its p where its slice lies in too few groups for any gap to be claimed."""
    if row.groups is None or row.groups >= least:
        return row
    return replace(row, p=None, status=f"too few {noun}s ({row.groups}, {least} needed)")


def claims(rows: Sequence[Scored], level: float) -> list[dict[str, Any]]:
    """The gaps that chance does not explain, the worst first; every one of them at once is wrong by `level` at most."""
    found = [row for row in rows if row.p_corrected is not None and row.p_corrected <= level]
    return [asdict(row) for row in sorted(found, key=lambda row: row.gap or 0.0)]


def counted(words: Iterable[str | None]) -> dict[str, int]:
    """How often each of these words stands there, most often first; None is not counted."""
    return dict(Counter(word for word in words if word is not None).most_common())
