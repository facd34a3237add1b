"""A trained model behind one method, whichever of torch and onnxruntime is installed; neither is imported before."""

import hashlib
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pcam.facts import PATCH_SHAPE
from pcam.files import InputError, read_json
from pcam.sidecar import probabilities, read_sidecar, sidecar_path

ONNX_SUFFIX = ".onnx"
ONNX_RECORD = "onnx.json"  # beside weights.onnx: what it was exported from, and its own digest
ONNX_INPUT = "patches"
DEVICES = ("auto", "cpu", "cuda")
BATCH = {"cpu": 64, "cuda": 512}  # on a GPU the more the better: assets/benchmark/h100/throughput.csv


class Network(Protocol):
    """A loaded network. device: "cpu" or "cuda"."""

    device: str

    def logits(self, patches: np.ndarray) -> np.ndarray:
        """float32 (n,) of uint8 patches (n,96,96,3)."""
        ...


class TorchNetwork:
    """Weights of `weights.pt`. Switches TF32 off for the whole process.

    Raises: InputError as load_checkpoint does, and when there is no such device.
    """

    def __init__(self, weights: Path, device: str, tta: bool) -> None:
        import torch

        from pcam.checkpoint import load_checkpoint, predict_logits
        from pcam.preprocess import normalise

        # As in training: on a GPU, TF32 would round the factors of each product to 10 bits.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: torch sees no GPU; use --device cpu or auto")
        self.device = "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"
        model, preprocessing, _ = load_checkpoint(weights)
        model.tta = tta
        model.to(self.device)

        def logits(patches: np.ndarray) -> np.ndarray:
            # torch shares the memory: it knows no negative strides, and warns where it must not write.
            pixels = np.require(patches, requirements=("C", "W"))
            on_device = torch.from_numpy(pixels).to(self.device)
            return predict_logits(model, normalise(on_device, preprocessing)).cpu().numpy()

        self.logits = logits


class OnnxNetwork:
    """The graph that rule export_onnx wrote, from the bytes of its file. It answers for each patch as it lies.

    Raises: InputError, which names `weights`, when onnxruntime cannot load it.
    """

    device = "cpu"

    def __init__(self, weights: Path, content: bytes, tta: bool) -> None:
        import onnxruntime

        self.tta = tta
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors alone: it warns of devices that it does not find
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave others the cores
        if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
            options.intra_op_num_threads = int(threads)  # as torch does
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base
            told = " ".join(str(error).split())[:160]
            raise InputError(f"{weights}: onnxruntime cannot load it ({told}); export it again") from None

    def _as_they_lie(self, patches: np.ndarray) -> np.ndarray:
        return np.asarray(self.session.run(None, {ONNX_INPUT: np.ascontiguousarray(patches)})[0])

    def logits(self, patches: np.ndarray) -> np.ndarray:
        if not self.tta:
            return self._as_they_lie(patches)
        turned = (np.rot90(view, turns, (1, 2)) for view in (patches, patches[:, :, ::-1]) for turns in range(4))
        return np.asarray(np.stack([self._as_they_lie(view) for view in turned]).mean(0))


def read_onnx(weights: Path, sidecar: Mapping[str, Any]) -> bytes:
    """The file's bytes, known to be those that were exported from the weights of the sidecar.

    Raises: InputError when the file or its record is missing or damaged, or they do not belong to the sidecar.
    """
    try:
        content = weights.read_bytes()
    except OSError as error:
        raise InputError(f"{weights}: cannot be read ({error.strerror}); export it again (rule export_onnx)") from None
    path = weights.with_name(ONNX_RECORD)
    record = read_json(path)
    if record.get("sha256") != hashlib.sha256(content).hexdigest():
        raise InputError(f"{weights}: digest differs from the one in {path}; export it again (rule export_onnx)")
    if record.get("weights") != sidecar["digests"].get("weights"):
        raise InputError(
            f"{path}: belongs to other weights than {sidecar_path(weights)}; export them again (rule export_onnx)"
        )
    for key, stated in (
        ("preprocessing", sidecar["preprocessing"]),  # the graph holds it
        ("averaged_over_symmetries", sidecar["architecture"].get("tta")),
    ):
        if record.get(key) != stated:
            raise InputError(
                f"{path}: {key} is {record.get(key)!r:.80}, not {stated!r:.80} as {sidecar_path(weights)} states; "
                "restore the sidecar, or export again (rule export_onnx)"
            )
    return content


def choose_file(weights: Path) -> Path:
    """The weights to load: as named, or the other form beside them where only the other runtime is installed.

    Raises: InputError when neither runtime is installed, or the other form is not there.
    """
    wanted, other = ("onnxruntime", "torch") if weights.suffix == ONNX_SUFFIX else ("torch", "onnxruntime")
    if find_spec(wanted) is not None:
        return weights
    instead = weights.with_suffix(".pt" if other == "torch" else ONNX_SUFFIX)
    if find_spec(other) is None:
        raise InputError(f"{weights}: neither {wanted} nor {other} is installed; install one of them")
    if not instead.exists():
        raise InputError(f"{weights}: {wanted} is not installed, and {instead} for {other} does not exist; have either")
    return instead


class Predictor:
    """A model with all that its sidecar fixes.

    file: the weights that were loaded; sidecar: its document; threshold: the probability from which a patch is called
    tumour, None where none was chosen; tta: whether logits are averaged over the symmetries of the square; batch:
    patches at a time.

    Raises: InputError when weights, sidecar or runtime are missing, damaged, or do not belong together.
    """

    def __init__(
        self, weights: str | Path, *, device: str = "auto", tta: bool | None = None, batch: int | None = None
    ) -> None:
        if not Path(weights).exists():
            raise InputError(f"{weights}: no such file")
        self.file = choose_file(Path(weights))
        self.sidecar = read_sidecar(self.file)
        try:
            tta_stated = self.sidecar["architecture"]["tta"]
        except KeyError:
            raise InputError(f"{sidecar_path(self.file)}: architecture has no key 'tta'; train it again") from None
        if not isinstance(tta_stated, bool):
            raise InputError(f"{sidecar_path(self.file)}: tta is {tta_stated!r:.80}, not true or false; restore it")
        self.trained_tta = tta_stated
        self.tta = self.trained_tta if tta is None else tta
        self.network: Network
        if self.file.suffix == ONNX_SUFFIX:
            if device == "cuda":
                raise InputError(
                    "--device cuda: onnxruntime computes on the CPU here; use weights.pt with torch for a GPU"
                )
            self.network = OnnxNetwork(self.file, read_onnx(self.file, self.sidecar), self.tta)
        else:
            self.network = TorchNetwork(self.file, device, self.tta)
        self.batch = batch or BATCH[self.network.device]
        self.threshold: float | None = self.sidecar["threshold"]

    def probabilities(self, patches: np.ndarray) -> np.ndarray:
        """float64 (N,) of tumour in the centre of uint8 patches (N,96,96,3), computed `batch` at a time.

        Raises: InputError when the array has another shape or dtype, or an answer is not finite.
        """
        if patches.dtype != np.uint8 or patches.ndim != 4 or patches.shape[1:] != PATCH_SHAPE:
            raise InputError(f"patches are {patches.dtype} {patches.shape}, not uint8 (N, 96, 96, 3)")
        logits = np.empty(len(patches), np.float32)
        for start in range(0, len(patches), self.batch):
            stop = start + self.batch
            logits[start:stop] = self.network.logits(patches[start:stop])
        if not np.all(np.isfinite(logits)):
            raise InputError(f"{self.file}: predicts a value that is not finite; train it again")
        return probabilities(logits, self.sidecar)
