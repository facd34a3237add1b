"""Slices nobody named: searched on one half of the validation patches, judged on the other, both ways round.

A slice is a tail of one attribute, two tails together, or a cluster of the champion's embedding freed of its answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm
from sklearn.cluster import KMeans

from pcam.attributes import ATTRIBUTES
from pcam.excess import class_sizes, deviations, exceeded_by_patch, standardised
from pcam.gaps import holm, known_groups, note_of
from pcam.group_tests import exceeded, pooled, widened
from pcam.intervals import Groups
from pcam.settings import DiscoverySettings
from pcam.weak_slices import Cluster, Part, Slice, Tail, alike

TAILS = (0.025, 0.05, 0.1, 0.25, 0.5)  # shares of the search half below, or above, an edge: 2.5 % finds a narrow slice


@dataclass(frozen=True)
class Candidate:
    """A slice that half `searched` brought up, and what the other half says of it.

    search_z, z: excess over its standard error in either half. excess: per patch, in the other half. p: of the other
    half alone, one-sided; p_corrected: for the number of candidates. groups: slides or leak groups of the other half
    that hold the slice. note: what was taken as independent where that is not whole slides.
    """

    slice: Slice
    searched: int
    search_z: float
    z: float
    excess: float
    p: float
    p_corrected: float
    confirmed: bool
    groups: int
    note: str | None

    @property
    def least_excess(self) -> float:
        """Lower end of the excess, one-sided at 95 %: a large excess of few patches stands behind a certain one."""
        return self.excess - 1.645 * self.excess / self.z if self.z else self.excess


def halves_of(groups: Groups, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the patches of two halves. Whole groups, from the largest, go to the half that has fewer patches."""
    members, sizes = np.unique(groups.ids, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(members))
    order = order[np.argsort(-sizes[order], kind="stable")]
    half, total = np.zeros(len(members), np.intp), [0, 0]
    for i in order.tolist():
        half[i] = int(total[1] < total[0])
        total[half[i]] += sizes[i]
    side = half[np.searchsorted(members, groups.ids)]
    return np.flatnonzero(side == 0), np.flatnonzero(side == 1)


def _tails(attributes: np.ndarray) -> list[Tail]:
    edges = {share: np.quantile(attributes, [share, 1 - share], axis=0) for share in TAILS}
    return [
        Tail(name, side, float(edges[share][k, column]))
        for column, name in enumerate(ATTRIBUTES)
        for share in TAILS
        for k, side in enumerate(("low", "high"))
    ]


def _clusters(embedding: np.ndarray, count: int, seed: int) -> list[Cluster]:
    fitted = KMeans(count, n_init=4, random_state=seed).fit(embedding)
    return [Cluster(k, fitted.cluster_centers_) for k in range(count)]


def least_groups(rules: DiscoverySettings) -> int:
    """In how many groups a candidate must lie to be confirmed: their signs are all drawn alike once in 2^groups."""
    return int(np.ceil(np.log2(2 * rules.candidates / rules.level)))


def search(half: Part, other: Part, rules: DiscoverySettings) -> tuple[list[tuple[Slice, float]], int]:
    """The most telling slices with their z, no two of them nearly the same, and how many were looked at.

    Told by: the chance of such a z by the normal approximation, times the number of slices of the kind (one tail, two,
    a cluster), for among many pairs of tails some fit by luck. Of the other half only the numbers of patches and groups
    in a slice count, so that it can judge all that it is given. All pairs at a time, as matrix products; a tail with
    itself is the tail alone.
    """
    off, variance = deviations(half.labels, half.losses)
    tails, clusters = _tails(half.attributes), _clusters(half.embedding, min(rules.clusters, len(off)), rules.seed)
    names = np.array([tail.attribute for tail in tails])
    first, second = np.triu_indices(len(tails))
    different = (first == second) | (names[first] != names[second])
    first, second = first[different], second[different]
    masks = np.stack([tail.members(half.attributes) for tail in tails]).astype(np.float64)
    within = np.stack([cluster.members(half.embedding) for cluster in clusters]).astype(np.float64)
    totals, *counts = (
        np.concatenate([((masks * weight) @ masks.T)[first, second], within @ weight])
        for weight in (off, *(half.labels == label for label in (0.0, 1.0)))
    )
    by_class = np.stack(counts, axis=-1)
    z, n = standardised(totals, by_class, class_sizes(half.labels), variance), by_class.sum(axis=-1)
    allowed = (n >= rules.minimum_n) & (n <= len(off) - rules.minimum_n)
    kind = np.concatenate([first != second, np.full(len(clusters), 2)])
    chance = norm.logsf(z) + np.log(np.maximum(np.bincount(kind, weights=allowed, minlength=3), 1))[kind]
    chance[~allowed | (z <= 0)] = np.inf
    found: list[tuple[Slice, float]] = []
    places: list[np.ndarray] = []
    for i in np.argsort(chance, kind="stable")[: np.isfinite(chance).sum()].tolist():
        parts = (clusters[i - len(first)],) if kind[i] == 2 else tuple(tails[k] for k in sorted({first[i], second[i]}))
        one = Slice(parts)
        inside, there = half.members(one), other.members(one)
        if any(alike(inside, place) for place in places) or there.sum() < rules.minimum_n:
            continue
        if other.groups_of(one) < least_groups(rules):
            continue
        found.append((one, float(z[i])))
        places.append(inside)
        if len(found) == rules.candidates:
            break
    return found, int(allowed.sum())


def judge(half: Part, slices: Sequence[Slice], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str | None]:
    """Excess per patch, z and one-sided p (S,) of each slice on a half that did not find it.

    And a note on what counts as independent where that is not whole slides.

    Where patches belong together, the contributions of whole groups change sign at random: losses are skewed to the
    right, so that errs to the side of no finding. Else patches of each class trade places.
    """
    off, variance = deviations(half.labels, half.losses)
    sizes = class_sizes(half.labels)
    masks = np.array([half.members(found) for found in slices], bool).reshape(len(slices), len(off))
    counts = np.stack([(masks & (half.labels == label)).sum(axis=1) for label in (0, 1)], axis=1)
    totals = np.array([off[inside].sum() for inside in masks])
    groups = known_groups(half.groups)
    if groups is None:
        p = exceeded_by_patch(off, half.labels, counts, totals, np.random.default_rng([seed, 0]))
        z = standardised(totals, counts, sizes, variance)
    else:
        ids = pooled(groups.ids, seed)
        shares = (counts / np.maximum(sizes, 1))[:, half.labels]
        parts = np.zeros((int(ids.max()) + 1, len(slices)))
        np.add.at(parts, ids, ((masks - shares) * off).T)
        spread = widened(len(parts)) * np.sqrt(np.sum(parts**2, axis=0))
        z = np.where(spread > 0, totals / np.where(spread > 0, spread, 1), 0.0)
        p = exceeded(parts, seed)
    return totals / counts.sum(axis=1), z, p, note_of(half.groups)


def discover(halves: tuple[Part, Part], rules: DiscoverySettings) -> tuple[list[Candidate], list[int]]:
    """Every candidate, the largest least excess first, and how many slices each half's search looked at.

    Each half searches once and judges once, at half the level: together they report a slice by chance at the level.
    """
    candidates, looked_at = [], []
    for searched, (half, other) in enumerate((halves, halves[::-1])):
        if min(len(half.rows), len(other.rows)) < max(2 * rules.minimum_n, rules.clusters):
            looked_at.append(0)  # such as all patches of one slide, which stand in one half
            continue
        found, number = search(half, other, rules)
        excess, z, p, note = judge(other, [one for one, _ in found], rules.seed)
        corrected = holm(p)
        looked_at.append(number)
        candidates += [
            Candidate(one, searched, search_z, float(z[i]), float(excess[i]), float(p[i]), float(corrected[i]),
                      bool(corrected[i] <= rules.level / 2), other.groups_of(one), note)
            for i, (one, search_z) in enumerate(found)
        ]  # fmt: skip
    return sorted(candidates, key=lambda candidate: -candidate.least_excess), looked_at


def distinct(halves: tuple[Part, Part], candidates: Sequence[Candidate], rules: DiscoverySettings) -> list[Candidate]:
    """Of the confirmed candidates those that stay weak when the patches of the ones before them are taken out."""
    kept: list[Candidate] = []
    for candidate in candidates:
        other = halves[1 - candidate.searched]
        taken = [other.members(one.slice) for one in kept]
        rest = other.at(~np.logical_or.reduce([np.zeros(len(other.labels), bool), *taken]))
        if not candidate.confirmed or rest.members(candidate.slice).sum() < rules.minimum_n:
            continue
        if not kept or judge(rest, [candidate.slice], rules.seed)[2][0] <= rules.level / 2:
            kept.append(candidate)
    return kept
