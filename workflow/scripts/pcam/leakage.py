"""Leakage from what the survey found: duplicates of every kind, shared tissue, and the groups they form."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from pcam.blocks import patch_access
from pcam.duplicates import first_of_content, near_pairs, rotated_pairs
from pcam.facts import FILE_SPLITS
from pcam.overlaps import find_overlaps
from pcam.survey import Survey

PIXEL_KINDS = (
    *("label_conflict", "exact_duplicate", "cross_split_duplicate", "rotated_duplicate", "near_duplicate", "overlap"),
)
DUPLICATES = ("exact_duplicate", "cross_split_duplicate")  # of which blank patches are told apart
EXAMPLES = 8  # pairs of each kind that a picture may show
CLUSTERS, MEMBERS = 12, 8  # largest groups told, and members of each

Name = list[Any]  # [split, row]


@dataclass(frozen=True)
class Leakage:
    """Leakage by patch, over all splits together.

    flags: kind to mask.  partners: kind to a bit a split (1 train, 2 valid, 4 test) where the patch has a partner.
    content: (N,) index of the first patch of the same pixels.  blank: (N,) patches of one colour; they form no group.
    group: (N,) number of the connected component over all pairs of pixels, -1 for none.
    pairs: kind to (k,2), verified pairs of first members; overlaps: (k,4) with the shift in pixels.
    counts: kind to (3,3) numbers of pairs of patches by split, earlier split first.
    """

    flags: dict[str, np.ndarray]
    partners: dict[str, np.ndarray]
    content: np.ndarray
    blank: np.ndarray
    group: np.ndarray
    pairs: dict[str, np.ndarray]
    overlaps: np.ndarray
    counts: dict[str, np.ndarray]


def unordered(counts: np.ndarray) -> np.ndarray:
    """Symmetric counts of ordered pairs as counts of pairs: the diagonal halved, the upper triangle kept."""
    return np.asarray(np.triu(counts, 1) + np.diag(np.diag(counts) // 2))


def components(pairs: np.ndarray, n: int) -> np.ndarray:
    """(n,) number of the connected component of each member of a pair, counted by first member; -1 for the others."""
    group = np.full(n, -1)
    if len(pairs) == 0:
        return group
    graph = sparse.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, component = csgraph.connected_components(graph, directed=False)
    members = np.unique(pairs)
    _, start, inverse = np.unique(component[members], return_index=True, return_inverse=True)
    group[members] = np.argsort(np.argsort(start))[inverse]
    return group


def partners_in_sets(linked: np.ndarray, count: np.ndarray) -> np.ndarray:
    """(N,) bits of the splits where the sets that pairs form hold another content. count: (N,3) copies by split."""
    sets = components(linked, len(count))
    members = np.flatnonzero(sets >= 0)
    present = (count[members] > 0).astype(np.int64)
    total = np.zeros((sets.max(initial=-1) + 1, present.shape[1]), np.int64)
    np.add.at(total, sets[members], present)
    bits = np.zeros(len(count), np.int64)
    bits[members] = (total[sets[members]] > present) @ np.array([1, 2, 4])
    return bits


def conflicting(linked: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which patches belong to a set of duplicates (pairs `linked`) that carries both labels."""
    sets = components(linked, len(labels))
    both = np.zeros((sets.max(initial=-1) + 1, 2), bool)
    known = (sets >= 0) & (labels >= 0)
    both[sets[known], labels[known]] = True
    out = np.zeros(len(labels), bool)
    out[sets >= 0] = (both[:, 0] & both[:, 1])[sets[sets >= 0]]
    return out


def find_leakage(survey: Survey, labels: np.ndarray, x_files: Mapping[str, str], *, processes: int) -> Leakage:
    """Search every kind of PIXEL_KINDS. labels: (N,) 0, 1, or -1 when unknown."""
    patches, split, n = survey.patches, survey.split, len(survey)
    first = first_of_content(patches.digest)
    alone = (first == np.arange(n)) & patches.lossless & ~patches.uniform
    files = {name: x_files[name] for name in FILE_SPLITS}
    with patch_access(files) as access:

        def fetch(index: int) -> np.ndarray:
            return access(index).astype(np.uint8, copy=False)

        rotated = rotated_pairs(patches, alone, fetch)
    near = near_pairs(patches, alone, split, files, processes=processes)
    overlaps = find_overlaps(survey, alone, files, processes=processes)

    count = np.zeros((n, len(FILE_SPLITS)), np.int64)
    np.add.at(count, (first, split), 1)
    bits = (count > 0) @ np.array([1, 2, 4])
    own_bit, own_count, members = 1 << split, count[first, split], count.sum(axis=1)[first]
    copies = np.flatnonzero((first != np.arange(n)) & ~patches.uniform)
    exact = np.stack([first[copies], copies], axis=1)
    pairs = {"rotated_duplicate": rotated, "near_duplicate": near, "overlap": np.unique(overlaps[:, :2], axis=0)}

    flags = {
        "label_conflict": conflicting(np.concatenate([exact, rotated, near]), labels),
        "exact_duplicate": own_count > 1,
        "cross_split_duplicate": members > own_count,
    }
    partners = {"exact_duplicate": own_bit, "cross_split_duplicate": bits[first] & ~own_bit}
    met = {"exact_duplicate": np.zeros((3, 3), np.int64)}
    whole = count[(first == np.arange(n)) & ~patches.uniform]
    met["exact_duplicate"] = whole.T @ whole - np.diag(whole.sum(axis=0))
    others = np.where(own_count > 1, own_bit, 0) | (bits[first] & ~own_bit)
    for kind, linked in pairs.items():
        at = np.zeros(n, np.int64)
        for one, other in ((0, 1), (1, 0)):
            np.bitwise_or.at(at, linked[:, one], bits[linked[:, other]])
        if kind == "near_duplicate":
            at = partners_in_sets(linked, count)
        flags[kind], partners[kind] = at[first] > 0, at[first]
        crossed = count[linked[:, 0]].T @ count[linked[:, 1]]
        met[kind] = crossed + crossed.T
        if kind != "overlap":
            others = others | at[first]
    partners["label_conflict"] = others
    group = components(np.concatenate([exact, rotated, near, pairs["overlap"]]), n)
    return Leakage(
        {kind: flags[kind] for kind in PIXEL_KINDS},
        partners,
        first,
        patches.uniform,
        group,
        {"exact_duplicate": exact, **pairs},
        overlaps,
        {kind: unordered(table) for kind, table in met.items()},
    )


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows at even distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))] if len(rows) else rows


def class_mix(pairs: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """Pairs by the labels of their members."""
    one, other = labels[pairs[:, 0]], labels[pairs[:, 1]]
    known = (one >= 0) & (other >= 0)
    return {
        "both_0": int((known & (one == 0) & (other == 0)).sum()),
        "both_1": int((known & (one == 1) & (other == 1)).sum()),
        "mixed": int((known & (one != other)).sum()),
        "unknown": int((~known).sum()),
    }


def examples(leakage: Leakage, split: np.ndarray, names: list[Name]) -> list[dict[str, Any]]:
    """Pairs to look at, those across splits first; `shift_px` tells where b lies from a when they share tissue."""
    told = []
    for kind, pairs in {**leakage.pairs, "overlap": leakage.overlaps}.items():
        across = split[pairs[:, 0]] != split[pairs[:, 1]]
        chosen = np.concatenate([spread(pairs[across], EXAMPLES), spread(pairs[~across], EXAMPLES)])[:EXAMPLES]
        for a, b, *shift in chosen.tolist():
            told.append({"kind": kind, "a": names[a], "b": names[b], **({"shift_px": shift} if shift else {})})
    return told


def clusters(leakage: Leakage, survey: Survey, labels: np.ndarray, names: list[Name]) -> list[dict[str, Any]]:
    """The largest groups: size, members by split and by class, some members."""
    sizes = np.bincount(leakage.group[leakage.group >= 0])
    told = []
    for number in np.argsort(-sizes, kind="stable")[:CLUSTERS].tolist():
        members = np.flatnonzero(leakage.group == number)
        by_split = Counter(FILE_SPLITS[at] for at in survey.split[members])
        by_class = Counter("unknown" if label < 0 else str(label) for label in labels[members].tolist())
        shown = [names[i] for i in spread(members, MEMBERS)]
        told.append(
            {
                "group": number,
                "size": len(members),
                "splits": dict(by_split),
                "classes": dict(by_class),
                "members": shown,
            }
        )
    return told
