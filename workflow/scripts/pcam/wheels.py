"""Wheels for a machine without network: what pip downloads, each of exactly the version that requirements.txt pins."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pcam.files import InputError, file_digest

RUNTIME = ("h5py", "numpy", "onnxruntime", "pillow")  # what inference.py imports where there is no torch
WITH_TORCH = re.compile(r"(nvidia|cuda|triton)\b.*")  # torch pins these itself, so requirements.txt leaves them out
ELSEWHERE = "set handover.wheels to a folder that pip download filled on a machine that reaches one"


@dataclass(frozen=True)
class Wheel:
    """A wheel: its path, its package as indices write it, its version, and its sha256."""

    path: Path
    package: str
    version: str
    sha256: str

    @property
    def glibc(self) -> tuple[int, int]:
        """The oldest glibc that it runs on; (0, 0) for a wheel of Python alone."""
        found = re.findall(r"manylinux_(\d+)_(\d+)_", self.path.name)
        named = [(2, 17)] if "manylinux2014" in self.path.name else []
        return min([(int(major), int(minor)) for major, minor in found] + named, default=(0, 0))


def canonical(name: str) -> str:
    """A package's name as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(path: str | Path) -> dict[str, str]:
    """Version by package of a file of exact pins. Raises: InputError when it is missing or pins nothing."""
    try:
        lines = Path(path).read_text().splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; it lists the packages of the pipeline") from None
    found = (re.fullmatch(r"([\w.-]+)==([^\s;]+).*", line) for line in lines)
    pins = {canonical(one[1]): one[2] for one in found if one}
    if not pins:
        raise InputError(f"{path}: pins no version exactly; `make lock` writes it")
    return pins


def read_wheel(path: Path, pins: Mapping[str, str], torch: bool) -> Wheel:
    """Raises: InputError when the file is no wheel, or no wheel of a pinned version."""
    parts = path.name.removesuffix(".whl").split("-")
    if path.suffix != ".whl" or len(parts) not in (5, 6) or not zipfile.is_zipfile(path):
        raise InputError(f"{path.name}: pip brought it, and it is no wheel; take what made it a dependency out")
    package, version = canonical(parts[0]), parts[1]
    pin = pins.get(package)
    if pin is None and not (torch and WITH_TORCH.fullmatch(package)):
        raise InputError(f"{path.name}: requirements.txt does not pin {package}; `make lock` pins what is needed")
    if pin is not None and version.partition("+")[0] != pin:
        raise InputError(f"{path.name}: requirements.txt pins {package} {pin}; ask for that version")
    return Wheel(path, package, version, file_digest(path))


def fetch_wheels(folder: Path, pins_path: str | Path, *, torch: bool, source: str | None) -> list[Wheel]:
    """Download the wheels of inference.py and all that they need, for this Python and platform, into `folder`.

    source: a folder of wheels, which pip takes instead of a registry; torch: whether torch comes too.

    Raises: InputError when pip finds one nowhere, or brings what is not pinned.
    """
    pins = read_pins(pins_path)
    wanted = [*RUNTIME, *(["torch"] if torch else [])]
    if lacking := [name for name in wanted if name not in pins]:
        raise InputError(f"{pins_path}: does not pin {lacking[0]}; `make lock` pins what is needed")
    if source is not None and not Path(source).is_dir():
        raise InputError(f"handover.wheels: {source} is no folder; fill one with pip download, or set it to null")
    if source is not None:
        print(f"handover.wheels: {Path(source).resolve()}")
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check",
        "--retries", "1", "--timeout", "30", "--only-binary", ":all:", "--dest", str(folder),
        "--constraint", str(pins_path),
        *(["--no-index", "--find-links", str(Path(source).resolve())] if source else []),
        *(f"{name}=={pins[name]}" for name in wanted),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    print(done.stdout, done.stderr, sep="")
    if done.returncode != 0:
        raise InputError(f"wheels: pip download fails ({_reason(done.stderr)}); {_way_out(source)}")
    wheels = [read_wheel(path, pins, torch) for path in sorted(folder.iterdir())]
    names = [wheel.package for wheel in wheels]
    if lacking := [name for name in wanted if name not in names]:
        raise InputError(f"wheels: pip brought none of {lacking[0]}; {_way_out(source)}")
    return wheels


def _way_out(source: str | None) -> str:
    if source is None:
        return f"is a registry reached? {ELSEWHERE}"
    return f"fill {source} with pip download for this Python, where a registry is reached"


def _reason(told: str) -> str:
    """The first line that pip calls an error, for what is missing stands there."""
    lines = [line.removeprefix("ERROR:").strip() for line in told.splitlines() if line.startswith("ERROR:")]
    return (lines or told.strip().splitlines()[-1:] or ["it says nothing"])[0][:200]


def hashed_requirements(wheels: Sequence[Wheel]) -> str:
    """What pip installs them from with --require-hashes: nothing but these very files."""
    return "".join(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
