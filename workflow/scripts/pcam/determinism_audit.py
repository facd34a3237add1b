"""What each control of randomness is worth: switch it off, train twice in fresh processes, do the two part?"""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from pcam.batches import LabelledPatches, read_split
from pcam.checkpoint import tensors_digest
from pcam.determinism import ALL_ON, Controls
from pcam.files import InputError
from pcam.preprocess import Preprocessing
from pcam.provenance import cpu_name
from pcam.settings import TrainSettings
from pcam.training import STEPS_COLUMNS, train

ALL_CONTROLS = "all controls on"
LEAST_DIVERGING = 4  # fewer, and it is the audit that is broken
LEAST_DROPOUT = 0.2  # dropout and augmentation must act, or their controls have nothing to control
GATHERERS = 2
LEAST_STEPS = 8  # of an epoch, where the patches suffice
# What takes seconds to import: once in the server, not in every process. The optimiser imports torch._dynamo.
# Modules of pcam cannot stand here: the server of Python 3.11 does not get this process's sys.path.
PRELOADED = ("__main__", "torch", "torch._dynamo", "scipy.stats", "sklearn.metrics", "h5py", "jsonschema")
# The CPU has neither cuDNN's autotuner nor a second variant of these models' kernels; a GPU sums in its own order.
NOT_ON = {"cpu": ("deterministic kernels", "autotuner"), "cuda": ("thread count",)}


@dataclass(frozen=True)
class Arm:
    """One short training: its state in words, its recipe, its controls."""

    state: str
    recipe: TrainSettings
    controls: Controls


@dataclass(frozen=True)
class Trial:
    """One control, and the two trainings that show what it is worth."""

    control: str
    arms: tuple[Arm, Arm]


@dataclass(frozen=True)
class Trace:
    """What a training left: loss and gradient norm of each step, all final weights float32 (n,), their digest.

    `device`: cpu or cuda; `device_name`: which.
    """

    losses: list[float]
    grad_norms: list[float]
    weights: np.ndarray
    digest: str
    device: str
    device_name: str


def short_recipe(base: TrainSettings, patches: int, epochs: int) -> TrainSettings:
    """The recipe of the audit: the base on a small budget, with everything random in it at work."""
    return replace(
        base,
        epochs=epochs,
        batch_size=max(2, min(base.batch_size, patches // LEAST_STEPS)),
        dropout=max(base.dropout, LEAST_DROPOUT),
        augment=True,
        workers=GATHERERS,
        tta=False,
        compile=False,
    )


def plan_trials(recipe: TrainSettings) -> list[Trial]:
    """All controls on, then each off in turn. An unfixed setting takes two values, one in each run."""

    def twice(control: str, state: str, controls: Controls) -> Trial:
        arm = Arm(state, recipe, controls)
        return Trial(control, (arm, arm))

    def unfixed(control: str, states: tuple[str, str], **other: Any) -> Trial:
        arms = Arm(states[0], recipe, ALL_ON), Arm(states[1], replace(recipe, **other), ALL_ON)
        return Trial(control, arms)

    threads = 2 if recipe.threads == 1 else 1
    precision = "bfloat16" if recipe.precision == "float32" else "float32"
    return [
        twice(ALL_CONTROLS, "on", ALL_ON),
        twice("global seeds", "unseeded", Controls(global_seeds=False)),
        twice("sampler generator", "unseeded", Controls(sampler_generator=False)),
        twice("worker seeding", "unseeded", Controls(worker_seeding=False)),
        twice("deterministic kernels", "not demanded", Controls(deterministic_kernels=False)),
        unfixed("thread count", (f"{recipe.threads}", f"{threads}"), threads=threads),
        twice("augmentation generator", "unseeded", Controls(augmentation_generator=False)),
        twice("autotuner", "on", Controls(fixed_autotuner=False)),
        unfixed("mixed precision", (recipe.precision, precision), precision=precision),
    ]


def run_arm(arm: Arm, seed: int, store: str, table: str, patches: int, preprocessing: Preprocessing) -> Trace:
    """Train on the first `patches` of the split in these files. What it is validated on changes no weight."""
    whole = read_split(store, table)
    split, valid = (LabelledPatches(whole.patches[:n], whole.labels[:n], whole.rows[:n]) for n in (patches, 2))
    trained = train(
        arm.recipe, seed, split, valid, preprocessing, resume=None, report=lambda line: None, controls=arm.controls
    )
    state = {name: tensor.detach().cpu() for name, tensor in trained.model.state_dict().items()}
    weights = [tensor.numpy().ravel() for tensor in state.values() if tensor.is_floating_point()]
    device = next(trained.model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    losses, norms = ([row[STEPS_COLUMNS.index(column)] for row in trained.steps] for column in ("loss", "grad_norm"))
    return Trace(losses, norms, np.concatenate(weights), tensors_digest(state), device.type, name)


def _answer(connection: Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    try:
        connection.send(function(*arguments))
    except InputError as error:
        connection.send(error)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own, forked from a server that has imported torch and computed nothing.

    Raises: InputError as the function does; RuntimeError when the process dies.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a training of the audit ended without a result, exit code {process.exitcode}") from None
    process.join()
    if isinstance(answer, InputError):
        raise answer
    return answer


def compare_traces(first: Trace, second: Trace) -> dict[str, Any]:
    """Whether two trainings parted, at which step first, and how far their weights and losses are apart in the end."""
    steps = zip(first.losses, first.grad_norms, second.losses, second.grad_norms, strict=True)
    parted = [step for step, (loss, norm, *others) in enumerate(steps) if [loss, norm] != others]
    diverged = bool(parted) or first.digest != second.digest
    distances = np.abs(np.subtract(first.losses, second.losses))
    return {
        "diverged": diverged,
        # Weights that differ under equal losses parted in the last update.
        "first_step": parted[0] if parted else len(first.losses) - 1 if diverged else None,
        "steps": len(first.losses),
        "weight_difference": float(np.max(np.abs(first.weights.astype(np.float64) - second.weights))),
        "loss_difference": float(distances.max()),
    }


def observable(control: str, diverged: bool, device: str) -> str:
    """Whether this device can show what a control is worth: it did, it has no such thing, or nothing was seen."""
    if control == ALL_CONTROLS:
        return "reference"
    if diverged:
        return "yes"
    return "not observable on this device" if control in NOT_ON.get(device, ()) else "nothing seen"


def judge(rows: Sequence[dict[str, Any]]) -> tuple[bool, str]:
    """Whether the audit holds, and why: nothing may part with all controls on, and enough must with one off."""
    on, off = rows[0], rows[1:]
    n = sum(row["diverged"] for row in off)
    found = f"{n} of {len(off)} controls, switched off, made two trainings part"
    if on["diverged"]:
        return False, f"two trainings parted at step {on['first_step']} with all controls on, so a control is missing"
    if n < LEAST_DIVERGING:
        return False, f"only {found}, and at least {LEAST_DIVERGING} must: the audit itself is broken"
    return True, f"{found}; with all on, two trainings gave the same bits"
