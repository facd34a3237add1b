"""Weights and their JSON sidecar. No pickles: tensors load with `weights_only=True`, strictly."""

import hashlib
import io
import pickle
import warnings
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


def load_tensors(path: str | Path, content: bytes | None = None) -> dict[str, Any]:
    """Tensors by name, of a file or of `content` that was read from it.

    Raises: InputError when the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what an error then says
            state = torch.load(path if content is None else io.BytesIO(content), map_location="cpu", weights_only=True)
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


def load_checkpoint(weights: str | Path) -> tuple[Classifier, Preprocessing, dict[str, Any]]:
    """The model in evaluation mode, its preprocessing, and the sidecar.

    Raises: InputError when weights or sidecar are missing, damaged, foreign, or do not belong together.
    """
    state = load_tensors(weights)
    document = read_sidecar(weights)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{weights}: holds more than tensors; it is no checkpoint of this pipeline")
    if tensors_digest(state) != document["digests"].get("weights"):
        raise InputError(
            f"{weights}: digest differs from the one in {sidecar_path(weights)}; the pair does not belong together"
        )
    try:
        model = build_model(document["architecture"])
        model.load_state_dict(state, strict=True)
        preprocessing = Preprocessing(tuple(document["preprocessing"]["mean"]), tuple(document["preprocessing"]["std"]))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{weights}: does not fit its sidecar ({' '.join(str(error).split())[:160]})") from None
    return model.eval(), preprocessing, document


def predict_logits(model: nn.Module, patches: torch.Tensor) -> torch.Tensor:
    """Logits (N,) of normalised patches (N,3,96,96)."""
    with torch.inference_mode():
        return model(patches)
