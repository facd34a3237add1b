"""Describe what the run ran on: packages, device, repository, environment variables.

Reads: requirements.txt, the repository's history.
Writes: results/environment.json.
"""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcam.files import InputError, write_json
from pcam.provenance import git_history, git_state, package_versions
from pcam.stage import run_stage

# These change numerical results or speed, or let in what the configuration does not show.
VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "PYTHONHASHSEED",
    "PYTHONPATH",
    "MLFLOW_TRACKING_URI",
    "SLURM_JOB_ID",
)


def read_requirements(path: str) -> dict[str, str | None]:
    """Package to its exact pin, None where it is not pinned exactly. Raises: InputError when the file is missing."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it is the one list of package versions") from None
    wanted = {}
    for line in lines:
        text = line.partition("#")[0].partition(";")[0].strip()
        if text and not text.startswith("-"):
            name = re.split(r"[=<>!~\[ @]", text)[0]
            pin = re.search(r"==\s*([^\s,*]+)$", text)
            wanted[name] = pin[1] if pin else None
    return wanted


def accelerator() -> str | None:
    """Name of the first GPU torch sees; None when it sees none."""
    import torch  # slow to import, and only this needs it

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def describe_environment(
    requirements_path: str,
    environment_path: str,
    *,
    repository_files: Sequence[str],
    root: str,
    data_label: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write the description; `repository_files` are the files of the repository whose presence is noted."""
    wanted = read_requirements(requirements_path)
    installed = package_versions(list(wanted))
    packages = {
        name: {"installed": installed[name], "pinned": pin, "agrees": None if pin is None else installed[name] in (pin, f"{pin}+cpu")}
        for name, pin in wanted.items()
    }
    document = {
        "data_label": data_label,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": provenance["device"],
        "accelerator": accelerator(),
        "cpus": os.cpu_count(),
        "packages": packages,
        "unpinned": [name for name, pin in wanted.items() if pin is None],
        "differing": [name for name, package in packages.items() if package["agrees"] is False],
        "git": git_state(),
        "history": git_history(),
        "files": {name: (Path(root) / name).is_file() for name in repository_files},
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "provenance": provenance,
    }
    write_json(environment_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        describe_environment(
            snakemake.params.requirements,
            snakemake.output[0],
            repository_files=snakemake.params.repository_files,
            root=snakemake.params.root,
            data_label=snakemake.params.label,
            provenance=provenance,
        )
