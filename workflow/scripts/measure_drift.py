"""Count how often the watch raises an alarm: on sound sets, on weak shifts of the pixels, on other shares of tumour.

Reads: the champion, its guard, its predictions on valid and test, the stores and tables of both.
Writes: drift.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.checkpoint import load_checkpoint
from pcam.damage import Damage, blurred, scaled
from pcam.deployment import changed_patches, logits_at, stain_scaled, stratified
from pcam.determinism import fix_device
from pcam.drift import PRIORS, SETS, SIZES, on_other_prior, on_sound_sets, on_unseen_units
from pcam.files import InputError, write_json
from pcam.guard import read_guard, watched_values
from pcam.intervals import Groups, read_groups
from pcam.predictions import read_with_table
from pcam.sidecar import probabilities
from pcam.stage import run_stage
from pcam.store import open_store

PATCHES = 4096  # of a split that are read at most
SHIFTED = 256  # patches that are shifted at least, so that there are two sets of 128
# Weaker than those of measure_deployment, so that it shows how many patches it takes to tell.
SHIFTS: dict[str, Damage] = {
    "haematoxylin +25 %": stain_scaled("haematoxylin", 1.25),
    "eosin -25 %": stain_scaled("eosin", 0.75),
    "brightness -10 %": scaled(0.9),
    "blur 0.5 px": blurred(0.5),
}


def read_split(
    store_path: str, rows_path: str, predictions_path: str, seed: int
) -> tuple[np.ndarray, np.ndarray, Groups, np.ndarray]:
    """Of PATCHES patches at most: statistics (N,P), labels (N,), groups, and their places in the split.

    Raises: InputError when predictions and table are of other rows, or the store of another number of patches.
    """
    store, groups = open_store(store_path), read_groups(rows_path)
    predictions, table = read_with_table(predictions_path, rows_path)
    if len(store) != len(table):
        raise InputError(f"{store_path}: {len(store)} patches for {len(table)} rows of {rows_path}; rebuild them")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(store))[:PATCHES])
    values = watched_values(store[chosen], predictions.probabilities[chosen])
    return values, predictions.labels[chosen], Groups(groups.ids[chosen], groups.noun), chosen


def measure_drift(
    weights_path: str,
    guard_path: str,
    valid: tuple[str, str, str],
    test: tuple[str, str, str],
    out_path: str,
    *,
    patches: int,
    level: float,
    seed: int,
    threads: int,
    provenance: Mapping[str, object],
) -> None:
    """`valid` and `test`: store, table and predictions of the split.

    Raises: InputError when champion, guard, predictions, stores and tables do not belong together.
    """
    device = fix_device(threads)
    model, preprocessing, sidecar = load_checkpoint(weights_path)
    guard = read_guard(guard_path, sidecar)
    model.to(device)
    known, known_labels, known_groups, _ = read_split(*valid, seed)
    values, labels, groups, places = read_split(*test, seed)
    unseen, unseen_hold_for = on_unseen_units(
        known, known_labels, known_groups, false_alarm_rate=guard.false_alarm_rate, level=level, seed=seed
    )
    shifts: list[dict[str, Any]] = []
    pool = stratified(labels, max(patches, SHIFTED), seed)
    sound, own = np.array(open_store(test[0])[places[pool]]), Groups(groups.ids[pool], groups.noun)
    for name, damage in SHIFTS.items():
        changed = changed_patches(sound, damage, seed)
        answers = probabilities(logits_at(model, changed, preprocessing, device), sidecar)
        points = on_sound_sets(guard, watched_values(changed, answers), own, level=level, seed=seed)
        shifts.append({"name": name, "kind": "pixels", "points": points})
    for prior in PRIORS:
        points = on_other_prior(guard, values, labels, prior, level=level, seed=seed)
        shifts.append({"name": f"{100 * prior:g} % tumour", "kind": "prior", "points": points})
    sound_sets = {
        "test": {"points": on_sound_sets(guard, values, groups, level=level, seed=seed), "note": guard.holds_for},
        "unseen": {"points": unseen, "note": unseen_hold_for},
    }
    for name, points in [
        *((n, s["points"]) for n, s in sound_sets.items()),
        *((s["name"], s["points"]) for s in shifts),
    ]:
        print(f"{name}: " + ", ".join(f"{point['alarms']} of sets of {point['size']}" for point in points))
    write_json(
        out_path,
        {
            "false_alarm_rate": guard.false_alarm_rate,
            "holds_for": guard.holds_for,
            "sizes": list(SIZES),
            "sets": SETS,
            "level": level,
            "sound": sound_sets,
            "shifts": shifts,
            "prior": {"valid": guard.prior, "test": float(labels.mean())},
            "n": {"valid": len(known), "test": len(values), "shifted": len(sound)},
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        files = snakemake.input
        measure_drift(
            files.weights,
            files.guard,
            (files.stores[0], files.rows[0], files.predictions[0]),
            (files.stores[1], files.rows[1], files.predictions[1]),
            snakemake.output[0],
            patches=snakemake.params.patches,
            level=snakemake.params.level,
            seed=snakemake.params.seed,
            threads=snakemake.params.threads,
            provenance=provenance,
        )
