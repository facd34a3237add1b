"""Files as trainings, a search and the choice of the champion leave them, small and made up, and their tracker."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from track_runs import track_runs

from pcam.checkpoint import load_checkpoint, save_checkpoint
from pcam.files import read_json, write_bytes, write_csv, write_json
from pcam.model import Architecture, build_model
from pcam.preprocess import Preprocessing
from pcam.run_records import champion_record, search_records, train_records, trial_records
from pcam.sidecar import probabilities
from pcam.training import predict

PROVENANCE = {"rule": "a_test", "commit": "abc", "dirty": False, "code": "c0de", "device": "a CPU", "python": "3"}
RECIPE = {"model": "mlp", "learning_rate": 0.003}
HISTORY = [(1, 0.7, 0.69, 0.6), (2, 0.6, 0.65, float("nan")), (3, 0.5, 0.6, 0.8)]
STEP_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm", "hardest_row", "hardest_loss")
ARCHITECTURE = Architecture(model="mlp", width=4, depth=1, hidden=4, dropout=0.0, tta=False)
PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
PATCHES = np.random.default_rng(0).integers(0, 256, (70, 96, 96, 3), dtype=np.uint8)
LABELS = np.arange(70) % 2
CONFIG = {"seeds": [7, 0], "journal": {"members": ["Ä"]}}
SETTINGS_SEARCH = {"rounds": 1, "trials": 2}


def write_training(folder: Path, seed: int, steps: int = 6, **changes: object) -> None:
    """What a training leaves, with weights that can be loaded."""
    torch.manual_seed(seed)
    document = {
        "state": "complete", "architecture": ARCHITECTURE, "preprocessing": asdict(PLAIN), "temperature": None,
        "threshold": None, "threshold_rule": None, "digests": {"data": "d" * 64, "settings": "s", "code": "c"},
        "data_source": "SYNTHETIC SAMPLE", "seed": seed, "settings": RECIPE,
        "valid": {"roc_auc": 0.8, "pr_auc": 0.7, "n": 40},
        "runtime": {"versions": {"python": "3.11", "torch": "2"}, "device": {"threads": 1}},
        "provenance": PROVENANCE, **changes,
    }  # fmt: skip
    save_checkpoint(folder / "weights.pt", folder / "weights.json", build_model(ARCHITECTURE), document)
    write_csv(folder / "history.csv", ("epoch", "train_loss", "valid_loss", "valid_roc_auc"), HISTORY)
    rows = [(step, 1 + step // 2, 0.5 + step, 0.01, 1.0, 3, 2.0) for step in range(steps)]
    write_csv(folder / "steps.csv", STEP_COLUMNS, rows)


def fail(folder: Path) -> None:
    """Turn a trial into one that a signal ended."""
    sidecar = read_json(folder / "weights.json")
    digests = {**sidecar["digests"], "weights": None}
    failure = {"state": "failed", "reason": "died by SIGKILL", "signal": "SIGKILL", "valid": None, "digests": digests}
    write_json(folder / "weights.json", {**sidecar, **failure})
    write_bytes(folder / "weights.pt", b"")
    write_csv(folder / "history.csv", ("epoch", "train_loss", "valid_loss", "valid_roc_auc"), [])
    write_csv(folder / "steps.csv", STEP_COLUMNS, [])


class Results:
    """A finished run's files, how track_runs is called on them, and what stands in the tracker."""

    def __init__(self, root: Path, write: bool = True) -> None:
        self.root, self.config = root, CONFIG
        self.trained = [root / "train" / "baseline" / f"seed-{seed}" for seed in (7, 0)]
        self.trials = [root / "search" / "round-0" / f"trial-{trial}" for trial in (0, 1)]
        self.figure, self.champion = root / "assets" / "figure.png", root / "champion" / "weights.pt"
        self.predicted = self.champion.parent / "valid.csv"
        if write:
            self.write()

    def write(self) -> None:
        root = self.root
        for folder, seed in zip([*self.trained, *self.trials], (7, 0, 7, 7), strict=True):
            write_training(folder, seed)
        seeds = {split: {"roc_auc": {"values": [0.8, None]}, "f_beta": {"values": [0.5, 0.6]}} for split in
                 ("valid", "test")}  # fmt: skip
        write_json(root / "seeds.json", {"seeds": [7, 0], "baseline": seeds})
        write_bytes(self.figure, b"a picture")
        recipe = {"metric": "roc_auc", "chosen": {"name": "round-0/trial-1", "value": 0.8}, "reason": None,
                  "importance": {"width": 0.25}, "provenance": PROVENANCE}  # fmt: skip
        write_json(root / "search" / "recipe.json", recipe)
        rows = [("round-0", 0, 0, "COMPLETE", 0.7), ("round-0", 1, 0, "FAIL", None)]
        write_csv(root / "search" / "trials.csv", ("phase", "trial", "rung", "state", "value"), rows)
        self.choose_champion(7)

    def choose_champion(self, seed: int) -> None:
        rule = {"rule": "f_beta", "beta": 2.0, "split": "valid", "value_on_valid": 0.8, "n": 40}
        write_training(
            self.champion.parent, seed, name=f"baseline/seed-{seed}", variant="baseline", temperature=1.5,
            threshold=0.4, threshold_rule=rule, trained_by={**PROVENANCE, "commit": "of the training"},
        )  # fmt: skip
        write_json(self.champion.parent / "selection.json", {"metric": "roc_auc", "chosen": {"seed": seed}})
        model, preprocessing, sidecar = load_checkpoint(self.champion)
        logits = predict(model, PATCHES, preprocessing, next(model.parameters()).device)
        table = zip(range(70), LABELS, logits.tolist(), probabilities(logits, sidecar).tolist(), strict=True)
        write_csv(self.predicted, ("row", "label", "logit", "probability"), table)

    def track(self) -> list[dict]:
        figures, trained = {"baseline": str(self.figure)}, [str(folder) for folder in self.trained]
        records = [
            *train_records(str(self.root / "seeds.json"), trained, figures),
            *search_records(
                str(self.root / "search/recipe.json"), str(self.root / "search/trials.csv"), str(self.figure),
                SETTINGS_SEARCH,
            ),
            *trial_records([str(folder) for folder in self.trials]),
            champion_record(
                str(self.champion), str(self.champion.parent / "selection.json"),
                dict.fromkeys(("valid", "test"), str(self.predicted)), str(self.figure),
            ),
        ]  # fmt: skip
        out = self.tracking / "runs.json"
        track_runs(records, str(out), experiment="pcam", config=self.config, provenance=PROVENANCE)
        return self.document()["runs"]

    @property
    def tracking(self) -> Path:
        return self.root / "tracking"

    def document(self) -> dict:
        return read_json(self.tracking / "runs.json")

    def client(self) -> MlflowClient:
        uri = f"sqlite:///{self.tracking}/mlflow.db"
        return MlflowClient(tracking_uri=uri, registry_uri=uri)

    def in_tracker(self) -> dict[str, Run]:
        client = self.client()
        found = list(client.search_runs([client.get_experiment_by_name("pcam").experiment_id]))
        assert len({run.info.run_name for run in found}) == len(found), "a run stands there twice"
        return {run.info.run_name: run for run in found}
