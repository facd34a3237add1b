"""Predict the patches of one split with one checkpoint.

Reads: weights.pt with its sidecar, the split's store and table.
Writes: row, label, logit, probability (tempered where the sidecar has a temperature); the label is empty where it is
not known.
"""

import numpy as np

from pcam.checkpoint import load_checkpoint
from pcam.determinism import fix_device
from pcam.files import InputError, write_csv
from pcam.memory import PREDICT_BATCH
from pcam.shards import read_rows, shard_rows
from pcam.sidecar import probabilities
from pcam.stage import run_stage
from pcam.store import open_store
from pcam.training import predict

COLUMNS = ("row", "label", "logit", "probability")


def predict_seed(
    weights_path: str, store_path: str, rows_path: str, out_path: str, *, threads: int, shard: str | None = None
) -> None:
    """Of all patches, or those of a shard, which has the same batches and so the same bits.

    Raises: InputError when the checkpoint is damaged or foreign, or store and table do not match.
    """
    device = fix_device(threads)
    model, preprocessing, sidecar = load_checkpoint(weights_path)
    patches = open_store(store_path)
    rows = shard_rows(shard, len(patches), PREDICT_BATCH)
    table, n = read_rows(rows_path, ("row", "label"), rows)
    if n != len(patches):
        raise InputError(f"{store_path}: {len(patches)} patches for the {n} rows of {rows_path}; rebuild the store")
    logits = predict(model.to(device), patches[rows.start : rows.stop], preprocessing, device)
    if not np.all(np.isfinite(logits)):
        row = table[int(np.argmin(np.isfinite(logits)))]["row"]
        raise InputError(f"{weights_path}: predicts a value that is not finite for row {row}; train it again")
    write_csv(
        out_path,
        COLUMNS,
        (
            (line["row"], line["label"], float(logit), float(probability))
            for line, logit, probability in zip(table, logits, probabilities(logits, sidecar), strict=True)
        ),
    )


if __name__ == "__main__":
    with run_stage(snakemake):
        predict_seed(
            snakemake.input.weights,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output[0],
            threads=snakemake.params.threads,
            shard=snakemake.wildcards.get("scatteritem"),
        )
