"""A training survives being killed at any instant, never has two writers, and uses no state but its own."""

import multiprocessing
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from training_files import make_inputs, result, train_in

from pcam import recipe
from pcam.files import InputError
from pcam.survival import ResumeState, lock_target

CHILD = Path(__file__).with_name("training_files.py")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    train_in(inputs, folder)
    return result(folder)


@contextmanager
def child(inputs: Path, folder: Path, fault: str = "none") -> Iterator[subprocess.Popen[str]]:
    """A training in a process of its own, gone at the end of the block whatever happens."""
    command = [sys.executable, str(CHILD), str(inputs), str(folder), fault]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(process: subprocess.Popen[str], start: str) -> list[str]:
    """Lines that a process prints up to the first that starts so."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if line.startswith(start):
            return lines
    raise AssertionError(f"no line starts with {start!r}: {lines}")


def test_killed_after_an_epoch_it_goes_on_and_ends_with_the_same_bits(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with child(inputs, tmp_path, "ask") as process:
        lines_until(process, "epoch 2/")
        process.send_signal(signal.SIGKILL)
    lines: list[str] = []
    train_in(inputs, tmp_path, report=lines.append)
    assert lines[0] == "resumed after step 5 of 20"
    assert result(tmp_path) == undisturbed
    assert {path.name for path in tmp_path.iterdir()} == {*undisturbed, ".lock"}


@pytest.mark.parametrize(
    ("fault", "resumed_after"),
    [("half", 5), ("torn", 5), ("between", 5)],
    ids=["while writing", "leaving a torn state", "between the two renames"],
)
def test_killed_while_saving_it_falls_back_to_the_state_before(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path, fault: str, resumed_after: int
) -> None:
    with child(inputs, tmp_path, fault) as process:
        assert process.wait(timeout=120) == -signal.SIGKILL
    lines: list[str] = []
    train_in(inputs, tmp_path, report=lines.append)
    assert any("its content does not fit its digest" in line for line in lines) == (fault == "torn")
    assert f"resumed after step {resumed_after} of 20" in lines
    assert result(tmp_path) == undisturbed
    assert {path.name for path in tmp_path.iterdir()} == {*undisturbed, ".lock"}


def tell_and_train(inputs: Path, folder: Path, told: Connection) -> None:
    train_in(inputs, folder, report=told.send)


@pytest.mark.slow
def test_killed_25_times_at_random_instants_it_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instants are drawn over the whole life of the training, its start and its writing included."""
    monkeypatch.setenv("PYTHONPATH", str(CHILD.parent))  # of the process that forks: it has imported torch, and no more
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload([CHILD.stem])
    inputs = make_inputs(tmp_path / "inputs", epochs=60)
    train_in(inputs, tmp_path / "undisturbed")
    seed = random.SystemRandom().randrange(2**32)
    rng, folder, kills, resumed = random.Random(seed), tmp_path / "killed", 0, 0
    while kills < 25:
        told, telling = forks.Pipe(duplex=False)
        process = forks.Process(target=tell_and_train, args=(inputs, folder, telling), daemon=True)
        process.start()
        telling.close()
        if kills % 5:  # every fifth is killed while it still starts
            resumed += str(told.recv()).startswith("resumed after")
        process.join(rng.uniform(0, 0.4))
        if process.exitcode is None:
            process.kill()
            kills += 1
        else:  # it finished before it could be killed: the outputs stand, and it starts again from nothing
            assert result(folder) == result(tmp_path / "undisturbed"), f"kills drawn with seed {seed}"
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    train_in(inputs, folder)
    assert result(folder) == result(tmp_path / "undisturbed"), f"kills drawn with seed {seed}"
    assert resumed >= 5, "hardly any of the killed processes had got far enough to be resumed"


def test_a_second_process_waits_and_takes_what_the_first_has_finished(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with child(inputs, tmp_path, "ask") as first:
        lines_until(first, "epoch 2/")
        with child(inputs, tmp_path) as second:
            told = lines_until(second, "waiting for")[-1]
            assert told.startswith(f"waiting for process {first.pid} on ")
            assert first.stdin and second.stdout
            first.stdin.write("\n")
            first.stdin.flush()
            assert first.wait(timeout=120) == 0
            written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
            assert "the process before this one finished the same training" in second.stdout.read()
            assert second.wait(timeout=120) == 0
    assert result(tmp_path) == undisturbed
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in undisturbed} == {
        name: written[name] for name in undisturbed
    }


def test_a_second_process_goes_on_where_the_first_was_killed(
    inputs: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    with child(inputs, tmp_path, "ask") as first:
        lines_until(first, "epoch 2/")
        with child(inputs, tmp_path) as second:
            lines_until(second, "waiting for")
            first.send_signal(signal.SIGKILL)
            lines_until(second, "resumed after step")
            assert second.wait(timeout=120) == 0
    assert result(tmp_path) == undisturbed


def test_waiting_does_not_make_other_results_its_own(inputs: Path, tmp_path: Path) -> None:
    """What a holder of the lock leaves counts only when it is the same training."""
    with child(inputs, tmp_path, "ask") as first:
        lines_until(first, "epoch 2/")

        def let_go(line: str) -> None:
            if line.startswith("waiting for"):
                assert first.stdin
                first.stdin.write("\n")
                first.stdin.flush()
            lines.append(line)

        lines: list[str] = []
        train_in(inputs, tmp_path, seed=1, report=let_go)
        assert first.wait(timeout=120) == 0
    assert lines[0].startswith("waiting for") and lines[1].startswith("epoch 1/4")
    (tmp_path / "other").mkdir()
    train_in(inputs, tmp_path / "other", seed=1)
    assert result(tmp_path) == result(tmp_path / "other")


def test_without_contention_a_finished_training_trains_again(inputs: Path, tmp_path: Path) -> None:
    train_in(inputs, tmp_path)
    lines: list[str] = []
    train_in(inputs, tmp_path, report=lines.append)
    assert lines[0].startswith("epoch 1/4")


@pytest.mark.parametrize("change", ["settings", "data", "code", "seed", "runtime"])
def test_a_state_of_another_training_is_not_used(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    class Killed(Exception):
        pass

    def kill(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise Killed

    with pytest.raises(Killed):
        train_in(inputs, tmp_path, report=kill)
    assert (tmp_path / "resume.pt").exists()
    other = make_inputs(tmp_path / "other", **({"weight_decay": 0.02} if change == "settings" else {}))
    if change == "data":
        table = (other / "train.csv").read_text()
        (other / "train.csv").write_text(table.replace("100,0", "100,1"))
    if change == "runtime":
        monkeypatch.setattr(recipe, "describe_runtime", lambda device, threads: {"versions": {"torch": "another"}})
    lines: list[str] = []
    train_in(other, tmp_path, seed=int(change == "seed"), code="d" if change == "code" else "c", report=lines.append)
    assert lines[0].endswith("resume.pt: belongs to other settings, data, code, versions or device: not used")
    assert not any(line.startswith("resumed") for line in lines)
    assert not (tmp_path / "resume.pt").exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"pcam resume state 1 sha256 00\nabc"])
def test_a_state_that_is_none_is_named_and_not_used(tmp_path: Path, content: bytes) -> None:
    lines: list[str] = []
    state = ResumeState(tmp_path / "resume.pt", "k", lines.append)
    state.save(step=1)
    state.save(step=2)
    assert state.load() == {"key": "k", "step": 2}
    (tmp_path / "resume.pt").write_bytes(content)
    assert state.load() == {"key": "k", "step": 1}
    assert len(lines) == 1 and "does not fit its digest" in lines[0]
    state.save(step=3)
    (tmp_path / "resume.pt").write_bytes(content)
    assert state.load() == {"key": "k", "step": 1}, "a damaged state took the place of the good one before it"
    (tmp_path / "resume.before.pt").write_bytes(content)
    assert state.load() is None


def test_one_flipped_bit_in_a_state_is_noticed(tmp_path: Path) -> None:
    lines: list[str] = []
    state = ResumeState(tmp_path / "resume.pt", "k", lines.append)
    state.save(values=list(range(1000)))
    damaged = bytearray((tmp_path / "resume.pt").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "resume.pt").write_bytes(damaged)
    assert state.load() is None and "does not fit its digest" in lines[0]


def test_the_lock_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError), lock_target(tmp_path, print):
        raise InputError("x")
    with lock_target(tmp_path, print) as waited:
        assert not waited


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()
    with pytest.raises(InputError, match=r"\.lock: cannot be opened \(Is a directory\); have its owner remove it$"):
        train_in(tmp_path, tmp_path)
