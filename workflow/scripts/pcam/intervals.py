"""Metrics with the intervals that the reports show, by slide or leak group where there are enough of them.

How often each interval holds the truth is measured, not assumed: pcam.coverage.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pcam import interval_methods as methods
from pcam.cheap_model import joined_units
from pcam.files import read_csv
from pcam.metrics import (
    expected_calibration_error,
    log_losses,
    pr_auc,
    pr_auc_influence,
    roc_auc,
    roc_auc_influence,
    score,
    wilson_interval,
)
from pcam.settings import EvaluationSettings

PROPORTIONS = ("accuracy", "sensitivity", "specificity", "precision")
LOSSES = ("brier", "log_loss")
AREAS = {"roc_auc": (roc_auc, roc_auc_influence), "pr_auc": (pr_auc, pr_auc_influence)}
# The kind of each interval, in words; {} is the number of draws.
KINDS = {
    "roc_auc": "DeLong on the logit scale",
    "pr_auc": "influence on the logit scale",
    **{name: "Wilson" for name in PROPORTIONS},
    "balanced_accuracy": "MOVER of two Wilson intervals",
    "f_beta": "BCa bootstrap of {:,} draws",
    **{name: "studentised bootstrap of {:,} draws" for name in LOSSES},
    "ece": "null band of {:,} draws",
}
UNDEFINED = {
    "roc_auc": "one class only",
    "pr_auc": "one class only",
    "balanced_accuracy": "one class only",
    "f_beta": "no tumour",
    "sensitivity": "no tumour",
    "specificity": "no patch without tumour",
    "precision": "no patch was called tumour",
}


@dataclass(frozen=True)
class Groups:
    """What belongs together in a resample: ids (N,) int, equal for patches of one slide or leak group."""

    ids: np.ndarray
    noun: str  # slide | leak group

    @property
    def count(self) -> int:
        return len(np.unique(self.ids))


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval; what is undefined is None, and `note` says why."""

    value: float | None
    low: float | None
    high: float | None
    kind: str  # of interval, in words
    n: int  # patches that the metric is a share or a mean of
    groups: int | None  # that the interval goes by; None: by patch
    note: str | None = None
    null_high: float | None = None  # of the ECE: upper end of its band when calibration is perfect

    def as_document(self) -> dict[str, Any]:
        """As JSON holds it; null_high stands there only for the ECE."""
        document = asdict(self)
        if self.null_high is None:
            del document["null_high"]
        return document


def read_groups(rows_path: str | Path) -> Groups:
    """Groups of a split table: equal slides and equal leak groups belong together, also in chains.

    Raises: InputError when the table is missing or lacks a column.
    """
    lines = read_csv(rows_path, ("row", "label", "slide", "group"))
    slides, groups = (np.array([line[name] for line in lines], str) for name in ("slide", "group"))
    return Groups(joined_units(slides, groups), "slide" if np.any(slides != "") else "leak group")


@dataclass(frozen=True)
class Units:
    """What an interval takes as independent: groups ids (N,) 0 .. G - 1, or patches where ids is None."""

    ids: np.ndarray | None
    groups: int | None  # with patches of the rarest class that the metric needs
    note: str | None
    by: str  # for the kind

    def sums(self, per_patch: np.ndarray) -> np.ndarray:
        """(G,) or (N,) sums over each unit."""
        return per_patch.astype(float) if self.ids is None else np.bincount(self.ids, weights=per_patch)


def units_of(groups: Groups | None, needed: Sequence[np.ndarray], rules: EvaluationSettings) -> Units:
    """Units for a metric that needs patches of each of these masks (N,).

    Patches count as independent where groups with any of the rarest are too few, and the note says so.
    """
    if groups is None:
        return Units(None, None, "patches taken as independent", "")
    count = min(len(np.unique(groups.ids[mask])) for mask in needed)
    if count < rules.least_groups:
        told = f"{count}" if count == groups.count else f"{count} of {groups.count}"
        return Units(None, None, f"too few {groups.noun}s ({told})", "")
    return Units(np.unique(groups.ids, return_inverse=True)[1], count, None, f", by {groups.noun}")


def ratio_parts(
    labels: np.ndarray, probabilities: np.ndarray, decisions: np.ndarray, beta: float
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Metrics that are ratios of two sums over patches, as what each patch adds (N,) to the upper and to the lower."""
    tumour, called = labels == 1, decisions == 1
    found, every = tumour & called, np.ones(len(labels))
    return {
        "accuracy": (tumour == called, every == 1),
        "sensitivity": (found, tumour),
        "specificity": (~tumour & ~called, ~tumour),
        "precision": (found, called),
        "f_beta": ((1 + beta**2) * found, beta**2 * tumour + called),
        "brier": ((probabilities - labels) ** 2, every),
        "log_loss": (log_losses(labels, probabilities), every),
    }


def estimate_proportion(
    hits: np.ndarray, among: np.ndarray, groups: Groups | None, rules: EvaluationSettings, undefined: str = "no patch"
) -> Estimate:
    """Share sum(hits) / sum(among) of masks (N,) with its interval; `undefined`: the note where `among` is empty."""
    n = int(among.sum())
    if n == 0:
        return Estimate(None, None, None, "Wilson", 0, None, undefined)
    units = units_of(groups, [among], rules)
    low, high = proportion(hits, among, units, rules.level)
    return Estimate(float(hits.sum() / n), low, high, "Wilson" + units.by, n, units.groups, units.note)


def estimate_area(
    name: str, labels: np.ndarray, probabilities: np.ndarray, groups: Groups | None, rules: EvaluationSettings
) -> Estimate:
    """roc_auc or pr_auc of labels 0/1 and probabilities (N,) with its interval."""
    area_of, influence_of = AREAS[name]
    value, influence = area_of(labels, probabilities), influence_of(labels, probabilities)
    if value is None:
        return Estimate(None, None, None, KINDS[name], len(labels), None, UNDEFINED[name])
    units = units_of(groups, (labels == 0, labels == 1), rules)
    kind = KINDS[name] + units.by
    bounds = None if influence is None else area(value, influence, labels, units, rules.level)
    if bounds is not None:
        return Estimate(value, *bounds, kind, len(labels), units.groups, units.note)
    reason = "fewer than two patches of a class" if influence is None else "the ranking has no spread"
    found = Estimate(value, None, None, kind, len(labels), None, reason)
    return perfect(found, labels, units, rules.level) if value == 1.0 else found


def estimate_metrics(
    labels: np.ndarray,
    probabilities: np.ndarray,
    threshold: float,
    *,
    beta: float,
    groups: Groups | None,
    rules: EvaluationSettings,
) -> dict[str, Estimate]:
    """Every metric of labels 0/1 and probabilities, each (N,), with its interval; tumour is called from `threshold` on.

    The threshold is taken as given: an interval knows nothing of the patches that it was chosen on.
    """
    values = score(labels, probabilities, threshold, beta)
    parts = ratio_parts(labels, probabilities, (probabilities >= threshold).astype(int), beta)
    tumour, every = labels == 1, np.ones(len(labels), bool)

    def estimate(name: str, units: Units, bounds: Sequence[float] | None, reason: str = "") -> Estimate:
        value, n, kind = values[name], len(labels), KINDS[name].format(rules.resamples)
        if value is None:
            return Estimate(None, None, None, kind, n, None, UNDEFINED[name])
        if bounds is None or not np.all(np.isfinite(bounds)):
            return Estimate(value, None, None, kind + units.by, n, None, reason)
        return Estimate(value, float(bounds[0]), float(bounds[1]), kind + units.by, n, units.groups, units.note)

    found: dict[str, Estimate] = {}
    by_class = units_of(groups, (~tumour, tumour), rules)
    for name in AREAS:
        found[name] = estimate_area(name, labels, probabilities, groups, rules)
    for name in PROPORTIONS:
        found[name] = estimate_proportion(*parts[name], groups, rules, UNDEFINED.get(name, "no patch"))
    found["balanced_accuracy"] = estimate("balanced_accuracy", by_class, balanced(parts, by_class, rules.level))
    by_tumour, by_any = units_of(groups, [tumour], rules), units_of(groups, [every], rules)
    bounds = None
    if values["f_beta"] is not None:
        above, below = (by_tumour.sums(part)[:, None] for part in parts["f_beta"])
        bounds = methods.bootstrap_ratios(above, below, rules)[0]
    found["f_beta"] = estimate("f_beta", by_tumour, bounds, "every draw gives the same")
    above, below = (np.stack([by_any.sums(parts[name][i]) for name in LOSSES], axis=1) for i in (0, 1))
    for name, of_loss in zip(LOSSES, methods.bootstrap_losses(above, below, rules), strict=True):
        found[name] = estimate(name, by_any, of_loss, "the patches are all alike, or a few carry the mean")
    return {**found, "ece": calibration(labels, probabilities, by_any, rules)}


def area(
    value: float, influence: np.ndarray, labels: np.ndarray, units: Units, level: float
) -> tuple[float, float] | None:
    """Interval of an area (ROC or PR) from the influence (N,) of each patch; None where it is undefined."""
    if units.ids is None or units.groups is None:
        return methods.area_interval(value, influence, methods.class_degrees(influence, labels), level)
    return methods.area_interval(value, methods.by_group(influence, units.ids), units.groups - 1, level)


def perfect(found: Estimate, labels: np.ndarray, units: Units, level: float) -> Estimate:
    """The estimate of an area of 1, whose influences are all 0.

    If tumour ranks higher with chance a, then k disjoint pairs of independent patches are all in order with chance a^k:
    so the ROC-AUC is not below (1 - level)^(1 / k). The PR-AUC has no such bound.
    """
    note = "every tumour ranks above every other patch"
    if found.kind.startswith(KINDS["pr_auc"]):
        return replace(found, note=note)
    ids = np.arange(len(labels)) if units.ids is None else units.ids
    holders = [len(np.unique(ids[labels == label])) for label in (0, 1)]
    pairs = min(*holders, len(np.unique(ids)) // 2)
    note = note if units.note is None else f"{note}; {units.note}"
    kind = "exact one-sided bound" + units.by
    return replace(found, low=(1 - level) ** (1 / pairs), high=1.0, kind=kind, groups=units.groups, note=note)


def proportion(hits: np.ndarray, among: np.ndarray, units: Units, level: float) -> tuple[float, float]:
    """Wilson interval of a share, by group where units are groups."""
    if units.ids is None or not among.any():
        return wilson_interval(int(hits.sum()), int(among.sum()), level)
    return methods.proportion_by_group(hits, among, units.ids, level)


def balanced(
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]], units: Units, level: float
) -> tuple[float, float] | None:
    """Interval of the mean of sensitivity and specificity; None when a class is missing."""
    pair = [parts["sensitivity"], parts["specificity"]]
    if not all(among.any() for _, among in pair):
        return None
    one, other = ((hits.sum() / among.sum(), *proportion(hits, among, units, level)) for hits, among in pair)
    correlation = 0.0
    if units.ids is not None:
        a, b = (methods.proportion_influence(hits, among, units.ids) for hits, among in pair)
        size = np.sqrt((a @ a) * (b @ b))
        correlation = float(a @ b / size) if size > 0 else 0.0
    return methods.mean_interval(one, other, correlation)


def calibration(labels: np.ndarray, probabilities: np.ndarray, units: Units, rules: EvaluationSettings) -> Estimate:
    """The ECE beside what chance alone reaches: it is never 0, and a bootstrap of it would lie above the truth."""
    value = expected_calibration_error(labels, probabilities, rules.ece_bins)
    if units.ids is None:
        high = methods.ece_null_high(probabilities, rules)
    else:
        high = methods.ece_null_high_by_group(labels, probabilities, units.ids, rules)
    kind, note = KINDS["ece"].format(rules.resamples) + units.by, "to be judged by its null band"
    note = note if units.note is None else f"{note}; {units.note}"
    return Estimate(value, None, None, kind, len(labels), units.groups, note, high)
