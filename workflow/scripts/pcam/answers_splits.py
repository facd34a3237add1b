"""What the journal says of the files and their partitioning (question 2.1)."""

from typing import Any

from pcam.answers_findings import Found, Rows, listed, verdict_rows, with_interval
from pcam.binding import derived
from pcam.documents import Missing, counted, is_measured, number, percent, words
from pcam.facts import FILE_SPLITS, SWAP

JUDGED = ("published_file", "swapped_split", "same_content", "prior_shift", "covariate_shift")


def partition(patches: Any) -> Rows:
    """Counts per file before and after cleaning."""
    if isinstance(patches, Missing):
        return patches
    rows = []
    for split in FILE_SPLITS:
        mine = [row for row in patches if row.split == split]
        kept = [row for row in mine if row.keep == 1]
        known = any(row.label is not None for row in mine)
        positives = [sum(row.label == 1 for row in some) if known else "unknown" for some in (mine, kept)]
        counts = [len(mine), positives[0], len(kept), positives[1], len(mine) - len(kept)]
        rows.append([split, *(derived(n, patches) for n in counts)])
    return rows


def split_table(splits: Any) -> Rows:
    if isinstance(splits, Missing):
        return splits
    rows = []
    for name in ("train", "valid", "test", "unlabelled"):
        split = splits[name]
        if name != "unlabelled" or split.n:
            positives = split.positives if name != "unlabelled" else "unknown"
            rows.append([name, split.file, split.n, positives, split.slides or "none known", split.groups])
    return rows


def prior_shift(splits: Any) -> str:
    """How the share of tumour changes between train and test, and what that means."""
    parts = [splits[name] for name in ("train", "test")]
    if not all(is_measured(part.n) and part.n for part in parts):
        return ""
    train, test = (part.positives / part.n for part in parts)
    text = f"After cleaning the share of tumour is {percent(train)} in train and {percent(test)} in test"
    if abs(train - test) < 0.05:
        return f"{text}: nearly the same."
    return f"{text}: the prior shifts, so probabilities learnt on one do not hold on the other unchanged."


def identity_rows(checksums: Any) -> Rows:
    if isinstance(checksums.files, Missing):
        return checksums.files
    rows = []
    for file in checksums["files"]:
        labels = "unknown" if file.labels is None else f"{file.labels[0]:,} / {file.labels[1]:,}"
        counts = ["–", "–"] if file.patches is None else [file.patches, labels]
        rows.append([file.file, *counts, file.meaning, file.content_digest[:12] if file.content_digest else "–"])
    return rows


def identity_sentence(checksums: Any) -> Any:
    """Whether content stands under another split's name, or under two."""
    if isinstance(checksums.findings, Missing):
        return checksums.findings
    told: dict[str, list[str]] = {"swapped_split": [], "same_content": []}
    for found in checksums.findings:
        if found.n and found.kind in told:
            told[found.kind] += [sentence for sentence in found.told if sentence not in told[found.kind]]
    if told["swapped_split"] or told["same_content"]:
        return f"Files do not hold what their names say: {'; '.join(told['swapped_split'] + told['same_content'])}."
    named = {file.split for file in checksums["files"] if file.key == "x" and file.published_as}
    if {"valid", "test"} <= named:
        return f"Valid and test are told apart by their content and bear their right names, which matters: {SWAP}."
    if any(file.source for file in checksums["files"]):
        return "Of the files that content names, none holds another split's content, and no two files are the same."
    return "No file is a published one by its content, and no two files have the same content."


def prior_rows(shift: Any) -> Rows:
    """Share of tumour in each file, as it is."""
    priors = shift.prior.splits
    if isinstance(priors, Missing):
        return priors
    rows = []
    for split in priors:
        share = priors[split]
        if share is None:
            rows.append([split, "labels unknown", "–", "–", "–"])
        else:
            equal = listed(share.counts_equal) or "none that is published"
            rows.append([split, share.n, share.tumours, with_interval(share.share, share.interval), equal])
    return rows


def pairs_found(shift: Any, kind: str) -> dict[str, list[Any]]:
    """Findings of one kind by what they say: "yes", "no", "cannot tell"."""
    told: dict[str, list[Any]] = {"yes": [], "no": [], "cannot tell": []}
    for found in shift.findings:
        if found.kind == kind:
            told["cannot tell" if found.found is None else "yes" if found.found else "no"].append(found)
    return told


def shift_sentences(shift: Any) -> list[Any]:
    """Prior and covariate shift between the files, one sentence for each answer that pairs of splits give."""
    if isinstance(shift.findings, Missing):
        return [shift.findings]
    sentences = []
    names = {"prior_shift": "The share of tumour", "covariate_shift": "Colour and texture"}
    for kind, what in names.items():
        told = pairs_found(shift, kind)
        pairs = {answer: listed("-".join(found.splits) for found in some) for answer, some in told.items()}
        verb = "differs" if kind == "prior_shift" else "differ"
        effect = "difference" if kind == "prior_shift" else "ROC-AUC of telling the splits apart"
        if told["yes"]:
            shown = "; ".join(
                f"{'-'.join(found.splits)}: {effect} {found.effect:.3f}, p {found.p:.2g}" for found in told["yes"]
            )
            sentences.append(f"{what} {verb} between splits by more than chance explains ({shown}).")
        if told["no"]:
            some = "No other difference" if told["yes"] else "No difference"
            sentences.append(f"{some} of {what[0].lower() + what[1:]} is shown between {pairs['no']}.")
        if told["cannot tell"]:
            sentences.append(
                f"Whether {what[0].lower() + what[1:]} {verb} between {pairs['cannot tell']}, this run cannot tell; "
                "the table says why."
            )
        if not any(told.values()):
            sentences.append(f"{what}: no two splits could be compared, because labels are unknown.")
    return sentences


def covariate_rows(shift: Any) -> Rows:
    """How well a model tells two splits apart, against its null distribution, and which property differs most."""
    if isinstance(shift.pairs, Missing):
        return shift.pairs
    rows = []
    for pair in shift.pairs:
        row = [" and ".join(pair.splits), f"{pair.n[0]:,} / {pair.n[1]:,}", f"{pair.units[0]:,} / {pair.units[1]:,}"]
        test = pair.two_sample
        if test is None:
            rows.append([*row, f"cannot tell: {pair.reason}", "–", "–", "–"])
            continue
        widest = max(pair.features, key=lambda feature: abs(feature.difference_sd))
        most = f"{words(widest.feature)}: {widest.difference_sd:+.2f} sd (p {widest.p_all:.2g})"
        null = f"{number(test.null_mean)}; {number(test.null_quantile_95)}"
        rows.append([*row, number(test.roc_auc), null, number(test.p), most])
    return rows


def covariate_sentence(shift: Any) -> Any:
    """From which p on a difference is called one, and what the comparison does not look at."""
    method = shift.method
    for value in (method.level_of_one_pair, method.excluded):
        if not is_measured(value):
            return value
    left_out = ", ".join(f"{method.excluded[split]:,} of {split}" for split in method.excluded)
    return (
        f"A difference is called shown where p is at most {number(method.level_of_one_pair, 4)}, the level shared by "
        f"the pairs of splits. Patches on which the audits of poison or storage found something, outliers among them, "
        f"are left out ({left_out}): what differs in these alone is not seen here."
    )


def slide_rows(shift: Any) -> Rows:
    """Slides and hospitals of each file; empty where no slide is known."""
    slides = shift.slides
    if isinstance(slides.known, Missing):
        return slides.known
    rows = []
    for split in slides.slides if slides.known else ():
        hospitals = slides.hospitals[split]
        told = ", ".join(f"{name} {hospitals[name]:,}" for name in hospitals) or "unknown"
        rows.append([split, slides.slides[split], slides.patches_with_slide[split], told])
    return rows


def slide_sentence(shift: Any) -> Any:
    slides = shift.slides
    if isinstance(slides.known, Missing):
        return slides.known
    if not slides.known:
        return "The data do not tell which slide a patch comes from; groups of shared tissue stand in their place."
    shared = {pair: slides.shared[pair] for pair in slides.shared if slides.shared[pair]}
    if not shared:
        return "No slide stands in two splits."
    told = "; ".join(
        f"{pair.replace('-', ' and ')} share {counted(len(names), 'slide')} ({', '.join(names[:3])}"
        + (" …)" if len(names) > 3 else ")")
        for pair, names in shared.items()
    )
    return f"Slides stand in more than one split: {told}."


def splits_answers(found: Found) -> dict[str, Any]:
    """All that the journal's template needs for question 2.1."""
    shift = found["shift"]
    return {
        "identity_table": identity_rows(found["checksums"]),
        "identity_sentence": identity_sentence(found["checksums"]),
        "partition": partition(found["patches"]),
        "split_table": split_table(found["splits"]),
        "slide_table": slide_rows(shift),
        "slide_sentence": slide_sentence(shift),
        "covariate_sentence": covariate_sentence(found["shift"]),
        "prior_shift": prior_shift(found["splits"]),
        "prior_table": prior_rows(shift),
        "shift_sentences": shift_sentences(shift),
        "covariate_table": covariate_rows(shift),
        "splits_verdicts": verdict_rows(found["verdicts"], JUDGED),
    }
