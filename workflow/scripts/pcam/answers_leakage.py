"""What the journal says of leakage and of cross-validation (questions 2.2 and 2.3)."""

from math import hypot, sqrt
from statistics import fmean
from typing import Any

from pcam.answers_findings import (
    Found,
    Rows,
    audit_sentence,
    finding_rows,
    listed,
    patches_named,
    score_rows,
    unseen_rows,
    verdict_rows,
    with_interval,
)
from pcam.binding import derived
from pcam.documents import PERCENT_95, Missing, counted, is_measured, number, percent, words

META_KINDS = ("slide_overlap", "coordinate_overlap")  # the slides tell them, not the pixels
LEAK_KINDS = (
    *("exact_duplicate", "cross_split_duplicate", "rotated_duplicate", "near_duplicate", "label_conflict"),
    *("overlap", *META_KINDS),
)
PARTS = {"all": "all", "without": "those that do not leak", "leaking": "those that leak"}


def pair_rows(leakage: Any) -> Rows:
    """Pairs of patches by where their two members stand."""
    pairs = leakage.pairs
    if isinstance(pairs, Missing):
        return pairs
    return [[words(kind), *(pairs[kind][where] for where in pairs[kind])] for kind in pairs]


def pair_head(leakage: Any) -> list[str]:
    kinds = list(leakage.pairs)
    columns = list(leakage.pairs[kinds[0]]) if kinds else []
    return ["pairs of", *(f"within {w.split('-')[0]}" if len({*w.split("-")}) == 1 else w for w in columns)]


def mix_rows(leakage: Any) -> Rows:
    """Labels of the two members of each distinct pair."""
    mix = leakage.class_mix
    if isinstance(mix, Missing):
        return mix
    told = ((kind, [mix[kind][name] for name in ("both_0", "both_1", "mixed", "unknown")]) for kind in mix)
    return [[words(kind), *counts] for kind, counts in told if any(counts)]


def across_sentence(leakage: Any) -> Any:
    """Pairs that stand across two splits, which is what leaks."""
    pairs = leakage.pairs
    if isinstance(pairs, Missing):
        return pairs
    across = {kind: sum(pairs[kind][w] for w in pairs[kind] if len({*w.split("-")}) > 1) for kind in pairs}
    within = sum(pairs[kind][w] for kind in pairs for w in pairs[kind]) - sum(across.values())
    told = ", ".join(f"{words(kind)} {n:,}" for kind, n in across.items() if n)
    start = f"{counted(sum(across.values()), 'pair')} across splits ({told})" if told else "No pair across splits"
    return f"{start} and {counted(within, 'pair')} within one were proven on the pixels."


def group_sentence(leakage: Any) -> Any:
    """Sizes of the groups that pairs form, in classes that double."""
    sizes = leakage.group_sizes
    if isinstance(sizes, Missing):
        return sizes
    counts = {int(size): sizes[size] for size in sizes}
    if not counts:
        return "No patch shares pixels with another, so there are no groups."
    told, low = [], 2
    while low <= max(counts):
        n = sum(number for size, number in counts.items() if low <= size < 2 * low)
        told += [f"{n:,} of {derived(low, n)} to {derived(2 * low - 1, n)} patches"] if n else []
        low *= 2
    patches = derived(sum(size * n for size, n in counts.items()), sizes)
    text = f"Pairs chain into {counted(sum(counts.values()), 'group')} of {patches:,} patches in all: {listed(told)}"
    text += f"; the largest holds {derived(max(counts), sizes):,}"
    return f"{text}. Groups stay whole wherever the run itself divides patches."


def cluster_rows(leakage: Any) -> Rows:
    if isinstance(leakage.clusters, Missing):
        return leakage.clusters
    return [
        [cluster.size, ", ".join(f"{s} {cluster.splits[s]:,}" for s in cluster.splits),
         ", ".join(f"{class_of(k)} {cluster.classes[k]:,}" for k in sorted(cluster.classes)),
         patches_named(cluster.members, 4).partition(" and ")[0]]
        for cluster in leakage.clusters[:5]
    ]  # fmt: skip


def class_of(key: str) -> str:
    return {"0": "no tumour", "1": "tumour"}.get(key, "unknown")


def coordinates_sentence(leakage: Any) -> Any:
    """What the slides' coordinates, which the search never saw, say of the pixel search."""
    at, known = leakage.coordinates, leakage.method.slides_known
    if isinstance(at.pairs, Missing):
        return at.pairs
    if not known:
        return (
            "No slide and no coordinates are known, so slide overlap and coordinate overlap **could not be looked "
            "for**, and nothing outside the pixels checks the search."
        )
    unit = "one pixel is taken as one unit of the coordinates, for want of overlaps to measure it on"
    if at.unit_measured_on:
        n = f"{at.unit_measured_on:,} verified overlaps"
        unit = f"one pixel is {number(at.unit_per_px, 2)} units of the coordinates, measured on {n}"
    if not at.pairs_comparable:
        return f"The coordinates ({unit}) name no pair that pixels could confirm."
    share = percent(at.pairs_confirmed / at.pairs_comparable, 2)
    text = f"An independent check: by the slides' coordinates ({unit}) {counted(at.pairs, 'pair')} overlap, of which "
    text += f"{at.pairs_comparable:,} can be compared by pixels; the pixel search confirms {at.pairs_confirmed:,} "
    missed = at.pairs_comparable - at.pairs_confirmed
    return f"{text}({share})" + (
        f". The other {missed:,} share too little texture to prove it, or differ." if missed else ", all of them."
    )


def leaking_rows(leaking: Any) -> Rows:
    """ROC-AUC of every variant on test, with and without the rows that leak."""
    variants = leaking.variants
    if isinstance(variants, Missing):
        return variants
    rows = []
    for variant in variants:
        for part, what in PARTS.items():
            scored = variants[variant][part]
            area = with_interval(scored.roc_auc, scored.interval)
            rows.append(
                [variant, what, scored.n, scored.positives, f"undefined: {scored.reason}" if area is None else area]
            )
    return rows


def leaking_sentence(leaking: Any) -> Any:
    """How many test rows leaked as the files held them, and whether a variant's figure rests on them."""
    if isinstance(leaking.n, Missing):
        return leaking.n
    where = listed(leaking.partners_in)
    if not leaking.n_leaking:
        return f"None of the {leaking.n:,} test rows had a partner in the file of {where}: no figure rests on a leak."
    kinds = ", ".join(f"{words(kind)} {leaking.by_kind[kind]:,}" for kind in leaking.by_kind)
    text = f"Of {leaking.n:,} test rows {leaking.n_leaking:,} had a partner in the file of {where} before cleaning "
    text += f"({kinds})."
    told = []
    for variant in leaking.variants:
        change = leaking.variants[variant].difference
        if change.value is None:
            told.append(f"{variant}: the difference is undefined, {change.reason}")
            continue
        low, high = change.interval
        verdict = "higher without them" if low > 0 else "lower without them" if high < 0 else "no change that is shown"
        told.append(f"{variant} {change.value:+.4f} ({low:+.4f} to {high:+.4f}), {verdict}")
    return f"{text} What leaving them out changes of the ROC-AUC: {'; '.join(told)}."


def fold_rows(folds: Any) -> Rows:
    if isinstance(folds.schemes, Missing):
        return folds.schemes
    rows = []
    for name in folds.schemes:
        scheme = folds.schemes[name]
        spread = scheme.spread
        if spread is None:
            rows.append([name, scheme.units, f"cannot tell: {scheme.reason}", "–", "–", "–"])
            continue
        sds = [with_interval(part.sd, part.interval, 4) for part in (spread.between_folds, spread.between_seeds)]
        expected = number(spread.expected_from_patches_sd, 4)
        rows.append([name, scheme.units, *sds, ratio_of(spread), expected])
    return rows


def ratio_of(spread: Any) -> Any:
    """Standard deviation between folds over that between seeds."""
    seeds = spread.between_seeds.sd
    return number(spread.between_folds.sd / seeds, 1) if seeds else "undefined: seeds change nothing"


def fold_sentences(folds: Any) -> list[Any]:
    """Whether folds or seeds vary more, whether the number of patches explains it, and what random folds flatter."""
    if isinstance(folds.schemes, Missing):
        return [folds.schemes]
    scheme = folds.schemes.grouped
    if scheme.spread is None:
        return [
            f"Folds could not be compared ({scheme.reason}), so this run cannot tell whether folds or seeds vary more."
        ]
    spread = scheme.spread
    between, seeds = spread.between_folds, spread.between_seeds
    start = f"Between grouped folds the ROC-AUC varies {ratio_of(spread)} times as much as between seeds"
    if not seeds.sd:
        sentences = ["Seeds change nothing on this model, so all that varies is the fold."]
    elif between.interval[0] > seeds.interval[1]:
        sentences = [
            f"{start}, and the intervals of the two lie apart: which patches are held out matters more than the seed, "
            "so a spread over seeds on one split understates what another split would show."
        ]
    elif between.interval[1] < seeds.interval[0]:
        sentences = [
            f"{start}, and the intervals of the two lie apart: the seed matters more than which patches are held out, "
            "so folds would add less than seeds do."
        ]
    else:
        sentences = [f"{start}, but the intervals of the two overlap: which varies more, this run cannot tell."]
    # A fold's mean over seeds varies by its number of patches, and by what the seeds leave in it.
    parts = spread.expected_from_patches_sd, seeds.sd / sqrt(spread.n_seeds)
    expected = derived(hypot(*parts), *parts, spread.n_seeds)
    chance = f"The number of patches in a fold and its seeds alone would let folds vary by {number(expected, 4)}"
    if expected < between.interval[0]:
        sentences.append(f"{chance}, less than they do: slides or groups differ from one another.")
    elif expected > between.interval[1]:
        sentences.append(f"{chance}, more than they do.")
    else:
        sentences.append(
            f"{chance}, which lies within the interval: a difference between slides or groups is not shown."
        )
    return [*sentences, optimism_sentence(folds.optimism_of_random_folds)]


def optimism_sentence(optimism: Any) -> Any:
    """How much folds that tear groups apart flatter."""
    if isinstance(optimism, Missing):
        return optimism
    what = "Random folds, which put parts of one slide or group on both sides,"
    if optimism is None or optimism.interval is None:
        return f"{what} could not be compared with grouped ones often enough to tell how much they flatter."
    low, high = optimism.interval
    told = f"by {number(abs(optimism.mean), 4)} of ROC-AUC "
    told += f"({PERCENT_95} interval over dealings of the same patches: {low:+.4f} to {high:+.4f})"
    if low > 0:
        return f"{what} flatter the model {told}."
    if high < 0:
        return f"{what} score lower {told}, which no leak explains."
    return f"{what} differ {told}: whether they flatter, this run cannot tell."


def seed_spread(seeds: Any) -> tuple[bool, float | None]:
    """Whether there are several seeds, and the mean standard error of the baseline's test ROC-AUC."""
    errors = seeds.baseline.test.roc_auc.standard_errors
    known = [error for error in errors if error is not None] if is_measured(errors) else []
    return is_measured(seeds.seeds) and len(seeds.seeds) > 1, derived(fmean(known), errors) if known else None


def leak_policy(verdicts: Any) -> Any:
    """What was done about pairs across splits, by the verdicts on them."""
    if isinstance(verdicts, Missing):
        return verdicts
    kinds = [kind for kind in LEAK_KINDS if kind not in ("exact_duplicate", "label_conflict")]
    judged = {kind: verdicts[kind].verdict for kind in kinds}
    dropped = [words(kind) for kind in kinds if judged[kind] == "repaired"]
    kept = [words(kind) for kind in kinds if judged[kind] in ("waived", "fail")]
    told = []
    if dropped:
        told.append(f"Of a pair across splits the member in the earlier split goes ({', '.join(dropped)}).")
    if kept:
        told.append(f"Patches with {', '.join(kept)} stay, which the verdicts give a reason for.")
    return " ".join([*told, "No test patch is dropped because it leaks."])


def leakage_answers(found: Found) -> dict[str, Any]:
    """All that the journal's template needs for questions 2.2 and 2.3."""
    leakage, score, folds = found["leakage"], found["score"], found["folds"]
    unlooked = () if leakage.method.slides_known else META_KINDS
    several, error = seed_spread(found["seeds"])
    return {
        "leak_policy": leak_policy(found["verdicts"]),
        "leakage_sentence": audit_sentence(leakage, "leakage", unlooked),
        "leakage_table": finding_rows(leakage, with_rows=False),
        "across_sentence": across_sentence(leakage),
        "pair_head": pair_head(leakage),
        "pair_table": pair_rows(leakage),
        "mix_table": mix_rows(leakage),
        "group_sentence": group_sentence(leakage),
        "cluster_table": cluster_rows(leakage),
        "coordinates_sentence": coordinates_sentence(leakage),
        "leakage_verdicts": verdict_rows(found["verdicts"], [kind for kind in LEAK_KINDS if kind not in unlooked]),
        "leakage_score": score_rows(score, LEAK_KINDS),
        "leakage_unseen": unseen_rows(leakage, score, META_KINDS),
        "leaking_table": leaking_rows(found["leaking"]),
        "leaking_sentence": leaking_sentence(found["leaking"]),
        "fold_table": fold_rows(folds),
        "fold_sentences": fold_sentences(folds),
        "many_seeds": several,
        "mean_error": error,
    }
