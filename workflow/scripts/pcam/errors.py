"""Wrong answers: which they are, and by which attributes they differ from right answers on patches of that class."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from pcam.attributes import ATTRIBUTES, UNITS
from pcam.files import InputError, read_csv, read_json
from pcam.gaps import holm
from pcam.interval_methods import by_group, class_degrees
from pcam.intervals import Groups, read_groups, units_of
from pcam.predictions import read_predictions
from pcam.settings import EvaluationSettings
from pcam.slices import Answers

LEAST_ERRORS = 10  # wrong answers below which their attributes are not compared
# What a patch of lower and of higher value is, for sentences.
WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("poorer in contrast", "richer in contrast"),
    "saturation": ("paler", "more saturated"),
    "sharpness": ("more blurred", "sharper"),
    "block_edges": ("less blocky", "more blocky"),
    "tissue_fraction": ("emptier", "fuller of tissue"),
    "haematoxylin": ("weaker in haematoxylin", "stronger in haematoxylin"),
    "eosin": ("weaker in eosin", "stronger in eosin"),
    "nuclear_density": ("poorer in nuclei", "richer in nuclei"),
    "fold_fraction": ("less folded", "more folded"),
}
# Kind of error: its patches and those that it is compared with, in words.
KINDS = {"missed": ("missed tumours", "found ones"), "alarms": ("false alarms", "patches rightly cleared")}


def read_answers(predictions_path: str, sidecar_path: str, rows_path: str) -> tuple[Answers, list[dict[str, str]]]:
    """A checkpoint's answers on a split, and the split's table.

    Raises: InputError when they are not of the same rows, a label is missing, or no threshold was chosen.
    """
    told, table = read_predictions(predictions_path), read_csv(rows_path, ("row", "label", "slide", "group"))
    if [line["row"] for line in table] != [str(row) for row in told.rows]:
        raise InputError(f"{predictions_path}: its rows are not those of {rows_path}; predict the split again")
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
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_corrected: float | None = None
    claimed: bool = False
    note: str | None = None


def contrast(
    values: np.ndarray, wrong: np.ndarray, right: np.ndarray, ids: np.ndarray | None, groups: int | None, level: float
) -> tuple[float, float, float, float] | None:
    """Difference, low, high and p of values (N,) of patches wrong against right, masks (N,); None without any spread.

    The error is the larger of two: the one that the two samples show (by group where ids (N,) 0 .. G - 1 are given,
    `groups` of which hold any of the rarer kind), and the one of two samples of equal variance. The first alone says
    that ten values of zero are certain to be zero, the second alone knows no groups.
    """
    n_wrong, n_right = int(wrong.sum()), int(right.sum())
    mean, deviation = float(values[right].mean()), float(values[right].std(ddof=1))
    if deviation == 0:
        return None
    scaled = (values - mean) / deviation
    difference = float(scaled[wrong].mean())
    influence = np.zeros(len(values))
    influence[wrong] = (scaled[wrong] - difference) / np.sqrt(n_wrong * (n_wrong - 1))
    by_deviation = difference * (scaled[right] ** 2 - 1) / 2  # the unit is itself estimated
    influence[right] = -(scaled[right] + by_deviation) / np.sqrt(n_right * (n_right - 1))
    both = wrong | right
    if ids is None or groups is None:
        degrees = class_degrees(influence[both], wrong[both].astype(int))
        shown = float(np.sum(influence**2))
    else:
        degrees, shown = groups - 1, float(np.sum(by_group(influence, ids) ** 2))
    pooled = ((n_wrong - 1) * scaled[wrong].var(ddof=1) + (n_right - 1)) / (n_wrong + n_right - 2)
    error = float(np.sqrt(max(shown, pooled * (1 / n_wrong + 1 / n_right))))
    reach = float(stats.t.ppf(0.5 + level / 2, degrees)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, degrees))
    return difference, difference - reach, difference + reach, p


def compare(
    attributes: np.ndarray, wrong: np.ndarray, right: np.ndarray, groups: Groups | None, rules: EvaluationSettings
) -> dict[str, Any]:
    """Contrasts of all attributes (N,A) between patches wrong and right, masks (N,); of too few none, but why."""
    counts = {"errors": int(wrong.sum()), "correct": int(right.sum())}
    if few := [f"{n} {name}" for name, n in counts.items() if n < LEAST_ERRORS]:
        reason = f"only {' and '.join(few)}, at least {LEAST_ERRORS} are needed"
        return {**counts, "by": None, "groups": None, "note": None, "contrasts": None, "reason": reason}
    units = units_of(groups, (wrong, right), rules)
    rows = []
    for column, name in enumerate(ATTRIBUTES):
        values = attributes[:, column].astype(np.float64)
        found = contrast(values, wrong, right, units.ids, units.groups, rules.level)
        means = float(values[wrong].mean()), float(values[right].mean())
        if found is None:
            nothing = "the right answers are all alike"
            rows.append(Contrast(name, UNITS[name], *means, None, None, None, None, note=nothing))
        else:
            rows.append(Contrast(name, UNITS[name], *means, *found))
    by = "patch" if groups is None or units.ids is None else groups.noun
    return {**counts, "by": by, "groups": units.groups, "note": units.note, "contrasts": rows, "reason": None}


def find_patterns(told: Answers, attributes: np.ndarray, rules: EvaluationSettings, level: float) -> dict[str, Any]:
    """Contrasts of missed against found tumours and of false alarms against cleared patches, as JSON holds them.

    attributes (N,A). level: chance to claim any contrast where there is none.
    """
    called, tumour = told.called, told.tumour
    found = {
        "missed": compare(attributes, tumour & ~called, tumour & called, told.groups, rules),
        "alarms": compare(attributes, ~tumour & called, ~tumour & ~called, told.groups, rules),
    }
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
    if not claimed:
        return f"{counts}: no attribute was shown to differ"
    claimed.sort(key=lambda row: -abs(row["difference"]))
    return f"{counts}: {wrong} are {'; '.join(_difference(row, level) for row in claimed)}"


def _difference(row: Mapping[str, Any], level: float) -> str:
    lower, higher = WORDS[row["attribute"]]
    return (
        f"{higher if row['difference'] > 0 else lower} ({row['attribute'].replace('_', ' ')} by "
        f"{signed(row['difference'])} sd, {100 * level:g} % interval {signed(row['low'])} to {signed(row['high'])})"
    )


def signed(value: float) -> str:
    """Two decimals with a sign; a true minus."""
    return f"{value:+.2f}".replace("-", "−")
