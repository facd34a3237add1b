"""Rank every trial and the baseline's seeds by their score on validation; the best is the champion.

Reads: weights.json of each candidate.
Writes: selection.json (all candidates, best first, and the failed ones), trials.csv (the search as a table).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcam.files import InputError, read_json, write_csv, write_json
from pcam.stage import run_stage


def candidate_name(sidecar: str) -> str:
    """`baseline/seed-1` or `round-0/trial-2`: the last two folders of a candidate's path."""
    return "/".join(Path(sidecar).parts[-3:-1])


def trial_row(sidecar: Mapping[str, Any], name: str, metric: str, searched: Sequence[str]) -> list[Any]:
    """A trial's line of trials.csv, with a state as Optuna calls it."""
    in_round, trial = (part.partition("-")[2] for part in name.split("/"))
    failed = sidecar["state"] == "failed"
    state, value = ("FAIL", None) if failed else ("COMPLETE", sidecar["valid"][metric])
    settings = sidecar["settings"]
    sought = [settings[key] for key in searched]
    return [in_round, trial, state, value, settings["epochs"], *sought, sidecar["reason"] if failed else None]


def select_champion(
    sidecar_paths: Sequence[str],
    selection_path: str,
    trials_path: str,
    *,
    metric: str,
    searched: Sequence[str],
    provenance: Mapping[str, Any],
) -> None:
    """Of equals the first named wins; a failed trial is listed and never wins.

    Raises: InputError when candidates were trained on different data.
    """
    candidates, failed, trials, data = [], [], [], {}
    for path in sidecar_paths:
        sidecar, name = read_json(path), candidate_name(path)
        data[sidecar["digests"]["data"]] = path
        if name.startswith("round-"):
            trials.append(trial_row(sidecar, name, metric, searched))
        if sidecar["state"] == "failed":
            failed.append({"name": name, "reason": sidecar["reason"]})
            continue
        weights = str(Path(path).with_suffix(".pt"))
        candidates.append({"name": name, "weights": weights, "value": sidecar["valid"][metric]})
    if len(data) > 1:
        raise InputError(
            f"{' and '.join(data.values())}: trained on different data; rebuild them before a champion is chosen"
        )
    candidates.sort(key=lambda candidate: -candidate["value"])
    print(f"champion: {candidates[0]['name']} with {metric} {candidates[0]['value']:.4f} on valid")
    write_json(
        selection_path,
        {
            "metric": metric,
            "candidates": candidates,
            "failed": failed,
            "chosen": candidates[0],
            "provenance": provenance,
        },
    )
    write_csv(trials_path, ("round", "trial", "state", "value", "epochs", *searched, "reason"), trials)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        select_champion(
            snakemake.input.sidecars,
            snakemake.output.selection,
            snakemake.output.trials,
            metric=snakemake.params.metric,
            searched=snakemake.params.searched,
            provenance=provenance,
        )
