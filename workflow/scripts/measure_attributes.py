"""Measure light, stain, focus, compression, tissue, nuclei and folds of every patch of one split.

Reads: the split's store.
Writes: attributes as .npy, float32 (N,A), rows in the order of the store, columns in the order of pcam.attributes.
"""

import numpy as np
from numpy.lib.format import open_memmap

from pcam import attributes
from pcam.files import atomic_path
from pcam.hdf5 import CHUNK
from pcam.shards import shard_rows
from pcam.stage import run_stage
from pcam.store import open_store


def measure_attributes(store_path: str, out_path: str, *, shard: str | None = None) -> None:
    """Of all patches or a shard of them, in bounded memory. Raises: InputError without a sound store."""
    store = open_store(store_path)
    rows = shard_rows(shard, len(store))
    store = store[rows.start : rows.stop]
    with atomic_path(out_path) as temporary:
        out = open_memmap(temporary, mode="w+", dtype=np.float32, shape=(len(store), len(attributes.ATTRIBUTES)))
        for start in range(0, len(store), CHUNK):
            out[start : start + CHUNK] = attributes.measure_attributes(store[start : start + CHUNK])
        out.flush()
        del out
    print(f"{len(store)} patches: {', '.join(attributes.ATTRIBUTES)}")


if __name__ == "__main__":
    with run_stage(snakemake):
        measure_attributes(snakemake.input.store, snakemake.output[0], shard=snakemake.wildcards.get("scatteritem"))
