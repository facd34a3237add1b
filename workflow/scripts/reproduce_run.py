"""Rebuild a logged run from its logged config, in a folder of its own, and compare weights, metrics and causes.

Reads: the tracker's database; weights of this workflow, where they are still those that were logged.
Writes: verdict.json; beside it config.json (what the rebuild ran with), snakemake.log (what it printed) and rebuilt/.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcam.files import InputError, document_digest, read_json, write_json
from pcam.reproduction import (
    causes_of,
    compare_metrics,
    compare_with_logged,
    judge,
    lock_rebuild,
    logged_metrics,
    not_compared,
    prediction_paths,
    read_rebuilt,
    rebuild,
    rebuilt_config,
    rebuilt_metrics,
    remove_rebuilt,
    run_folder,
)
from pcam.settings import TUNED, read_config
from pcam.stage import run_stage, say
from pcam.tracking import LoggedRun, read_run

RESULTS = Path("results")
UNFINISHED = "unfinished.json"  # stands beside a rebuild that was begun, and says with what


def check_config(run: LoggedRun) -> None:
    """Raises: InputError when this code does not understand the config that the run was logged with."""
    try:
        read_config(run.config)
    except InputError as error:
        way_out = f"check out commit {run.provenance.get('commit')}, which logged it"
        raise InputError(f"run {run.run_id}: this code does not know its config ({error}); {way_out}") from None


def also_rebuilt(run: LoggedRun) -> str | None:
    """What a run needs beside itself, in words."""
    if run.kind == "champion":
        return "every training and the whole search, from which it was chosen"
    if run.kind == "train" and run.name.startswith(f"{TUNED}/"):
        return "the whole search, which found its recipe"
    if run.kind == "trial" and not run.name.startswith("round-0/"):
        return "the trials of the rounds before it, from which it was proposed"
    return None


def kept_weights(own: str, tracking: str) -> list[Path]:
    """Where the logged weights may lie: in this workflow's own results, or among the tracker's models."""
    return [RESULTS / own / "weights.pt", *sorted((Path(tracking) / "artifacts").rglob("weights.pt"))]


def prepare(folder: Path, data: Path, config: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Make room for the rebuild: one that was not finished and began with the same config and state goes on."""
    marker, made_with = folder / UNFINISHED, {"config": document_digest(config), **state}
    if not marker.is_file() or read_json(marker) != made_with:
        for path in (folder / "rebuilt", data):
            remove_rebuilt(path)
    write_json(marker, made_with)


def reproduce_run(
    tracking: str,
    verdict_path: str,
    *,
    run_id: str | None,
    data_root: str,
    state: Mapping[str, Any],
    cores: int,
    provenance: Mapping[str, Any],
) -> None:
    """A difference is a finding, and no error. `state`: commit, dirty flag and versions.

    Raises: InputError when the run is unknown or cannot be rebuilt, or the rebuild fails.
    """
    if run_id is None:
        raise InputError(
            "config: run is null; give the id of a logged run (results/tracking/runs.json lists them): "
            "snakemake reproduce --cores 2 --config run=ID"
        )
    run = read_run(tracking, run_id)
    check_config(run)
    folder, data = Path(verdict_path).parent, Path(data_root) / "reproduce" / run_id
    own, predicted = run_folder(run), prediction_paths(run)
    config = rebuilt_config(run.config, data, Path(data_root) / "pcam")
    settings = read_config(config)
    also = also_rebuilt(run)
    say(f"rebuilding {run.name} of {settings.data.label}" + (f", and {also}" if also else ""))
    started = time.monotonic()
    with lock_rebuild(folder, say) as lock:
        prepare(folder, data, config, state)
        write_json(folder / "config.json", config)
        results = folder / "rebuilt" / "results"
        targets = [f"results/{path}" for path in (f"{own}/weights.json", f"{own}/weights.pt", *predicted.values())]
        log = folder / "snakemake.log"
        rebuild(
            folder / "rebuilt", folder / "config.json", targets, log, cores=cores, lock=lock,
            report=lambda line: say(f"{run.name}: {line}"),
        )  # fmt: skip
        weights_path = results / own / "weights.pt"
        sidecar = read_rebuilt(weights_path)
        weights = compare_with_logged(run.sidecar, weights_path, kept_weights(own, tracking))
        paths = {split: results / path for split, path in predicted.items()}
        rebuilt = rebuilt_metrics(sidecar, paths, settings.threshold, settings.evaluation.ece_bins)
        logged = logged_metrics(run.metrics)
        metrics = compare_metrics(logged, rebuilt)
        causes = {"logged": causes_of(run.sidecar), "now": causes_of(sidecar)}
        left_out = not_compared(logged, rebuilt)
        judged = judge(weights, metrics, causes["logged"], causes["now"], left_out)
        document = {
            "run_id": run_id,
            "name": run.name,
            "kind": run.kind,
            **judged,
            "weights": weights,
            "metrics": metrics,
            "not_compared": left_out,
            "ran_with": causes,
            "also_rebuilt": also,
            "rebuilt": str(folder / "rebuilt"),
            "seconds": round(time.monotonic() - started, 1),
            "provenance": provenance,
        }
        write_json(verdict_path, document)
        (folder / UNFINISHED).unlink()
    say(f"{run.name}: {judged['verdict']}")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        reproduce_run(
            snakemake.params.tracking,
            snakemake.output[0],
            run_id=snakemake.params.run_id,
            data_root=snakemake.params.data_root,
            state=snakemake.params.state,
            cores=snakemake.threads,
            provenance=provenance,
        )
