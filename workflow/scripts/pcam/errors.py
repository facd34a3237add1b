"""Wrong answers: which they are, and by which attributes they differ from right answers on patches of that class."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from pcam.attributes import ATTRIBUTES, UNITS, WORDS
from pcam.files import InputError, read_json
from pcam.gaps import holm, known_groups, note_of
from pcam.group_tests import Tested, compare_means, least_units
from pcam.interval_methods import class_degrees
from pcam.intervals import Groups, read_groups
from pcam.predictions import read_with_table
from pcam.settings import EvaluationSettings
from pcam.slices import Answers

LEAST_ERRORS = 10  # wrong answers below which their attributes are not compared
# Kind of error: its patches and those that it is compared with, in words.
KINDS = {"missed": ("missed tumours", "found ones"), "alarms": ("false alarms", "patches rightly cleared")}


def read_answers(predictions_path: str, sidecar_path: str, rows_path: str) -> tuple[Answers, list[dict[str, str]]]:
    """A checkpoint's answers on a split, and the split's table.

    Raises: InputError when they are not of the same rows, a label is missing, or no threshold was chosen.
    """
    told, table = read_with_table(predictions_path, rows_path, ("slide",))
    threshold = read_json(sidecar_path).get("threshold")
    if threshold is None:
        raise InputError(f"{sidecar_path}: threshold is null; choose_threshold has to come first")
    return Answers(told.labels, told.probabilities, float(threshold), read_groups(rows_path)), table


def wrong_answers(told: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Places of false positives and of false negatives, the most confident first."""
    alarms, missed = np.flatnonzero(told.called & ~told.tumour), np.flatnonzero(~told.called & told.tumour)
    return (
        alarms[np.argsort(-told.probabilities[alarms], kind="stable")],
        missed[np.argsort(told.probabilities[missed], kind="stable")],
    )


def borderline(told: Answers, count: int) -> np.ndarray:
    """Places of the `count` patches whose probability lies nearest to the threshold, right or wrong, nearest first."""
    return np.argsort(np.abs(told.probabilities - told.threshold), kind="stable")[:count]


def telling(attributes: np.ndarray, reference: np.ndarray, count: int = 2) -> list[dict[str, float]]:
    """For each patch of attributes (K,A) the `count` in which it is furthest from reference patches (R,A), in their sd.

    The furthest first; an attribute that the reference has all alike tells nothing.
    """
    mean, spread = reference.mean(axis=0, dtype=np.float64), reference.std(axis=0, dtype=np.float64)
    off = (attributes - mean) / np.where(spread > 0, spread, np.inf)
    furthest = np.argsort(-np.abs(off), axis=1, kind="stable")[:, :count]
    return [{ATTRIBUTES[at]: float(line[at]) for at in order} for line, order in zip(off, furthest, strict=True)]


@dataclass(frozen=True)
class Contrast:
    """An attribute of wrong answers against right ones: difference of means in standard deviations of the right ones.

    What is undefined is None, and `note` says why. p_corrected: by Holm over all attributes and kinds of error.
    """

    attribute: str
    unit: str
    errors_mean: float
    correct_mean: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_corrected: float | None = None
    claimed: bool = False
    note: str | None = None


def contrast(
    values: np.ndarray, wrong: np.ndarray, right: np.ndarray, groups: Groups | None, rules: EvaluationSettings
) -> Tested | None:
    """Difference of values (N,) of patches wrong less right, masks (N,), in sd of the right; None without any spread.

    By slide or leak group where they are known (pcam.group_tests), with the sd taken as it is. By patch the error is
    the larger of what the two samples show and of two samples of equal variance: the first alone says that ten values
    of zero are certain to be zero.
    """
    n_wrong, n_right = int(wrong.sum()), int(right.sum())
    mean, deviation = float(values[right].mean()), float(values[right].std(ddof=1))
    if deviation == 0:
        return None
    scaled = (values - mean) / deviation
    difference = float(scaled[wrong].mean())
    if groups is not None:
        return compare_means(scaled, wrong, [wrong | right], groups.ids, rules)
    influence = np.zeros(len(values))
    influence[wrong] = (scaled[wrong] - difference) / np.sqrt(n_wrong * (n_wrong - 1))
    by_deviation = difference * (scaled[right] ** 2 - 1) / 2  # the unit is itself estimated
    influence[right] = -(scaled[right] + by_deviation) / np.sqrt(n_right * (n_right - 1))
    both = wrong | right
    degrees = class_degrees(influence[both], wrong[both].astype(int))
    pooled_variance = ((n_wrong - 1) * scaled[wrong].var(ddof=1) + (n_right - 1)) / (n_wrong + n_right - 2)
    error = float(np.sqrt(max(np.sum(influence**2), pooled_variance * (1 / n_wrong + 1 / n_right))))
    reach = float(stats.t.ppf(0.5 + rules.level / 2, degrees)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, degrees))
    return Tested(difference, difference - reach, difference + reach, p)


def compare(
    attributes: np.ndarray, wrong: np.ndarray, right: np.ndarray, told: Groups | None, rules: EvaluationSettings
) -> dict[str, Any]:
    """Contrasts of all attributes (N,A) between patches wrong and right, masks (N,); of too few none, but why.

    `groups`: those that hold patches of the rarer kind, where they are what the test counts.
    """
    counts = {"errors": int(wrong.sum()), "correct": int(right.sum())}
    if few := [f"{n} {name}" for name, n in counts.items() if n < LEAST_ERRORS]:
        reason = f"only {' and '.join(few)}, at least {LEAST_ERRORS} are needed"
        return {**counts, "by": None, "groups": None, "note": None, "contrasts": None, "reason": reason}
    groups = known_groups(told)
    held = None if groups is None else min(len(np.unique(groups.ids[mask])) for mask in (wrong, right))
    rows = []
    for column, name in enumerate(ATTRIBUTES):
        values = attributes[:, column].astype(np.float64)
        row = Contrast(name, UNITS[name], float(values[wrong].mean()), float(values[right].mean()))
        found = contrast(values, wrong, right, groups, rules)
        if found is None:
            rows.append(replace(row, note="the right answers are all alike"))
        else:
            rows.append(replace(row, difference=found.value, low=found.low, high=found.high, p=found.p))
    by = "patch" if groups is None else groups.noun
    return {**counts, "by": by, "groups": held, "note": note_of(told), "contrasts": rows, "reason": None}


def find_patterns(told: Answers, attributes: np.ndarray, rules: EvaluationSettings, level: float) -> dict[str, Any]:
    """Contrasts of missed against found tumours and of false alarms against cleared patches, as JSON holds them.

    attributes (N,A). level: chance to claim any contrast where there is none. Where the errors of a kind lie in too few
    slides for any to be claimed, differences stand there without a test.
    """
    called, tumour = told.called, told.tumour
    found = {
        "missed": compare(attributes, tumour & ~called, tumour & called, told.groups, rules),
        "alarms": compare(attributes, ~tumour & called, ~tumour & ~called, told.groups, rules),
    }
    counts = [kind["groups"] for kind in found.values() for row in kind["contrasts"] or () if row.p is not None]
    least = least_units(counts, level)
    for kind in found.values():
        if kind["groups"] is not None and kind["groups"] < least:
            few = f"too few {kind['by']}s ({kind['groups']}, {least} needed)"
            kind["contrasts"] = [row if row.p is None else replace(row, p=None, note=few) for row in kind["contrasts"]]
            kind["note"] = few
    rows = [row for kind in found.values() for row in kind["contrasts"] or ()]
    corrected = iter(holm(np.array([np.nan if row.p is None else row.p for row in rows])).tolist())
    for name, kind in found.items():
        if kind["contrasts"] is not None:
            judged = [_judged(row, next(corrected), level) for row in kind["contrasts"]]
            kind["contrasts"] = [asdict(row) for row in judged]
        kind["words"] = in_words(name, kind, rules.level)
    return found


def _judged(row: Contrast, corrected: float, level: float) -> Contrast:
    if row.p is None:
        return row
    return replace(row, p_corrected=corrected, claimed=corrected <= level)


def in_words(name: str, kind: Mapping[str, Any], level: float) -> str:
    """A sentence that states what is claimed of a kind of error, or that nothing is, with the numbers."""
    wrong, right = KINDS[name]
    if kind["contrasts"] is None:
        return f"{wrong} were not compared with {right}: {kind['reason']}"
    claimed = [row for row in kind["contrasts"] if row["claimed"]]
    counts = f"{kind['errors']:,} {wrong} against {kind['correct']:,} {right}"
    if all(row["p"] is None for row in kind["contrasts"]):
        return f"{counts}: no attribute was tested, {kind['note'] or 'the right answers are all alike'}"
    if not claimed:
        return f"{counts}: no attribute was shown to differ"
    claimed.sort(key=lambda row: -abs(row["difference"]))
    return f"{counts}: {wrong} are {'; '.join(_difference(row, level) for row in claimed)}"


def _difference(row: Mapping[str, Any], level: float) -> str:
    lower, higher = WORDS[row["attribute"]]
    ends = None if row["low"] is None or row["high"] is None else f"{signed(row['low'])} to {signed(row['high'])}"
    reach = "no interval" if ends is None else f"{100 * level:g} % interval {ends}"
    return (
        f"{higher if row['difference'] > 0 else lower} ({row['attribute'].replace('_', ' ')} by "
        f"{signed(row['difference'])} sd, {reach})"
    )


def signed(value: float) -> str:
    """Two decimals with a sign; a true minus."""
    return f"{value:+.2f}".replace("-", "−")
