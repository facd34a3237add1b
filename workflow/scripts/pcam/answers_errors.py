"""What the documents say of question 6, items 1 and 2: errors and what sets them apart, slices named and found.

Evidence in, table rows or a sentence out, and what is missing stays missing.
"""

from collections.abc import Mapping
from statistics import median
from typing import Any

from pcam.answers_silent import caveat, interval_name, interval_of
from pcam.binding import count_of, derived, fixed
from pcam.documents import Missing, counted, estimate, is_measured, number, percent, words

Found = Mapping[str, Any]
Rows = list[list[Any]] | Missing

HARDLY = 0.01  # of ROC-AUC: a change that no one would look into
CENTRE = fixed("32 x 32")  # pixels of a patch, which its label speaks of: the data set's definition
CENTRE_SHARE = fixed("11 %")  # of the area: (32 / 96) ** 2


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
    middle = percent(derived(median(shares), *shares), 0)
    return (
        f"For {counted(count_of(shares), 'confident error')} squares of the patch were exchanged for other tissue of "
        f"it. On the median map {middle} of the effect on the logit lies in the centre of {CENTRE} pixels, "
        f"which the label speaks of and which is {CENTRE_SHARE} of the area. This is an indication "
        "of what the model looked at, and no proof."
    )


def pattern_sentence(errors: Any) -> Any:
    if isinstance(errors, Missing):
        return errors
    kinds = [errors.patterns[kind] for kind in errors.patterns]
    claimed = [kind.note for kind in kinds if not is_measured(kind.reason) and any(c.claimed for c in kind.contrasts)]
    return " ".join(f"{kind.words}." for kind in kinds) + caveat(claimed)


def pattern_rows(errors: Any) -> Rows:
    """Every attribute by which a kind of error might differ from the right answers of its class."""
    rows: list[list[Any]] = []
    for kind in errors.patterns:
        told = errors.patterns[kind]
        if is_measured(told.reason):
            rows.append([kind, told.reason, "", "", ""])
            continue
        for row in told.contrasts:
            difference = (
                "undefined" if not is_measured(row.difference) else f"{row.difference:+.2f} ({interval_of(row)})"
            )
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
        enough = f" or too few {summary.group}s: {summary.least_groups} are needed," if summary.gaps else ","
        text = [f"No slice could be compared with the rest of test: too few patches{enough} or one class only."]
    elif not summary.claims:
        text = [f"{compared} none was shown to be more than chance."]
    else:
        told = "; ".join(
            f"{words(row.slice)} {row.value}: {words(row.metric)} {number(row.estimate)}, {row.gap:+.3f} to the rest "
            f"({interval_of(row, 'gap_')}), n = {row.n:,}, {row.positives:,} with tumour, corrected p "
            f"{row.p_corrected:.2g}"
            for row in summary.claims
        )
        count = f"{count_of(summary.claims)} {'is' if len(summary.claims) == 1 else 'are'} claimed"
        text = [f"{compared} {count}: {told}.{caveat(row.note for row in summary.claims)}"]
    if summary.tested and is_measured(summary.least_groups):
        text.append(
            f"The tests count {summary.group}s, not patches: a slice is tested where it and its rest lie in at least "
            f"{summary.least_groups} of them, so {summary.gaps - summary.tested:,} of {summary.gaps:,} gaps, of slices "
            "in fewer, carry no claim."
        )
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
        [words(row.slice), row.value, row.n, row.positives, number(row.estimate), interval_of(row),
         "" if row.gap is None else f"{row.gap:+.3f} ({interval_of(row, 'gap_')})", number(row.p_corrected), row.status]
        for row in slices if row.metric == "roc_auc"
    ]  # fmt: skip


def discovery_sentence(discovered: Any) -> Any:
    """What a search without names found on one half of valid, and which of it the other half confirms."""
    if isinstance(discovered, Missing):
        return discovered
    looked, candidates = sum(discovered.searched), count_of(discovered.candidates)
    if not looked:
        return "Nothing was searched: a half of valid, of whole slides or leak groups, holds too few patches."
    asked = (
        f"{looked:,} slices of one or two attributes and clusters of the champion's embedding were searched, each on "
        f"one half of valid, and {counted(candidates, 'candidate')} judged on the other half, at the level "
        f"{percent(discovered.level, 0)} over all. The judge counts {discovered.group}s, not patches, where they are "
        f"known: a candidate lies in at least {discovered.least_groups} of them."
    )
    if not discovered.confirmed:
        return f"{asked} None is confirmed."
    worst = discovered.confirmed[0]
    text = [
        asked,
        f"{derived(sum(one.confirmed for one in discovered.candidates), discovered.candidates):,} of these are "
        f"confirmed; {count_of(discovered.confirmed)} stay weak when the patches of those before are taken out. The "
        f"worst is {worst.words}: on the half that judged it errors in {estimate(worst.confirm.error_rate)} of it "
        f"against {estimate(worst.confirm.rest_error_rate)} of the rest.{caveat([worst.confirm.note])} What "
        f"is judged is the loss, also of right answers: {number(worst.confirm.excess_loss)} above that of the rest "
        f"(corrected p {worst.confirm.p_corrected:.2g}).",
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


def errors_answers(found: Found) -> dict[str, Any]:
    """What the journal's template needs for question 6, items 1 and 2."""
    errors, discovered = found["errors"], found["discovered"]
    of_errors, of_slices = (interval_name(each.interval_level) for each in (errors, found["slices_summary"]))
    return {
        "error_sentence": error_sentence(errors),
        "attention_sentence": attention_sentence(errors),
        "pattern_sentence": pattern_sentence(errors),
        "pattern_head": [
            "errors",
            "attribute",
            f"errors less right answers of the class, in sd ({of_errors})",
            "corrected p",
            "claimed",
        ],
        "pattern_table": pattern_rows(errors),
        "claim_sentence": claim_sentence(found["slices_summary"]),
        "slice_head": [
            "slice",
            "value",
            "patches",
            "tumour",
            "ROC-AUC",
            of_slices,
            f"gap to the rest ({of_slices})",
            "corrected p",
            "status",
        ],
        "slice_table": slice_rows(found["slices"]),
        "discovery_sentence": discovery_sentence(discovered),
        "discovered_table": discovered_rows(discovered),
    }
