"""The frame around a stage script: its log, its provenance, its one-line errors."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pcam import provenance
from pcam.files import InputError

_terminal: int | None = None


def say(line: str) -> None:
    """Progress: to the log, and to the terminal that started the run when there is one."""
    print(line, flush=True)
    if (descriptor := terminal()) is not None:
        os.write(descriptor, f"{line}\n".encode())


def say_for(name: str, line: str) -> None:
    """`say` for one of several jobs that run at a time."""
    say(f"{name}: {line}")


def terminal() -> int | None:
    """Descriptor of the terminal that started the run; None when there is none."""
    return _terminal if _terminal is not None and os.isatty(_terminal) else None


def use_terminal(descriptor: int | None) -> None:
    """In a child process: the terminal that its parent has."""
    global _terminal
    _terminal = descriptor


@contextmanager
def run_stage(snakemake: Any) -> Iterator[dict[str, object]]:
    """Send everything the job prints, also from child processes, to its log; give the provenance of its results.

    The log begins with rule, wildcards, commit, code digest, device, says so again once a GPU computes, and ends with
    the duration. An InputError becomes one line and exit code 1; anything else keeps its traceback, because it is our
    mistake.
    """
    global _terminal
    described = provenance.describe(snakemake.rule, snakemake.params.code)
    log = Path(snakemake.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # a child that outlived its Snakemake goes on writing to the file it has open
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    _terminal = os.dup(2)
    # Descriptors, not sys.stdout: children and C libraries write to 1 and 2 as well.
    with log.open("wb", buffering=0) as handle:
        os.dup2(handle.fileno(), 1)
        os.dup2(handle.fileno(), 2)
    print(_header(snakemake.wildcards, described), flush=True)
    provenance.hearers.append(lambda device: print(_header(snakemake.wildcards, described), flush=True))
    try:
        yield described
    except InputError as error:
        sys.exit(f"error: {error}")
    finally:
        print(f"# ended after {time.monotonic() - started:.1f} s", flush=True)


def device_of(log: str | Path) -> str:
    """What computed, by the last header in the log of a stage that ended. "unknown device" where there is none."""
    try:
        lines = Path(log).read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    same = f"{lines[0].rpartition(' | ')[0]} | " if lines else "# "
    headers = [line for line in lines if line.startswith(same) and " | " in line]
    return headers[-1].rpartition(" | ")[2] if headers else "unknown device"


def _header(wildcards: Any, described: Mapping[str, object]) -> str:
    named = " ".join(f"{key}={value}" for key, value in wildcards.items()) or "-"
    dirty = " (dirty)" if described["dirty"] else ""
    commit, code = f"commit {described['commit']}{dirty}", f"code {described['code']}"
    return f"# {described['rule']} | {named} | {commit} | {code} | {described['device']}"
