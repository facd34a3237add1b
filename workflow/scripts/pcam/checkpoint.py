"""Weights and their JSON sidecar. No pickles: tensors load with `weights_only=True`, strictly."""

import hashlib
import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pcam.files import InputError, write_bytes, write_json
from pcam.model import Classifier, build_model
from pcam.preprocess import Preprocessing
from pcam.sidecar import SIDECAR_KEYS, read_sidecar, sidecar_path


def tensors_digest(state: dict[str, torch.Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes: equal exactly when the weights are equal bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_tensors(path: str | Path, state: dict[str, Any]) -> None:
    """torch.save, atomically; the same tensors give the same bytes whatever the file is called."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(path, buffer.getvalue())


def _check_packing(path: str | Path, source: str | Path | io.BytesIO, size: int) -> None:
    """torch.save packs nothing, so whatever unpacks to more than the file's `size` is no work of its.

    Raises: InputError. What is no archive at all is left to torch.load.
    """
    try:
        with zipfile.ZipFile(source) as records:
            unpacked = sum(record.file_size for record in records.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return
    if unpacked > size:
        raise InputError(
            f"{path}: says it unpacks to {unpacked:,} bytes from {size:,}; refused, no checkpoint is packed"
        )


def load_tensors(path: str | Path, content: bytes | None = None) -> dict[str, Any]:
    """Tensors by name, of a file or of `content` that was read from it.

    Raises: InputError when the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        size = os.path.getsize(path) if content is None else len(content)
        _check_packing(path, path if content is None else io.BytesIO(content), size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what an error then says
            state = torch.load(path if content is None else io.BytesIO(content), map_location="cpu", weights_only=True)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        raise InputError(f"{path}: not a checkpoint of plain tensors; refused, because a pickle can run code") from None
    except Exception as error:  # its readers raise whatever damaged bytes lead them into
        told = (str(error) or "it is empty").splitlines()[0]
        raise InputError(f"{path}: not a readable checkpoint ({told}); train it again") from None
    if not isinstance(state, dict):
        raise InputError(
            f"{path}: holds {type(state).__name__}, not named tensors; it is no checkpoint of this pipeline"
        )
    return state


def save_checkpoint(weights: str | Path, sidecar: str | Path, model: nn.Module, document: dict[str, Any]) -> None:
    """Write weights.pt and weights.json; the sidecar gains the digest of the weights.

    Raises: KeyError when `document` lacks a key a reader needs.
    """
    for key in SIDECAR_KEYS:
        document[key]
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    digests = {**document["digests"], "weights": tensors_digest(state)}
    save_tensors(weights, state)
    write_json(sidecar, {**document, "digests": digests})


def _check_architecture(architecture: Any, state: dict[str, torch.Tensor]) -> None:
    """A sidecar could state a model that takes all memory, or time without end, to build: its outline takes neither.

    Raises: ValueError when the model holds more than the weights, and as build_model does.
    """
    if architecture["model"] == "resnet" and architecture["depth"] > len(state):
        raise ValueError(f"depth {architecture['depth']!s:.40} from {len(state)} tensors")
    with torch.device("meta"):
        outline = build_model(architecture).state_dict()
    needed, held = (sum(tensor.nbytes for tensor in tensors.values()) for tensors in (outline, state))
    if needed > held:
        raise ValueError(f"it states a model of {needed:,} bytes, and the weights are {held:,}")


def load_checkpoint(weights: str | Path) -> tuple[Classifier, Preprocessing, dict[str, Any]]:
    """The model in evaluation mode, its preprocessing, and the sidecar.

    Raises: InputError when weights or sidecar are missing, damaged, foreign, or do not belong together.
    """
    state = load_tensors(weights)
    document = read_sidecar(weights)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{weights}: holds more than tensors; it is no checkpoint of this pipeline")
    try:
        if any(tensor.nbytes > tensor.untyped_storage().nbytes() for tensor in state.values()):
            raise ValueError("a tensor claims more values than the file holds")
        digest = tensors_digest(state)
    except (TypeError, ValueError, RuntimeError) as error:  # sparse, quantised, without data, names that are no texts
        told = " ".join(str(error).split())[:160]
        raise InputError(f"{weights}: holds no tensors of this pipeline ({told}); train it again") from None
    if digest != document["digests"].get("weights"):
        raise InputError(
            f"{weights}: digest differs from the one in {sidecar_path(weights)}; the pair does not belong together"
        )
    try:
        _check_architecture(document["architecture"], state)
        model = build_model(document["architecture"])
        model.load_state_dict(state, strict=True)
        preprocessing = Preprocessing(tuple(document["preprocessing"]["mean"]), tuple(document["preprocessing"]["std"]))
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{weights}: does not fit its sidecar ({' '.join(str(error).split())[:160]})") from None
    return model.eval(), preprocessing, document


def predict_logits(model: nn.Module, patches: torch.Tensor) -> torch.Tensor:
    """Logits (N,) of normalised patches (N,3,96,96)."""
    with torch.inference_mode():
        return model(patches)
