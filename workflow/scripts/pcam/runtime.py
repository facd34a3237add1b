"""What a training ran on, as far as it can change its bits: versions and device. It stands in the weights' sidecar."""

import os
import platform
import re
from pathlib import Path

import numpy as np
import torch

from pcam.provenance import cpu_name

# Kernels are chosen by these instruction sets; a virtual machine can hide some of them under the same processor name.
_INSTRUCTION_SETS = re.compile(r"(avx|amx|fma|sse4|f16c|asimd|sve|bf16)\w*$")
# Each of these makes a library choose other kernels.
_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_MAX_CPU_ISA",
)


def _library_version(name: str) -> str | None:
    """Version of a library that torch was built with, as torch prints it."""
    found = re.search(rf"{re.escape(name)} (?:Version )?v?([\d.]+)", torch.__config__.show())
    return found[1] if found else None


def _instruction_sets() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    told = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return sorted(flag for flag in told if _INSTRUCTION_SETS.match(flag))


def describe_runtime(device: torch.device, threads: int) -> dict[str, dict[str, object]]:
    """`versions` and `device` of this process; the same on the same machine, whatever the process."""
    on_gpu = device.type == "cuda"
    return {
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "torch_commit": torch.version.git_version,
            "mkl": _library_version("Math Kernel Library"),
            "onednn": _library_version("MKL-DNN"),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if on_gpu else None,
            "c_library": " ".join(platform.libc_ver()),
        },
        "device": {
            "torch_device": device.type,
            "accelerator": torch.cuda.get_device_name(device) if on_gpu else None,
            "processor": cpu_name(),
            "machine": platform.machine(),
            "vector_kernels": torch.backends.cpu.get_cpu_capability(),
            "instruction_sets": _instruction_sets(),
            "threads": threads,
            "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        },
    }
