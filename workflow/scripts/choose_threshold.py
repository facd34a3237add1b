"""Choose the champion's decision threshold on validation and store it in the sidecar of its weights.

Reads: selection.json, the chosen weights, the store and table of valid.
Writes: the champion's weights.pt and weights.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.checkpoint import load_checkpoint, save_checkpoint
from pcam.determinism import fix_device
from pcam.files import read_csv, read_json
from pcam.metrics import best_threshold, f_beta
from pcam.stage import run_stage
from pcam.store import open_store
from pcam.training import predict, probabilities_of


def choose_threshold(
    selection_path: str,
    store_path: str,
    rows_path: str,
    weights_path: str,
    sidecar_path: str,
    *,
    beta: float,
    threads: int,
    provenance: Mapping[str, Any],
) -> None:
    """The threshold maximises F-beta on valid. Raises: InputError when the chosen checkpoint is damaged."""
    device = fix_device(threads)
    chosen = read_json(selection_path)["chosen"]
    model, preprocessing, sidecar = load_checkpoint(chosen["weights"])
    labels = np.array([int(line["label"]) for line in read_csv(rows_path, ("label",))])
    probabilities = probabilities_of(predict(model.to(device), open_store(store_path), preprocessing, device))
    threshold = best_threshold(labels, probabilities, beta)
    value = f_beta(labels, (probabilities >= threshold).astype(int), beta)
    print(f"{chosen['name']}: threshold {threshold:.4f}, F{beta:g} {value:.4f} on {len(labels)} validation patches")
    rule = {"metric": "f_beta", "beta": beta, "split": "valid", "value_on_valid": value, "n": len(labels)}
    document = {
        **sidecar,
        "name": chosen["name"],
        "threshold": threshold,
        "threshold_rule": rule,
        "trained_by": sidecar["provenance"],
        "provenance": provenance,
    }
    save_checkpoint(weights_path, sidecar_path, model, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        choose_threshold(
            snakemake.input.selection,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output.weights,
            snakemake.output.sidecar,
            beta=snakemake.params.beta,
            threads=snakemake.params.threads,
            provenance=provenance,
        )
