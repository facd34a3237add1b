"""Hundreds of malformed inputs to every reader, drawn with a seed: each is one clear line that names the file.

Damage that happens to leave a file readable (a pixel's value, a byte that nothing reads) is no mistake; every other
outcome than reading or one line fails. `least` says how many distinct inputs of each reader have to be refused.
"""

import gzip
import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from pcam.checkpoint import load_checkpoint
from pcam.files import InputError
from pcam.guard import read_guard
from pcam.hdf5 import PatchReader, read_labels, write_labels, write_patches
from pcam.images import read_image
from pcam.inputs import file_blocks
from pcam.predictor import Predictor, read_onnx
from pcam.sidecar import read_sidecar
from pcam.store import open_store

CHAMPION = ROOT / "assets" / "champion"
Read = Callable[[Path], object]


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Content cut short, overwritten, with bytes put in or taken out, or with a piece of itself in another place."""
    data = bytearray(content)
    # Heads hold what a reader trusts: half of all damage lies among the first bytes.
    at = int(rng.integers(0, min(len(data), 2048) if rng.random() < 0.5 else len(data)))
    length = int(rng.integers(1, 64))
    kind = rng.integers(0, 6)
    if kind == 0:
        return bytes(data[:at])
    if kind == 1:
        data[at] ^= 1 << int(rng.integers(0, 8))
    elif kind == 2:
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
    elif kind == 3:
        data[at:at] = rng.bytes(length)
    elif kind == 4:
        del data[at : at + length]
    else:
        data[at : at + length] = b"\xff" * len(data[at : at + length])
    return bytes(data)


def refused(read: Read, path: Path) -> bool:
    """Whether a reader refuses the file, in one line that names it. Any other error comes through."""
    try:
        read(path)
    except InputError as error:
        said = str(error)
        assert "\n" not in said and "\r" not in said and 10 < len(said) < 700, said
        assert path.stem in said, said
        return True
    return False


def assert_refused(read: Read, path: Path, contents: Iterator[bytes], least: int) -> None:
    seen: set[str] = set()
    for content in contents:
        path.write_bytes(content)
        if refused(read, path):
            seen.add(hashlib.sha256(content).hexdigest())
    assert len(seen) >= least, len(seen)


def all_blocks(path: Path) -> None:
    for block in file_blocks(path, 96):
        assert block.pixels.dtype == np.uint8


def all_patches(path: Path) -> None:
    with PatchReader(path) as reader:
        for _ in reader.chunks():
            pass


def pixels(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


def sound(folder: Path, name: str) -> bytes:
    """The bytes of a sound file of this name."""
    path = folder / name
    match name.split("."):
        case ["y", "h5"]:
            write_labels(path, np.arange(6) % 2, 6)
        case ["x", "h5", "gz"]:
            write_patches(folder / "x.h5", pixels(2))
            path.write_bytes(gzip.compress((folder / "x.h5").read_bytes(), 1, mtime=0))
        case ["x", "h5"]:
            write_patches(path, pixels(2))
        case ["x", "npy"]:
            np.save(path, pixels(2))
        case ["image", _]:
            Image.fromarray(pixels(1)[0]).save(path)
        case _:
            raise ValueError(name)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "read", "least"),
    [
        ("x.h5", all_patches, 40),
        ("x.h5", all_blocks, 40),
        ("x.h5.gz", all_blocks, 60),
        ("y.h5", read_labels, 40),
        ("x.npy", lambda path: np.asarray(open_store(path)), 20),
        ("image.png", read_image, 60),
        ("image.tif", read_image, 15),
        ("image.bmp", read_image, 10),
        ("image.jpg", read_image, 5),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "__name__", None) or str(value),
)
def test_damaged_bytes_of_data_are_one_line(tmp_path: Path, name: str, read: Read, least: int) -> None:
    content = sound(tmp_path, name)
    rng = np.random.default_rng(2026)
    assert not refused(read, tmp_path / name)
    assert_refused(read, tmp_path / name, (damaged(content, rng) for _ in range(120)), least)


@pytest.mark.parametrize(("name", "least"), [("weights.pt", 50), ("weights.onnx", 60), ("guard.json", 25),
                                             ("weights.json", 25), ("onnx.json", 25)])  # fmt: skip
def test_damaged_bytes_of_a_champion_are_one_line(tmp_path: Path, name: str, least: int) -> None:
    champion = Path(shutil.copytree(CHAMPION, tmp_path / "champion"))
    sidecar = read_sidecar(CHAMPION / "weights.pt")
    read: dict[str, Read] = {
        "weights.pt": load_checkpoint,
        "weights.onnx": lambda path: read_onnx(path, sidecar),
        "guard.json": lambda path: read_guard(path, sidecar),
        "weights.json": lambda path: load_checkpoint(path.with_suffix(".pt")),
        "onnx.json": lambda path: Predictor(path.with_name("weights.onnx")),
    }
    content = (champion / name).read_bytes()
    rng = np.random.default_rng(2027)
    assert not refused(read[name], champion / name)
    assert_refused(read[name], champion / name, (damaged(content, rng) for _ in range(80)), least)
