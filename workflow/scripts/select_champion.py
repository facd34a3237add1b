"""Rank the variants by their mean score on validation over all seeds; the best seed of the best is the champion.

Reads: weights.json of every variant and seed, trials.csv of the search.
Writes: selection.json: all variants, best first, the champion, and the trials of the search that failed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcam.files import InputError, read_csv, read_json, write_json
from pcam.metrics import t_interval
from pcam.stage import run_stage


def candidate(variant: str, values: Sequence[float | None], seeds: Sequence[int]) -> dict[str, Any]:
    """A variant's line; without a mean when a seed has no score, which happens when valid holds one class."""
    known = [value for value in values if value is not None]
    whole = len(known) == len(values)
    return {
        "variant": variant,
        "mean": float(np.mean(known)) if whole else None,
        "sd": float(np.std(known, ddof=1)) if whole and len(known) > 1 else None,
        "interval": t_interval(known) if whole else None,
        "values": list(values),
        "n": len(values),
        "seeds": list(seeds),
    }


def select_champion(
    runs: Mapping[tuple[str, int], str],
    trials_path: str,
    selection_path: str,
    *,
    metric: str,
    provenance: Mapping[str, Any],
) -> None:
    """`runs`: variant and seed of each sidecar. Of equals the first named wins.

    Raises: InputError when candidates were trained on different data or code, or none has a score.
    """
    sidecars = {run: read_json(path) for run, path in runs.items()}
    for kind in ("data", "code"):
        places = {sidecar["digests"][kind]: runs[run] for run, sidecar in sidecars.items()}
        if len(places) > 1:
            raise InputError(
                f"{' and '.join(places.values())}: trained on different {kind}; rebuild them, then choose again"
            )
    seeds = {variant: [seed for name, seed in runs if name == variant] for variant, _ in runs}
    values = {run: sidecar["valid"][metric] for run, sidecar in sidecars.items()}
    candidates = [candidate(name, [values[name, seed] for seed in own], own) for name, own in seeds.items()]
    candidates.sort(key=lambda row: (row["mean"] is None, -(row["mean"] or 0)))
    best = candidates[0]
    if best["mean"] is None:
        raise InputError(
            f"no variant has a {metric} on valid in every seed, so there is no champion; valid needs both classes"
        )
    at = int(np.argmax(best["values"]))
    run = best["variant"], best["seeds"][at]
    chosen = {
        "name": f"{run[0]}/seed-{run[1]}",
        "variant": run[0],
        "seed": run[1],
        "weights": str(Path(runs[run]).with_suffix(".pt")),
        "value": best["values"][at],
    }
    print(f"champion: {chosen['name']} with {metric} {chosen['value']:.4f} on valid, {best['mean']:.4f} over all seeds")
    failed = [
        {"name": f"{row['phase']}/trial-{row['trial']}", "reason": row["reason"]}
        for row in read_csv(trials_path, ("phase", "trial", "state", "reason"))
        if row["state"] == "FAIL"
    ]
    write_json(
        selection_path,
        {
            "metric": metric,
            "candidates": candidates,
            "chosen": chosen,
            "failed_trials": failed,
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        select_champion(
            dict(zip(map(tuple, snakemake.params.runs), snakemake.input.sidecars, strict=True)),
            snakemake.input.trials,
            snakemake.output[0],
            metric=snakemake.params.metric,
            provenance=provenance,
        )
