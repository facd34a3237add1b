"""What the tracker holds of each run, read from the files that trainings, the search and the champion leave."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from pcam.files import read_csv, read_json
from pcam.metrics import score
from pcam.predictions import read_predictions
from pcam.tracking import Logged, Record

SPLITS = ("valid", "test")
STEPS_LOGGED = 500  # most steps of a run: MLflow draws 320 points a curve, and steps.csv, logged as well, has them all
STEP_METRICS = ("loss", "learning_rate", "grad_norm")


def flatten(values: Mapping[str, Any]) -> dict[str, str]:
    """As text, without what is not known (no commit outside a repository)."""
    return {name: str(value) for name, value in values.items() if value is not None}


def curves(folder: str) -> Logged:
    """history.csv by epoch and steps.csv by step, as steps/…; MLflow takes no value that is not finite."""
    epochs, steps = read_csv(f"{folder}/history.csv", ("epoch",)), read_csv(f"{folder}/steps.csv", STEP_METRICS)
    every = -(-len(steps) // STEPS_LOGGED) or 1
    values = [(name, float(text), int(row["epoch"])) for row in epochs for name, text in row.items() if name != "epoch"]
    values += [(f"steps/{name}", float(row[name]), int(row["step"])) for row in steps[::every] for name in STEP_METRICS]
    return [logged for logged in values if isfinite(logged[1])]


def final_metrics(scores: Mapping[str, float | None], split: str) -> Logged:
    return [(f"{split}_final_{name}", value, 0) for name, value in scores.items() if value is not None]


def tags_of(sidecar: Mapping[str, Any], **own: object) -> dict[str, str]:
    """Where a run comes from: the commit, code and versions it was trained with, not the ones it is logged with."""
    trained = sidecar.get("trained_by", sidecar["provenance"])
    versions = sidecar.get("runtime", {}).get("versions", {})
    tags = {"commit": trained["commit"], "dirty": trained["dirty"], "device": trained["device"],
            "python": versions.get("python"), "torch": versions.get("torch"),
            "code_digest": sidecar["digests"]["code"], "data_digest": sidecar["digests"]["data"],
            "weights_digest": sidecar["digests"]["weights"], "data_source": sidecar["data_source"],
            "seed": sidecar["seed"], **own}  # fmt: skip
    return flatten(tags)


def train_records(seeds_path: str, folders: Sequence[str], figures: Mapping[str, str]) -> Iterator[Record]:
    aggregated = read_json(seeds_path)
    for folder in folders:
        sidecar, metrics = read_json(f"{folder}/weights.json"), curves(folder)
        variant, place = Path(folder).parent.name, aggregated["seeds"].index(sidecar["seed"])
        for split in SPLITS:
            of_seed = {name: of["values"][place] for name, of in aggregated[variant][split].items()}
            metrics += final_metrics(of_seed, split)
        yield Record(
            f"{variant}/{Path(folder).name}", "train", flatten(sidecar["settings"]), metrics,
            tags_of(sidecar, variant=variant), f"{folder}/weights.json", tables=tables_of(folder),
            figures=(figures[variant],), weights=f"{folder}/weights.pt",
        )  # fmt: skip


def tables_of(folder: str) -> tuple[str, ...]:
    return (f"{folder}/history.csv", f"{folder}/steps.csv")


def search_records(recipe: str, trials: str, figure: str, search: Mapping[str, Any]) -> Iterator[Record]:
    """The parent of the trials, with the value of each in the order of trials.csv."""
    found, rows = read_json(recipe), read_csv(trials, ("state", "value"))
    metrics: Logged = [("trial_value", float(row["value"]), at) for at, row in enumerate(rows) if row["value"]]
    metrics += [(f"importance/{name}", share, 0) for name, share in (found["importance"] or {}).items()]
    metrics.append(("failed_trials", float(sum(row["state"] == "FAIL" for row in rows)), 0))
    chosen = found["chosen"] or {"name": None, "value": None}
    metrics += [("best_value", chosen["value"], 0)] if chosen["value"] is not None else []
    tags = flatten({"chosen": chosen["name"], "reason": found["reason"]})
    yield Record("search", "search", flatten(search), metrics, tags, recipe, tables=(trials,), figures=(figure,))


def trial_records(folders: Sequence[str]) -> Iterator[Record]:
    """A failed trial is a failed run, with the reason as a tag and without scores. Its weights stay in its folder."""
    for folder in folders:
        sidecar, metrics = read_json(f"{folder}/weights.json"), curves(folder)
        phase, trial = Path(folder).parts[-2:]
        failed = sidecar["state"] == "failed"
        if not failed:
            metrics += final_metrics({name: sidecar["valid"][name] for name in ("roc_auc", "pr_auc")}, "valid")
        tags = tags_of(
            sidecar, phase=phase, trial=trial.removeprefix("trial-"), failure=sidecar["reason"] if failed else None
        )
        yield Record(
            f"{phase}/{trial}", "trial", flatten(sidecar["settings"]), metrics, tags, f"{folder}/weights.json",
            status="FAILED" if failed else "FINISHED", tables=tables_of(folder), parent="search",
        )  # fmt: skip


def champion_record(weights: str, selection: str, predictions: Mapping[str, str], figure: str) -> Record:
    sidecar_path = str(Path(weights).with_suffix(".json"))
    sidecar = read_json(sidecar_path)
    threshold, beta = sidecar["threshold"], sidecar["threshold_rule"]["beta"]
    metrics: Logged = [("threshold", threshold, 0)]
    for split, path in predictions.items():
        predicted = read_predictions(path)
        scores = score(predicted.labels, predicted.probabilities, threshold, beta)
        metrics += final_metrics({**scores, "threshold": threshold}, split)
    tags = tags_of(sidecar, chosen=sidecar["name"], variant=sidecar["variant"])
    return Record(
        "champion", "champion", flatten(sidecar["settings"]), metrics, tags, sidecar_path, tables=(selection,),
        figures=(figure,), weights=weights,
    )  # fmt: skip
