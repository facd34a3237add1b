"""Score an audit against planted defects: recall, precision and detection limits with intervals.

An alarm is true when its patch was planted as its kind. Kinds that pixels prove are judged by the pixels as well,
because real data hold defects that nobody planted: such an alarm is false only if the pixels differ. An alarm says no
variant, so precision is that of a kind; recall is told for each variant and level too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam.damage import COPIES, DAMAGES, STAMPS, shared_parts, symmetry
from pcam.files import read_csv
from pcam.metrics import wilson_interval
from pcam.planting import Patch, Planted, truth
from pcam.synthetic import WEAK_SLICE

REACHED = 0.95  # recall from which a defect counts as detected
NOT_REACHED = "not reached"
UNITS = {
    **{(v.kind, v.name): (v.unit, v.faint) for v in (*DAMAGES, *COPIES) if v.level is not None},
    **{("trigger", stamp.name): ("pixels", "low") for stamp in STAMPS},
    **{("overlap", name): ("pixels", "low") for name in ("pasted", "pasted_on_grid", "canvas")},
}

Overlap = tuple[Patch, Patch, int, int]  # the second patch lies (dy, dx) pixels from the first
Key = tuple[str, str | None, float | None, float | None]  # kind, variant, level, rate; None: all of them together


@dataclass(frozen=True)
class Alarms:
    """What an audit says: patches by kind, and the pairs it calls overlapping."""

    flags: Mapping[str, set[Patch]]
    overlaps: Sequence[Overlap] = ()


def share(part: int, whole: int) -> tuple[float | None, list[float] | None]:
    """A rate and its interval, both None when there is nothing to divide by."""
    return (part / whole, list(wilson_interval(part, whole))) if whole else (None, None)


def score_kind(planted: set[Patch], found: set[Patch]) -> dict[str, Any]:
    """Recall and precision of one kind; each is None when undefined."""
    hit = len(planted & found)
    recall, recall_interval = share(hit, len(planted))
    precision, precision_interval = share(hit, len(found))
    return {
        "planted": len(planted),
        "found": len(found),
        "true_positives": hit,
        "recall": recall,
        "recall_interval": recall_interval,
        "precision": precision,
        "precision_interval": precision_interval,
    }


def flagged(patches_path: str) -> dict[str, set[Patch]]:
    """Patches by defect from the table of patches; those without one under "".

    Raises: InputError when the table is missing or lacks a column.
    """
    found: defaultdict[str, set[Patch]] = defaultdict(set)
    for line in read_csv(patches_path, ("split", "row", "defects")):
        for kind in line["defects"].split(";"):
            found[kind].add((line["split"], int(line["row"])))
    return found


def score_sample(planted_path: str, found: Mapping[str, set[Patch]], kinds: Iterable[str]) -> dict[str, Any]:
    """What the sample's planted.csv holds against what the audit says of the sample, by kind; `kinds` at least."""
    planted: dict[str, set[Patch]] = {kind: set() for kind in kinds}
    for line in read_csv(planted_path, ("split", "row", "kind")):
        if line["kind"] != WEAK_SLICE:  # sound patches: a model's failure, and no defect for an audit to find
            planted.setdefault(line["kind"], set()).add((line["split"], int(line["row"])))
    return {kind: score_kind(planted[kind], found.get(kind, set())) for kind in planted}


def _content(patch: np.ndarray) -> bytes:
    """Equal for pixel-identical patches, whatever dtype they are stored in."""
    return np.ascontiguousarray(patch, np.float32).tobytes()


def true_by_pixels(
    kind: str, alarms: Alarms, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray | None]
) -> set[Patch]:
    """Patches whose alarm of this kind the pixels themselves prove, among those that carry it.

    Every member of a duplicate carries the alarm, so it is enough to look among these.
    """
    rows = sorted(alarms.flags.get(kind, ()))
    if kind == "overlap":
        return {patch for pair in alarms.overlaps if _share_pixels(pair, x) for patch in pair[:2]}
    if kind not in ("exact_duplicate", "cross_split_duplicate", "rotated_duplicate", "label_conflict"):
        return set()
    turning = kind in ("rotated_duplicate", "label_conflict")
    groups: defaultdict[bytes, list[tuple[Patch, bytes]]] = defaultdict(list)
    for split, row in rows:
        own = _content(x[split][row])
        group = min(_content(symmetry(x[split][row], k)) for k in range(8)) if turning else own
        groups[group].append(((split, row), own))
    proven: set[Patch] = set()
    for members in groups.values():
        splits = Counter(split for (split, _), _ in members)
        labels = {int(known[row]) for (split, row), _ in members if (known := y[split]) is not None}
        holds = {
            "cross_split_duplicate": len(splits) > 1,
            "rotated_duplicate": len({own for _, own in members}) > 1,
            "label_conflict": len(labels) > 1,
        }
        proven |= {
            patch for patch, _ in members if (splits[patch[0]] > 1 if kind == "exact_duplicate" else holds[kind])
        }
    return proven


def _share_pixels(pair: Overlap, x: Mapping[str, np.ndarray]) -> bool:
    (first, second), (in_first, in_second) = pair[:2], shared_parts(*pair[2:])
    one, other = (x[split][row] for split, row in (first, second))
    return bool(np.array_equal(one[in_first], other[in_second]))


Tallies = defaultdict[Key, Counter[str]]


def tally(planted: Planted, alarms: Alarms, y: Mapping[str, np.ndarray | None], rate: float, tallies: Tallies) -> None:
    """Add one planting to the counts: patches by kind, rate, variant and level.

    Patches may share tissue with others by nature, so a planted overlap is found when the audit names its pair.
    false_on_clean counts false alarms on patches that nothing was planted into, false_on_planted those on patches
    that carry another planted defect: there something is wrong, but it is called by a wrong name.
    """
    planted_as = truth(planted.units)
    spoilt = set().union(*planted_as.values())
    named = {frozenset(pair[:2]) for pair in alarms.overlaps}
    true_too: defaultdict[str, set[Patch]] = defaultdict(set)
    for unit in planted.units:
        for kind in unit.also:
            true_too[kind] |= set(unit.patches)
        hits = sum(patch in alarms.flags.get(unit.kind, ()) for patch in unit.patches)
        if unit.kind == "overlap" and frozenset(unit.patches) not in named:
            hits = 0
        for key in {(unit.variant, unit.level), (unit.variant, None), (None, None)}:
            for at in (rate, None):
                counts = tallies[(unit.kind, *key, at)]
                counts["planted"] += len(unit.patches)
                counts["true_positives"] += hits
    for kind in sorted({*planted.asked, *planted_as, *alarms.flags}):
        found = alarms.flags.get(kind, set())
        false = found - planted_as.get(kind, set()) - true_too[kind]
        if false:
            false -= true_by_pixels(kind, alarms, planted.x, y)
        for at in (rate, None):
            counts = tallies[(kind, None, None, at)]
            counts["found"] += len(found)
            counts["false_on_clean"] += len(false - spoilt)
            counts["false_on_planted"] += len(false & spoilt)


def records(tallies: Tallies) -> list[dict[str, Any]]:
    """A line for each kind, variant, level and rate; None stands for all of them together.

    A variant's line has no precision: an alarm says no variant.
    """
    lines = []
    for key in sorted(tallies, key=lambda key: [(value is not None, value or 0) for value in key[1:]]):
        kind, variant, level, rate = key
        counts = tallies[key]
        found, false = counts["found"], counts["false_on_clean"] + counts["false_on_planted"]
        recall, recall_interval = share(counts["true_positives"], counts["planted"])
        precision, precision_interval = share(found - false, found)
        of_kind = variant is None
        lines.append(
            {
                "kind": kind,
                "variant": variant,
                "level": level,
                "unit": UNITS.get((kind, variant or ""), ("", ""))[0] if level is not None else None,
                "rate": rate,
                "planted": counts["planted"],
                "found": found if of_kind else None,
                "true_positives": counts["true_positives"],
                "false_on_clean": counts["false_on_clean"] if of_kind else None,
                "false_on_planted": counts["false_on_planted"] if of_kind else None,
                "recall": recall,
                "recall_interval": recall_interval,
                "precision": precision if of_kind else None,
                "precision_interval": precision_interval if of_kind else None,
            }
        )
    return sorted(lines, key=lambda line: str(line["kind"]))


def limit(recalls: Iterable[tuple[float, float]], faint: str) -> float | str:
    """The faintest amount from which on recall reaches .95, given (amount, recall); "not reached" when none does."""
    reached: float | str = NOT_REACHED
    for amount, recall in sorted(recalls, reverse=faint == "low"):
        if recall < REACHED:
            break
        reached = amount
    return reached


def limits(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Detection limits: the smallest planted rate of each kind, and the faintest level of each variant that has levels.

    A trigger is found by how often it recurs, so its limit is a rate for each variant and side.
    """
    points: defaultdict[tuple[str, str | None, float | None, str, str], list[tuple[float, float]]] = defaultdict(list)
    for line in lines:
        kind, variant, level, rate = (line[name] for name in ("kind", "variant", "level", "rate"))
        if line["recall"] is None:
            continue
        if rate is not None and (variant is None or (kind == "trigger" and level is not None)):
            points[kind, variant, level, "rate", "low"].append((rate, line["recall"]))
        elif rate is None and level is not None and kind != "trigger":
            points[kind, variant, None, *UNITS[kind, variant]].append((level, line["recall"]))
    return [
        {
            "kind": kind,
            "variant": variant,
            "level": level,
            "by": by,
            "direction": "from" if faint == "low" else "up to",
            "limit": limit(tried, faint),
            "tried": sorted(amount for amount, _ in tried),
        }
        for (kind, variant, level, by, faint), tried in points.items()
        if by == "rate" or len(tried) > 1
    ]
