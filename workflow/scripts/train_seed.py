"""Train one recipe with one seed, on train alone, and score it on valid. Resumes by itself after a kill.

Reads: settings.json, the stores and tables of train and valid, normalisation.json.
Writes: weights.pt, weights.json, history.csv (a row an epoch), steps.csv (a row a step).
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pcam.checkpoint import save_checkpoint
from pcam.files import InputError, document_digest, file_digest, read_csv, read_json, write_csv
from pcam.metrics import roc_auc_error, score
from pcam.preprocess import Preprocessing
from pcam.settings import read_train_settings, settings_digest
from pcam.stage import run_stage, say
from pcam.store import open_store
from pcam.training import (
    HISTORY_COLUMNS,
    STEPS_COLUMNS,
    LabelledPatches,
    architecture_of,
    make_deterministic,
    predict,
    probabilities_of,
    train,
)


def read_split(store_path: str, rows_path: str) -> LabelledPatches:
    """Raises: InputError when table and store differ in length."""
    table = read_csv(rows_path, ("row", "label"))
    patches = open_store(store_path)
    if len(table) != len(patches):
        raise InputError(
            f"{store_path}: {len(patches)} patches for the {len(table)} rows of {rows_path}; rebuild the store"
        )
    labels = np.array([int(line["label"]) for line in table], np.uint8)
    return LabelledPatches(patches, labels, np.array([int(line["row"]) for line in table]))


def train_seed(
    settings_path: str,
    stores: Mapping[str, str],
    tables: Mapping[str, str],
    normalisation_path: str,
    weights_path: str,
    sidecar_path: str,
    history_path: str,
    steps_path: str,
    *,
    seed: int,
    data_label: str,
    name: str,
    provenance: Mapping[str, Any],
) -> None:
    """Raises: InputError when there is too little data or the training diverges."""
    settings = read_train_settings(settings_path)
    splits = {split: read_split(stores[split], tables[split]) for split in ("train", "valid")}
    normalisation = read_json(normalisation_path)
    preprocessing = Preprocessing(tuple(normalisation["mean"]), tuple(normalisation["std"]))
    digests = {
        "settings": settings_digest(settings),
        "data": document_digest(
            [file_digest(path) for split in splits for path in (stores[split], tables[split])]
            + [normalisation["mean"], normalisation["std"]]
        ),
        "code": provenance["code"],
    }
    resume_path = Path(weights_path).with_name("resume.pt")
    trained = train(
        settings,
        seed,
        splits["train"],
        splits["valid"],
        preprocessing,
        resume_path=resume_path,
        digest=document_digest([digests, seed]),
        report=lambda line: say(f"{name}: {line}"),
    )
    device = make_deterministic(settings.threads)
    valid = splits["valid"]
    probabilities = probabilities_of(predict(trained.model, valid.patches, preprocessing, device))
    # Threshold 0.5 and beta 1 touch neither of the two ranking metrics kept here.
    scores = score(valid.labels, probabilities, threshold=0.5, beta=1.0)
    write_csv(history_path, HISTORY_COLUMNS, trained.history)
    write_csv(steps_path, STEPS_COLUMNS, trained.steps)
    save_checkpoint(
        weights_path,
        sidecar_path,
        trained.model,
        {
            "architecture": architecture_of(settings),
            "preprocessing": asdict(preprocessing),
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
            "provenance": {**provenance, "torch_device": device.type},
        },
    )
    resume_path.unlink(missing_ok=True)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        train_seed(
            snakemake.input.settings,
            {split: snakemake.input[split] for split in ("train", "valid")},
            {split: snakemake.input[f"{split}_rows"] for split in ("train", "valid")},
            snakemake.input.normalisation,
            snakemake.output.weights,
            snakemake.output.sidecar,
            snakemake.output.history,
            snakemake.output.steps,
            seed=snakemake.params.seed,
            data_label=snakemake.params.data_label,
            name=" ".join([snakemake.rule, *map(str, snakemake.wildcards)]),
            provenance=provenance,
        )
