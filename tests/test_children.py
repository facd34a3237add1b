"""A child's value, mistake or death comes back as a result, its bugs stay bugs, and it never outlives its parent."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT

from pcam import stage
from pcam.children import Outcome, run_child, tell
from pcam.files import InputError, TrainingFailed


def give(value: object, *, times: int) -> list[object]:
    print("the child speaks", flush=True)
    return [value] * times


def make_a_mistake(kind: type[InputError]) -> None:
    raise kind("train.csv: column 'row' is missing")


def have_a_bug() -> None:
    raise ZeroDivisionError("planted")


def die(number: int) -> None:
    tell("nearly done")
    tell(("loop", 128))
    os.kill(os.getpid(), number)


def read_from_nowhere() -> None:
    ctypes.string_at(0)


def end_without_a_word() -> None:
    os._exit(3)


def say_something() -> None:
    stage.say_for("trial 1", "epoch 1/2")


def hang() -> None:
    print(f"child {os.getpid()}", flush=True)
    signal.pause()


def test_a_child_gives_its_value_and_prints_where_its_parent_does(capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_child(give, {"a": 1}, times=2)
    assert outcome == Outcome(value=[{"a": 1}] * 2) and outcome.reason is None
    assert capfd.readouterr().out == "the child speaks\n"


@pytest.mark.parametrize("kind", [InputError, TrainingFailed])
def test_a_mistake_of_the_user_comes_back_as_it_is(kind: type[InputError], capfd: pytest.CaptureFixture[str]) -> None:
    outcome = run_child(make_a_mistake, kind)
    assert type(outcome.error) is kind and outcome.signal is outcome.value is None
    assert outcome.reason == "train.csv: column 'row' is missing"
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_death_by_a_signal_is_named_with_what_the_child_told_last(name: str) -> None:
    outcome = run_child(die, getattr(signal, name))
    assert (outcome.signal, outcome.error, outcome.told) == (name, None, ("loop", 128))
    assert str(outcome.reason).startswith(f"died by {name}")
    assert ("out-of-memory" in str(outcome.reason)) == (name == "SIGKILL")


def test_a_crash_in_native_code_is_a_death_by_its_signal() -> None:
    assert run_child(read_from_nowhere).signal == "SIGSEGV"


def test_a_signal_without_a_name_is_told_by_its_number() -> None:
    assert run_child(die, signal.SIGRTMIN + 3).signal == f"signal {signal.SIGRTMIN + 3}"


def test_a_bug_stays_a_bug_with_its_traceback_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="have_a_bug ended with exit code 1"):
        run_child(have_a_bug)
    assert "ZeroDivisionError: planted" in capfd.readouterr().err


def test_an_end_without_an_answer_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="end_without_a_word ended with exit code 3"):
        run_child(end_without_a_word)


def test_work_that_cannot_be_sent_fails_before_a_child_starts() -> None:
    with pytest.raises(AttributeError, match="local object"):
        run_child(lambda: None)


def test_no_descriptor_is_left_open() -> None:
    before = os.listdir("/proc/self/fd")
    run_child(die, signal.SIGKILL)
    assert os.listdir("/proc/self/fd") == before


def test_a_child_tells_its_progress_to_the_terminal_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, terminal = os.openpty()
    monkeypatch.setattr(stage, "_terminal", terminal)
    try:
        run_child(say_something)
        assert os.read(ours, 100) == b"trial 1: epoch 1/2\r\n"
    finally:
        os.close(ours)
        os.close(terminal)


def test_telling_outside_a_child_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    tell("nobody listens")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["parent alone", "both"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent_and_no_outcome_is_told(
    number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    """Only parent and child hold the pipe that is read here: its end says that both are gone.

    A terminal's Ctrl-C and a cluster's cancellation reach both: the child's death is then no result.
    """
    paths = [str(ROOT / "workflow" / "scripts"), str(Path(__file__).parent)]
    code = (
        f"import signal, sys; sys.path[:0] = {paths!r}\n"
        # A shell's background jobs, and all below them, ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pcam.children import run_child\nfrom test_children import hang\nprint(run_child(hang))"
    )
    command, pipe, nowhere = [sys.executable, "-c", code], subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdout=pipe, stderr=nowhere, start_new_session=True) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline().split()[1])
        assert child != parent.pid
        send(parent.pid, number)
        try:
            assert parent.communicate(timeout=60)[0] == b""
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
