"""What follows from findings under a policy: which patches go, and how each kind is judged. Pure functions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pcam.facts import FILE_SPLITS
from pcam.files import InputError

Patch = tuple[str, int]  # file split, row
# Every defect a patch may carry, in the order of the table.
DEFECTS = (
    *("non_finite", "out_of_range", "fractional", "blackout", "washout", "constant", "partly_blanked", "trigger"),
    *("channel_swap", "blur_outlier", "intensity_outlier", "label_suspect", "label_conflict"),
    *("exact_duplicate", "cross_split_duplicate", "rotated_duplicate", "near_duplicate", "overlap"),
    *("slide_overlap", "coordinate_overlap"),
)
# Statistical statements, not proofs: kept without a waiver, and reported.
SUSPICIONS = (
    *("channel_swap", "blur_outlier", "intensity_outlier", "label_suspect"),
    *("class_dependent_damage", "prior_shift", "covariate_shift"),
)
OF_SPLITS = ("class_dependent_damage", "prior_shift", "covariate_shift")  # no patch to drop
# Of a pair the earlier split's member goes; pairs within a split stay together, as groups.
LEAKS = (
    *("cross_split_duplicate", "rotated_duplicate", "near_duplicate", "overlap"),
    *("slide_overlap", "coordinate_overlap"),
)
UNFIT = ("non_finite", "out_of_range", "fractional")  # what uint8 cannot hold
STAYING = {
    "exact_duplicate": "the first of each set; the test file is never thinned",
    "cross_split_duplicate": "the copy in the last split that holds one",
    **dict.fromkeys(LEAKS[1:], "all but the earlier split's member of a pair across splits"),
}


def check_actions(policy: Mapping[str, str]) -> None:
    """Raises: InputError when the policy asks for an action that its kind does not have."""
    for kind, action in policy.items():
        allowed: tuple[str, ...] = ("drop", "keep")
        if kind == "float_storage":
            allowed = ("convert", "keep")
        elif kind in OF_SPLITS:
            allowed = ("keep",)
        if action not in allowed:
            raise InputError(f"config: audit.policy.{kind} is {action!r}; allowed are {' and '.join(allowed)}")


def goes(kind: str, row: Mapping[str, str]) -> bool:
    """Whether action drop takes this row of an audit's table; of a leaking pair the earlier split's member goes.

    Test is never thinned, except of patches that are no picture at all: NaN or 1e5 can be neither stored nor predicted.
    """
    split = row["split"]
    if split == "test":
        return kind in UNFIT
    if kind in LEAKS:
        later = FILE_SPLITS[FILE_SPLITS.index(split) + 1 :]
        return any(partner in later for partner in row["partner_splits"].split(";"))
    return True


def flagged_and_dropped(
    rows: Sequence[Mapping[str, str]], policy: Mapping[str, str]
) -> tuple[dict[str, set[Patch]], dict[str, set[Patch]]]:
    """Patches by kind: all that show it, and those that its action drops. A pure function of the audits' rows.

    Of exact duplicates the first stays that no other kind drops, so that a set never loses its last copy to this one.
    """
    flagged: dict[str, set[Patch]] = {kind: set() for kind in DEFECTS}
    dropped: dict[str, set[Patch]] = {kind: set() for kind in DEFECTS}
    gone: set[Patch] = set()
    copies: list[tuple[Patch, str]] = []  # patch and number of its content
    for row in rows:
        kind, patch = row["kind"], (row["split"], int(row["row"]))
        flagged[kind].add(patch)
        if kind == "exact_duplicate":
            copies.append((patch, row["content"]))
        elif policy.get(kind) == "drop" and goes(kind, row):
            dropped[kind].add(patch)
            gone.add(patch)
    if policy.get("exact_duplicate") == "drop":
        first: dict[tuple[str, str], Patch] = {}
        for patch, content in sorted(copies, key=lambda copy: (copy[0] in gone, copy[0])):
            first.setdefault((patch[0], content), patch)
        dropped["exact_duplicate"] = {
            patch for patch, content in copies if patch[0] != "test" and first[patch[0], content] != patch
        }
    return flagged, dropped


def defects_of(flagged: Mapping[str, set[Patch]]) -> dict[Patch, str]:
    """Names of each defective patch's defects, joined by ";" in the order of DEFECTS."""
    names: dict[Patch, list[str]] = {}
    for kind in DEFECTS:
        for patch in flagged[kind]:
            names.setdefault(patch, []).append(kind)
    return {patch: ";".join(kinds) for patch, kinds in names.items()}


def unfit(files: Sequence[Mapping[str, Any]], flagged: Mapping[str, set[Patch]]) -> set[Patch]:
    """Patches stored as float with values that uint8 cannot hold."""
    as_float = {file["split"] for file in files if file["dtype"].startswith("float")}
    return {patch for kind in UNFIT for patch in flagged[kind] if patch[0] in as_float}


def by_split(patches: set[Patch]) -> str:
    """Such as "train 12, test 3"."""
    counts = Counter(split for split, _ in patches)
    return ", ".join(f"{split} {counts[split]:,}" for split in FILE_SPLITS if counts[split])


def verdict(verdict: str, reason: str, n: int = 0, dropped: int = 0) -> dict[str, Any]:
    return {"verdict": verdict, "reason": reason, "n": n, "dropped": dropped}


def unrepaired(kind: str, n: int, what: str, policy: Mapping[str, str], waive: Mapping[str, str]) -> dict[str, Any]:
    """Verdict on a kind that was found and that no action repairs."""
    if kind not in policy:
        return verdict("fail", f"{what}; audit.policy has no entry for it", n)
    if kind in waive:
        return verdict("waived", f"{what}; kept because: {waive[kind]}", n)
    if kind in SUSPICIONS:
        return verdict("kept", f"{what}; a suspicion, kept and reported", n)
    return verdict("fail", f"{what}; the policy keeps them and audit.waive gives no reason", n)


def judge_patches(
    kind: str,
    flagged: set[Patch],
    dropped: set[Patch],
    gone: set[Patch],
    total: int,
    policy: Mapping[str, str],
    waive: Mapping[str, str],
) -> dict[str, Any]:
    """Verdict on a defect of patches; `dropped` for this defect, `gone` for any."""
    if not flagged:
        return verdict("pass", f"none among {total:,} patches")
    what = f"{len(flagged):,} of {total:,} patches ({by_split(flagged)})"
    if policy.get(kind) != "drop":
        return unrepaired(kind, len(flagged), what, policy, waive)
    what += f"; {len(dropped):,} dropped" + (f" ({by_split(dropped)})" if dropped else "")
    if others := (flagged & gone) - dropped:
        what += f"; {len(others):,} dropped for another defect"
    if left := flagged - gone:
        what += (
            f"; {len(left):,} stay, flagged ({by_split(left)}: {STAYING.get(kind, 'the test file is never thinned')})"
        )
    return verdict("repaired", what, len(flagged), len(dropped))


def found_in_splits(by_class: Sequence[Mapping[str, Any]], shifts: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """What was found of the kinds of OF_SPLITS, in words: from the damage by class and the shifts between splits."""
    told: dict[str, list[str]] = {kind: [] for kind in OF_SPLITS}
    for line in by_class:
        if line["depends"]:
            shares = " and ".join(
                f"{n:,} of {of:,} of class {k}" for k, (n, of) in enumerate(zip(line["n"], line["of"], strict=True))
            )
            told["class_dependent_damage"].append(f"{line['kind']} in {line['split']}: {shares}")
    for shift in shifts:
        if shift["found"]:
            effect = (
                "difference in the share of tumour"
                if shift["kind"] == "prior_shift"
                else "ROC-AUC of telling them apart"
            )
            told[shift["kind"]].append(f"{' and '.join(shift['splits'])}: {effect} {shift['effect']:.3f}")
    return told


def judge_unlooked(
    verdicts: Mapping[str, Mapping[str, Any]], leakage: Mapping[str, Any], labels: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Verdicts on kinds that were not found because they could not be looked for everywhere.

    leakage: method of the leakage audit, with the splits whose slides and coordinates are known.  labels: what the
    label audit says of each split.
    """
    blind = {
        "slide_overlap": [split for split in FILE_SPLITS if split not in leakage["splits_with_slides"]],
        "coordinate_overlap": [split for split in FILE_SPLITS if split not in leakage["splits_with_coordinates"]],
        "label_suspect": [split for split in FILE_SPLITS if labels[split]["verdict"] in ("cannot tell", "unlabelled")],
    }
    why = {"label_suspect": "labels or a model that can tell", "slide_overlap": "known slides"}
    return {
        kind: verdict(
            "unknown", f"cannot be looked for in {', '.join(splits)}: no {why.get(kind, 'known coordinates')}"
        )
        for kind, splits in blind.items()
        if splits and verdicts[kind]["verdict"] == "pass"
    }


def judge_splits(
    kind: str,
    told: Sequence[str],
    shifts: Sequence[Mapping[str, Any]],
    policy: Mapping[str, str],
    waive: Mapping[str, str],
) -> dict[str, Any]:
    """Verdict on a kind of OF_SPLITS; `told` says where it was found, `shifts` are the findings of the shift audit."""
    if told:
        return unrepaired(kind, len(told), "; ".join(told), policy, waive)
    open_pairs = [" and ".join(s["splits"]) for s in shifts if s["kind"] == kind and s["found"] is None]
    if open_pairs:
        return verdict("unknown", f"cannot be told of {', '.join(open_pairs)}; found in no other")
    return verdict("pass", "found in no split")


def judge_storage(
    files: Sequence[Mapping[str, Any]], unfit: set[Patch], policy: Mapping[str, str], waive: Mapping[str, str]
) -> dict[str, Any]:
    """Verdict on patches stored as float; `unfit`: kept patches with values that uint8 cannot hold."""
    wide = [file for file in files if file["dtype"].startswith("float")]
    n = sum(file["patches"] for file in wide)
    if not wide:
        return verdict("pass", f"all {sum(file['patches'] for file in files):,} patches are stored as uint8")
    what = ", ".join(f"{file['split']}: {file['patches']:,} patches as {file['dtype']}" for file in wide)
    if policy.get("float_storage") != "convert":
        return unrepaired("float_storage", n, what, policy, waive)
    if unfit:
        held = f"{len(unfit):,} kept patches ({by_split(unfit)}) hold values that uint8 cannot"
        return verdict("fail", f"{what}; {held}, the first in {min(unfit)[0]} row {min(unfit)[1]}", n)
    return verdict("repaired", f"{what}; converted to uint8, without loss in every kept patch", n)


def judge_files(findings: Sequence[Mapping[str, Any]], waive: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Verdicts on whose content the files hold; only a waiver passes another split's content, or one content twice."""
    published = [found for found in findings if found["kind"] == "published_file"]
    how = Counter(words for found in published for words in found["confidence"])
    what = f"{how.total()} of {sum(found['of'] for found in published)} files are published PCam files by their content"
    ways = ", ".join(f"{n} {words}" for words, n in how.items())
    verdicts = {"published_file": verdict("pass", f"{what}: {ways}" if ways else what, how.total())}
    for kind in ("swapped_split", "same_content"):
        mine = [found for found in findings if found["kind"] == kind]
        told = list(dict.fromkeys(sentence for found in mine for sentence in found["told"]))
        n, of = sum(found["n"] for found in mine), sum(found["of"] for found in mine)
        if not told:
            verdicts[kind] = verdict("pass", f"none among {of} files")
        elif reason := waive.get(kind):
            verdicts[kind] = verdict("waived", f"{'; '.join(told)}; kept because: {reason}", n)
        else:
            verdicts[kind] = verdict("fail", "; ".join(told), n)
    return verdicts


def judge_classes(labels: Mapping[Patch, str], gone: set[Patch]) -> dict[str, Any]:
    """Verdict on what the drops leave: every class of every split must keep a patch."""
    kept = {(split, label) for (split, row), label in labels.items() if (split, row) not in gone}
    empty = sorted({(split, label) for (split, _), label in labels.items()} - kept)
    if not empty:
        return verdict(
            "pass", f"every class keeps patches in every split; {len(gone):,} of {len(labels):,} are dropped"
        )
    names = ", ".join(f"{split} class {label}" if label else split for split, label in empty)
    return verdict("fail", f"the policy leaves no patch in {names}", len(empty))
