"""A checkpoint as an MLflow model with a signature, and the champion in MLflow's registry."""

import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import mlflow.pyfunc
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

from pcam.provenance import SCRIPTS, import_closure
from pcam.sidecar import sidecar_path

SERVED = Path(__file__).with_name("served_model.py")
SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 96, 96, 3))]),
    outputs=Schema([TensorSpec(np.dtype(np.float64), (-1,))]),
)
ALIAS = "champion"


def log_model(run_id: str, weights: str) -> str:
    """Log the checkpoint as model of the run, with the modules it needs; its URI, models:/…"""
    pins = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in ("mlflow", "numpy", "torch")]
    with tempfile.TemporaryDirectory() as folder:
        for source in (*import_closure(SERVED), SERVED.with_name("__init__.py")):
            copy = Path(folder) / source.relative_to(SCRIPTS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(SERVED),
                code_paths=[f"{folder}/pcam"],
                artifacts={"weights": weights, "sidecar": str(sidecar_path(weights))},
                signature=SIGNATURE,
                pip_requirements=pins,
            )
    return str(logged.model_uri)


def register(client: MlflowClient, experiment: str, run_id: str, model: str) -> dict[str, str | None]:
    """The model of the run as champion: a version of its own unless it has one, and the alias on it."""
    name = "".join("-" if letter in "/:" else letter for letter in experiment)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = [
        version.version for version in client.search_model_versions(f"name = '{name}'") if version.run_id == run_id
    ]
    version = str(known[0] if known else client.create_model_version(name, model, run_id).version)
    if str(client.get_registered_model(name).aliases.get(ALIAS)) != version:
        client.set_registered_model_alias(name, ALIAS, version)
    return {"name": name, "version": version, "alias": ALIAS}
