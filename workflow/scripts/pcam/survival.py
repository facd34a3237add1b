"""What lets a killed training go on: its state on disk, written atomically, and a lock on its target."""

import fcntl
import hashlib
import io
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pcam.checkpoint import load_tensors
from pcam.files import InputError, write_bytes

_MAGIC = b"pcam resume state 1 sha256 "


class ResumeState:
    """The state of a training that is not finished, and the one before it.

    `key` is the digest of all that decides the bits (settings, data, code, seed, versions, device): a state with
    another key is not used. A damaged state (its own digest does not fit) falls back to the one before. A finished run
    removes both.
    """

    def __init__(self, path: str | Path, key: str, report: Callable[[str], None]) -> None:
        self.path, self.key, self.report = Path(path), key, report
        self.before = self.path.with_name(f"{self.path.stem}.before{self.path.suffix}")

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole and fits, or None."""
        for path in (self.path, self.before):
            if not path.exists():
                continue
            try:
                state = _unpack(path)
            except InputError as error:
                self.report(f"a resume state is damaged: {error}")
            else:
                if state.get("key") == self.key:
                    return state
                self.report(f"{path}: belongs to other settings, data, code, versions or device: not used")
            path.unlink()  # or the next save would put it in the place of the good one before it
        return None

    def save(self, **state: Any) -> None:
        buffer = io.BytesIO()
        torch.save({"key": self.key, **state}, buffer)
        content = buffer.getvalue()
        # Killed between these two steps, a run finds only the state before, which is as good as the one it replaces.
        if self.path.exists():
            os.replace(self.path, self.before)
        write_bytes(self.path, _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)

    def remove(self) -> None:
        for path in (self.path, self.before):
            path.unlink(missing_ok=True)


def _unpack(path: Path) -> dict[str, Any]:
    """Raises: InputError when the file is not what `save` wrote."""
    head, _, content = path.read_bytes().partition(b"\n")
    if head != _MAGIC + hashlib.sha256(content).hexdigest().encode():
        raise InputError(f"{path}: its content does not fit its digest")
    return load_tensors(path, content)


@contextmanager
def lock_target(
    folder: str | Path,
    report: Callable[[str], None],
    doing: str = "trains the same target; ending it lets this run go on from there",
) -> Iterator[bool]:
    """Hold the lock of a target's folder; yields whether it had to wait for another process, which is `doing` what.

    Snakemake killed alone leaves its child running. A rerun waits for that child here, and never writes beside it. The
    kernel frees the lock of a process that died, however it died.

    Raises: InputError when the lock's file cannot be opened, as that of another user.
    """
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = path.open("a+")
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}); have its owner remove it") from None
    with handle:
        waited = False
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                handle.seek(0)
                holder = handle.read().strip() or "another process"
                report(f"waiting for {holder}, which {doing}")
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            report(f"{path}: this file system gives no locks ({error.strerror}); never run two workflows here at once")
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()} on {platform.node()}\n")
        handle.flush()
        yield waited


def remove_leftovers(paths: list[Path]) -> None:
    """Delete the temporary files that a killed writer left beside these files. Only under the lock of their folder."""
    for path in paths:
        for leftover in path.parent.glob(f".{path.name}.*"):
            leftover.unlink(missing_ok=True)
