"""Score every variant on test with and without the rows that leak, and on these alone.

Reads:  the predictions on test of every variant and seed; leakage_rows.csv, which lists leaks as the files held them,
        before cleaning; splits.json, which says from which file test comes.
Writes: leaking_rows.json: rows by kind of leak, and by variant the ROC-AUC of each part and what the leaks change.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pcam.files import InputError, read_csv, read_json, write_json
from pcam.metrics import logit_interval, roc_auc, roc_auc_influence
from pcam.predictions import Predictions, read_predictions
from pcam.stage import run_stage

LEAST_OF_CLASS = 10  # with fewer patches of a class, an area has no interval worth the name
Z_95 = 1.959964  # of the normal distribution

Runs = Sequence[Predictions]  # of the same rows, one a seed


def leaking_rows(leakage_path: str, file: str) -> dict[int, set[str]]:
    """Rows of a file split with a partner in a file split that trains or validates, and by which kinds.

    A test split carved from valid holds whole slides and whole groups, so a partner within valid is on the same side.
    """
    chosen_on = {"train", "valid"} - {file}
    found: dict[int, set[str]] = {}
    for line in read_csv(leakage_path, ("split", "row", "kind", "partner_splits")):
        if line["split"] == file and chosen_on & set(line["partner_splits"].split(";")):
            found.setdefault(int(line["row"]), set()).add(line["kind"])
    return found


def why_undefined(labels: np.ndarray) -> str | None:
    """Why a part has no ROC-AUC to report; None when it has one."""
    counts = [int((labels == label).sum()) for label in (0, 1)]
    if len(labels) == 0:
        return "no patch"
    if min(counts) == 0:
        return "one class only"
    if min(counts) < LEAST_OF_CLASS:
        return f"fewer than {LEAST_OF_CLASS} patches of a class"
    return None


def mean_influence(runs: Runs, part: np.ndarray) -> np.ndarray:
    """(N,) what each patch adds to the error of the mean ROC-AUC over seeds; 0 outside the part."""
    spread = np.zeros(len(part))
    for run in runs:
        own = roc_auc_influence(run.labels[part], run.probabilities[part])
        assert own is not None  # why_undefined asked for more of each class
        spread[part] += own / len(runs)
    return spread


def score_part(runs: Runs, part: np.ndarray) -> dict[str, Any]:
    """Mean ROC-AUC over seeds on the part, with DeLong's interval of that mean, the seeds as given."""
    labels = runs[0].labels[part]
    reason = why_undefined(labels)
    entry: dict[str, Any] = {"n": len(labels), "positives": int(labels.sum()), "reason": reason}
    if reason is not None:
        return {**entry, "roc_auc": None, "values": None, "interval": None}
    values = [roc_auc(labels, run.probabilities[part]) for run in runs]
    area = float(np.mean(values))
    bounds = logit_interval(area, float(np.sqrt(np.sum(mean_influence(runs, part) ** 2))))
    return {**entry, "roc_auc": area, "values": values, "interval": list(bounds) if bounds else None}


def compare(runs: Runs, leaking: np.ndarray) -> dict[str, Any]:
    """All rows, those without a leak, those with one; and the difference (without - all), whose parts share patches."""
    every = np.ones(len(leaking), bool)
    parts = {"all": every, "without": ~leaking, "leaking": leaking}
    scored: dict[str, Any] = {name: score_part(runs, part) for name, part in parts.items()}
    difference: dict[str, Any] = {"value": None, "interval": None, "reason": None}
    if not leaking.any():
        difference["reason"] = "no row leaks"
    elif reason := scored["all"]["reason"] or scored["without"]["reason"]:
        difference["reason"] = reason
    else:
        value = scored["without"]["roc_auc"] - scored["all"]["roc_auc"]
        error = float(np.sqrt(np.sum((mean_influence(runs, ~leaking) - mean_influence(runs, every)) ** 2)))
        difference |= {"value": value, "interval": [value - Z_95 * error, value + Z_95 * error]}
    return {**scored, "difference": difference}


def compare_leaking_rows(
    prediction_paths: Sequence[str],
    leakage_path: str,
    splits_path: str,
    out_path: str,
    *,
    variants: Sequence[str],
    seeds: Sequence[int],
    provenance: Mapping[str, object],
) -> None:
    """Paths are given variant by variant, within each in the order of `seeds`.

    Raises: InputError when two runs predicted other rows.
    """
    file = str(read_json(splits_path)["test"]["file"])
    by_row = leaking_rows(leakage_path, file)
    paths = dict(zip(product(variants, seeds), prediction_paths, strict=True))
    runs = {run: read_predictions(path) for run, path in paths.items()}
    rows = next(iter(runs.values())).rows
    for run, predicted in runs.items():
        if not np.array_equal(predicted.rows, rows):
            raise InputError(f"{paths[run]}: its rows are not those of {prediction_paths[0]}; predict both again")
    leaking = np.isin(rows, list(by_row))
    kinds = Counter(kind for row in rows[leaking].tolist() for kind in by_row[row])
    by_variant = {v: compare([runs[v, seed] for seed in seeds], leaking) for v in variants}
    document = {
        "file": file,
        "partners_in": sorted({"train", "valid"} - {file}),
        "n": len(rows),
        "n_leaking": int(leaking.sum()),
        "by_kind": dict(sorted(kinds.items())),
        "least_of_class": LEAST_OF_CLASS,
        "seeds": list(seeds),
        "variants": by_variant,
        "provenance": provenance,
    }
    write_json(out_path, document)
    print(f"{int(leaking.sum())} of {len(rows)} test rows leak: {dict(kinds)}")
    for variant, entry in by_variant.items():
        print(f"{variant}: {entry['difference']}")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        compare_leaking_rows(
            snakemake.input.test,
            snakemake.input.leakage,
            snakemake.input.splits,
            snakemake.output[0],
            variants=snakemake.params.variants,
            seeds=snakemake.params.seeds,
            provenance=provenance,
        )
