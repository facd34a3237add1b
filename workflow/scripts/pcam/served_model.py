"""The MLflow model of a checkpoint: patches in, probabilities out. MLflow runs this file; nothing is pickled."""

from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from pcam.checkpoint import load_checkpoint, predict_logits
from pcam.preprocess import normalise
from pcam.sidecar import probabilities

BATCH = 64  # patches at a time, as in every other prediction


class PatchClassifier(PythonModel):  # type: ignore[misc]
    """uint8 (N,96,96,3) to float64 (N,), the probability of tumour in the centre."""

    def load_context(self, context: Any) -> None:
        self.model, self.preprocessing, self.sidecar = load_checkpoint(context.artifacts["weights"])

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        logits = np.empty(len(model_input), np.float32)
        for start in range(0, len(model_input), BATCH):
            batch = torch.from_numpy(np.array(model_input[start : start + BATCH]))
            logits[start : start + len(batch)] = predict_logits(self.model, normalise(batch, self.preprocessing))
        return probabilities(logits, self.sidecar)


set_model(PatchClassifier())
