"""What the journal says of question 2: storage and poison here, the rest from answers_splits and answers_leakage."""

from typing import Any

from pcam.answers_findings import (
    ROWS_SHOWN,
    Found,
    Rows,
    audit_sentence,
    class_name,
    finding_rows,
    kinds_by_count,
    kinds_judged,
    listed,
    patches_named,
    percent_between,
    score_rows,
    truth_rows,
    unseen_rows,
    verdict_rows,
    with_interval,
)
from pcam.answers_leakage import LEAK_KINDS, leakage_answers
from pcam.answers_splits import JUDGED as SPLIT_KINDS
from pcam.answers_splits import splits_answers
from pcam.binding import count_of, derived
from pcam.documents import Missing, counted, is_measured, number, percent, words
from pcam.facts import FILE_SPLITS, PATCH_BYTES

STAMPS_SHOWN = 8
SUSPECTS_SHOWN = 8


def byte_rows(storage: Any) -> Rows:
    """Where the bytes of each file go."""
    if isinstance(storage.files, Missing):
        return storage.files
    return [
        [f.file, f.dtype, f.layout, " × ".join(map(str, f.chunks or ["none"])), ", ".join(f.filters) or "none",
         f.bytes_data, f.bytes_other, f.bytes_structure, f.bytes_on_disk]
        for f in storage.files
    ]  # fmt: skip


def factor_rows(storage: Any) -> Rows:
    """What the size of each file is a multiple of, factor by factor, and why."""
    if isinstance(storage.files, Missing):
        return storage.files
    rows = []
    for f in storage.files:
        parts = ["–"] * 4 if f.factors is None else [number(f.factors[name], 2) for name in f.factors]
        rows.append([f.file, f.bytes_expected, f.bytes_as_uint8, *parts, number(f.factor, 2), f.cause])
    return rows


def saving_rows(storage: Any) -> Rows:
    """What one byte a value, and gzip on top of it, would save of each file of patches."""
    if isinstance(storage.files, Missing):
        return storage.files
    rows = []
    for f in storage.files:
        if f.key != "x":
            continue
        gzip = f.bytes_gzip_estimate
        if isinstance(gzip, int):
            ends = f.bytes_gzip_interval
            gzip = f"{gzip:,}" + (f" ({ends[0]:,} to {ends[1]:,})" if isinstance(ends, list) else ", exactly")
        measured = f"{f.gzip_patches_measured:,} of {f.patches:,}" if is_measured(f.patches) else f.patches
        rows.append([f.file, f.saving_as_uint8, gzip, f.saving_gzip_estimate, measured])
    return rows


def storage_sentence(storage: Any) -> Any:
    """The largest file, the factor it is too large by, and whether every byte is accounted for."""
    files = storage.files
    if isinstance(files, Missing):
        return files
    if not files:
        return "No file was looked at."
    f = max(files, key=lambda file: file.bytes_on_disk)
    text = f"The largest file is {f.file} with {f.bytes_on_disk:,} bytes where one byte a value would take "
    text += f"{f.bytes_as_uint8:,}: a factor of {number(f.factor, 2)}"
    if f.factor > 1.05:
        text += f". The reason: {f.cause}."
    elif f.factor < 0.95:
        text += f", so it is smaller than bare bytes. The reason: {f.cause}."
    else:
        text += f", so there is no mystery here: {f.cause}."
    off = [f.file for f in files if f.bytes_data + f.bytes_other + f.bytes_structure != f.bytes_on_disk]
    if off:
        return f"{text} The parts do not add up to the size of {listed(off)}."
    return f"{text} For every file the parts add up to its size, to the byte."


def fewer(saved: int) -> str:
    """How many bytes less, or more."""
    return f"{abs(saved):,} bytes {'less' if saved > 0 else 'more'}" if saved else "as many bytes as now"


def saving_sentence(storage: Any, splits: Any) -> Any:
    """What the repair saves: as one byte a value, gzipped, and what the store of this run takes."""
    if isinstance(storage.files, Missing):
        return storage.files
    x = [f for f in storage.files if f.key == "x"]
    whole, small = ([f[name] for f in x] for name in ("saving_as_uint8", "saving_gzip_estimate"))
    if any(not isinstance(value, int) for value in [*whole, *small]):
        text = "What a repair saves in all is undefined: of a file here the values lie elsewhere, or none fits a byte."
    else:
        text = "Written as one byte a value, the pixels of all files together would take "
        text += f"{fewer(sum(whole))}, and gzipped as well ({x[0].gzip_setting}) {fewer(sum(small))}, as far as the "
        text += "measured chunks tell."
    sizes = [splits[name].n for name in (*FILE_SPLITS, "unlabelled")]
    if any(isinstance(n, Missing) for n in sizes):
        return text
    kept = sum(sizes)
    return f"{text} The store that the run builds holds the {kept:,} kept patches so, in {kept * PATCH_BYTES:,} bytes."


def stamp_rows(poison: Any) -> Rows:
    """Each block that recurs in patches that share no tissue."""
    if isinstance(poison.stamps, Missing):
        return poison.stamps
    rows = []
    for stamp in poison.stamps[:STAMPS_SHOWN]:
        size = f"{stamp.height} × {stamp.width} px, {'of one colour' if stamp.flat else 'textured'}"
        place = f"fixed, row {stamp.place[0]}, column {stamp.place[1]}" if stamp.place else f"{stamp.places:,} places"
        row = [size, stamp.patches, place, stamp.classes["0"], stamp.classes["1"]]
        rows.append([*row, patches_named(stamp.rows, 6).partition(" and ")[0]])
    return rows


def stamp_sentence(poison: Any) -> Any:
    stamps = poison.stamps
    if isinstance(stamps, Missing):
        return stamps
    if not stamps:
        return "No block of pixels recurs in patches that share no tissue: no stamped trigger was found."
    bearing = sum(stamp.patches for stamp in stamps)
    text = f"Triggers: {counted(count_of(stamps), 'block')} of pixels recur in patches that share no tissue, "
    text += f"borne by {bearing:,} patches"
    still = derived(sum(stamp.place is not None for stamp in stamps), stamps)
    text += f"; {still:,} always at one place, {count_of(stamps) - still:,} at several."
    one_class = derived(sum(0 in (stamp.classes["0"], stamp.classes["1"]) for stamp in stamps), stamps)
    if one_class:
        text += f" {one_class:,} of them stand in patches of one class alone, which is what a backdoor looks like."
    return text + (" The first of them are listed." if len(stamps) > STAMPS_SHOWN else "")


def class_rows(poison: Any) -> Rows:
    """Damage in each class of a split, and whether it goes with the class."""
    if isinstance(poison.by_class, Missing):
        return poison.by_class
    rows = []
    for line in poison.by_class:
        shares = [f"{n:,} of {of:,} ({percent(n / of, 2)})" for n, of in zip(line.n, line.of, strict=True)]
        verdict = "goes with the class" if line.depends else "not shown to"
        rows.append([words(line.kind), line.split, *shares, f"{line.p_holm:.2g}", verdict])
    return rows


def class_sentence(poison: Any) -> Any:
    lines = poison.by_class
    if isinstance(lines, Missing):
        return lines
    if not lines:
        return "Class-dependent damage: no split with known labels holds damage to compare between classes."
    told = [
        f"{words(line.kind)} in {line.split}, {percent(line.n[0] / line.of[0])} of {class_name(0)} against "
        f"{percent(line.n[1] / line.of[1])} of {class_name(1)}"
        for line in lines
        if line.depends
    ]
    test = f"(Fisher's exact test, Holm-adjusted, at the level {percent(lines[0].level, 0)})"
    if told:
        return f"Damage that goes with the class, which a model can learn in place of tissue {test}: {'; '.join(told)}."
    return f"Class-dependent damage: no kind is shown to strike one class more than the other {test}."


def label_sentence(labels: Any) -> Any:
    """Where flipped labels are claimed, where not, and where it cannot be told."""
    if isinstance(labels.splits, Missing):
        return labels.splits
    told: dict[str, list[str]] = {}
    for split in labels.splits:
        told.setdefault(labels.splits[split].verdict, []).append(split)
    suspects = sum(found.n for found in labels.findings)
    answers = []
    if "flips" in told:
        answers.append(f"flips are claimed in {listed(told['flips'])}, with {counted(suspects, 'suspect')} listed")
    elif labels.together.verdict == "flips":
        answers.append("flips are claimed in all splits taken together, and in none alone")
    if "none claimed" in told:
        answers.append(f"none are claimed in {listed(told['none claimed'])}")
    if "cannot tell" in told:
        why = listed(dict.fromkeys(labels.splits[split].reason for split in told["cannot tell"]))
        answers.append(f"of {listed(told['cannot tell'])} it cannot be told ({why})")
    if "unlabelled" in told:
        answers.append(f"{listed(told['unlabelled'])} holds no labels")
    method = labels.method
    text = f"Flipped labels: {'; '.join(answers)}. A label is suspect when a {method.model}, fitted to other folds "
    text += f"({method.folds} in all, dealt by {method.grouped_by}), contradicts it"
    return f"{text}: a suspicion, never a proof."


def label_rows(labels: Any) -> Rows:
    if isinstance(labels.splits, Missing):
        return labels.splits
    rows = []
    entries = {split: labels.splits[split] for split in labels.splits}
    if is_measured(labels.together):
        entries["together"] = labels.together
    for split, entry in entries.items():
        seen = entry.smallest_rate_seen
        rows.append(
            [
                split,
                entry.n,
                entry.verdict,
                with_interval(entry.roc_auc, entry.roc_auc_interval),
                *(flips_of(entry, label) for label in ("0", "1")),
                "none of those tried" if seen is None else percent(seen),
            ]
        )
    return rows


def flips_of(entry: Any, label: str) -> str:
    """Estimated share of flips among the patches that carry a label, and how many a suspicion would name."""
    if label not in entry.classes:
        return "undefined"
    own = entry.classes[label]
    claim = "claimed" if own.claimed else "not claimed"
    fit = f"; {own.candidates:,} fit" if is_measured(own.candidates) else ""
    return f"{percent(own.flip_rate)} ({percent_between(own.flip_rate_interval, 1)}), {claim}{fit}"


def planted_rows(labels: Any) -> Rows:
    """What planted flips show of the suspicion, on these very data."""
    if isinstance(labels.planted, Missing):
        return labels.planted
    rows = []
    for line in labels.planted:
        scores = [with_interval(line[name].mean, line[name].interval) for name in ("roc_auc", "precision", "recall")]
        claims = ", ".join(f"{split} {line.claimed[split]}" for split in line.claimed)
        rows.append([percent(line.rate), line.plantings, *scores, claims])
    return rows


def suspect_rows(labels: Any) -> Rows:
    if isinstance(labels.most_suspicious, Missing):
        return labels.most_suspicious
    return [
        [one.split, one.row, class_name(one.label), number(one.score)]
        for one in labels.most_suspicious[:SUSPECTS_SHOWN]
    ]


def audit_answers(found: Found) -> dict[str, Any]:
    """All that the journal's template needs for question 2."""
    storage, poison, labels, score = (found[name] for name in ("storage", "poison", "labels", "score"))
    verdicts = found["verdicts"]
    counts = kinds_by_count(poison)
    poison_kinds = list(counts) if isinstance(counts, dict) else []
    others = [k for k in verdicts if k not in (*SPLIT_KINDS, *LEAK_KINDS, "float_storage")]
    return {
        **splits_answers(found),
        **leakage_answers(found),
        "storage_sentence": storage_sentence(storage),
        "byte_table": byte_rows(storage),
        "factor_table": factor_rows(storage),
        "saving_table": saving_rows(storage),
        "saving_sentence": saving_sentence(storage, found["splits"]),
        "storage_verdicts": verdict_rows(verdicts, ("float_storage",)),
        "poison_sentence": audit_sentence(poison, "poison"),
        "poison_table": finding_rows(poison, with_rows=True),
        "rows_shown": ROWS_SHOWN,
        "stamp_sentence": stamp_sentence(poison),
        "stamp_table": stamp_rows(poison),
        "class_sentence": class_sentence(poison),
        "class_table": class_rows(poison),
        "label_sentence": label_sentence(labels),
        "label_table": label_rows(labels),
        "label_planted": planted_rows(labels),
        "label_suspects": suspect_rows(labels),
        "poison_score": score_rows(score, poison_kinds),
        "truth_table": truth_rows(score),
        "recall_wanted": number(score.method.limit_recall, 2),
        "poison_unseen": unseen_rows(poison, score),
        "poison_verdicts": verdict_rows(verdicts, others),
        "waived": ", ".join(kinds_judged(verdicts, "waived")),
        "suspected": ", ".join(kinds_judged(verdicts, "kept")),
    }
