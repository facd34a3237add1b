"""What the documents say of question 6, item 3: silent failure, and the watch that would catch it.

Evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pcam.binding import derived, distinct
from pcam.documents import Missing, counted, estimate, interval, is_measured, number, percent, words

Found = Mapping[str, Any]
Rows = list[list[Any]] | Missing


def interval_of(row: Any, name: str = "") -> str:
    low, high = (row[f"{name}{end}"] for end in ("low", "high"))
    return interval([low, high]) if is_measured(low) and is_measured(high) else "undefined"


def interval_name(level: Any) -> str:
    return f"{100 * level:g} % interval" if isinstance(level, float) else f"interval ({level})"


def caveat(notes: Iterable[Any]) -> str:
    """What a finding rests on: slides that are not known, so that its test cannot count them, or two methods."""
    told, text = " ".join(note for note in notes if is_measured(note)), ""
    if "not known" in told:
        text += (
            " The slides are not known here, so patches that share no tissue count as independent, and slides that "
            "differ from each other can by themselves make such a finding."
        )
    if "Fisher" in told:
        text += (
            " Sensitivity and specificity are claimed by Fisher's exact test; the interval of their gap is Newcombe's, "
            "which near the level can leave out zero where the test claims nothing, and the other way round."
        )
    return text


def mix_rows(silent: Any) -> Rows:
    """The mix of slices that moves each global metric most, chosen on valid, while no slice changes."""
    metrics = silent.mix.metrics
    if isinstance(metrics, Missing):
        return metrics
    rows: list[list[Any]] = []
    for metric in metrics:
        mix = metrics[metric]
        if is_measured(mix.reason):
            rows.append([words(metric), mix.reason, "", "", ""])
        else:
            change = f"{mix.change:+.3f} ({interval_of(mix)})"
            rows.append([words(metric), words(mix.slicing), number(mix.now), number(mix.mixed), change])
    return rows


def mix_sentence(silent: Any) -> Any:
    """What is changed, and whose intervals count patches for want of slides."""
    if isinstance(silent, Missing):
        return silent
    metrics, by_patch = silent.mix.metrics, dict[str, list[str]]()
    for metric in metrics:
        if is_measured(note := metrics[metric].note):
            by_patch.setdefault(note, []).append(words(metric))
    told = "".join(
        f". Patches count as independent in the interval of {', '.join(names)} ({note})"
        for note, names in by_patch.items()
    )
    return (
        f"Another mix of the same slices, up to {number(silent.mix.factor, 0)} times as much of one, with every "
        f"slice's own metric as it is{told}:"
    )


def unseen_sentence(silent: Any) -> Any:
    """How much of a slice can fail before the global figure moves."""
    if isinstance(silent, Missing):
        return silent
    unseen = silent.unseen
    if is_measured(unseen.reason):
        return f"How large a failure goes unseen is undefined: {unseen.reason}."
    worst = unseen.slices[0]
    return (
        f"The reverse: in {words(worst.slice)} {worst.value} (n = {worst.n:,}) {worst.failing:,} of {worst.tumours:,} "
        f"tumours can turn from found to missed, which takes the slice's sensitivity from "
        f"{number(worst.sensitivity)} to {number(worst.sensitivity_failing)}, before the ROC-AUC of all of test falls "
        f"by {number(unseen.fall, 2)}."
    )


def confidence_sentence(silent: Any) -> Any:
    """How sure the wrong answers are."""
    if isinstance(silent, Missing):
        return silent
    told = silent.confidence
    if not told.wrong.n:
        return "No answer on test is wrong."
    sure = told.wrong_among_sure
    kinds = (("missed", "missed tumours"), ("alarms", "false alarms"))
    shares = [f"{estimate(told[kind].sure)} of {told[kind].n:,} {name}" for kind, name in kinds if told[kind].n]
    by_kind = f" By kind of error: a share of {' and of '.join(shares)}."
    among = f" Of all answers held that sure a share of {estimate(sure)} is wrong." if is_measured(sure.value) else ""
    return (
        f"Of {silent.n:,} answers on test {told.wrong.n:,} are wrong. The model holds a share of "
        f"{estimate(told.wrong.sure)} of them for at least {percent(told.sure_from, 0)} sure: no one would be asked to "
        f"look.{by_kind}{among}"
    )


def calibration_sentence(silent: Any) -> Any:
    """Slices in which the probabilities are too high or too low."""
    if isinstance(silent, Missing):
        return silent
    told = silent.calibration
    if not told.tested:
        few = next((row.note for row in told.slices if is_measured(row.note) and "needed" in row.note), None)
        return f"The probabilities of no slice could be tested{f': {few}' if few else ''}."
    whole = next((row for row in told.slices if row.slice == "all"), None)
    lead = ""
    if whole is not None:
        verdict = "which is shown, so no matter of single slices alone" if whole.claimed else "which chance can explain"
        lead = (
            f"On all of test the mean probability less the share of tumour is {whole.gap:+.3f} ({interval_of(whole)}), "
            f"{verdict}. "
        )
    parts = [row for row in told.slices if row.slice != "all"]
    claimed = sorted((row for row in parts if row.claimed), key=lambda row: -abs(row.gap))
    if not claimed:
        return f"{lead}Of {told.tested:,} sets tested no slice was shown to be off, with all of them taken together."
    off = "; ".join(f"{words(row.slice)} {row.value} by {row.gap:+.3f} ({interval_of(row)})" for row in claimed[:5])
    return (
        f"{lead}Of {told.tested:,} sets tested it is off in {counted(derived(len(claimed), told.slices), 'slice')}, "
        f"furthest in {off}.{caveat(row.note for row in claimed)}"
    )


def selective_sentence(silent: Any) -> Any:
    """What answering the surest patches alone would be worth."""
    if isinstance(silent, Missing):
        return silent
    told = silent.selective
    if not is_measured(told.targets) or not told.targets:
        return "Selective prediction is undefined."
    parts = [
        f"at the limit for {row.target}, {estimate(row.coverage)} of test is answered with errors in "
        f"{estimate(row.error)} of it"
        for row in told.targets
        if is_measured(row.limit) and is_measured(row.error.value)
    ]
    areas = told.areas
    return (
        f"Leaving the least sure answers to a pathologist: all answered, {estimate(told.all.error)} are wrong; "
        f"{'; '.join(parts) or 'no limit on valid leaves any'}. The area under risk and coverage is "
        f"{number(areas.model)}; the best possible order has {number(areas.best)}, a random one {number(areas.random)}."
    )


def drift_sentence(drift: Any) -> Any:
    """What the watch would catch, and how often it cries wolf."""
    if isinstance(drift, Missing):
        return drift
    points = drift.sound.test.points
    measured = [
        f"{percent(p.alarms)} of sets of {p.size} ({percent(p.low)} to {percent(p.high)})"
        for p in points
        if is_measured(p.alarms)
    ]
    told = ", ".join(measured) or "nothing, because " + ", ".join(distinct(str(p.note) for p in points))
    return (
        "The watch (inference.py --watch) compares what comes in with validation and allows an alarm in "
        f"{percent(drift.false_alarm_rate)} of sound sets ({drift.holds_for}). Measured on untouched test patches: "
        f"{told}. How often it raises the alarm on changed ones:"
    )


def drift_head(drift: Any) -> list[str]:
    sizes = drift.sizes
    return ["change", *(() if isinstance(sizes, Missing) else (f"sets of {size}" for size in sizes))]


def drift_rows(drift: Any) -> Rows:
    if isinstance(drift.shifts, Missing):
        return drift.shifts
    return [
        [shift.name, *(percent(p.alarms) if is_measured(p.alarms) else p.note for p in shift.points)]
        for shift in drift.shifts
    ]


def unnoticed_sentence(drift: Any) -> Any:
    """Which changes the watch lets through more often than not, even in the largest sets that were measured."""
    if isinstance(drift.shifts, Missing):
        return drift.shifts
    last = {shift.name: [p for p in shift.points if is_measured(p.alarms)][-1:] for shift in drift.shifts}
    missed = [
        f"{name} ({percent(point.alarms)} of sets of {point.size})"
        for name, points in last.items() for point in points if point.alarms < 0.5
    ]  # fmt: skip
    if not missed:
        return "Every change above raises it in at least half of the largest sets that were measured."
    return f"In less than half of the largest sets that were measured it notices {', '.join(missed)}."


def silent_answers(found: Found) -> dict[str, Any]:
    """What the journal's template needs for question 6, item 3."""
    silent, drift = found["silent"], found["drift"]
    return {
        "slice_mix_sentence": mix_sentence(silent),
        "slice_mix_head": [
            "global metric",
            "slices by",
            "as it is",
            "other mix",
            f"change ({interval_name(silent.interval_level)})",
        ],
        "slice_mix_table": mix_rows(silent),
        "unseen_sentence": unseen_sentence(silent),
        "confidence_sentence": confidence_sentence(silent),
        "calibration_sentence": calibration_sentence(silent),
        "selective_sentence": selective_sentence(silent),
        "drift_sentence": drift_sentence(drift),
        "drift_head": drift_head(drift),
        "drift_table": drift_rows(drift),
        "unnoticed_sentence": unnoticed_sentence(drift),
    }
