"""Describe what the run ran on: packages, device, repository, environment variables.

Reads: requirements.in (direct packages), requirements.txt (pins), the state of the repository.
Writes: results/environment.json.
"""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcam.files import InputError, write_json
from pcam.provenance import git_state, import_closure, package_versions
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
SECTIONS = ("Installation", "Data setup", "Training", "Inference")


def read_lines(path: str) -> list[str]:
    """Requirements of a file, without comments, options and markers. Raises: InputError when it is missing."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it lists the packages of the pipeline") from None
    texts = (line.partition("#")[0].partition(";")[0].strip() for line in lines)
    return [text for text in texts if text and not text.startswith("-")]


def package_name(requirement: str) -> str:
    """Name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[=<>!~\[ @]", requirement)[0]).lower()


def read_requirements(direct_path: str, pins_path: str) -> dict[str, str | None]:
    """Each direct package to its exact pin, None where it is not pinned exactly."""
    pins = {
        package_name(line): pin[1] for line in read_lines(pins_path) if (pin := re.search(r"==\s*([^\s,*]+)$", line))
    }
    return {name: pins.get(name) for name in map(package_name, read_lines(direct_path))}


def readme_sections(root: Path) -> dict[str, bool]:
    """Whether README.md has a heading with each word the journal asks for."""
    readme = root / "README.md"
    lines = readme.read_text().splitlines() if readme.is_file() else []
    headings = " ".join(line for line in lines if line.startswith("#")).lower()
    return {section: section.lower() in headings for section in SECTIONS}


def inference_files(root: Path) -> list[str]:
    """inference.py and every module of the repository that it imports, directly or not."""
    script = root / "inference.py"
    return sorted(path.relative_to(root).as_posix() for path in import_closure(script)) if script.is_file() else []


def accelerator() -> str | None:
    """Name of the first GPU torch sees; None when it sees none."""
    import torch  # slow to import, and only this needs it

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def describe_environment(
    direct_path: str,
    pins_path: str,
    environment_path: str,
    *,
    repository_files: Sequence[str],
    root: str,
    data_label: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write the description; `repository_files` are the files of the repository whose presence is noted."""
    wanted = read_requirements(direct_path, pins_path)
    installed = package_versions(list(wanted))
    packages = {
        # A local version such as +cpu names a build, not another version.
        name: {
            "installed": found,
            "pinned": pin,
            "agrees": None if pin is None else (found or "").partition("+")[0] == pin,
        }
        for name, pin in wanted.items()
        for found in (installed[name],)
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
        "files": {name: (Path(root) / name).is_file() for name in repository_files},
        "readme_sections": readme_sections(Path(root)),
        "inference_files": inference_files(Path(root)),
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "provenance": provenance,
    }
    write_json(environment_path, document)


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        describe_environment(
            snakemake.params.direct,
            snakemake.params.pins,
            snakemake.output[0],
            repository_files=snakemake.params.repository_files,
            root=snakemake.params.root,
            data_label=snakemake.params.label,
            provenance=provenance,
        )
