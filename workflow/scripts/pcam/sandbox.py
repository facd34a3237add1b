"""A place without network where one folder cannot be written: Linux namespaces, as far as this machine allows them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# A datagram socket sends nothing when it connects: the kernel only looks for a way there.
_PROBE = """
import json, socket, sys, tempfile
def reaches(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect((address, 9))
        except OSError:
            return False
        return True
def writable(folder):
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
print(json.dumps({"network": any(map(reaches, ("127.0.0.1", "192.0.2.1"))), "writable": writable(sys.argv[1])}))
"""
# The folder is mounted over itself, read-only, and entered anew: the old working directory lies below the mount.
_MOUNT = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && cd "$1" && shift && exec "$@"'
_ENTER = 'cd "$1" && shift && exec "$@"'


@dataclass(frozen=True)
class Sandbox:
    """A way to run commands in a folder. network, writable: whether they have a network and may write there, as tried;
    how: the way in words.
    """

    folder: Path
    before: tuple[str, ...]
    network: bool
    writable: bool
    how: str

    def command(self, *arguments: str) -> list[str]:
        return [*self.before, *arguments]


def _ways(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """From the closest to none, as names and what stands before a command."""
    ways: list[tuple[str, tuple[str, ...]]] = []
    if (unshare := shutil.which("unshare")) is not None:
        for user in ([], ["--map-root-user"]):
            for spaces, script in ((["--net", "--mount"], _MOUNT), (["--net"], _ENTER)):
                options = [*user, *spaces]
                before = (unshare, *options, "sh", "-c", script, "sh", str(folder))
                ways.append((f"unshare {' '.join(options)}", before))
    ways.sort(key=lambda way: "--mount" not in way[0])
    return [*ways, ("no namespace", ("sh", "-c", _ENTER, "sh", str(folder)))]


def seal(folder: Path) -> Sandbox:
    """The closest of the ways that this machine allows; what it really keeps away is tried from inside."""
    for how, before in _ways(folder):
        command = [*before, sys.executable, "-c", _PROBE, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            told = json.loads(done.stdout)
            return Sandbox(folder, before, told["network"], told["writable"], how)
    raise OSError(f"{folder}: nothing runs there: {done.stderr[-300:]}")


def run_bare(command: Sequence[str], home: Path) -> subprocess.CompletedProcess[str]:
    """Run it with nothing of this process's environment but the PATH; what it says comes back, in stdout."""
    # /sbin: where mount stands on some systems.
    environment = {
        "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHON": sys.executable,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
