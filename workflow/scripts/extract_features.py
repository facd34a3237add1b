"""Describe every patch of one x file by the features of the cheap model, in the order of its rows.

Reads:  x of one split.
Writes: features as .npy, float32 (N,F). A value that uint8 cannot hold is clipped, NaN becomes 0: patches that hold
        such values are excluded by the audits that read this.
"""

import numpy as np
from numpy.lib.format import open_memmap

from pcam.blocks import map_blocks
from pcam.features import FEATURES, cheap_features
from pcam.files import atomic_path
from pcam.hdf5 import PatchReader
from pcam.shards import shard_rows
from pcam.stage import run_stage


def forced_uint8(patches: np.ndarray) -> np.ndarray:
    """Patches as uint8 whatever they hold; those of a float file that are proper come out unchanged."""
    if patches.dtype == np.uint8:
        return patches
    return np.clip(np.nan_to_num(patches, nan=0.0, posinf=255.0, neginf=0.0), 0, 255).astype(np.uint8)


def features_of_rows(x_path: str, start: int, stop: int) -> np.ndarray:
    with PatchReader(x_path) as reader:
        return cheap_features(forced_uint8(reader.read(start, stop)))


def extract_features(x_path: str, out_path: str, *, processes: int, shard: str | None = None) -> None:
    """Of all rows, or those of a shard. Raises: InputError when the x file is missing or damaged."""
    with PatchReader(x_path) as reader:
        rows = shard_rows(shard, len(reader))
    with atomic_path(out_path) as temporary:
        out = open_memmap(temporary, mode="w+", dtype=np.float32, shape=(len(rows), FEATURES))
        for _, start, features in map_blocks(features_of_rows, {"x": x_path}, processes=processes, rows=rows):
            out[start - rows.start : start - rows.start + len(features)] = features
        out.flush()
        del out
    print(f"{len(rows)} patches, {FEATURES} features each")


if __name__ == "__main__":
    with run_stage(snakemake):
        extract_features(
            snakemake.input[0],
            snakemake.output[0],
            processes=snakemake.threads,
            shard=snakemake.wildcards.get("scatteritem"),
        )
