"""Memory is predicted before a training starts, refused with advice when it is too much, and foretold honestly."""

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_files import SETTINGS

from pcam import memory, training
from pcam.batches import LabelledPatches
from pcam.files import TrainingFailed
from pcam.memory import check_memory, predict_need
from pcam.model import Architecture
from pcam.preprocess import Preprocessing
from pcam.survival import ResumeState
from pcam.training import Learner, architecture_of, train

CPU = torch.device("cpu")
PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
# What a training takes, as a share of its prediction, on one kind of CPU and one kind of C library.
HONEST = (0.5, 2.0)
HOST_WORDS = (
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
)


def patches(n: int) -> LabelledPatches:
    rng = np.random.default_rng(0)
    return LabelledPatches(rng.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8), np.arange(n) % 2, np.arange(n))


def architecture(**changes: object) -> Architecture:
    return architecture_of(replace(SETTINGS, **changes))


def run(n: int = 12, **changes: object) -> None:
    train(replace(SETTINGS, **changes), 0, patches(n), patches(4), PLAIN, resume=None, report=print)


def status(key: str) -> int:
    """A line of this process's status, in bytes."""
    return int(re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1]) * 1024


def measure_growth(folder: str, changes: dict[str, object]) -> int:
    """Bytes by which this process grows at most, while it trains two epochs of two batches, validates and saves."""
    settings = replace(SETTINGS, epochs=2, **changes)
    train_split, valid = patches(2 * settings.batch_size), patches(256)
    before = status("VmRSS")
    resume = ResumeState(Path(folder) / "resume.pt", "k", print)
    train(settings, 0, train_split, valid, PLAIN, resume=resume, report=lambda line: None)
    return status("VmHWM") - before


def train_in_too_little(room: int) -> None:
    """Train with `room` bytes of addresses left, though the prediction said that there is enough."""
    memory.free_bytes = lambda device: 2**60
    train_split = patches(512)
    run_once = replace(SETTINGS, batch_size=8, epochs=1)
    train(run_once, 0, patches(16), patches(4), PLAIN, resume=None, report=print)  # libraries load in the first step
    resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + room, resource.RLIM_INFINITY))
    try:
        train(replace(SETTINGS, batch_size=512, width=32), 0, train_split, patches(4), PLAIN, resume=None, report=print)
    except TrainingFailed as error:
        print(f"told: {error}")


def in_a_process(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    # The need that is measured is the host's; a GPU's context would count on top of it.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("model", ["resnet", "resnet50", "mlp"])
def test_the_prediction_grows_linearly_with_the_batch_and_with_the_model(model: str) -> None:
    small, large = (predict_need(architecture(model=model, width=w, hidden=w)) for w in (8, 32))
    assert small.total(600) - small.total(400) == small.total(400) - small.total(200) == 200 * small.per_patch > 0
    assert large.fixed > small.fixed and large.per_patch > small.per_patch


def test_a_deeper_model_needs_more_for_a_patch() -> None:
    assert predict_need(architecture(depth=3)).per_patch > 1.3 * predict_need(architecture(depth=1)).per_patch


def test_half_of_what_the_prediction_counts_is_what_the_backward_pass_saves() -> None:
    """Counted here on the CPU, from tensors that exist."""
    model = training.build_model(architecture(width=8)).train()
    own = {p.data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(4, 3, 96, 96)).sum()
    counted = sum(t.untyped_storage().nbytes() for address, t in saved.items() if address not in own) / 4
    floats = 2 * 4 * 3 * 96 * 96
    predicted = (predict_need(architecture(width=8)).per_patch - floats) / (1 + memory.WORKSPACE)
    assert predicted == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("model", ["resnet", "mlp"])
def test_what_does_not_fit_is_refused_with_the_largest_batch_that_would(model: str) -> None:
    wanted = architecture(model=model)
    free = predict_need(wanted).total(400) + 1
    check_memory(wanted, 400, CPU, free)
    with pytest.raises(TrainingFailed, match=r"train.batch_size 401 needs about .* GiB .*at most 400$") as error:
        check_memory(wanted, 401, CPU, free)
    assert "\n" not in str(error.value)
    advised = int(str(error.value).split()[-1])
    check_memory(wanted, advised, CPU, free)


@pytest.mark.parametrize(("model", "setting"), [("resnet", "width"), ("resnet50", "width"), ("mlp", "hidden")])
def test_a_model_that_fits_with_no_batch_at_all_is_to_be_smaller(model: str, setting: str) -> None:
    wanted = architecture(model=model)
    with pytest.raises(TrainingFailed, match=rf"a {model} with train.{setting} \d+ .*set a smaller train.{setting}$"):
        check_memory(wanted, 1, CPU, predict_need(wanted).total(1) - 1)


def test_a_training_is_refused_before_it_builds_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10 * 2**20)
    monkeypatch.setattr(training, "Learner", None)
    monkeypatch.setattr(training, "Batches", None)
    with pytest.raises(TrainingFailed, match=r"^memory: .* 0.0 GiB are free on (cpu|cuda)"):
        run()


def test_a_batch_larger_than_the_split_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    need = predict_need(architecture(width=16))
    monkeypatch.setattr(memory, "free_bytes", lambda device: need.total(140))
    run(n=140, batch_size=4096, epochs=1, width=16)
    with pytest.raises(TrainingFailed, match=r"train\.batch_size 141 needs"):
        run(n=141, batch_size=4096, epochs=1, width=16)


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_of_the_control_group_counts_also_when_it_stands_on_a_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    group = "slurm/job_7/step_0"
    folder = tmp_path / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    limit, used = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    )
    for place, most in ((group, "max" if version == 2 else str(2**63 - 4096)), ("slurm/job_7", str(3 * 2**30))):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / limit).write_text(f"{most}\n")
        (folder / place / used).write_text(f"{2**30}\n")
        (folder / place / "memory.stat").write_text("file 1\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 2**30))
    (tmp_path / "proc/self/cgroup").write_text(f"0::/{group}\n" if version == 2 else f"5:memory:/{group}\n1:cpu:/x\n")
    monkeypatch.setattr(memory, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    assert memory.free_bytes(CPU) == 2 * 2**30
    # The pages of a store that was just read can be dropped: the kernel counts them as used, a training may have them.
    stat = "total_inactive_file" if version == 1 else "inactive_file"
    (folder / "slurm/job_7/memory.stat").write_text(f"anon 5\n{stat} {2**29}\nactive_file 7\n")
    assert memory.free_bytes(CPU) == 2 * 2**30 + 2**29
    (folder / "slurm/job_7" / limit).write_text(str(2**62))
    assert memory.free_bytes(CPU) == 64 * 2**30


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "resnet", "width": 32, "batch_size": 128},
        {"model": "resnet", "width": 64, "batch_size": 4},  # validation takes more than a step does
        {"model": "mlp", "hidden": 128, "batch_size": 128},
    ],
    ids=lambda changes: f"{changes['model']}, batch size {changes['batch_size']}",
)
def test_real_trainings_take_what_was_predicted(tmp_path: Path, changes: dict[str, object]) -> None:
    settings = replace(SETTINGS, **changes)
    predicted = predict_need(architecture_of(settings)).total(settings.batch_size)
    taken = int(in_a_process("growth", str(tmp_path), json.dumps(changes)))
    print(f"{changes}: {taken / 2**20:.0f} MiB taken, {predicted / 2**20:.0f} predicted")
    assert HONEST[0] * predicted < taken < HONEST[1] * predicted


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), RuntimeError(HOST_WORDS), MemoryError()],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_running_out_of_memory_in_a_step_ends_with_one_line_of_advice(
    monkeypatch: pytest.MonkeyPatch, error: Exception, workers: int
) -> None:
    whole, steps = Learner.step, []

    def step(*arguments: object) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 3:
            raise error
        return whole(*arguments)

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(TrainingFailed, match=r"^memory: .* at step 2 with train.batch_size 4; set .* to 2, ") as told:
        run(n=16, batch_size=4, workers=workers)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("place", ["build_model", "Batches", "predict"])
def test_running_out_of_memory_around_the_steps_ends_with_one_line_of_advice(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def give_out(*arguments: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(training, place, give_out)
    with pytest.raises(TrainingFailed, match=r"^memory: .* outside a training step; set a smaller train.batch_size"):
        run()


def test_other_errors_of_a_step_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*arguments: object) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(RuntimeError, match="shapes cannot"):
        run()


def test_a_host_that_gives_no_more_memory_ends_a_training_with_advice() -> None:
    told = in_a_process("limited", str(64 * 2**20))
    assert re.match(r"told: memory: the device ran out of it at step 0 with train.batch_size 512; set .* to 256", told)


if __name__ == "__main__":
    if sys.argv[1] == "growth":
        print(measure_growth(sys.argv[2], json.loads(sys.argv[3])))
    else:
        train_in_too_little(int(sys.argv[2]))
