"""Look around where a job runs: packages, files, folders, memory, GPU. Prints one line of JSON.

Run as `python -m pcam.probe REQUEST` by the Python in question, which may be the wrong one and have nothing: so only
the standard library is imported before each thing has been tried, and the syntax is that of Python 3.8.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
from typing import Any

MARK = "preflight-probe "


def canonical(name: str) -> str:
    """Name of a package as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def differing_packages(pins: dict[str, str]) -> list[dict[str, Any]]:
    """Packages that are missing (found None) or of another version than pinned. A build's +name is no other version."""
    from importlib import metadata

    rows = []
    for name, wanted in pins.items():
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = None
        if found is None or found.partition("+")[0] != wanted:
            rows.append({"name": name, "wanted": wanted, "found": found})
    return rows


def module_of(name: str) -> str:
    """Name by which an installed package is imported, from the list of its files. Raises: PackageNotFoundError."""
    from importlib import metadata

    wanted = canonical(name).replace("-", "_")
    files = metadata.files(name) or []
    modules = {file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    public = sorted(module for module in modules if not module.startswith("_"))
    return public[0] if public and wanted not in public else wanted


def failing_imports(names: list[str]) -> dict[str, str]:
    """Error of each installed package that cannot be imported, such as for a library of the system that is missing."""
    from importlib import metadata

    errors = {}
    for name in names:
        try:
            importlib.import_module(module_of(name))
        except metadata.PackageNotFoundError:
            continue  # is told as missing
        except BaseException as error:  # a broken package may raise anything, even SystemExit
            errors[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return errors


def try_file(path: str) -> dict[str, Any]:
    """Whether a data file can be read, and how many patches or labels it says it has (None where it does not tell)."""
    told: dict[str, Any] = {"path": path, "patches": None, "unpacked_bytes": None, "error": None}
    try:
        with open(path, "rb") as handle:
            head = handle.read(64)
        if path.endswith(".csv"):
            return told
        from pcam.peek import count_of, peek_gzip

        if head.startswith(b"\x1f\x8b"):
            told.update(peek_gzip(path))
        else:
            told["patches"] = count_of(path)
    except OSError as error:
        told["error"] = f"{path}: {error.strerror or error}"
    except ImportError:
        pass  # that h5py is missing stands among the packages
    except Exception as error:
        told["error"] = str(error).splitlines()[0]
    return told


def try_folder(path: str) -> dict[str, Any]:
    """Whether a file can be written below a folder, or below the nearest place above that exists; bytes free there."""
    place = os.path.abspath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    told: dict[str, Any] = {"path": path, "place": place, "error": None, "free_bytes": None, "device": None}
    try:
        told["free_bytes"], told["device"] = shutil.disk_usage(place).free, os.stat(place).st_dev
        with tempfile.NamedTemporaryFile(dir=place, prefix=".preflight-"):
            pass
    except OSError as error:
        told["error"] = error.strerror
    return told


def look_at_gpu() -> dict[str, Any]:
    """What torch says of the GPU of this job."""
    told: dict[str, Any] = {"name": None, "free_bytes": None, "error": None}
    try:
        import torch

        if not torch.cuda.is_available():
            told["error"] = f"torch {torch.__version__} sees no GPU (its CUDA build: {torch.version.cuda or 'none'})"
        else:
            told["name"] = torch.cuda.get_device_name(0)
            ones = torch.ones(64, 64, device="cuda")
            if float((ones @ ones).sum()) != 64.0**3:
                told["error"] = f"{told['name']} multiplies wrongly"
            told["free_bytes"] = torch.cuda.mem_get_info(0)[0]
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return told


def needed_memory(recipes: dict[str, Any]) -> dict[str, Any]:
    """Bytes that each training adds to its process, that this one holds with all imported, that the host has left.

    Asked for after the GPU, so that the process holds what CUDA takes of the host's memory. `error`: why none is known.
    """
    try:
        import psutil

        from pcam.memory import predict_need

        return {
            "recipes": {name: predict_need(r["architecture"]).total(r["batch_size"]) for name, r in recipes.items()},
            # The process as it is, before anything is allocated; Slurm counts that as well.
            "process": psutil.Process().memory_info().rss,
            "available": psutil.virtual_memory().available,
        }
    except Exception as error:
        return {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}


def look_around(request: dict[str, Any]) -> dict[str, Any]:
    """All that the request asks for."""
    answer: dict[str, Any] = {
        "host": platform.node(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "packages": differing_packages(request["pins"]),
        "folders": [try_folder(path) for path in request["folders"]],
        "files": [try_file(path) for path in request["files"]],
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    if request["imports"]:
        answer["imports"] = failing_imports(request["imports"])
    if request["gpu"]:
        answer["gpu"] = look_at_gpu()
    if request["imports"]:
        answer["memory"] = needed_memory(request["recipes"])
    return answer


if __name__ == "__main__":
    with open(sys.argv[1]) as source:
        print(MARK + json.dumps(look_around(json.load(source))), flush=True)
