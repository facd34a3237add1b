"""Faults for work that runs in a child process, which imports them from here; nothing else is imported with them."""

import os
import signal
from collections.abc import Sequence
from typing import Any

import numpy as np

from pcam import bench, recipe, throughput


def killed_in_epoch_2(*files: Any, report: object, **named: Any) -> None:
    """train_recipe, whose process is killed when its first epoch is saved and its second is done."""

    def kill(line: str) -> None:
        if line.startswith("epoch 2/"):
            os.kill(os.getpid(), signal.SIGKILL)

    recipe.train_recipe(*files, report=kill, **named)


def killed_at_loops_of_8(*arguments: Any) -> dict[str, Any]:
    """throughput.measure, whose process is killed in every undisturbed training step on 8 patches or more."""
    whole = throughput.MODES["loop"]

    def loop(trainer: bench.Trainer, batches: Sequence[np.ndarray]) -> bench.Seconds:
        if len(batches[0]) >= 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(trainer, batches)

    throughput.MODES["loop"] = loop
    return throughput.measure(*arguments)


def short_of_memory(*arguments: Any) -> dict[str, Any]:
    """throughput.measure on a machine with 60 MiB to spare."""
    throughput.free_bytes = lambda device: 60 * 2**20
    return throughput.measure(*arguments)


def killed_at_once(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
