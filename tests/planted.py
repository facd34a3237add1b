"""Faults for work that runs in a child process, which imports them from here; nothing else is imported with them."""

import os
import signal
from typing import Any

from pcam import recipe, throughput


def killed_in_epoch_2(*files: Any, report: object, **named: Any) -> None:
    """train_recipe, whose process is killed when its first epoch is saved and its second is done."""

    def kill(line: str) -> None:
        if line.startswith("epoch 2/"):
            os.kill(os.getpid(), signal.SIGKILL)

    recipe.train_recipe(*files, report=kill, **named)


def killed_at_loops_of_8(*arguments: Any) -> dict[str, Any]:
    """throughput.measure, whose process is killed in every training step on 8 patches."""
    whole = throughput.MODES["loop"]

    def loop(bench: throughput.Bench, batch_size: int) -> throughput.Pass:
        if batch_size == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(bench, batch_size)

    throughput.MODES["loop"] = loop
    return throughput.measure(*arguments)


def killed_at_once(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
