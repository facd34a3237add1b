"""Time the loading of batches against h5py reading sample by sample, and the training loop against its bare steps.

One process, one compute thread. What is compared alternates within one run, so that other work on the machine meets
both; medians of ratios within a round count. Use: python bench/bench_training.py OUT.json [--folder SCRATCH]
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import h5py  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402

from pcam import provenance  # noqa: E402
from pcam.batches import Batches, LabelledPatches  # noqa: E402
from pcam.determinism import epoch_batches, fix_device, seed_everything  # noqa: E402
from pcam.facts import PATCH_SHAPE  # noqa: E402
from pcam.files import write_json  # noqa: E402
from pcam.memory import keep_freed_memory  # noqa: E402
from pcam.preprocess import Preprocessing  # noqa: E402
from pcam.schedules import learning_rate_at  # noqa: E402
from pcam.settings import TrainSettings, read_config  # noqa: E402
from pcam.store import channel_statistics, open_store, write_store  # noqa: E402
from pcam.survival import ResumeState  # noqa: E402
from pcam.synthetic import draw_slide  # noqa: E402
from pcam.training import Learner, Records, predict, run_epoch  # noqa: E402

SIDE, PER_SLIDE = 2048, 2048  # pixels of a drawn slide's side, patches cut from it, each at a place of its own
BATCH_SIZES = (32, 128)
LOADING_TARGET, LOOP_TARGET = 30.0, 0.97
COURSE = "float32 file, looked up by name"
VALID_SHARE = 1 / 8  # patches of valid to one of train, as in PCam

Pass = Callable[[np.ndarray], np.ndarray]  # reads the batches (steps, batch size) it is told to; gives the last


def make_files(folder: Path, n: int) -> None:
    """x as float32 and as uint8 in contiguous HDF5, and the store: n patches of drawn slides, no place twice."""
    rng = np.random.default_rng(0)
    places = SIDE - PATCH_SHAPE[0] + 1
    with h5py.File(folder / "uint8.h5", "w") as uint8, h5py.File(folder / "float32.h5", "w") as float32:
        shape = (n, *PATCH_SHAPE)
        datasets = [uint8.create_dataset("x", shape, np.uint8), float32.create_dataset("x", shape, np.float32)]
        for start in range(0, n, PER_SLIDE):
            slide = draw_slide(rng, ("RUMC", "UMCU")[start // PER_SLIDE % 2], "tumor", SIDE)[0]
            at = rng.choice(places * places, min(PER_SLIDE, n - start), replace=False).tolist()
            cut = np.stack([slide[i // places :, i % places :][:96, :96] for i in at])
            for dataset in datasets:
                dataset[start : start + len(cut)] = cut
    write_store(folder / "store.npy", folder / "uint8.h5", np.arange(n))


def convert(sample: np.ndarray) -> np.ndarray:
    """What the course's skeleton does with a sample."""
    return np.clip(sample, 0, 255).astype(np.uint8)


def hdf5_patterns(float32: h5py.File, uint8: h5py.File) -> dict[str, Pass]:
    """Ways to read with h5py sample by sample, from files that are opened once, slowest first."""

    def reading(one: Callable[[int], np.ndarray]) -> Pass:
        def read(batches: np.ndarray) -> np.ndarray:
            for places in batches:
                batch = np.stack([one(i) for i in places])
            return batch

        return read

    kept_float32, kept_uint8 = float32["x"], uint8["x"]
    return {
        COURSE: reading(lambda i: convert(np.array(float32["x"][i]))),
        "uint8 file, looked up by name": reading(lambda i: convert(np.array(uint8["x"][i]))),
        "float32 file, dataset kept": reading(lambda i: convert(kept_float32[i])),
        "uint8 file, dataset kept, not converted": reading(lambda i: kept_uint8[i]),
    }


def store_patterns(split: LabelledPatches, batch_size: int) -> dict[str, Callable[[int], None]]:
    """The epochs of the workflow's own loader, without augmentation, gathering when asked and ahead."""

    def reading(workers: int) -> Callable[[int], None]:
        cpu = torch.device("cpu")
        batches = Batches(split, cpu, seed=0, batch_size=batch_size, augment=False, workers=workers)

        def read(epoch: int) -> None:
            for _ in batches.of_epoch(epoch):
                pass

        return read

    return {f"store, workers {workers}": reading(workers) for workers in (0, 1)}


def rate(work: Callable[[int], None], images: int, at_least_s: float) -> float:
    """Images per second of whole passes, repeated until `at_least_s` have gone by."""
    began, passes, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < at_least_s:
        work(passes)
        passes += 1
        elapsed = time.perf_counter() - began
    return passes * images / elapsed


def loading(folder: Path, split: LabelledPatches, rounds: int, at_least_s: float) -> dict[str, object]:
    """Images per second of every way to get shuffled batches, in alternating rounds after one that warms up."""
    n, told = len(split.labels), {}
    with h5py.File(folder / "float32.h5") as float32, h5py.File(folder / "uint8.h5") as uint8:
        for size in BATCH_SIZES:
            ours = store_patterns(split, size)
            theirs = {}
            for name, read in hdf5_patterns(float32, uint8).items():
                places = epoch_batches(0, 0, n, size)[:1]
                if not np.array_equal(read(places), split.patches[places[0]]):
                    sys.exit(f"{name}: reads other pixels than the store holds")
                theirs[name] = lambda epoch, read=read, size=size: read(epoch_batches(0, epoch, n, size))
            images = n // size * size
            measured: list[dict[str, float]] = []
            for number in range(rounds + 1):
                measured.append({name: rate(work, images, at_least_s) for name, work in {**ours, **theirs}.items()})
                shown = ", ".join(f"{name}: {value:,.0f}" for name, value in measured[-1].items())
                print(f"  batch {size}, round {number}: {shown}", flush=True)
            kept = measured[1:]
            told[str(size)] = {
                "images_per_s": {name: [each[name] for each in kept] for name in kept[0]},
                "median_images_per_s": {name: statistics.median(each[name] for each in kept) for name in kept[0]},
                "median_ratio": {
                    f"{fast} / {slow}": statistics.median(each[fast] / each[slow] for each in kept)
                    for fast in ours
                    for slow in theirs
                },
            }
    judged = {f"batch {s}, {f}": told[str(s)]["median_ratio"][f"{f} / {COURSE}"] for s in BATCH_SIZES for f in ours}
    return {
        "patches": n,
        "rounds": rounds,
        "page_cache": "warm",
        "judged_on": COURSE,
        "target": LOADING_TARGET,
        "ratios": judged,
        "least_ratio": min(judged.values()),
        "reached": min(judged.values()) >= LOADING_TARGET,
        "by_batch_size": told,
    }


def interval(ratios: Sequence[float]) -> list[float]:
    """95 % bootstrap interval of the median."""
    drawn = np.random.default_rng(0).choice(np.array(ratios), (10_000, len(ratios)))
    return [float(bound) for bound in np.quantile(np.median(drawn, axis=1), (0.025, 0.975))]


def loop(settings: TrainSettings, split: LabelledPatches, device: torch.device, pairs: int, folder: Path) -> dict:
    """Whole epochs of the training loop against as many bare steps on one batch that lies on the device.

    Both train the same model. Their order within a pair alternates. The loop gathers batches, seeds dropout, brings the
    records home and looks whether they are finite; it leaves out what comes between epochs, which is measured apart.
    """
    seed_everything(0)
    preprocessing = Preprocessing(*(tuple(values) for values in channel_statistics(split.patches[:1024])))
    learner = Learner(settings, preprocessing, device)
    size, augment, workers = settings.batch_size, settings.augment, settings.workers
    batches = Batches(split, device, seed=0, batch_size=size, augment=augment, workers=workers)
    epochs = pairs + 1
    total = epochs * batches.per_epoch
    rates = [learning_rate_at(settings, step, total) for step in range(total)]
    records = Records(learner, batches, rates, split.rows)
    resident = next(iter(batches.of_epoch(0)))

    def whole(epoch: int) -> None:
        for _ in run_epoch(learner, records, epoch):
            pass
        records.bring_home()

    def bare(epoch: int) -> None:
        learner.model.train()
        for step in range(batches.per_epoch):
            learner.step(resident, rates[epoch * batches.per_epoch + step])

    taken: dict[str, list[float]] = {name: [] for name in ("whole_s", "bare_s", "whole_cpu_s", "bare_cpu_s")}
    for epoch in range(epochs):
        order = [("whole", whole), ("bare", bare)]
        for name, work in order if epoch % 2 else reversed(order):
            began, began_cpu = clock(device), time.process_time()
            work(epoch)
            taken[f"{name}_s"].append(clock(device) - began)
            taken[f"{name}_cpu_s"].append(time.process_time() - began_cpu)
    taken = {name: values[1:] for name, values in taken.items()}  # the first pair warms up
    ratios, cpu_ratios = (
        [bare_s / whole_s for bare_s, whole_s in zip(taken[f"bare{what}"], taken[f"whole{what}"], strict=True)]
        for what in ("_s", "_cpu_s")
    )
    epoch_s, median = statistics.median(taken["whole_s"]), statistics.median(ratios)
    images_per_s = batches.per_epoch * batches.size / epoch_s
    print(f"  {median:.3f} of the bare steps' speed, {images_per_s:,.0f} images/s", flush=True)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else provenance.cpu_name(),
        "settings": asdict(settings),
        "parameters": sum(parameter.numel() for parameter in learner.parameters),
        "pairs": pairs,
        "steps_per_block": batches.per_epoch,
        **taken,
        "median_images_per_s": images_per_s,
        "median_ratio": median,
        "interval_95": interval(ratios),
        # The same of processor time, all threads: what the loop adds when other processes leave no core idle.
        "median_cpu_ratio": statistics.median(cpu_ratios),
        "cpu_interval_95": interval(cpu_ratios),
        "left_out": between_epochs(learner, records, split, epoch_s, folder),
    }


def between_epochs(learner: Learner, records: Records, split: LabelledPatches, epoch_s: float, folder: Path) -> dict:
    """Seconds of validation and of saving the state, which follow every epoch, and their share of an epoch's time."""
    valid = split.patches[: max(int(VALID_SHARE * len(split.labels)), 1)]
    resume = ResumeState(folder / "resume.pt", "a bench", print)
    works = {
        "validation": lambda: predict(learner.average, valid, learner.preprocessing, learner.device),
        "saving": lambda: resume.save(records=records.bring_home().clone(), **learner.state()),
    }
    told: dict[str, object] = {"valid_patches": len(valid), "train_patches": len(split.labels)}
    for name, work in works.items():
        taken = []
        for _ in range(6):
            began = clock(learner.device)
            work()
            taken.append(clock(learner.device) - began)
        told[f"{name}_s"] = statistics.median(taken[1:])
        told[f"{name}_share_of_epoch"] = statistics.median(taken[1:]) / epoch_s
    return told


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def loops(split: LabelledPatches, pairs: int, folder: Path) -> dict[str, object]:
    """On each device, the loop of the default recipe, which is judged, of the mlp, whose steps are short, and of the
    default with threads that gather ahead if it has none, or without them."""
    config = read_config(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    baseline, other = config.variant("baseline"), 0 if config.variant("baseline").workers else 1
    recipes = {"baseline": baseline, "mlp": config.variant("mlp")}
    recipes[f"baseline, workers {other}"] = replace(baseline, workers=other)
    best = fix_device(1)
    devices = {"cpu": torch.device("cpu")} | ({"gpu": best} if best.type == "cuda" else {})
    told: dict[str, object] = {"target": LOOP_TARGET, "judged_on": "baseline"}
    for kind, device in devices.items():
        measured = {}
        for name, settings in recipes.items():
            print(f"  {name} on {kind}", flush=True)
            measured[name] = loop(replace(settings, threads=1), split, device, pairs, folder)
        told[kind] = {"reached": measured["baseline"]["median_ratio"] >= LOOP_TARGET, **measured}
    return told if "gpu" in told else {**told, "gpu": "not run: no GPU"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--folder", help="where the files are written; 1.5 GB for the default sizes")
    parser.add_argument("--patches", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=7, help="of loading")
    parser.add_argument("--at-least-s", type=float, default=0.5, help="seconds of one measurement of loading")
    parser.add_argument("--pairs", type=int, default=24, help="of blocks of the loop")
    parser.add_argument("--epoch", type=int, default=2048, help="patches of a block of the loop")
    chosen = parser.parse_args()
    fix_device(1)
    keep_freed_memory()  # as every training does, and here for h5py as well
    document: dict[str, object] = {
        "provenance": {
            **provenance.describe("bench_training", provenance.code_digest("train_seed")),
            "torch": torch.__version__,
            "h5py": h5py.__version__,
        },
        "threads": torch.get_num_threads(),
        "load_average": {"before": os.getloadavg()[0]},
    }
    scratch = Path(tempfile.mkdtemp(prefix="bench-training-", dir=chosen.folder))
    try:
        make_files(scratch, chosen.patches)
        store, labels = open_store(scratch / "store.npy"), (np.arange(chosen.patches) % 2).astype(np.uint8)
        split = LabelledPatches(store, labels, np.arange(chosen.patches))
        print(f"loading {chosen.patches:,} patches, images/s", flush=True)
        document["loading"] = loading(scratch, split, chosen.rounds, chosen.at_least_s)
        print(f"the loop, {chosen.pairs} pairs of blocks", flush=True)
        first = LabelledPatches(store[: chosen.epoch], labels[: chosen.epoch], split.rows[: chosen.epoch])
        document["loop"] = loops(first, chosen.pairs, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document["load_average"]["after"] = os.getloadavg()[0]
    write_json(chosen.out, document)
    told = document["loading"]
    print(f"loading: at least {told['least_ratio']:.1f} x {COURSE} (target {LOADING_TARGET:.0f})")
    for name, told in document["loop"]["cpu"].items():
        if name == "reached":
            continue
        low, high = told["interval_95"]
        print(f"loop, {name}: {told['median_ratio']:.3f} ({low:.3f} to {high:.3f}; target {LOOP_TARGET} on baseline)")


if __name__ == "__main__":
    main()
