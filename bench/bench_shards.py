"""Time the passes over all patches that config `shards` scatters, file to file, on one core.

The rules survey_patches, extract_features, measure_attributes, predict_seed and embed_patches, on patches of a drawn
slide; the model is the default recipe's, averaged over the symmetries, its weights as they are drawn. Rounds of all
passes, medians; processor time counts, so that other work on the machine weighs little. make readme-tables makes the
README's table of costs of what this writes. Use: python bench/bench_shards.py OUT.json [--folder SCRATCH]
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # numpy and torch read them once, on import

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from embed_patches import embed_patches  # noqa: E402
from extract_features import extract_features  # noqa: E402
from measure_attributes import measure_attributes  # noqa: E402
from predict_seed import predict_seed  # noqa: E402
from survey_patches import survey_patches  # noqa: E402

from pcam import provenance  # noqa: E402
from pcam.checkpoint import save_checkpoint  # noqa: E402
from pcam.facts import FILE_SPLITS  # noqa: E402
from pcam.files import write_csv, write_json  # noqa: E402
from pcam.hdf5 import write_patches  # noqa: E402
from pcam.model import build_model  # noqa: E402
from pcam.settings import read_config  # noqa: E402
from pcam.synthetic import draw_slide  # noqa: E402
from pcam.training import architecture_of  # noqa: E402

SIDE = 2048  # pixels of the drawn slide


def make_files(folder: Path, n: int) -> None:
    """n patches as x file and as store with its table, and a checkpoint."""
    rng = np.random.default_rng(0)
    slide = draw_slide(rng, "RUMC", "tumor", SIDE)[0]
    places = rng.integers(0, SIDE - 96, (n, 2)).tolist()
    patches = np.stack([slide[y : y + 96, x : x + 96] for y, x in places])
    np.save(folder / "store.npy", patches)
    write_patches(folder / "x.h5", patches)
    write_csv(folder / "rows.csv", ("row", "label"), ((row, row % 2) for row in range(n)))
    architecture = architecture_of(read_config(yaml.safe_load((ROOT / "config" / "config.yaml").read_text())).train)
    statistics_of = {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}
    document = {
        "architecture": architecture, "preprocessing": statistics_of, "threshold": 0.5, "digests": {},
        "data_source": "drawn",
    }  # fmt: skip
    torch.manual_seed(0)
    save_checkpoint(folder / "weights.pt", folder / "weights.json", build_model(architecture), document)


def passes(folder: Path, n: int) -> dict[str, tuple[Callable[[], None], int]]:
    """Each pass with the number of patches it goes over."""

    def at(name: str) -> str:
        return str(folder / name)

    thrice = dict.fromkeys(FILE_SPLITS, at("x.h5"))
    return {
        "survey_patches": (lambda: survey_patches(thrice, at("survey"), processes=1), len(thrice) * n),
        "extract_features": (lambda: extract_features(at("x.h5"), at("features.npy"), processes=1), n),
        "measure_attributes": (lambda: measure_attributes(at("store.npy"), at("attributes.npy")), n),
        "predict_seed": (
            lambda: predict_seed(at("weights.pt"), at("store.npy"), at("rows.csv"), at("told.csv"), threads=1),
            n,
        ),
        "embed_patches": (
            lambda: embed_patches(at("weights.pt"), at("store.npy"), at("embeddings.npy"), threads=1),
            n,
        ),
    }


def write_rates(path: str, patches: int, rates: dict[str, list[float]]) -> None:
    write_json(
        path,
        {
            "provenance": provenance.describe("bench_shards", ""),
            "torch": torch.__version__,
            "load_average": os.getloadavg()[0],
            "patches": patches,
            "passes": {
                name: {"patches_per_s": statistics.median(measured), "rounds": measured}
                for name, measured in rates.items()
            },
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--folder", help="where the patches are written; 0.2 GB for the default size")
    parser.add_argument("--patches", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="bench-shards-", dir=chosen.folder))
    rates: dict[str, list[float]] = {}
    try:
        make_files(scratch, chosen.patches)
        for number in range(1, chosen.rounds + 1):
            for name, (run, count) in passes(scratch, chosen.patches).items():
                began = time.process_time()
                run()
                rates.setdefault(name, []).append(count / (time.process_time() - began))
                print(f"  round {number}: {name} {rates[name][-1]:,.0f} patches/s", flush=True)
            write_rates(chosen.out, chosen.patches, rates)  # each round: one that is cut off leaves those before it
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
