"""Log every run, the search with its trials, and the champion to MLflow, from their files. A second time adds nothing.

Reads: seeds.json; weights, weights.json, history.csv and steps.csv of every run and trial; recipe.json and trials.csv;
the champion's weights, selection and predictions; figures.
Writes: runs.json; beside it mlflow.db (SQLite) and artifacts/.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcam.files import write_json
from pcam.run_records import SPLITS, champion_record, search_records, train_records, trial_records
from pcam.stage import run_stage, say
from pcam.tracking import Record, Tracked, update_experiment


def described(run: Tracked) -> dict[str, Any]:
    record = run.record
    return {
        "name": record.name, "run_id": run.run_id, "kind": record.kind, "status": record.status,
        "parent": record.parent, "tags": record.tags, "metrics": len(record.metrics), "artifact": record.artifact,
        "model": run.model, "digest": run.digest, "values": run.values, "seconds": run.seconds,
    }  # fmt: skip


def without_place(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as it is logged: without the run to rebuild, and the server, whose address may hold a password."""
    return {**config, "run": None, "tracking": {**config["tracking"], "uri": None}}


def track_runs(
    records: Sequence[Record],
    out_path: str,
    *,
    experiment: str,
    config: Mapping[str, Any],
    provenance: Mapping[str, object],
) -> None:
    """Bring the experiment in the folder of `out_path` up to date; a run that changed replaces its predecessor.

    Raises: InputError when the database is of another MLflow version, locked, read-only or no database.
    """
    folder = Path(out_path).parent
    tracked, registered = update_experiment(folder, experiment, records, dict(config), say)
    for run in tracked:
        print(f"{run.record.name}: {'logged' if run.fresh else 'as it was'} ({run.run_id})")
    new = sum(run.fresh for run in tracked)
    database = folder / "mlflow.db"
    say(f"MLflow: {len(tracked)} runs of experiment {experiment} in {database}, {new} new; `make ui` shows them")
    logged = {
        "runs": len(tracked),
        "values": sum(run.values for run in tracked),
        "seconds": round(sum(run.seconds for run in tracked), 3),
        "database_bytes": database.stat().st_size,
    }
    document = {"experiment": experiment, "database": str(database), "registered": registered, "logged": logged}
    write_json(out_path, {**document, "runs": [described(run) for run in tracked], "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        given, params = snakemake.input, snakemake.params
        predictions = {split: given[f"champion_{split}"] for split in SPLITS}
        records = [
            *train_records(given.seeds, params.runs, dict(zip(params.variants, given.training, strict=True))),
            *search_records(given.recipe, given.trials, given.search_figure, params.search),
            *trial_records(params.searched),
            champion_record(given.champion, given.selection, predictions, given.evaluation_figure),
        ]
        # Not a parameter: a run keeps the config it was made with, and another config alone makes no other run.
        config = without_place(snakemake.config)
        track_runs(records, snakemake.output[0], experiment=params.experiment, config=config, provenance=provenance)
