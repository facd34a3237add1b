"""Export the champion as an ONNX graph and measure how far its answers are from those of torch.

Reads: the champion's weights.pt with its sidecar, the store of test.
Writes: weights.onnx: uint8 patches (n,96,96,3) to logits (n,) of each patch as it lies, normalisation included; and
onnx.json: digests of the graph and of the weights it holds, the difference on test patches, the tolerance.
"""

import hashlib
import io
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pcam.checkpoint import load_checkpoint
from pcam.facts import PATCH_SHAPE
from pcam.files import InputError, write_bytes, write_json
from pcam.model import Classifier
from pcam.predictor import ONNX_INPUT, OnnxNetwork, TorchNetwork
from pcam.preprocess import Preprocessing
from pcam.sidecar import probabilities
from pcam.stage import run_stage
from pcam.store import open_store

OPSET = 20
PATCHES = 512  # of test, that both runtimes answer
TOLERANCE = 1e-3  # of a logit: the two runtimes sum float32 in another order


class Graph(nn.Module):
    """What is exported: normalisation and one forward pass. Eight views would be eight copies of the network."""

    def __init__(self, model: Classifier, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        for name, values in vars(preprocessing).items():
            self.register_buffer(name, torch.tensor(values).mul(255).view(3, 1, 1))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        normalised = (patches.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std
        logits: torch.Tensor = self.model.logits(normalised)
        return logits


def onnx_bytes(model: Classifier, preprocessing: Preprocessing) -> bytes:
    """The graph's file; the same model gives the same bytes."""
    buffer = io.BytesIO()
    example = torch.zeros((2, *PATCH_SHAPE), dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # The exporter that replaces this one needs a package more, and gives the same network.
        torch.onnx.export(
            Graph(model, preprocessing).eval(), (example,), buffer, dynamo=False, opset_version=OPSET,
            input_names=[ONNX_INPUT], output_names=["logits"], dynamic_axes={ONNX_INPUT: {0: "n"}, "logits": {0: "n"}},
        )  # fmt: skip
    return buffer.getvalue()


def export_onnx(
    weights_path: str,
    store_path: str,
    onnx_path: str,
    record_path: str,
    *,
    threads: int,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when the checkpoint is damaged, foreign or has no threshold, or answers differ by more."""
    torch.set_num_threads(threads)  # fix_device would name the GPU as what computed
    model, preprocessing, sidecar = load_checkpoint(weights_path)
    if (threshold := sidecar["threshold"]) is None:
        raise InputError(f"{weights_path}: no threshold was chosen for it; export results/champion/weights.pt")
    tta = model.tta
    content = onnx_bytes(model, preprocessing)
    patches = np.array(open_store(store_path)[:PATCHES])
    told = [
        network.logits(patches)
        for network in (TorchNetwork(Path(weights_path), "cpu", tta), OnnxNetwork(Path(onnx_path), content, tta))
    ]
    logit_off = float(np.abs(told[0] - told[1]).max())
    answers = [probabilities(logits, sidecar) for logits in told]
    print(f"{len(patches)} test patches: logits differ by {logit_off:.2g} at most")
    if not logit_off <= TOLERANCE:
        raise InputError(
            f"{onnx_path}: its logits differ by {logit_off:.2g} from those of {weights_path}, more than {TOLERANCE}; "
            "use weights.pt, and report the versions of torch and onnxruntime"
        )
    record = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "weights": sidecar["digests"]["weights"],
        "opset": OPSET,
        "input": "uint8 (n,96,96,3), not normalised",
        "output": "logits float32 (n,) of each patch as it lies",
        "averaged_over_symmetries": tta,
        "preprocessing": sidecar["preprocessing"],
        "patches": len(patches),
        "largest_logit_difference": logit_off,
        "largest_probability_difference": float(np.abs(answers[0] - answers[1]).max()),
        "decisions_that_differ": int(((answers[0] >= threshold) != (answers[1] >= threshold)).sum()),
        "tolerance": TOLERANCE,
        "versions": {name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime")},
        "provenance": provenance,
    }
    write_bytes(onnx_path, content)
    write_json(record_path, record)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        export_onnx(
            snakemake.input.weights,
            snakemake.input.store,
            snakemake.output.graph,
            snakemake.output.record,
            threads=snakemake.params.threads,
            provenance=provenance,
        )
