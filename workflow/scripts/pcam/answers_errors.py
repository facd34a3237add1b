"""What the documents say of question 6: errors and what sets them apart, slices named and found, silent failure.

Evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pcam.documents import Missing, counted, estimate, interval, is_measured, number, percent, words

Found = Mapping[str, Any]
Rows = list[list[Any]] | Missing

HARDLY = 0.01  # of ROC-AUC: a change that no one would look into
CENTRE = (32 / 96) ** 2  # of a patch's area; a label speaks of this part alone


def _interval(row: Any, name: str = "") -> str:
    low, high = (row[f"{name}{end}"] for end in ("low", "high"))
    return interval([low, high]) if is_measured(low) and is_measured(high) else "undefined"


def _caveat(notes: Iterable[Any]) -> str:
    """What a finding rests on where slides or leak groups are too few to count as the units."""
    told = list(dict.fromkeys(str(note) for note in notes if is_measured(note) and "few" in str(note)))
    if not told:
        return ""
    return (
        f" Patches are taken as independent here ({'; '.join(told[:2])}), so slides that differ from each other can by "
        "themselves make such a finding."
    )


def error_sentence(errors: Any) -> Any:
    if isinstance(errors, Missing):
        return errors
    tumours, counts = errors.positives, errors.counts
    return (
        f"At the champion's threshold of {number(errors.threshold)} it misses {counts.false_negatives:,} of "
        f"{tumours:,} patches with tumour on test and calls tumour on {counts.false_positives:,} of "
        f"{errors.n - tumours:,} without."
    )


def attention_sentence(errors: Any) -> Any:
    """Where the maps put the reason of the most confident errors."""
    if isinstance(errors, Missing):
        return errors
    if not errors.attention.maps:
        return "There is no wrong answer to look into."
    shares = [looked.centre_share for looked in errors.attention.maps if is_measured(looked.centre_share)]
    if not shares:
        return "No square that was exchanged changed the logit of a confident error."
    return (
        f"For {counted(len(shares), 'confident error')} squares of the patch were exchanged for other tissue of it. On "
        f"the median map {percent(float(np.median(shares)), 0)} of the effect on the logit lies in the centre of 32 x "
        f"32 pixels, which the label speaks of and which is {percent(CENTRE, 0)} of the area. This is an indication "
        "of what the model looked at, and no proof."
    )


def pattern_sentence(errors: Any) -> Any:
    if isinstance(errors, Missing):
        return errors
    kinds = [errors.patterns[kind] for kind in errors.patterns]
    claimed = [kind.note for kind in kinds if not is_measured(kind.reason) and any(c.claimed for c in kind.contrasts)]
    return " ".join(f"{kind.words}." for kind in kinds) + _caveat(claimed)


def pattern_rows(errors: Any) -> Rows:
    """Every attribute by which a kind of error might differ from the right answers of its class."""
    rows: list[list[Any]] = []
    for kind in errors.patterns:
        told = errors.patterns[kind]
        if is_measured(told.reason):
            rows.append([kind, told.reason, "", "", ""])
            continue
        for row in told.contrasts:
            difference = "undefined" if not is_measured(row.difference) else f"{row.difference:+.2f} ({_interval(row)})"
            claimed = "yes" if row.claimed else "no"
            rows.append([kind, words(row.attribute), difference, number(row.p_corrected), claimed])
    return rows


def claim_sentence(summary: Any) -> Any:
    """The slices on which the champion is weaker or stronger than on the rest, beyond chance over all of them."""
    if isinstance(summary, Missing):
        return summary
    compared = (
        f"Of {summary.tested:,} gaps between a slice and the rest of test, corrected for their number at the level "
        f"{percent(summary.level, 0)},"
    )
    if not summary.tested:
        text = ["No slice could be compared with the rest of test: too few patches, or one class only."]
    elif not summary.claims:
        text = [f"{compared} none was shown to be more than chance."]
    else:
        told = "; ".join(
            f"{words(row.slice)} {row.value}: {words(row.metric)} {number(row.estimate)}, {row.gap:+.3f} to the rest "
            f"({_interval(row, 'gap_')}), n = {row.n:,}, {row.positives:,} with tumour, corrected p "
            f"{row.p_corrected:.2g}"
            for row in summary.claims
        )
        count = f"{len(summary.claims)} {'is' if len(summary.claims) == 1 else 'are'} claimed"
        text = [f"{compared} {count}: {told}.{_caveat(row.note for row in summary.claims)}"]
    for what in ("slide", "hospital"):
        unknown = summary[f"patches_without_{what}"]
        if is_measured(unknown) and unknown:
            text.append(f"For {unknown:,} of {summary.n:,} patches the {what} is not known.")
    return " ".join(text)


def slice_rows(slices: Any) -> Rows:
    """ROC-AUC on every slice; sensitivity and specificity stand in the table's file and in the figure."""
    if isinstance(slices, Missing):
        return slices
    return [
        [words(row.slice), row.value, row.n, row.positives, number(row.estimate), _interval(row),
         "" if row.gap is None else f"{row.gap:+.3f} ({_interval(row, 'gap_')})", number(row.p_corrected), row.status]
        for row in slices if row.metric == "roc_auc"
    ]  # fmt: skip


def discovery_sentence(discovered: Any) -> Any:
    """What a search without names found on one half of valid, and which of it the other half confirms."""
    if isinstance(discovered, Missing):
        return discovered
    looked, candidates = sum(discovered.searched), len(discovered.candidates)
    if not looked:
        return "Nothing was searched: a half of valid, of whole slides or leak groups, holds too few patches."
    asked = (
        f"{looked:,} slices of one or two attributes and clusters of the champion's embedding were searched, each on "
        f"one half of valid, and {counted(candidates, 'candidate')} judged on the other half, at the level "
        f"{percent(discovered.level, 0)} over all."
    )
    if not discovered.confirmed:
        return f"{asked} None is confirmed."
    worst = discovered.confirmed[0]
    text = [
        asked,
        f"{len(discovered.confirmed)} {'is' if len(discovered.confirmed) == 1 else 'are'} confirmed. The worst is "
        f"{worst.words}: on the half that judged it errors in {estimate(worst.confirm.error_rate)} of it against "
        f"{estimate(worst.confirm.rest_error_rate)} of the rest.{_caveat([worst.confirm.note])}",
    ]
    if worst.test.n:
        text.append(
            f"Test, which decides nothing, has {estimate(worst.test.error_rate)} against "
            f"{estimate(worst.test.rest_error_rate)}."
        )
    else:
        text.append("Test holds none of its patches.")
    change, of_valid = worst.global_roc_auc.valid.change, worst.global_roc_auc.valid
    if is_measured(change):
        hidden = "; one global figure hardly shows it" if abs(change) < HARDLY else ""
        text.append(
            f"The ROC-AUC of all of valid is {number(of_valid.all)} with it and {number(of_valid.without)} without"
            f"{hidden}."
        )
    return " ".join(text)


def discovered_rows(discovered: Any) -> Rows:
    if isinstance(discovered, Missing):
        return discovered
    shown = list(discovered.confirmed) or list(discovered.candidates)[:5]
    return [
        [row.words, row.confirm.n, estimate(row.confirm.error_rate), estimate(row.confirm.rest_error_rate),
         number(row.confirm.p_corrected), row.test.n, estimate(row.test.error_rate),
         "yes" if row.confirmed else "no"]
        for row in shown
    ]  # fmt: skip


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
            change = f"{mix.change:+.3f} ({_interval(mix)})"
            rows.append([words(metric), words(mix.slicing), number(mix.now), number(mix.mixed), change])
    return rows


def mix_sentence(silent: Any) -> Any:
    return (
        silent
        if isinstance(silent, Missing)
        else f"Another mix of the same slices, up to {number(silent.mix.factor, 0)} times as much of one, with every "
        "slice's own metric as it is:"
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
        f"tumours, found ones, can become missed ones, which takes the slice's sensitivity from "
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
    among = f" Of all answers held that sure a share of {estimate(sure)} is wrong." if is_measured(sure.value) else ""
    return (
        f"Of {silent.n:,} answers on test {told.wrong.n:,} are wrong. The model holds a share of "
        f"{estimate(told.wrong.sure)} of them for at least {percent(told.sure_from, 0)} sure: no one would be asked to "
        f"look.{among}"
    )


def calibration_sentence(silent: Any) -> Any:
    """Slices in which the probabilities are too high or too low."""
    if isinstance(silent, Missing):
        return silent
    told = silent.calibration
    if not told.tested:
        return "The probabilities of no slice could be tested."
    claimed = sorted((row for row in told.slices if row.claimed), key=lambda row: -abs(row.gap))
    if not claimed:
        return f"Probabilities on {told.tested:,} slices: none was shown to be off, with all of them taken together."
    off = "; ".join(f"{words(row.slice)} {row.value} by {row.gap:+.3f} ({_interval(row)})" for row in claimed[:5])
    return (
        f"Mean probability less share of tumour is off in {len(claimed):,} of {told.tested:,} slices, furthest in "
        f"{off}.{_caveat(row.note for row in claimed)}"
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
    measured = [f"{percent(p.alarms)} of sets of {p.size} ({_interval(p)})" for p in points if is_measured(p.alarms)]
    told = ", ".join(measured) or "nothing, because " + ", ".join(dict.fromkeys(str(p.note) for p in points))
    return (
        "The watch (`inference.py --watch`) compares what comes in with validation and allows an alarm in "
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


def errors_answers(found: Found) -> dict[str, Any]:
    """What the journal's template needs for question 6."""
    errors, silent, discovered, drift = (found[name] for name in ("errors", "silent", "discovered", "drift"))
    return {
        "error_sentence": error_sentence(errors),
        "attention_sentence": attention_sentence(errors),
        "pattern_sentence": pattern_sentence(errors),
        "pattern_table": pattern_rows(errors),
        "claim_sentence": claim_sentence(found["slices_summary"]),
        "slice_table": slice_rows(found["slices"]),
        "discovery_sentence": discovery_sentence(discovered),
        "discovered_table": discovered_rows(discovered),
        "slice_mix_sentence": mix_sentence(silent),
        "slice_mix_table": mix_rows(silent),
        "unseen_sentence": unseen_sentence(silent),
        "confidence_sentence": confidence_sentence(silent),
        "calibration_sentence": calibration_sentence(silent),
        "selective_sentence": selective_sentence(silent),
        "drift_sentence": drift_sentence(drift),
        "drift_head": drift_head(drift),
        "drift_table": drift_rows(drift),
    }
