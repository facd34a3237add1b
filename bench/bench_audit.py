"""Time the full audit against sha256 of the same bytes, its growth with the number of patches, and its memory.

The full audit is what the rules audit_checksums, audit_storage, survey_patches, audit_leakage and audit_poison do, with
two processes, on uint8 patches cut from drawn slides, many of which share tissue. Runs of audit and sha256 alternate;
medians and the ratio within one round count. Use: python bench/bench_audit.py OUT.json [--folder SCRATCH] [--memory N]
"""

import argparse
import hashlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import h5py  # noqa: E402
import numpy as np  # noqa: E402
from audit_checksums import audit_checksums  # noqa: E402
from audit_leakage import audit_leakage  # noqa: E402
from audit_poison import audit_poison  # noqa: E402
from audit_storage import audit_storage  # noqa: E402
from survey_patches import survey_patches  # noqa: E402

from pcam import provenance  # noqa: E402
from pcam.facts import FILE_SPLITS, GRID_PX, PATCH_SHAPE, pcam_filename  # noqa: E402
from pcam.files import read_json, write_csv, write_json  # noqa: E402
from pcam.hdf5 import write_labels  # noqa: E402
from pcam.synthetic import draw_slide  # noqa: E402

SIDE = 4096  # pixels of a slide's side
PER_SLIDE = 2048  # patches of a slide: 3 % of its places; overlap_pairs in the result tells what they share
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
STAGES = ("checksums", "storage", "survey", "leakage", "poison")


def slides(rng: np.random.Generator):
    """Slides (SIDE,SIDE,3) uint8, 512 of them and then the same again: four drawn ones in all their turned and mirrored
    forms, moved against the grid that patches are cut on, with grain of their own, so that no tissue repeats."""
    drawn = [draw_slide(rng, hospital, "tumor", SIDE)[0] for hospital in ("RUMC", "UMCU", "RUMC", "UMCU")]
    while True:
        for down, aside in product(range(0, GRID_PX, 4), repeat=2):
            for turns, mirrored, image in product(range(4), (1, -1), drawn):
                moved = np.roll(np.rot90(image, turns)[:, ::mirrored], (down, aside), (0, 1))
                yield np.minimum(moved, 252) + rng.integers(0, 4, image.shape, dtype=np.uint8)


def make_set(folder: Path, n: int, dtype: str, canvases) -> None:
    """Six PCam files of n patches in all, written slide by slide."""
    rng = np.random.default_rng(n)
    folder.mkdir(parents=True)
    for split, share in SHARES.items():
        size = round(n * share)
        with h5py.File(folder / pcam_filename(split, "x.h5"), "w") as handle:
            x = handle.create_dataset("x", (size, *PATCH_SHAPE), dtype)
            for start in range(0, size, PER_SLIDE):
                canvas, cells = next(canvases), (SIDE - PATCH_SHAPE[0]) // GRID_PX + 1
                count = min(PER_SLIDE, size - start)
                at = rng.choice(cells * cells, count, replace=False)
                places = [(GRID_PX * (i // cells), GRID_PX * (i % cells)) for i in at.tolist()]
                cut = [canvas[y : y + PATCH_SHAPE[0], c : c + PATCH_SHAPE[1]] for y, c in places]
                x[start : start + count] = np.stack(cut)
        write_labels(folder / pcam_filename(split, "y.h5"), np.arange(size) % 2, size)
        write_csv(folder / pcam_filename(split, "meta.csv"), ("wsi",), [])


def audit(folder: Path, results: Path) -> dict[str, float]:
    """Seconds of each stage of the full audit."""
    parts = ("x.h5", "y.h5", "meta.csv")
    x, y, meta = ({split: str(folder / pcam_filename(split, part)) for split in FILE_SPLITS} for part in parts)
    alone = {"processes": 2, "provenance": {}}
    listed = {"rows_listed": 20, **alone}

    def result(name: str) -> str:
        return str(results / name)

    rows = result("leakage_rows.csv")
    stages = {
        "checksums": lambda: audit_checksums(x, y, meta, None, result("checksums.json"), **alone),
        "storage": lambda: audit_storage(x, y, result("storage.json"), result("storage_rows.csv"), **listed),
        "survey": lambda: survey_patches(x, result("survey"), processes=2),
        "leakage": lambda: audit_leakage(x, y, meta, result("survey"), result("leakage.json"), rows, **listed),
        "poison": lambda: audit_poison(x, y, result("survey"), rows, result("poison.json"), result("p.csv"), **listed),
    }
    seconds = {}
    for name, stage in stages.items():
        began = time.perf_counter()
        stage()
        seconds[name] = time.perf_counter() - began
    return seconds


def sha256_seconds(folder: Path) -> float:
    """hashlib.sha256 over the bytes of the x files, on one core."""
    began = time.perf_counter()
    for split in FILE_SPLITS:
        with (folder / pcam_filename(split, "x.h5")).open("rb") as handle:
            hashlib.file_digest(handle, "sha256")
    return time.perf_counter() - began


class AnonymousMemory(threading.Thread):
    """Peak of anonymous memory, in bytes, looked at ten times a second.

    own: RssAnon of the one process that had most.  together: of this process and its children, pages that they share
    counted once (Pss_Anon).
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own, self.together, self.done = 0, 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            mine = [told for pid in ("self", *children) if (told := anonymous_bytes(pid))]
            self.own = max(self.own, *(rss for rss, _ in mine))
            self.together = max(self.together, sum(pss for _, pss in mine))


def anonymous_bytes(pid: str) -> tuple[int, int] | None:
    """RssAnon and Pss_Anon of a process, in bytes; None when it has ended."""
    try:
        texts = [Path(f"/proc/{pid}/{name}").read_text() for name in ("status", "smaps_rollup")]
    except OSError:
        return None
    found = [
        re.search(rf"^{key}:\s+(\d+) kB", text, re.M) for key, text in zip(("RssAnon", "Pss_Anon"), texts, strict=True)
    ]
    return (int(found[0][1]) * 1024, int(found[1][1]) * 1024) if all(found) else None


def quietly(work, *arguments):
    """What the stages print goes to /dev/null; a progress line of ours stays readable."""
    kept = os.dup(1)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        return work(*arguments)
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def timed(folder: Path, results: Path, rounds: int) -> dict[str, object]:
    """Alternating rounds of audit and sha256."""
    audits, hashes = [], []
    for number in range(rounds):
        hashes.append(sha256_seconds(folder))
        audits.append(quietly(audit, folder, results))
        print(f"  round {number + 1}: audit {sum(audits[-1].values()):.2f} s, sha256 {hashes[-1]:.2f} s", flush=True)
    totals = [sum(each.values()) for each in audits]
    return {
        "audit_s": totals,
        "sha256_s": hashes,
        "median_audit_s": statistics.median(totals),
        "median_sha256_s": statistics.median(hashes),
        "median_ratio": statistics.median(a / h for a, h in zip(totals, hashes, strict=True)),
        "median_stage_s": {stage: statistics.median(each[stage] for each in audits) for stage in STAGES},
        "overlap_pairs": sum(read_json(results / "leakage.json")["pairs"]["overlap"].values()),
        "rounds": rounds,
    }


def measured(folder: Path, results: Path) -> dict[str, object]:
    """One audit: seconds of each stage, peak of anonymous memory."""
    watch = AnonymousMemory()
    watch.start()
    seconds = quietly(audit, folder, results)
    watch.done.set()
    watch.join()
    told = f"{watch.own / 2**20:,.0f} MiB in one process, {watch.together / 2**20:,.0f} MiB together"
    print(f"  {sum(seconds.values()):.0f} s; peak of anonymous memory: {told}", flush=True)
    return {
        "stage_s": seconds,
        "peak_anonymous_bytes_of_one_process": watch.own,
        "peak_anonymous_bytes_together": watch.together,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--folder", help="where the sets are written; 10 GB for the default sizes")
    parser.add_argument("--sizes", type=int, nargs="*", default=[16384, 32768, 65536, 131072])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, help="also audit this many patches once, and tell the peak of memory")
    parser.add_argument("--memory-dtype", default="uint8", choices=["uint8", "float32"])
    parser.add_argument("--measure", type=Path, help="audit this folder once and write time and memory; nothing else")
    chosen = parser.parse_args()
    if chosen.measure:
        write_json(chosen.out, measured(chosen.measure, Path(chosen.out).parent / "results"))
        return
    scratch = Path(tempfile.mkdtemp(prefix="bench-audit-", dir=chosen.folder))
    canvases = slides(np.random.default_rng(0))
    document: dict[str, object] = {"provenance": provenance.describe("bench_audit", ""), "sizes": {}}
    try:
        for n in chosen.sizes:
            print(f"{n:,} patches", flush=True)
            make_set(scratch / str(n), n, "uint8", canvases)
            document["sizes"][str(n)] = timed(scratch / str(n), scratch / "results", chosen.rounds)
            shutil.rmtree(scratch / str(n))
        medians = [document["sizes"][str(n)]["median_audit_s"] for n in chosen.sizes]
        document["growth"] = {
            f"{b}/{a}": later / sooner
            for a, b, sooner, later in zip(chosen.sizes, chosen.sizes[1:], medians, medians[1:], strict=False)
        }
        if chosen.memory:
            print(f"{chosen.memory:,} patches of {chosen.memory_dtype}, memory", flush=True)
            make_set(scratch / "memory", chosen.memory, chosen.memory_dtype, canvases)
            # In a process of its own, which holds no slides.
            command = [sys.executable, __file__, scratch / "memory.json", "--measure", scratch / "memory"]
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            told = read_json(scratch / "memory.json")
            document["memory"] = {"patches": chosen.memory, "dtype": chosen.memory_dtype, **told}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    write_json(chosen.out, document)
    for n, told in document["sizes"].items():
        print(f"{int(n):>8,} patches: {told['median_audit_s']:.2f} s, {told['median_ratio']:.1f} x sha256")
    print("growth:", {name: round(value, 2) for name, value in document["growth"].items()})


if __name__ == "__main__":
    main()
