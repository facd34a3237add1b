"""Learn what validation patches look like, and how far sound patches may lie from them by chance.

Reads: the champion's sidecar, the store and table of valid.
Writes: guard.json, which inference.py reads from beside the weights.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from pcam.checkpoint import read_sidecar
from pcam.files import InputError, write_json
from pcam.guard import CAP, Guard, distances_from, measure_patches, reference_of
from pcam.intervals import Groups, read_groups
from pcam.stage import run_stage
from pcam.store import open_store

DRAWS = 1000  # sets drawn for the limits
PATCHES = 4096  # validation patches used at most
FOLDS = 20  # parts of the slides that are held out in turn
FAR = 2.0  # a patch is strange beyond this many times the farthest distance of a validation patch
LEAST_UNITS = 4  # slides or leak groups below which those held out say nothing


def held_out_distances(properties: np.ndarray, units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Signed distances (N,P) of each patch from a reference that knows no patch of its unit."""
    names = rng.permutation(np.unique(units))
    distances = np.empty(properties.shape)
    for fold in np.array_split(names, min(FOLDS, len(names))):
        mine = np.isin(units, fold)
        distances[mine] = distances_from(properties[mine], *reference_of(properties[~mine]))
    return distances


def drawn_set(rng: np.random.Generator, members: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Places of `size` patches: whole units, drawn with replacement, the patches of each in random order."""
    mean_size = sum(map(len, members)) / len(members)
    taken: list[np.ndarray] = []
    count = 0
    while count < size:
        for unit in rng.integers(len(members), size=int((size - count) / mean_size) + 1):
            taken.append(rng.permutation(members[unit]) if len(members[unit]) > 1 else members[unit])
            count += len(members[unit])
    return np.concatenate(taken)[:size]


def fit(properties: np.ndarray, units: np.ndarray, *, false_alarm_rate: float, seed: int) -> Guard:
    """The guard of reference properties (N,P), N >= 4, whose patches belong to units (N,), such as slides.

    Sets are drawn from held-out distances; the limits then leave room for the reference's own chance: a set of m units
    against k has variance 1/m + 1/k, and a spread known from k units needs Student's quantile for the normal one.
    """
    rng = np.random.default_rng(seed)
    distances = held_out_distances(properties, units, rng)
    capped = np.clip(distances, -CAP, CAP)
    order = np.argsort(units, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
    sizes = 2 ** np.arange(int(np.log2(len(properties))) + 1)
    means = np.empty((DRAWS, len(sizes), properties.shape[1]))
    for draw in range(DRAWS):
        drawn = capped[drawn_set(rng, members, int(sizes[-1]))]
        means[draw] = np.cumsum(drawn, axis=0)[sizes - 1] / sizes[:, None]
    centre, spread = means.mean(axis=0), means.std(axis=0) + 1e-9
    # One width for all properties, in standard deviations: the largest of them passes it at the stated rate.
    width = np.quantile(np.abs((means - centre) / spread).max(axis=2), 1 - false_alarm_rate, axis=0)
    tail = false_alarm_rate / (2 * properties.shape[1])
    student = stats.t.isf(tail, len(members) - 1) / stats.norm.isf(tail)
    in_set = np.maximum(1, sizes * len(members) / len(properties))
    room = (width * student * np.sqrt(1 + in_set / len(members)))[:, None] * spread
    far = FAR * np.abs(distances).max(axis=0)
    return Guard(*reference_of(properties), sizes=sizes, least=centre - room, most=centre + room, far=far)


def units_of(groups: Groups) -> tuple[np.ndarray, str]:
    """Unit (N,) of each patch, and in words what the limits therefore hold for."""
    if groups.count < LEAST_UNITS:
        return np.arange(len(groups.ids)), (
            f"too few {groups.noun}s ({groups.count}): patches are taken as independent, so other slides may raise "
            "more alarms"
        )
    if groups.noun != "slide":
        return groups.ids, "slides are unknown: sets that hold few slides may raise more alarms than the stated share"
    return groups.ids, f"sets of whole slides, drawn from {groups.count} slides"


def fit_guard(
    weights_path: str,
    store_path: str,
    rows_path: str,
    guard_path: str,
    *,
    false_alarm_rate: float,
    seed: int,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when the sidecar is damaged, store and table differ, or valid is too small."""
    sidecar, store, groups = read_sidecar(weights_path), open_store(store_path), read_groups(rows_path)
    if len(store) != len(groups.ids):
        raise InputError(f"{store_path}: {len(store)} patches for {len(groups.ids)} rows of {rows_path}; rebuild it")
    if len(store) < LEAST_UNITS:
        raise InputError(f"{store_path}: {len(store)} patches; a guard needs {LEAST_UNITS} at least")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(store))[:PATCHES])
    units, holds_for = units_of(Groups(groups.ids[chosen], groups.noun))
    guard = fit(measure_patches(store[chosen]), units, false_alarm_rate=false_alarm_rate, seed=seed)
    print(f"{len(chosen)} validation patches; {holds_for}")
    write_json(
        guard_path,
        {
            **guard.as_document(),
            "false_alarm_rate": false_alarm_rate,
            "holds_for": holds_for,
            "n": len(chosen),
            "units": len(np.unique(units)),
            # What the patches go through on their way into the model: a guard belongs to one checkpoint.
            "weights": sidecar["digests"]["weights"],
            "preprocessing": sidecar["preprocessing"],
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        fit_guard(
            snakemake.input.weights,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output[0],
            false_alarm_rate=snakemake.params.false_alarm_rate,
            seed=snakemake.params.seed,
            provenance=provenance,
        )
