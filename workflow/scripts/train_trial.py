"""Train one trial of the search in a child process. A trial that diverges, runs out of memory or is killed is a result.

Reads: settings.json, origin.json on the later rungs, the stores and tables of train and valid, normalisation.json.
Writes: weights.pt, weights.json, history.csv, steps.csv and layers.csv as train_seed does. Of a failed trial
weights.json holds the reason, and the others nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pcam.children import Outcome, run_child
from pcam.files import TrainingFailed, read_json, write_bytes, write_csv, write_json
from pcam.live import Live, live_of
from pcam.recipe import Outputs, all_files, open_live_log, read_preprocessing, train_recipe, training_digests
from pcam.settings import read_train_settings
from pcam.stage import run_stage, say_for
from pcam.survival import lock_target, remove_leftovers
from pcam.training import HISTORY_COLUMNS, LAYERS_COLUMNS, STEPS_COLUMNS


def failed_sidecar(outcome: Outcome, **known: Any) -> dict[str, Any]:
    """What weights.json holds where there are no weights: no reader of checkpoints takes it for one."""
    return {"state": "failed", "reason": outcome.reason, "signal": outcome.signal, **known}


def empty_place(origin_path: str | None) -> Outcome | None:
    """The failure of a trial on a later rung that no trial of the rung before is left for; None otherwise."""
    reason = read_json(origin_path)["reason"] if origin_path is not None else None
    return None if reason is None else Outcome(error=TrainingFailed(reason))


def write_failure(outputs: Outputs, sidecar: Mapping[str, Any], report: Any) -> None:
    """Leave the outputs of a failed trial, unless another process has taken up the same trial."""
    folder = Path(outputs.weights).parent
    with lock_target(folder, report) as waited:
        if waited and Path(outputs.sidecar).exists():  # it is written last
            report("another process trained the same trial meanwhile; its results stand")
            return
        remove_leftovers(all_files(outputs))
        write_bytes(outputs.weights, b"")
        write_csv(outputs.history, HISTORY_COLUMNS, [])
        write_csv(outputs.steps, STEPS_COLUMNS, [])
        write_csv(outputs.layers, LAYERS_COLUMNS, [])
        write_json(outputs.sidecar, sidecar)


def train_trial(
    settings_path: str,
    origin_path: str | None,
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    normalisation_path: str,
    outputs: Outputs,
    *,
    seed: int,
    data_label: str,
    name: str,
    provenance: Mapping[str, Any],
    live: Live | None = None,
) -> None:
    """On a later rung `origin_path` says which trial goes on; where none does, that is the trial's failure.

    The state that a killed trial was last saved in stays, so that forcing the rule goes on from there.

    Raises: InputError when a file is missing or malformed: that is no property of the trial.
    """
    report = partial(say_for, name)
    files = (settings_path, stores, tables, normalisation_path, outputs)
    labels = {"seed": seed, "data_label": data_label, "report": report, "provenance": provenance, "live": live}
    empty = empty_place(origin_path)
    outcome = empty or run_child(train_recipe, *files, **labels)
    if outcome.reason is None:
        return
    if outcome.error is not None and not isinstance(outcome.error, TrainingFailed):
        raise outcome.error
    again = "" if empty else f"; snakemake --forcerun {outputs.sidecar} tries it again"
    report(f"failed: {outcome.reason}; the search goes on{again}")
    settings = read_train_settings(settings_path)
    preprocessing = read_preprocessing(normalisation_path)
    digests = training_digests(settings, stores, tables, preprocessing, provenance)
    if live is not None and outcome.signal is not None:  # a child that died could not say so to the server
        open_live_log(live, settings, seed, digests, provenance, report).close(outcome.reason)
    sidecar = failed_sidecar(
        outcome,
        digests={**digests, "weights": None},
        data_source=data_label,
        seed=seed,
        settings=asdict(settings),
        valid=None,
        provenance=provenance,
    )
    write_failure(outputs, sidecar, report)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        train_trial(
            snakemake.input.settings,
            snakemake.input.origin or None,
            {split: snakemake.input[split] for split in ("train", "valid")},
            {split: snakemake.input[f"{split}_rows"] for split in ("train", "valid")},
            snakemake.input.normalisation,
            Outputs(**dict(snakemake.output.items())),
            seed=snakemake.params.seed,
            data_label=snakemake.params.data_label,
            name=" ".join([snakemake.rule, *map(str, snakemake.wildcards)]),
            provenance=provenance,
            # Not a parameter: where a training reports to makes no other training.
            live=live_of(snakemake.config["tracking"], "/".join(Path(snakemake.output.weights).parts[-3:-1])),
        )
