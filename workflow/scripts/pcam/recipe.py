"""Train one recipe with one seed, from files to files, so that a kill at any instant costs only time."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pcam.batches import read_split
from pcam.checkpoint import load_tensors, save_checkpoint, tensors_digest
from pcam.determinism import fix_device
from pcam.files import InputError, document_digest, file_digest, read_json, write_csv
from pcam.live import Live, LiveLog, reporting
from pcam.memory import memory_advice
from pcam.metrics import roc_auc_error, score
from pcam.preprocess import Preprocessing
from pcam.runtime import describe_runtime
from pcam.settings import TrainSettings, read_train_settings, settings_digest
from pcam.sidecar import probabilities_of
from pcam.survival import ResumeState, lock_target, remove_leftovers
from pcam.training import HISTORY_COLUMNS, LAYERS_COLUMNS, STEPS_COLUMNS, architecture_of, predict, train

RESUME = "resume.pt"


@dataclass(frozen=True)
class Outputs:
    """Paths of what a training leaves: weights and their sidecar, a row an epoch, a row a step, and that by layer."""

    weights: str
    sidecar: str
    history: str
    steps: str
    layers: str


def read_preprocessing(normalisation_path: str) -> Preprocessing:
    normalisation = read_json(normalisation_path)
    return Preprocessing(tuple(normalisation["mean"]), tuple(normalisation["std"]))


def data_digest(stores: Mapping[str, str], tables: Mapping[str, str], preprocessing: Preprocessing) -> str:
    """Digest of all data that a training reads: pixels and rows of train and valid, normalisation."""
    files = [file_digest(path) for split in ("train", "valid") for path in (stores[split], tables[split])]
    return document_digest([*files, list(preprocessing.mean), list(preprocessing.std)])


def training_digests(
    settings: TrainSettings,
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    preprocessing: Preprocessing,
    provenance: Mapping[str, Any],
) -> dict[str, str]:
    """What a training is made of. With the seed it says which training it is."""
    data = data_digest(stores, tables, preprocessing)
    return {"settings": settings_digest(settings), "data": data, "code": provenance["code"]}


def all_files(outputs: Outputs) -> list[Path]:
    """What a training writes: its outputs, and the state that it leaves when it is killed."""
    return [*map(Path, vars(outputs).values()), Path(outputs.weights).with_name(RESUME)]


def open_live_log(
    live: Live,
    settings: TrainSettings,
    seed: int,
    digests: Mapping[str, str],
    provenance: Mapping[str, Any],
    report: Any,
) -> LiveLog:
    """The run of this training on the server."""
    tags = {"seed": seed, "commit": provenance["commit"], "dirty": provenance["dirty"],
            **{f"{name}_digest": value for name, value in digests.items()}}  # fmt: skip
    return LiveLog(live, document_digest([live.name, digests, seed]), asdict(settings), tags, HISTORY_COLUMNS, report)


def train_recipe(
    settings_path: str,
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    normalisation_path: str,
    outputs: Outputs,
    *,
    seed: int,
    data_label: str,
    report: Any,
    provenance: Mapping[str, Any],
    live: Live | None = None,
) -> None:
    """Train on train alone, score on valid, write the outputs; report to the server of `live` meanwhile.

    A lock keeps a second process out. One that waited for it, and finds the outputs of this very training finished,
    leaves them as they are.

    Raises: InputError when a file is missing or there is too little data; TrainingFailed when the training diverges or
    there is too little memory.
    """
    folder = Path(outputs.weights).parent
    with lock_target(folder, report) as waited:
        settings = read_train_settings(settings_path)
        preprocessing = read_preprocessing(normalisation_path)
        digests = training_digests(settings, stores, tables, preprocessing, provenance)
        device = fix_device(settings.threads)
        runtime = describe_runtime(device, settings.threads)
        if waited and _is_finished(outputs, {"seed": seed, "runtime": runtime}, digests):
            report("the process before this one finished the same training; its results stand")
            return
        remove_leftovers(all_files(outputs))
        resume = ResumeState(folder / RESUME, document_digest([digests, seed, runtime]), report)
        train_split, valid = (read_split(stores[split], tables[split]) for split in ("train", "valid"))
        log = open_live_log(live, settings, seed, digests, provenance, report) if live is not None else None
        with reporting(log) as on_epoch:
            trained = train(
                settings, seed, train_split, valid, preprocessing, resume=resume, report=report, on_epoch=on_epoch
            )
            with memory_advice():
                probabilities = probabilities_of(predict(trained.model, valid.patches, preprocessing, device))
            # Threshold 0.5 and beta 1 touch neither of the two ranking metrics kept here.
            scores = score(valid.labels, probabilities, threshold=0.5, beta=1.0)
            write_csv(outputs.history, HISTORY_COLUMNS, trained.history)
            write_csv(outputs.steps, STEPS_COLUMNS, trained.steps)
            write_csv(
                outputs.layers,
                (*LAYERS_COLUMNS, *trained.layers),
                ([*step[:2], *norms] for step, *norms in zip(trained.steps, *trained.layers.values(), strict=True)),
            )
            save_checkpoint(
                outputs.weights,
                outputs.sidecar,
                trained.model,
                {
                    "state": "complete",
                    "architecture": architecture_of(settings),
                    "preprocessing": asdict(preprocessing),
                    "temperature": None,
                    "threshold": None,
                    "threshold_rule": None,
                    "digests": digests,
                    "data_source": data_label,
                    "seed": seed,
                    "settings": asdict(settings),
                    "valid": {
                        "roc_auc": scores["roc_auc"],
                        "roc_auc_standard_error": roc_auc_error(valid.labels, probabilities),
                        "pr_auc": scores["pr_auc"],
                        "n": len(valid.labels),
                    },
                    "runtime": runtime,
                    "provenance": {**provenance, "torch_device": device.type},
                },
            )
        resume.remove()


def _is_finished(outputs: Outputs, made_with: Mapping[str, Any], digests: Mapping[str, str]) -> bool:
    """Whether all outputs exist and are those of this training, whole."""
    if not all(Path(path).exists() for path in vars(outputs).values()):
        return False
    try:
        sidecar, state = read_json(outputs.sidecar), load_tensors(outputs.weights)
    except InputError:
        return False
    told = sidecar["digests"]
    same = all(sidecar.get(name) == value for name, value in made_with.items())
    return same and told == {**digests, "weights": tensors_digest(state)}
