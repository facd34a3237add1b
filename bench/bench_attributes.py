"""Time the attributes of a store of patches against sha256 of the same bytes, both on one core, and their memory.

The rule measure_attributes, file to file, on patches cut from drawn slides. Runs of attributes and sha256 alternate;
medians and the ratio within one round count. Use: python bench/bench_attributes.py OUT.json [--folder SCRATCH]
"""

import argparse
import hashlib
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

# bench_audit puts workflow/scripts on the path, so it comes before what lies there.
from bench_audit import GRID_PX, PATCH_SHAPE, PER_SLIDE, SIDE, AnonymousMemory, quietly, slides
from measure_attributes import measure_attributes
from numpy.lib.format import open_memmap

from pcam import provenance
from pcam.files import write_json

LIMIT = 40  # times sha256: what the attributes may cost


def make_store(path: Path, n: int) -> None:
    """A store of n patches, written slide by slide."""
    rng, canvases = np.random.default_rng(n), slides(np.random.default_rng(0))
    store = open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, *PATCH_SHAPE))
    cells = (SIDE - PATCH_SHAPE[0]) // GRID_PX + 1
    for start in range(0, n, PER_SLIDE):
        canvas = next(canvases)
        at = rng.choice(cells * cells, min(PER_SLIDE, n - start), replace=False)
        for row, cell in enumerate(at.tolist(), start):
            y, x = GRID_PX * (cell // cells), GRID_PX * (cell % cells)
            store[row] = canvas[y : y + PATCH_SHAPE[0], x : x + PATCH_SHAPE[1]]
    store.flush()


def sha256_seconds(path: Path) -> float:
    """hashlib.sha256 over the bytes of the store."""
    began = time.perf_counter()
    with path.open("rb") as handle:
        hashlib.file_digest(handle, "sha256")
    return time.perf_counter() - began


def attribute_seconds(path: Path) -> float:
    began = time.perf_counter()
    measure_attributes(str(path), str(path.with_name("attributes.npy")))
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out")
    parser.add_argument("--folder", help="where the store is written; 1 GB for the default size")
    parser.add_argument("--patches", type=int, default=32768)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="bench-attributes-", dir=chosen.folder))
    hashes, attributes = [], []
    try:
        store = scratch / "store.npy"
        make_store(store, chosen.patches)
        watch = AnonymousMemory()
        watch.start()
        for number in range(chosen.rounds):
            hashes.append(sha256_seconds(store))
            attributes.append(quietly(attribute_seconds, store))
            print(f"  round {number + 1}: attributes {attributes[-1]:.2f} s, sha256 {hashes[-1]:.2f} s", flush=True)
        watch.done.set()
        watch.join()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    ratio = statistics.median(a / h for a, h in zip(attributes, hashes, strict=True))
    write_json(
        chosen.out,
        {
            "provenance": provenance.describe("bench_attributes", ""),
            "patches": chosen.patches,
            "rounds": chosen.rounds,
            "attributes_s": attributes,
            "sha256_s": hashes,
            "median_attributes_s": statistics.median(attributes),
            "median_sha256_s": statistics.median(hashes),
            "median_ratio": ratio,
            "limit": LIMIT,
            "peak_anonymous_bytes": watch.own,
        },
    )
    told = f"{watch.own / 2**20:,.0f} MiB of anonymous memory at most"
    print(f"{chosen.patches:,} patches: {ratio:.1f} x sha256 (limit {LIMIT}), {told}")


if __name__ == "__main__":
    main()
