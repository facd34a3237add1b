"""The one place that fixes whatever could make two trainings differ: seeds, generators, kernels, threads.

Every draw is a function of (seed, what it is for, epoch, step) and nothing else, so it does not matter which process or
thread draws it, or whether the run was interrupted before. `Controls` exists for audit_determinism, which switches one
control off at a time and looks whether two trainings part; every result of the workflow is made with all of them on.
"""

import os
import random
from dataclasses import dataclass

import numpy as np
import torch

from pcam.provenance import computed_on

# Streams of random numbers, so that no two uses share one.
STREAMS = {"order": 0, "symmetry": 1, "dropout": 2}


@dataclass(frozen=True)
class Controls:
    """Which controls are on. Threads and precision are settings of a recipe, and count as controls as well."""

    global_seeds: bool = True
    sampler_generator: bool = True
    augmentation_generator: bool = True
    worker_seeding: bool = True
    deterministic_kernels: bool = True
    fixed_autotuner: bool = True


ALL_ON = Controls()


def fix_device(threads: int, controls: Controls = ALL_ON) -> torch.device:
    """Fix the thread count, deterministic kernels, no autotuner, no TF32; give the device to compute on.

    The thread count comes from the config: another number of threads sums in another order and gives other bits.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with a fixed workspace
    torch.set_num_threads(threads)
    # As torch.use_deterministic_algorithms, which imports the compiler too: two seconds of every job.
    torch.set_deterministic_debug_mode("error" if controls.deterministic_kernels else "default")
    # Filling every new tensor costs time, and none of our code reads what it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = controls.deterministic_kernels
    torch.backends.cudnn.benchmark = not controls.fixed_autotuner
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if not torch.cuda.is_available():
        return torch.device("cpu")
    computed_on(torch.cuda.get_device_name())
    return torch.device("cuda")


def seed_everything(seed: int, controls: Controls = ALL_ON) -> None:
    """Seed the global generators of Python, numpy and torch (all devices): weight initialisation draws from the last.

    With the control off they are seeded by the operating system, as a process that forgot to does not know its state.
    """
    if controls.global_seeds:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
    else:
        random.seed()
        np.random.seed()
        torch.seed()


def generator_for(seed: int, stream: str, *at: int) -> np.random.Generator:
    """The generator of one stream at one place, such as ("symmetry", epoch, step)."""
    return np.random.default_rng((seed, STREAMS[stream], *at))


def seed_dropout(seed: int, epoch: int, step: int, controls: Controls = ALL_ON) -> None:
    """Dropout draws from torch's global generator: seed it anew for every step."""
    if controls.global_seeds:
        state = np.random.SeedSequence((seed, STREAMS["dropout"], epoch, step)).generate_state(1, np.uint64)
        # torch.manual_seed, less the record of its caller that it keeps for devices that are not in use: 0.1 ms a step
        torch.default_generator.manual_seed(int(state[0] >> np.uint64(1)))
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(int(state[0] >> np.uint64(1)))


def epoch_order(seed: int, epoch: int, n: int, controls: Controls = ALL_ON) -> np.ndarray:
    """Order int64 (n,) in which an epoch visits the n patches."""
    if controls.sampler_generator:
        return generator_for(seed, "order", epoch).permutation(n)
    return np.random.default_rng().permutation(n)


def epoch_batches(seed: int, epoch: int, n: int, batch_size: int, controls: Controls = ALL_ON) -> np.ndarray:
    """Places int64 (steps, batch_size) of an epoch's batches among n patches; the rest waits for another order.

    Training takes its batches from here, and so does whoever asks afterwards which patches a step saw.
    """
    steps = n // batch_size
    return epoch_order(seed, epoch, n, controls)[: steps * batch_size].reshape(steps, batch_size)
