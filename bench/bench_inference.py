"""Time a patch through inference.py's function against the bare forward pass of the same model at the same batch.

The network of the default recipe, with and without averaging over the symmetries, on patches of a drawn slide. What is
compared alternates within a round; medians, and medians of ratios within a round, count. Decoding, guard and start of
the program are told apart. One thread, whose processor time counts, so that other work on the machine weighs little; of
the program's start, the time gone by. It ends with 1 when a patch costs more than LIMIT.
Use: python bench/bench_inference.py OUT.json [--folder SCRATCH]
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # numpy and torch read them once, on import

import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from export_onnx import export_onnx  # noqa: E402
from PIL import Image  # noqa: E402

from pcam import provenance  # noqa: E402
from pcam.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from pcam.files import write_json  # noqa: E402
from pcam.guard import watched_values  # noqa: E402
from pcam.hdf5 import write_patches  # noqa: E402
from pcam.inputs import blocks_of  # noqa: E402
from pcam.model import Architecture, build_model  # noqa: E402
from pcam.predictor import Predictor  # noqa: E402
from pcam.preprocess import normalise  # noqa: E402
from pcam.settings import read_config  # noqa: E402
from pcam.synthetic import draw_slide  # noqa: E402

LIMIT = 1.15  # times the bare forward pass: what a patch may cost from a decoded array, guards off
SIDE = 2048  # pixels of the drawn slide
STATISTICS = {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}


def make_files(folder: Path, n: int) -> np.ndarray:
    """A checkpoint with weights as they are drawn, its graph, and n patches as array, store, .h5 file and images."""
    recipe = read_config(yaml.safe_load((ROOT / "config" / "config.yaml").read_text())).train
    architecture = Architecture(**{key: getattr(recipe, key) for key in Architecture.__annotations__})
    document = {
        "architecture": architecture, "preprocessing": STATISTICS, "threshold": 0.5, "digests": {},
        "data_source": "drawn",
    }  # fmt: skip
    torch.manual_seed(0)
    save_checkpoint(folder / "weights.pt", folder / "weights.json", build_model(architecture), document)
    rng = np.random.default_rng(0)
    slide = draw_slide(rng, "RUMC", "tumor", SIDE)[0]
    places = rng.integers(0, SIDE - 96, (n, 2)).tolist()
    patches = np.stack([slide[y : y + 96, x : x + 96] for y, x in places])
    np.save(folder / "x.npy", patches)
    write_patches(folder / "x.h5", patches)
    for form in ("png", "jpg"):
        (folder / form).mkdir()
        for index, patch in enumerate(patches):
            Image.fromarray(patch).save(folder / form / f"{index:06}.{form}")
    export_onnx(
        str(folder / "weights.pt"), str(folder / "x.npy"), str(folder / "weights.onnx"), str(folder / "onnx.json"),
        threads=1, provenance={},
    )  # fmt: skip
    return patches


def drained(path: Path) -> None:
    for _ in blocks_of([str(path)], 96, print):
        pass


def started(folder: Path, weights: str) -> None:
    """The program from start to end on one image."""
    image = folder / "png" / "000000.png"
    command = [sys.executable, str(ROOT / "inference.py"), str(folder / weights), str(image), "--guard", "off"]
    subprocess.run(command, check=True, capture_output=True)


def bare_pass(folder: Path, patches: np.ndarray, predictor: Predictor) -> Callable[[], None]:
    """The network alone, on batches that lie normalised in memory."""
    model, preprocessing, _ = load_checkpoint(folder / "weights.pt")
    model.tta = predictor.tta
    starts = range(0, len(patches), predictor.batch)
    batches = [normalise(torch.from_numpy(patches[s : s + predictor.batch]), preprocessing) for s in starts]

    def run() -> None:
        with torch.inference_mode():
            for batch in batches:
                model(batch)

    return run


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    work()
    return clock() - began


def exit_code(median: Mapping[str, float]) -> int:
    """0 where every median ratio is within LIMIT, else 1."""
    return int(not all(value <= LIMIT for value in median.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--folder", help="where the files are written; 60 MB for the default size")
    parser.add_argument("--patches", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-inference-", dir=chosen.folder))
    try:
        patches = make_files(folder, chosen.patches)
        torch.set_num_threads(1)
        works: dict[str, Callable[[], object]] = {}
        for name, tta in (("plain", False), ("averaged", True)):
            predictor = Predictor(folder / "weights.pt", device="cpu", tta=tta)
            graph = Predictor(folder / "weights.onnx", tta=tta)
            works[f"bare_{name}"] = bare_pass(folder, patches, predictor)
            works[f"array_{name}"] = lambda predictor=predictor: predictor.probabilities(patches)
            works[f"onnx_{name}"] = lambda graph=graph: graph.probabilities(patches)
        works["guard"] = lambda: watched_values(patches, np.zeros(len(patches)))
        for kind in ("png", "jpg", "x.h5"):
            works[f"decode_{kind.removeprefix('x.')}"] = lambda kind=kind: drained(folder / kind)
        for name, weights in (("torch", "weights.pt"), ("onnxruntime", "weights.onnx")):
            works[f"start_{name}"] = lambda weights=weights: started(folder, weights)
        taken: dict[str, list[float]] = {name: [] for name in works}
        for number in range(chosen.rounds + 1):
            for name, work in works.items():
                clock = time.perf_counter if name.startswith("start_") else time.process_time
                taken[name].append(seconds(work, clock))
            print(
                f"  round {number}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in taken.items()),
                flush=True,
            )
        taken = {name: times[1:] for name, times in taken.items()}  # the first warms up
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratios = {
        name: [a / b for a, b in zip(taken[f"array_{name}"], taken[f"bare_{name}"], strict=True)]
        for name in ("plain", "averaged")
    }
    median = {name: statistics.median(values) for name, values in ratios.items()}
    per_patch = {
        f"{name}_us": 1e6 * statistics.median(times) / chosen.patches
        for name, times in taken.items()
        if not name.startswith("start_")
    }
    write_json(
        chosen.out,
        {
            "provenance": provenance.describe("bench_inference", ""),
            "patches": chosen.patches,
            "batch": predictor.batch,
            "rounds": chosen.rounds,
            "seconds": taken,
            "ratios": ratios,
            "median_ratio": median,
            "limit": LIMIT,
            "per_patch": per_patch,
            "start_s": {name: statistics.median(taken[f"start_{name}"]) for name in ("torch", "onnxruntime")},
        },
    )
    print(
        ", ".join(f"{name}: {value:.3f} x the bare forward pass" for name, value in median.items()), f"(limit {LIMIT})"
    )
    return exit_code(median)


if __name__ == "__main__":
    sys.exit(main())
