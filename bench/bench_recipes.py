"""Measure what each choice of the default recipe is worth: out-of-fold ROC-AUC on the train and valid patches of a run.

The default of config/config.yaml and recipes that differ from it in one choice are trained on the same folds, dealt by
slide and leak group so that no tissue stands on both sides, and compared fold by fold. Test patches are never read.
Use: python bench/bench_recipes.py RUN OUT.json [--recipes NAME ...], where RUN is the folder of a finished run.
"""

import argparse
import os
import statistics
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np  # noqa: E402
import yaml  # noqa: E402

from pcam import provenance  # noqa: E402
from pcam.batches import LabelledPatches  # noqa: E402
from pcam.cheap_model import deal_folds, joined_units  # noqa: E402
from pcam.determinism import fix_device  # noqa: E402
from pcam.files import read_csv, write_json  # noqa: E402
from pcam.metrics import roc_auc, t_interval  # noqa: E402
from pcam.preprocess import Preprocessing  # noqa: E402
from pcam.settings import TrainSettings, read_config  # noqa: E402
from pcam.store import channel_statistics, open_store  # noqa: E402
from pcam.training import predict, train  # noqa: E402

# Each recipe as its one difference from the default; `tta` needs no training of its own. Epochs are a factor here.
CHANGES: dict[str, dict[str, object]] = {
    "no augmentation": {"augment": False},
    "average over steps .98": {"ema": 0.98},
    "label smoothing .1": {"label_smoothing": 0.1},
    "dropout .2": {"dropout": 0.2},
    "width 8": {"width": 8},
    "width 24": {"width": 24},
    "depth 2": {"depth": 2},
    "twice the epochs": {"epochs": 2.0},
    "cosine": {"schedule": "cosine"},
    "constant": {"schedule": "constant"},
    "mlp": {"model": "mlp", "learning_rate": 1e-3, "epochs": 8, "dropout": 0.2},
}


def changed(base: TrainSettings, change: dict[str, object]) -> TrainSettings:
    epochs = change.get("epochs")
    return replace(base, **{**change, **({"epochs": round(base.epochs * epochs)} if isinstance(epochs, float) else {})})


def read_patches(run: Path, data: Path) -> tuple[LabelledPatches, np.ndarray]:
    """Train and valid patches of a run one after the other, and the unit (slide or leak group) of each."""
    tables = {split: read_csv(run / "results" / "splits" / f"{split}.csv") for split in ("train", "valid")}
    rows = [line for table in tables.values() for line in table]
    patches = np.concatenate([open_store(data / "store" / f"{split}.npy") for split in tables])
    labels = np.array([int(line["label"]) for line in rows], np.uint8)
    slides, groups = (np.array([line[key] for line in rows]) for key in ("slide", "group"))
    return LabelledPatches(patches, labels, np.arange(len(labels))), joined_units(slides, groups)


def part(whole: LabelledPatches, chosen: np.ndarray) -> LabelledPatches:
    return LabelledPatches(whole.patches[chosen], whole.labels[chosen], whole.rows[chosen])


def score_recipe(
    settings: TrainSettings, whole: LabelledPatches, fold: np.ndarray, seeds: list[int]
) -> dict[str, object]:
    """ROC-AUC out of fold, with and without averaging over symmetries, of every seed and fold; processor seconds."""
    told: dict[str, list[float]] = {"averaged over symmetries": [], "plain": [], "cpu_s": []}
    device = fix_device(settings.threads)
    for seed in seeds:
        for k in range(fold.max() + 1):
            inside, outside = part(whole, fold != k), part(whole, fold == k)
            preprocessing = Preprocessing(*map(tuple, channel_statistics(inside.patches)))
            # Its own first patches as valid: the loop wants some, and none of them may decide anything here.
            began = time.process_time()
            trained = train(settings, seed, inside, part(inside, np.arange(len(inside.labels)) < 64), preprocessing,
                            resume=None, report=lambda line: None)  # fmt: skip
            told["cpu_s"].append(time.process_time() - began)
            for name, tta in (("averaged over symmetries", True), ("plain", False)):
                trained.model.tta = tta
                logits = predict(trained.model, outside.patches, preprocessing, device)
                told[name].append(roc_auc(outside.labels, logits))
    return {**told, "settings": asdict(settings)}


def compare(mine: list[float], default: list[float]) -> dict[str, object]:
    """Differences fold by fold, with Student's interval of their mean; folds share patches, so it is a rough one."""
    gaps = [a - b for a, b in zip(mine, default, strict=True)]
    return {"difference": statistics.mean(gaps), "interval": t_interval(gaps, differences=True), "n": len(gaps)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--recipes", nargs="*", choices=list(CHANGES), default=list(CHANGES))
    chosen = parser.parse_args()
    base = read_config(yaml.safe_load((ROOT / "config" / "config.yaml").read_text())).train
    data = next((chosen.run / "data").glob("*/store")).parent
    whole, units = read_patches(chosen.run, data)
    fold = deal_folds(units, whole.labels, chosen.folds, 0)
    document: dict[str, object] = {
        "provenance": provenance.describe("bench_recipes", provenance.code_digest("train_seed")),
        "data": {"patches": len(whole.labels), "positive": int(whole.labels.sum()), "units": len(set(units.tolist()))},
        "folds": chosen.folds,
        "seeds": chosen.seeds,
        "recipes": {},
    }
    for name, change in {"default": {}, **{name: CHANGES[name] for name in chosen.recipes}}.items():
        scored = score_recipe(changed(base, change), whole, fold, chosen.seeds)
        document["recipes"][name] = scored
        mine = scored["averaged over symmetries"]
        if name == "default":
            default = mine
            document["recipes"]["no averaging over symmetries"] = {"against_default": compare(scored["plain"], default)}
        else:
            scored["against_default"] = compare(mine, default)
        write_json(chosen.out, document)
        gap = statistics.mean(mine) - statistics.mean(default)
        seconds = statistics.median(scored["cpu_s"])
        print(f"{name}: ROC-AUC {statistics.mean(mine):.4f} ({gap:+.4f}), {seconds:.0f} s a training", flush=True)


if __name__ == "__main__":
    main()
