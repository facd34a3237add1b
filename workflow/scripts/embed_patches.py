"""Describe every patch of one split by the activations that the champion's last layer decides on.

Reads: the champion's weights.pt with its sidecar, the split's store.
Writes: activations as .npy, float32 (N,D), rows in the order of the store; where the champion averages over the
        symmetries of the square, their mean.
"""

import numpy as np
import torch
from numpy.lib.format import open_memmap

from pcam.checkpoint import load_checkpoint
from pcam.determinism import fix_device
from pcam.files import atomic_path
from pcam.memory import PREDICT_BATCH
from pcam.model import Embedder
from pcam.preprocess import normalise
from pcam.shards import shard_rows
from pcam.stage import run_stage
from pcam.store import open_store


def embed_patches(weights_path: str, store_path: str, out_path: str, *, threads: int, shard: str | None = None) -> None:
    """Of all patches, or those of a shard, which has the same batches; in bounded memory.

    Raises: InputError when checkpoint or store is missing or damaged.
    """
    device = fix_device(threads)
    model, preprocessing, _ = load_checkpoint(weights_path)
    store, embedder = open_store(store_path), Embedder(model.to(device))
    rows = shard_rows(shard, len(store), PREDICT_BATCH)
    store = store[rows.start : rows.stop]
    with atomic_path(out_path) as temporary, torch.inference_mode():
        out = open_memmap(temporary, mode="w+", dtype=np.float32, shape=(len(store), embedder.size))
        for start in range(0, len(store), PREDICT_BATCH):
            batch = torch.from_numpy(np.array(store[start : start + PREDICT_BATCH])).to(device)
            out[start : start + PREDICT_BATCH] = embedder(normalise(batch, preprocessing)).cpu().numpy()
        out.flush()
        del out
    print(f"{len(store)} patches, {embedder.size} activations each")


if __name__ == "__main__":
    with run_stage(snakemake):
        embed_patches(
            snakemake.input.weights,
            snakemake.input.store,
            snakemake.output[0],
            threads=snakemake.params.threads,
            shard=snakemake.wildcards.get("scatteritem"),
        )
