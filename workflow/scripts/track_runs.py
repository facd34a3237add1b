"""Log every run, every trial and the champion to MLflow, from their files. A second time changes nothing.

Reads: seeds.json, weights.json and history.csv of every run and trial, the champion's sidecar and predictions.
Writes: runs.json; beside it mlflow.db (SQLite) and artifacts/.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Any

from pcam.files import read_csv, read_json, write_json
from pcam.metrics import score
from pcam.predictions import read_predictions
from pcam.stage import run_stage, say
from pcam.tracking import Logged, Record, update_experiment


def flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """As text, without what is not known (no commit outside a repository)."""
    return {name: str(value) for name, value in values.items() if value is not None}


def read_history(path: str) -> Logged:
    """Every column of history.csv at its epoch; values that are not finite are left out, MLflow takes none."""
    rows = read_csv(path, ("epoch",))
    values = [(name, float(value), int(row["epoch"])) for row in rows for name, value in row.items() if name != "epoch"]
    return [logged for logged in values if isfinite(logged[1])]


def final_metrics(scores: Mapping[str, float | None], split: str) -> Logged:
    return [(f"{split}_final_{name}", value, 0) for name, value in scores.items() if value is not None]


def tags_of(sidecar: Mapping[str, Any], **own: object) -> dict[str, str]:
    """Where a run comes from: the commit and code it was trained with, not the ones it is logged with."""
    trained = sidecar.get("trained_by", sidecar["provenance"])
    tags = {"commit": trained["commit"], "dirty": trained["dirty"], "device": trained["device"],
            "code_digest": sidecar["digests"]["code"], "data_digest": sidecar["digests"]["data"],
            "weights_digest": sidecar["digests"]["weights"], "data_source": sidecar["data_source"],
            "seed": sidecar["seed"], **own}  # fmt: skip
    return flatten(tags)


def train_records(
    seeds_path: str, runs: Sequence[tuple[str, int]], sidecars: Sequence[str], histories: Sequence[str]
) -> Iterator[Record]:
    aggregated = read_json(seeds_path)
    for (variant, seed), path, history in zip(runs, sidecars, histories, strict=True):
        sidecar, metrics = read_json(path), read_history(history)
        place = aggregated["seeds"].index(seed)
        for split, summary in aggregated[variant].items():
            metrics += final_metrics({name: of["values"][place] for name, of in summary.items()}, split)
        tags = tags_of(sidecar, variant=variant)
        yield Record(f"{variant}/seed-{seed}", "train", flatten(sidecar["settings"]), metrics, tags, path)


def trial_records(
    trials: Sequence[tuple[int, int]], sidecars: Sequence[str], histories: Sequence[str]
) -> Iterator[Record]:
    """A failed trial is a failed run, with the reason as a tag and without scores."""
    for (search_round, trial), path, history in zip(trials, sidecars, histories, strict=True):
        sidecar, metrics = read_json(path), read_history(history)
        failed = sidecar["state"] == "failed"
        if not failed:
            metrics += final_metrics({name: sidecar["valid"][name] for name in ("roc_auc", "pr_auc")}, "valid")
        tags = tags_of(sidecar, round=search_round, trial=trial, failure=sidecar["reason"] if failed else None)
        name, status = f"round-{search_round}/trial-{trial}", "FAILED" if failed else "FINISHED"
        yield Record(name, "trial", flatten(sidecar["settings"]), metrics, tags, path, status)


def champion_record(sidecar_path: str, predictions: Mapping[str, str]) -> Record:
    sidecar = read_json(sidecar_path)
    threshold, beta = sidecar["threshold"], sidecar["threshold_rule"]["beta"]
    metrics: Logged = [("threshold", threshold, 0)]
    for split, path in predictions.items():
        predicted = read_predictions(path)
        metrics += final_metrics(score(predicted.labels, predicted.probabilities, threshold, beta), split)
    tags = tags_of(sidecar, chosen=sidecar.get("name", ""))
    return Record("champion", "champion", flatten(sidecar["settings"]), metrics, tags, sidecar_path)


def track_runs(
    seeds_path: str,
    trained: Mapping[str, Sequence[str]],
    searched: Mapping[str, Sequence[str]],
    champion_path: str,
    champion_predictions: Mapping[str, str],
    out_path: str,
    *,
    experiment: str,
    variants: Sequence[str],
    seeds: Sequence[int],
    trials: Sequence[tuple[int, int]],
    provenance: Mapping[str, object],
) -> None:
    """`trained` and `searched` hold "sidecars" and "histories"; a run that changed replaces its predecessor.

    Raises: InputError when a file is missing or malformed.
    """
    records = [
        *train_records(seeds_path, list(product(variants, seeds)), trained["sidecars"], trained["histories"]),
        *trial_records(trials, searched["sidecars"], searched["histories"]),
        champion_record(champion_path, champion_predictions),
    ]
    folder = Path(out_path).parent
    tracked = update_experiment(folder, experiment, records)
    for run in tracked:
        print(f"{run.record.name}: {'logged' if run.fresh else 'as it was'} ({run.run_id})")
    new = sum(run.fresh for run in tracked)
    say(f"MLflow: {len(tracked)} runs of experiment {experiment} in {folder / 'mlflow.db'}, {new} new")
    runs = [
        {
            "name": run.record.name,
            "run_id": run.run_id,
            "kind": run.record.kind,
            "status": run.record.status,
            "tags": run.record.tags,
            "metrics": len(run.record.metrics),
            "artifact": run.record.artifact,
            "digest": run.digest,
        }
        for run in tracked
    ]
    write_json(out_path, {"experiment": experiment, "runs": runs, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        track_runs(
            snakemake.input.seeds,
            {"sidecars": snakemake.input.train, "histories": snakemake.input.train_history},
            {"sidecars": snakemake.input.search, "histories": snakemake.input.search_history},
            snakemake.input.champion,
            {"valid": snakemake.input.champion_valid, "test": snakemake.input.champion_test},
            snakemake.output[0],
            experiment=snakemake.params.experiment,
            variants=snakemake.params.variants,
            seeds=snakemake.params.seeds,
            trials=snakemake.params.trials,
            provenance=provenance,
        )
