"""Work that may die, in a process of its own: its death by a signal is a result, and not the end of the stage.

The child is a fresh interpreter. A fork of a process whose OpenMP threads have run can hang in its next parallel
loop, and multiprocessing's spawn would run Snakemake's script, the `__main__` of a stage, a second time.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any

from pcam import provenance, stage
from pcam.files import InputError

_START = "import sys; sys.path[:] = {path!r}; from pcam.children import _serve; _serve({connection}, {terminal})"
_HINTS = {"SIGKILL": "usually the kernel's out-of-memory killer or a cluster's memory limit"}

_parent: Connection | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a child: the value it gave, or a user's mistake it met, or the name of the signal it died by.

    `told`: what it told last.
    """

    value: Any = None
    error: InputError | None = None
    signal: str | None = None
    told: Any = None

    @property
    def reason(self) -> str | None:
        """One line that says why there is no value; None when there is one."""
        if self.signal is None:
            return None if self.error is None else str(self.error)
        return f"died by {self.signal}" + (f" ({_HINTS[self.signal]})" if self.signal in _HINTS else "")


def run_child(work: Callable[..., Any], *arguments: Any, **named: Any) -> Outcome:
    """Run work(*arguments, **named) in a child, to its end. `work` is a function of a module that can be imported.

    The child prints where this process prints, and a GPU that it computes on is named in this process's results. It
    ends when this process does, however that ends.

    Raises: RuntimeError when the child fails by a bug; its traceback stands where it prints.
    """
    request = pickle.dumps((work, arguments, named))
    ours, theirs = Pipe()
    with ours, theirs:
        terminal = stage.terminal()
        handed = [theirs.fileno(), *([] if terminal is None else [terminal])]
        start = _START.format(path=sys.path, connection=theirs.fileno(), terminal=terminal)
        sys.stdout.flush()
        with subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.DEVNULL, pass_fds=handed) as child:
            theirs.close()  # the child's is then the only one, and closes when it dies
            try:
                told, answer = _listen(ours, request)
                code = child.wait()
            finally:
                child.kill()
    if code < 0:
        return Outcome(signal=_signal_name(-code), told=told)
    if code > 0:
        raise RuntimeError(f"{work.__qualname__} ended with exit code {code} in its child process; see above")
    return Outcome(**answer, told=told)


def tell(what: Any) -> None:
    """In a child: say where the work stands, for the case that it dies there. Elsewhere it does nothing."""
    if _parent is not None:
        _send(_parent, "told", what)


def _send(connection: Connection, key: str, value: Any) -> None:
    connection.send_bytes(pickle.dumps({key: value}))


def _listen(child: Connection, request: bytes) -> tuple[Any, dict[str, Any]]:
    """Hand the child its work; what it told last, and its answer, which is empty when it died before."""
    told, message = None, dict[str, Any]()
    # A child that dies leaves an end of file, a reset connection when it had not read all, or half a message.
    with suppress(EOFError, OSError):
        child.send_bytes(request)
        while True:
            message = pickle.loads(child.recv_bytes())
            if "device" in message:
                provenance.computed_on(message["device"])
            elif "told" in message:
                told = message["told"]
            else:
                return told, message
    return told, {}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _serve(connection: int, terminal: int | None) -> None:
    """The child: do the work that the parent sends, and answer."""
    global _parent
    os.set_inheritable(connection, False)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent gets it too and tells of it
    stage.use_terminal(terminal)
    _parent = Connection(connection)
    provenance.hearers.append(partial(_send, _parent, "device"))
    request = _parent.recv_bytes()
    threading.Thread(target=_die_with_parent, args=(_parent,), daemon=True).start()
    work, arguments, named = pickle.loads(request)
    try:
        answer = {"value": work(*arguments, **named)}
    except InputError as error:
        answer = {"error": error}
    sys.stdout.flush()
    _parent.send_bytes(pickle.dumps(answer))


def _die_with_parent(parent: Connection) -> None:
    """The parent sends no more: the next that comes is the end of file that its death leaves."""
    with suppress(EOFError, ConnectionError):
        parent.recv_bytes()
    os.kill(os.getpid(), signal.SIGKILL)
