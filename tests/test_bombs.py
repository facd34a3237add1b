"""Small files that claim or unpack to far more than they hold: each is refused in one line before memory is taken."""

import io
import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RLIMIT_AS, getrlimit, setrlimit
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT

from pcam.checkpoint import load_checkpoint, load_tensors, tensors_digest
from pcam.files import InputError
from pcam.hdf5 import check_pair, read_labels, write_labels, write_patches
from pcam.images import read_image

CHAMPION = ROOT / "assets" / "champion"


@contextmanager
def room(more: int) -> Iterator[None]:
    """No more than `more` bytes of memory than now: what takes them fails rather than this machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = getrlimit(RLIMIT_AS)
    setrlimit(RLIMIT_AS, (pages * 4096 + more, before[1]))
    try:
        yield
    finally:
        setrlimit(RLIMIT_AS, before)


def assert_refused(read: Callable[[Path], object], path: Path, said: str, largest: int = 1 << 20) -> None:
    assert path.stat().st_size < largest
    with room(2 << 30), pytest.raises(InputError) as error:
        read(path)
    line = str(error.value)
    assert said in line and str(path) in line and "\n" not in line and len(line) < 700, line


@pytest.fixture
def champion(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHAMPION, tmp_path / "champion")) / "weights.pt"


FOREIGN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "spread over terabytes": lambda tensor: torch.ones(1).expand(1 << 20, 1 << 20),
    "bfloat16": lambda tensor: tensor.bfloat16(),
    "sparse": lambda tensor: torch.eye(4).to_sparse(),
    "without data": lambda tensor: torch.ones(3, device="meta"),
    "conjugate": lambda tensor: torch.ones(2, dtype=torch.complex64).conj(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_checkpoint_with_a_tensor_of_another_kind_is_refused(champion: Path, kind: str) -> None:
    state = load_tensors(champion)
    first = next(iter(state))
    torch.save({**state, first: FOREIGN[kind](state[first])}, champion)
    assert_refused(load_checkpoint, champion, "holds no tensors of this pipeline")


def test_a_checkpoint_whose_names_are_no_texts_is_refused(champion: Path) -> None:
    torch.save({**load_tensors(champion), 3: torch.ones(1)}, champion)
    assert_refused(load_checkpoint, champion, "holds no tensors of this pipeline")


def test_a_packed_checkpoint_is_refused_before_it_is_unpacked(champion: Path) -> None:
    plain = io.BytesIO()
    torch.save({"zeros": torch.zeros(100 << 20, dtype=torch.uint8)}, plain)
    with zipfile.ZipFile(plain) as records, zipfile.ZipFile(champion, "w", zipfile.ZIP_DEFLATED) as packed:
        for record in records.infolist():
            packed.writestr(record.filename, records.read(record))
    del plain
    assert_refused(load_tensors, champion, "says it unpacks to 104,8")
    content = champion.read_bytes()
    with pytest.raises(InputError, match="no checkpoint is packed"):
        load_tensors(champion, content)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"width": 60_000}, "states a model of "),
        ({"width": 10**7}, "states a model of "),
        ({"depth": 10**12}, "depth 1000000000000 from "),
        ({"model": "mlp", "hidden": 10**8}, "states a model of "),
        ({"model": "mlp", "hidden": 10**30}, "does not fit its sidecar"),
        ({"width": 10**400}, "does not fit its sidecar"),
        ({"width": -1}, "does not fit its sidecar"),
        ({"width": None}, "does not fit its sidecar"),
        ({"depth": "1"}, "does not fit its sidecar"),
    ],
    ids=str,
)
def test_a_sidecar_cannot_have_a_larger_model_built_than_the_weights_hold(
    champion: Path, changed: dict[str, Any], said: str
) -> None:
    path = champion.with_suffix(".json")
    document = json.loads(path.read_text())
    document["architecture"].update(changed)
    path.write_text(json.dumps(document))
    assert_refused(load_checkpoint, champion, said)


def test_the_champion_itself_is_no_bomb(champion: Path) -> None:
    with room(2 << 30):
        model, _, document = load_checkpoint(champion)
    assert tensors_digest(dict(model.state_dict())) == document["digests"]["weights"]


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"shape": (10**13, 1, 1, 1), "dtype": np.uint8, "chunks": (1000, 1, 1, 1)}, "10,000,000,000,000 labels"),
        ({"data": np.zeros((2, 1), [("a", "u1")])}, "not numbers"),
        ({"shape": (2, 1), "dtype": h5py.vlen_dtype(np.uint8)}, "not numbers"),
        ({"shape": (2, 1), "dtype": h5py.ref_dtype}, "not numbers"),
        ({"data": np.array([[b"a"], [b"b"]])}, "not numbers"),
        ({"data": np.zeros((0, 1, 1, 1), np.uint8)}, "has shape (0, 1, 1, 1)"),
        ({"data": np.zeros((2, 2, 1, 1), np.uint8)}, "has shape (2, 2, 1, 1)"),
        ({"data": np.array([[np.nan], [1.0]])}, "label nan in row 0"),
        ({"data": 1}, "damaged inside"),
        ({"data": h5py.Empty("u1")}, "damaged inside"),
    ],
    ids=str,
)
def test_labels_that_claim_terabytes_or_are_no_numbers_are_refused(
    tmp_path: Path, dataset: dict[str, Any], said: str
) -> None:
    path = tmp_path / "y.h5"
    with h5py.File(path, "w") as handle:
        handle.create_dataset("y", **dataset)
    assert_refused(read_labels, path, said)


@pytest.mark.parametrize("value", ["no", np.array([1, 0]), h5py.Empty("u1"), 0.5], ids=repr)
def test_whether_a_file_is_labelled_is_true_or_false(tmp_path: Path, value: object) -> None:
    path = tmp_path / "y.h5"
    write_labels(path, np.array([0, 1]), 2)
    with h5py.File(path, "a") as handle:
        handle["y"].attrs["labelled"] = value
    assert_refused(read_labels, path, "attribute labelled of y is")


def test_a_pair_with_terabytes_of_labels_is_refused(tmp_path: Path) -> None:
    write_patches(tmp_path / "x.h5", np.zeros((2, 96, 96, 3), np.uint8))
    with h5py.File(tmp_path / "y.h5", "w") as handle:
        handle.create_dataset("y", (10**13, 1, 1, 1), np.uint8, chunks=(1000, 1, 1, 1))
    assert_refused(lambda path: check_pair(tmp_path / "x.h5", path), tmp_path / "y.h5", "one length")


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    head = struct.pack(">IIBBBBB", 96, 96, 8, 2, 0, 0, 0)
    written = [(b"IHDR", head), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in written
    )


PLAIN = zlib.compress(bytes(96 * (1 + 96 * 3)))
BOMB = zlib.compress(bytes(512 << 20), 9)


@pytest.mark.parametrize(("kind", "head"), [(b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")])
def test_a_png_with_a_packed_text_or_profile_that_never_ends_is_refused(
    tmp_path: Path, kind: bytes, head: bytes
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png((kind, head + BOMB), (b"IDAT", PLAIN)))
    with room(256 << 20), pytest.raises(InputError, match=r"a\.png: cannot be read \(Decompressed data too large"):
        read_image(path)


def test_pixels_beyond_those_that_a_png_states_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png((b"IDAT", BOMB)))
    with room(256 << 20):
        assert read_image(path).shape == (96, 96, 3)
