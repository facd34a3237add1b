"""Compare the schedule of baseline with those of the variants that differ from it in their schedule alone, on valid.

Reads: history.csv and weights.json of every seed of these variants.
Writes: schedules.json: ROC-AUC and loss on valid by variant, and their differences seed by seed.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pcam.dynamics import Run, paired_difference
from pcam.files import InputError, read_csv, read_json, write_json
from pcam.stage import run_stage

BASE = "baseline"
HIGHER_IS_BETTER = {"roc_auc": True, "loss": False}


def check_budget(sidecars: Mapping[Run, Mapping[str, Any]], paths: Mapping[Run, str]) -> None:
    """Raises: InputError unless all runs have the seed of their name and share all but seed and schedule."""
    first, reference = next(iter(sidecars.items()))
    settings = {name: value for name, value in reference["settings"].items() if name != "schedule"}
    for run, sidecar in sidecars.items():
        if sidecar["seed"] != run[1]:
            raise InputError(f"{paths[run]}: was trained with seed {sidecar['seed']}, not {run[1]}; train it again")
        for kind in ("data", "code"):
            if sidecar["digests"][kind] != reference["digests"][kind]:
                raise InputError(f"{paths[run]}: its digest of {kind} is not that of {paths[first]}; train both again")
        differing = [name for name, value in settings.items() if sidecar["settings"].get(name) != value]
        if differing:
            raise InputError(f"{paths[run]}: its {differing[0]} is not that of {paths[first]}; train it again")


def summarise(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation over seeds; the latter null with one."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "sd": sd, "values": list(values), "n": len(values)}


def verdict(metric: str, difference: Mapping[str, Any]) -> str:
    """What an interval of (baseline - other) says: better | worse | not told apart | undefined."""
    if difference["told_apart"] is None:
        return "undefined"
    if not difference["told_apart"]:
        return "not told apart"
    return "better" if (difference["mean"] > 0) == HIGHER_IS_BETTER[metric] else "worse"


def final_score(history_path: str, sidecar: Mapping[str, Any], sidecar_path: str) -> dict[str, float]:
    """ROC-AUC of the finished model, and its loss after the last epoch, on valid.

    Raises: InputError where one is undefined.
    """
    history = read_csv(history_path, ("epoch", "valid_loss"))
    if not history:
        raise InputError(f"{history_path}: no epoch; train again")
    if (area := sidecar["valid"]["roc_auc"]) is None:
        raise InputError(f"{sidecar_path}: valid holds one class only, so nothing ranks; take another split")
    return {"roc_auc": float(area), "loss": float(history[-1]["valid_loss"])}


def compare_schedules(
    sidecar_paths: Mapping[Run, str],
    history_paths: Mapping[Run, str],
    out_path: str,
    *,
    variants: Sequence[str],
    seeds: Sequence[int],
    provenance: Mapping[str, object],
) -> None:
    """`variants`: those that are compared with baseline. Raises: InputError when runs are not of one budget."""
    sidecars = {run: read_json(path) for run, path in sidecar_paths.items()}
    check_budget(sidecars, sidecar_paths)
    scores = {run: final_score(history_paths[run], sidecars[run], sidecar_paths[run]) for run in sidecars}
    every = {
        variant: {metric: [scores[variant, seed][metric] for seed in seeds] for metric in HIGHER_IS_BETTER}
        for variant in (BASE, *variants)
    }
    schedule = {variant: sidecars[variant, seeds[0]]["settings"]["schedule"] for variant in every}
    comparisons = []
    for variant, metric in product(variants, HIGHER_IS_BETTER):
        difference = paired_difference(every[BASE][metric], every[variant][metric])
        told = verdict(metric, difference)
        comparisons.append({"variant": variant, "schedule": schedule[variant], "metric": metric, **difference,
                            "verdict": told})  # fmt: skip
        print(f"{metric}: {schedule[BASE]} against {schedule[variant]}: {told}, {difference}")
    valid = [sidecar["valid"] for sidecar in sidecars.values()]
    errors = [one["roc_auc_standard_error"] for one in valid if one["roc_auc_standard_error"] is not None]
    settings = sidecars[BASE, seeds[0]]["settings"]
    document = {
        "variants": {
            variant: {"schedule": schedule[variant], **{metric: summarise(values) for metric, values in table.items()}}
            for variant, table in every.items()
        },
        "comparisons": comparisons,
        "seeds": list(seeds),
        "epochs": settings["epochs"],
        "batch_size": settings["batch_size"],
        "learning_rate": settings["learning_rate"],
        "n_valid": valid[0]["n"],
        "roc_auc_standard_error": float(np.mean(errors)) if errors else None,
        "provenance": provenance,
    }
    write_json(out_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        runs = [(variant, seed) for variant, seed in snakemake.params.runs]
        compare_schedules(
            dict(zip(runs, snakemake.input.sidecars, strict=True)),
            dict(zip(runs, snakemake.input.histories, strict=True)),
            snakemake.output[0],
            variants=snakemake.params.variants,
            seeds=snakemake.params.seeds,
            provenance=provenance,
        )
