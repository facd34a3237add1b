"""What findings say, whichever audit made them: tables of counts, verdicts, measured recall, and what was not found."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pcam.binding import derived
from pcam.documents import Missing, interval, is_measured, number, percent, words
from pcam.facts import FILE_SPLITS
from pcam.metrics import wilson_interval

Found = Mapping[str, Any]
Rows = list[list[Any]] | Missing

ROWS_SHOWN = 8
NOT_REACHED = "not reached"  # as score.json writes it
RECURRING = ("trigger",)  # found by how often it recurs, so never below a share of patches
AMOUNTS = {"pixels": "px", "percent": "%", "values": "values", "quality": "quality", "sigma": "px sigma"}


def class_name(label: int | None) -> str:
    return {0: "no tumour", 1: "tumour", None: "all (labels unknown)"}[label]


def listed(parts: Iterable[object]) -> str:
    """Such as "a, b and c"."""
    told = [str(part) for part in parts]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)


def patches_named(names: Sequence[Any], most: int = ROWS_SHOWN) -> str:
    """Some [split, row] as text."""
    told = [f"{split} {row}" for split, row in names]
    return ", ".join(told[:most]) + (f" and {derived(len(told) - most, names):,} more" if len(told) > most else "")


def percent_between(pair: Any, digits: int = 2) -> Any:
    if not isinstance(pair, list | tuple):
        return pair
    return f"{percent(pair[0], digits)} to {percent(pair[1], digits)}"


def with_interval(value: Any, pair: Any, digits: int = 3) -> Any:
    """A figure with its interval; what is undefined or missing stays so."""
    if not isinstance(value, int | float):
        return value
    return f"{number(value, digits)} ({interval(pair, digits) if isinstance(pair, list) else 'interval undefined'})"


def finding_rows(audit: Any, with_rows: bool) -> Rows:
    """One row per finding of at least one patch."""
    if isinstance(audit.findings, Missing):
        return audit.findings
    rows = []
    for found in audit.findings:
        if found.n:
            row = [words(found.kind), found.split, class_name(found["class"]), found.n, found.of]
            row += [percent(found.rate, 2), percent_between(found.interval)]
            told = ", ".join(map(str, found.rows[:ROWS_SHOWN])) + (" …" if found.n > ROWS_SHOWN else "")
            rows.append([*row, told] if with_rows else row)
    return rows


def by_split(audit: Any) -> dict[str, dict[str, tuple[int, int]]] | Missing:
    """Kind to split to (patches found, patches looked at), both classes together."""
    if isinstance(audit.findings, Missing):
        return audit.findings
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for found in audit.findings:
        n, of = counts.setdefault(found.kind, {}).get(found.split, (0, 0))
        counts[found.kind][found.split] = n + found.n, of + found.of
    return counts


def kinds_by_count(audit: Any, without: Iterable[str] = ()) -> dict[str, int] | Missing:
    counts = by_split(audit)
    if isinstance(counts, Missing):
        return counts
    return {kind: sum(n for n, _ in splits.values()) for kind, splits in counts.items() if kind not in without}


def audit_sentence(audit: Any, what: str, without: Iterable[str] = ()) -> Any:
    """What was found of the kinds looked for, and what was not."""
    counts = kinds_by_count(audit, without)
    if isinstance(counts, Missing):
        return counts
    blank: dict[str, int] = {}
    for found in audit.findings:
        if is_measured(found.of_which_blank):
            blank[found.kind] = blank.get(found.kind, 0) + found.of_which_blank
    present = [
        f"{words(kind)} {n:,}" + (f", of which {blank[kind]:,} of one colour" if blank.get(kind) else "")
        for kind, n in counts.items()
        if n
    ]
    absent = [words(kind) for kind, n in counts.items() if not n]
    looked, seen = derived(len(counts), audit.findings), derived(len(present), audit.findings)
    text = f"Of {looked} kinds of {what} looked for, {seen} {'was' if seen == 1 else 'were'} found"
    text += f" (patches: {'; '.join(present)})." if present else "."
    return text + (f" Looked for and not found: {', '.join(absent)}." if absent else "")


def verdict_rows(verdicts: Any, kinds: Iterable[str]) -> Rows:
    """Verdict and reason of these kinds, those that were judged."""
    if isinstance(verdicts, Missing):
        return verdicts
    judged = list(verdicts)
    return [[words(kind), verdicts[kind].verdict, verdicts[kind].reason] for kind in kinds if kind in judged]


def kinds_judged(verdicts: Any, verdict: str) -> list[str]:
    return [words(kind) for kind in verdicts if verdicts[kind].verdict == verdict]


def pooled(score: Any) -> dict[str, Any]:
    """The line of score.json for each planted kind: all variants, amounts and rates together."""
    return {line.kind: line for line in score.planted if line.variant is None and line.rate is None}


def limit_words(limit: Any) -> str:
    """One detection limit in words; a share of patches where the limit is a rate."""
    rate = limit.by == "rate"
    what = words(limit.variant) if limit.variant else ""
    what += f" {limit.level:g} px" if limit.level is not None else ""
    if limit.limit == NOT_REACHED:
        tried = f"{100 * max(limit.tried):g} %" if rate else f"{max(limit.tried):g}"
        return f"{what} not reached (tried to {tried})".strip()
    amount = f"{100 * limit.limit:g} % of patches" if rate else f"{limit.limit:g} {AMOUNTS.get(limit.by, limit.by)}"
    return f"{what} {limit.direction} {amount}".strip()


def score_rows(score: Any, kinds: Iterable[str]) -> Rows:
    """How well planted defects of these kinds were found, with the limits of detection."""
    if isinstance(score.planted, Missing):
        return score.planted
    lines, rows = pooled(score), []
    for kind in kinds:
        if kind in lines and lines[kind].planted:
            line = lines[kind]
            row = [words(kind), line.planted, with_interval(line.recall, line.recall_interval)]
            row.append(with_interval(line.precision, line.precision_interval))
            rows.append([*row, "; ".join(limit_words(limit) for limit in score.limits if limit.kind == kind) or "–"])
    return rows


def truth_rows(score: Any) -> Rows:
    """The audit of the sample against what its generator planted; empty for other data."""
    if isinstance(score.kinds, Missing):
        return score.kinds
    kinds = [(kind, score.kinds[kind]) for kind in score.kinds]
    return [
        [words(kind), k.planted, k.found, with_interval(k.recall, k.recall_interval),
         with_interval(k.precision, k.precision_interval)]
        for kind, k in kinds if k.planted or k.found
    ]  # fmt: skip


def least_share(score: Any, kind: str) -> float:
    """The smallest planted share of patches from which a kind is found reliably; 1 where none tried was."""
    reached = [limit.limit for limit in score.limits if limit.kind == kind and limit.by == "rate" and not limit.variant]
    return min((limit for limit in reached if limit != NOT_REACHED), default=1.0)


def unseen_rows(audit: Any, score: Any, without: Iterable[str] = ()) -> Rows:
    """For each kind absent from a split the smallest rate that would have been seen there.

    That is the upper end of Wilson's 95 % interval of no patch among those looked at, divided by the recall measured on
    planted defects: so many, at most, can be there without the audit finding one. What is found by how often it recurs
    has as a floor its smallest planted share that was found, and the share that the sample looked at must hold.
    """
    counts = by_split(audit)
    for needed in (counts, score.planted):
        if isinstance(needed, Missing):
            return needed
    lines, rows = pooled(score), []
    for kind, splits in counts.items() if isinstance(counts, dict) else ():
        if kind in without or all(n for n, _ in splits.values()):
            continue
        recall = lines[kind].recall if kind in lines else None
        cells: list[Any] = []
        for split in FILE_SPLITS:
            n, of = splits.get(split, (0, 0))
            floor = 0.0
            if kind in RECURRING:  # planted sets are small, and of large ones discovery sees a sample
                share = audit.method.stamp_share_seen[split]
                floor = max(least_share(score, kind), share if isinstance(share, float) else 1.0)
            bound = max(wilson_interval(0, of)[1] / recall, floor) if recall else 1.0
            cells.append(f"found ({n:,})" if n else percent(bound, 2) if bound < 1 else "cannot tell")
        measured = with_interval(recall, lines[kind].recall_interval, 2) if recall is not None else "not measured"
        rows.append([words(kind), measured, *cells])
    return rows
