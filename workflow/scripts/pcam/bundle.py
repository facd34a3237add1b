"""What goes into the bundle for a machine without network, and where: a small copy of the repository that runs."""

import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from pcam.files import InputError, file_digest, write_text
from pcam.hdf5 import write_patches
from pcam.selftest import EXAMPLES
from pcam.wheels import Wheel, hashed_requirements

FOLDER = "pcam-bundle"  # that the archive unpacks to
INPUT_PLACE, ENVIRONMENT_PLACE = "IMAGE_OR_FOLDER_OR_H5", "FOLDER"  # what a reader of the bundle's README fills in
CHAMPION = "assets/champion"
PROGRAMS = ("install", "selftest")
SUMS = "SHA256SUMS"
PATCHES = 16  # examples, of which the first stand as pictures of their own too
PICTURES = 4
PARTS = {"wheels": "wheels", "code": "workflow", "weights": CHAMPION, "examples": EXAMPLES}


def part_of(name: str) -> str:
    """Which part of the bundle a file belongs to, in a word."""
    if name == "inference.py":
        return "code"
    found = (part for part, folder in PARTS.items() if name.startswith(f"{folder}/"))
    return next(found, "documents and scripts")


def parts_of(files: Sequence[Mapping[str, Any]]) -> list[dict[str, str | int]]:
    """Number and bytes of the files of each part, the largest first."""
    sizes: dict[str, list[int]] = {}
    for entry in files:
        sizes.setdefault(part_of(entry["file"]), []).append(entry["bytes"])
    told = sorted(sizes.items(), key=lambda part: (-sum(part[1]), part[0]))
    return [{"part": part, "files": len(of), "bytes": sum(of)} for part, of in told]


def chosen_rows(probabilities: np.ndarray, n: int = PATCHES) -> np.ndarray:
    """Places (n,) of patches from the least to the most probable, evenly by rank; all where there are fewer."""
    order = np.argsort(probabilities, kind="stable")
    return order[np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int))]


def write_examples(folder: Path, patches: np.ndarray) -> None:
    """patches.h5 with all, the first as pictures, and four in one larger picture, which is read window by window."""
    folder.mkdir(parents=True)
    write_patches(folder / "patches.h5", patches)
    for place, patch in enumerate(patches[:PICTURES]):
        Image.fromarray(patch).save(folder / f"patch-{place}.png")
    four = [patches[place % len(patches)] for place in range(4)]
    rows = [np.concatenate(four[:2], axis=1), np.concatenate(four[2:], axis=1)]
    Image.fromarray(np.concatenate(rows, axis=0)).save(folder / "larger.png")


def copy_into(folder: Path, sources: Mapping[str, str | Path]) -> None:
    """Copy files to their places, by name in the bundle. Raises: InputError when one is missing."""
    for name, source in sources.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, place)
        except FileNotFoundError:
            raise InputError(f"{source}: no such file; the bundle needs it") from None


def system_of(wheels: Iterable[Wheel], platform: str) -> tuple[str, str | None]:
    """Platform in words, and the oldest glibc that all wheels run on, such as "2.28"; None where none asks for it."""
    newest = max((wheel.glibc for wheel in wheels), default=(0, 0))
    return platform.replace("-", " "), None if newest == (0, 0) else f"{newest[0]}.{newest[1]}"


def write_guide(folder: Path, template: str | Path, told: Mapping[str, str]) -> None:
    """README.md of the bundle. Raises: InputError when the template asks for what is not told."""
    try:
        text = Template(Path(template).read_text()).substitute(told)
    except (KeyError, ValueError) as error:
        raise InputError(f"{template}: names {error}, which nothing tells") from None
    write_text(folder / "README.md", text)


def guide_commands(root: Path) -> list[str]:
    """The commands of the bundle's own README, as they stand there. Raises: InputError where none installs it."""
    lines = (root / "README.md").read_text().splitlines()
    commands = [line.partition(" # ")[0].strip() for line in lines if line.startswith("    ")]
    if not any(command.startswith("./install ") for command in commands):
        raise InputError(f"{root / 'README.md'}: no command installs the bundle; mend workflow/handover/README.md")
    return commands


def filled_in(command: str, environment: str) -> str:
    """With an environment and the examples in its places."""
    return command.replace(INPUT_PLACE, EXAMPLES).replace(ENVIRONMENT_PLACE, shlex.quote(environment))


def write_wheel_lists(folder: Path, wheels: Sequence[Wheel], python: str) -> None:
    write_text(folder / "requirements.txt", hashed_requirements(wheels))
    write_text(folder / "python-version", f"{python}\n")


def listed(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by its relative name, in order. Raises: InputError on a link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise InputError(f"{path}: is a link; a bundle holds files alone")
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path
    return found


def seal_files(folder: Path) -> list[dict[str, str | int]]:
    """Write SHA256SUMS over all files there; file, bytes and sha256 of each, the sums among them."""
    lines = [f"{file_digest(path)}  {name}\n" for name, path in listed(folder).items() if name != SUMS]
    write_text(folder / SUMS, "".join(lines))
    return contents(folder)


def contents(folder: Path) -> list[dict[str, str | int]]:
    """file, bytes and sha256 of every file below `folder`, in order."""
    return [
        {"file": name, "bytes": path.stat().st_size, "sha256": file_digest(path)}
        for name, path in listed(folder).items()
    ]
