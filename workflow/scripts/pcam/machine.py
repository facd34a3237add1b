"""The machine that a measurement is made on: its processor or GPU as torch sees it, driver, job, and memory in use."""

import ctypes
import gc
import os
import platform
import re
import resource
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from pcam.provenance import cpu_name

_VERSION = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)?\b")  # 570.86.15; a kernel's version has fewer digits


def cpu_flags() -> set[str]:
    """Names that Linux gives to what the processor can do; none on other systems."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.partition(":")[0].strip() in ("flags", "Features"):
                return set(line.partition(":")[2].split())
    return set()


def driver_version() -> str | None:
    """NVIDIA's driver, from the kernel module or else from its tool; None where neither tells."""
    told = Path("/proc/driver/nvidia/version")
    try:
        text = told.read_text() if told.is_file() else ""
        if not text:
            command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
            text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    found = _VERSION.search(text)
    return found[0] if found else None


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Node, device, versions and job. Memory is what torch may use: on a slice of a GPU (MIG) the slice's."""
    described: dict[str, Any] = {
        "node": platform.node(),
        "device": cpu_name(),
        "kind": device.type,
        "cpu": cpu_name(),
        "cpus_allowed": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "job_id": os.environ.get("SLURM_JOB_ID", "local"),
        "slurm_partition": os.environ.get("SLURM_JOB_PARTITION"),
        "cuda": None,
        "cudnn": None,
        "driver": None,
        "compute_capability": None,
        "mig": None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        described |= {
            "device": name,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": driver_version(),
            "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(device))),
            "mig": "MIG" in name or os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"),
            "memory_bytes": torch.cuda.mem_get_info(device)[1],
        }
    return described


def limit_memory(device: torch.device, free: int) -> None:
    """Let this process have `free` bytes more and no further: on a CPU an allocation beyond that then fails, where the
    kernel would kill the process, and a Slurm job in which it killed anything counts as failed."""
    if device.type == "cpu":
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        most = int(status["VmData"].split()[0]) * 1024 + free
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def forget_peak(device: torch.device) -> None:
    """Give freed memory back and begin a new peak, so that `peak_memory` tells of what comes now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)
    with suppress(OSError):  # the peak is then the process's, of which later batches have the largest share
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak of resident memory


def peak_memory(device: torch.device) -> dict[str, Any]:
    """Bytes at most since forget_peak: torch's allocator (used, reserved) on a GPU, with what the driver counts in use
    there now, by whoever; resident memory of this process on a CPU. Null is what the device does not have."""
    peak: dict[str, Any] = {"allocated": None, "reserved": None, "driver": None, "resident": None}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return peak | {
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
            "driver": total - free,
        }
    try:
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return peak | {"resident": int(status["VmHWM"].split()[0]) * 1024}
    except (OSError, KeyError):
        return peak | {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
