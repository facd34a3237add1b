"""Hundreds of malformed inputs to every reader, drawn with a seed: each is one clear line that names the file.

Damage that happens to leave a file readable (a pixel's value, a byte that nothing reads) is no mistake; every other
outcome than reading or one line fails. `least` says how many distinct inputs of each reader have to be refused.
"""

import copy
import csv
import gzip
import hashlib
import io
import json
import shutil
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from build_report import verdict_cards
from conftest import ROOT
from PIL import Image

from pcam.acquisition import decompress
from pcam.checking import value_faults
from pcam.checkpoint import load_checkpoint
from pcam.evidence import read_evidence
from pcam.files import LONGEST, InputError, file_digest, read_csv, read_json
from pcam.guard import read_guard, watched_values
from pcam.hdf5 import PatchReader, read_labels, write_labels, write_patches
from pcam.identity import KNOWN, with_reference
from pcam.images import read_image
from pcam.inputs import file_blocks
from pcam.predictions import read_logits, read_predictions
from pcam.predictor import Predictor, read_onnx
from pcam.schema import check_doubled_keys
from pcam.settings import read_config
from pcam.sidecar import read_sidecar
from pcam.store import open_store
from pcam.twin import CAUSES, HASHES, read_fingerprint

CHAMPION = ROOT / "assets" / "champion"
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
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
        assert said.isprintable() and 10 < len(said) <= LONGEST, said
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


# What stands in the place of a value: another type, an odd number, a container, a text that hides something.
STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), 10**400, "", "\x1b[2J", "\ud800", "a\nb", "../..", [], [[]], {}, {"a": {}},
    [{"x": 1}], "9" * 5000,
)  # fmt: skip


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of a JSON-like document stands, containers included; of long lists the first two."""
    if at:
        yield at
    inside = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:2])
        if isinstance(document, list)
        else ()
    )
    for key, value in inside:
        yield from places(value, (*at, key))


def altered(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(document)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


@pytest.mark.parametrize(("name", "least"), [("weights.json", 30), ("guard.json", 120), ("onnx.json", 25)])
def test_strange_values_in_a_sidecar_are_one_line(tmp_path: Path, name: str, least: int) -> None:
    champion = Path(shutil.copytree(CHAMPION, tmp_path / "champion"))
    sidecar = read_sidecar(CHAMPION / "weights.pt")
    patches = pixels(1)

    def watched(path: Path) -> None:
        guard = read_guard(path, sidecar)
        guard.check(watched_values(patches, np.array([0.5])))

    read: dict[str, Read] = {
        "weights.json": lambda path: Predictor(path.with_suffix(".pt")).probabilities(patches),
        "guard.json": watched,
        "onnx.json": lambda path: Predictor(path.with_name("weights.onnx")).probabilities(patches),
    }
    document = json.loads((champion / name).read_text())
    told = ("seed", "settings", "runtime", "trained_by", "valid", "threshold_rule", "provenance", "n", "units")
    where = [at for at in places(document) if at[0] not in told]  # what no answer rests on is for people to read
    rng = np.random.default_rng(2028)

    def contents() -> Iterator[bytes]:
        for at in where:
            for i in rng.choice(len(STRANGE), 3, replace=False):
                yield json.dumps(altered(document, at, STRANGE[i])).encode()

    assert_refused(read[name], champion / name, contents(), least)


def test_a_strange_value_in_place_of_any_setting_is_one_line_or_a_setting() -> None:
    """Every key of the config, in turn, and a key that no group has."""
    rng = np.random.default_rng(2029)
    seen = set()
    for at in places(CONFIG):
        values = [STRANGE[i] for i in rng.choice(len(STRANGE), 4, replace=False)]
        changed = [altered(CONFIG, at, value) for value in values]
        inner = CONFIG
        for key in at:
            inner = inner[key]
        changed += [altered(CONFIG, (*at, "planted"), 1)] if isinstance(inner, dict) else []
        for config in changed:
            try:
                read_config(config)
            except InputError as error:
                said = str(error)
                assert said.isprintable() and said.startswith("config: ") and len(said) <= LONGEST, said
                seen.add(repr(config))
    assert len(seen) >= 400, len(seen)


def test_damaged_tables_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("row", "label", "logit", "probability"))
    writer.writerows((i, i % 2, round(i / 7 - 1, 6), round(i / 20, 6)) for i in range(20))
    content = text.getvalue().encode()
    rng = np.random.default_rng(2030)

    def read(path: Path) -> None:
        read_csv(path, ("row", "label", "logit", "probability"))
        read_predictions(path)
        read_logits(path)

    assert_refused(read, path, (damaged(content, rng) for _ in range(150)), 60)
    cells = ["", " ", "nan", "inf", "1e999", "0x10", "1_0", "-1", "1.0.0", "\0", "\x1b[2J", "=1+1", "9" * 200_000, "½"]
    lines = content.decode().splitlines()
    planted = []
    for cell in cells:
        for column in range(4):
            parts = lines[3].split(",")
            parts[column] = cell
            planted.append("\n".join([*lines[:3], ",".join(parts), *lines[4:]]).encode())
    assert_refused(read, path, iter(planted), 30)


def test_odd_json_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    plain = (
        "",
        "[]",
        "null",
        "1",
        '"a"',
        "{",
        "{]",
        "\0",
        "nan",
        "<html>",
        "{'a': 1}",
        '{"a": 1}{"b": 2}',
        '{"a": "\\ud8"}',
    )
    texts = [text.encode() for text in plain]
    texts += [b"\xff\xfe{}", b"\x1f\x8b\x08", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000]
    assert_refused(read_json, path, iter(texts), len(texts))
    path.unlink()
    path.mkdir()
    assert refused(read_json, path)


def bomb(levels: int) -> list[Any]:
    """Lists that hold one another, as anchors of YAML make them: a few lines, 9 ** levels values."""
    value: list[Any] = [0] * 9
    for _ in range(levels):
        value = [value] * 9
    return value


def test_what_a_config_file_can_do_besides_is_one_line() -> None:
    ring: list[Any] = []
    ring.append(ring)
    loop: dict[str, Any] = {}
    loop["x"] = loop
    for change, said in (
        ({"seeds": bomb(9)}, "config: seeds.0.0: holds more than 20 levels or 100,000 values"),
        ({"a": ring}, "config: a.0.0: holds more than"),
        ({"variants": loop}, "config: variants.x.x: holds more than"),
        ({"variants": {**CONFIG["variants"], 1: {}}}, "config: variants: key 1 is no text"),
        ({1: 2, None: 3, "x": 4}, "config: the config: key 1 is no text"),
        ({"audit": {**CONFIG["audit"], "waive": {True: "x"}}}, "config: audit.waive: key True is no text"),
        ({"journal": {**CONFIG["journal"], "members": ["\ud800 / 1"]}}, "config: journal.members.0: holds '\\ud800'"),
        ({"journal": {**CONFIG["journal"], "base_setup": "\x1b]0;x\x07"}}, "config: journal.base_setup: holds '\\x1b'"),
        ({"journal": {**CONFIG["journal"], "repository": "a\u202eb"}}, "config: journal.repository: holds '\\u202e'"),
        ({"seeds": [float("nan")]}, "config: seeds.0: nan and inf are no settings"),
        ({"data": {**CONFIG["data"], "directory": "a{b}"}}, "config: data.directory: 'a{b}' does not match"),
        ({"data": {**CONFIG["data"], "root": ""}}, "config: data.root: '' does not match"),
    ):
        with pytest.raises(InputError) as error:
            read_config({**CONFIG, **change})
        assert str(error.value).startswith(said) and str(error.value).isprintable(), error.value


def test_a_key_that_a_config_file_states_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for text, said in (
        ("seeds: [0]\ntrain: {width: 8}\nseeds: [1]\n", "line 3: key 'seeds'"),
        ("train:\n  width: 8\n  'width': 9\n", "line 3: key 'width'"),
        ('{"a": {"b": 1, "b": 2}}', "line 1: key 'b'"),
        ("a: [{x: 1}, {y: 1, y: 1}]", "line 1: key 'y'"),
        ("a: &a {x: *a, y: 1, y: 2}", "line 1: key 'y'"),
    ):
        path.write_text(text)
        with pytest.raises(InputError) as error:
            check_doubled_keys(path)
        assert str(error.value).startswith(f"{path}: {said} stands here a second time"), error.value
    anchors = (f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefghi"))
    shared = ["a: &a [x]", *anchors]
    for text in ("", "seeds: [0]", "a: {x: 1}\nb: {x: 1}", "a: [", "\0", "a: &a [*a]", "\n".join(shared)):
        path.write_text(text)
        check_doubled_keys(path)
    for file in (ROOT / "config").glob("*.yaml"):
        check_doubled_keys(file)


def strange_file(path: Path, key: str, make: Callable[[h5py.File], object]) -> None:
    with h5py.File(path, "w") as handle:
        make(handle)
        if key not in handle:
            handle.create_group("elsewhere")


def test_sound_hdf5_that_holds_something_else_is_one_line(tmp_path: Path) -> None:
    """Files that HDF5 opens: other names, types, shapes, links and filters than those of PCam."""
    shape = (2, 96, 96, 3)
    compound, text = np.dtype([("r", "u1"), ("g", "u1")]), h5py.string_dtype()
    kinds: list[Any] = [
        np.int8, np.uint16, np.int64, np.complex64, bool, "S4", text, compound, h5py.vlen_dtype(np.uint8),
        h5py.enum_dtype({"A": 0}, "i2"), h5py.opaque_dtype(np.dtype("V4")), h5py.ref_dtype,
    ]  # fmt: skip
    makes: list[Callable[[h5py.File], object]] = [
        lambda handle, k=kind: handle.create_dataset("x", shape, k) for kind in kinds
    ]
    shapes: list[Any] = [(), (0,), (2,), (2, 96, 96), (0, 96, 96, 3), (2, 3, 96, 96), (2, 96, 96, 4), (*shape, 1)]
    makes += [lambda handle, s=other: handle.create_dataset("x", s, np.uint8) for other in shapes]
    makes += [
        lambda handle: None,
        lambda handle: handle.create_group("x"),
        lambda handle: handle.create_dataset("X", shape, np.uint8),
        lambda handle: handle.create_dataset("x", data=h5py.Empty("u1")),
        lambda handle: handle.create_dataset("x", dtype=np.dtype("u1")),
        lambda handle: handle.__setitem__("x", np.dtype("u1")),
        lambda handle: handle.__setitem__("x", h5py.SoftLink("/x")),
        lambda handle: handle.__setitem__("x", h5py.SoftLink("/nowhere")),
        lambda handle: handle.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/x")),
        lambda handle: handle.__setitem__("x", h5py.ExternalLink("nowhere.h5", "/x")),
        lambda handle: handle.create_dataset("x", data=np.full(shape, np.nan, np.float16)),
        lambda handle: handle.create_dataset("x", data=np.full(shape, 0.5, np.float32)),
        lambda handle: handle.create_dataset("x", data=np.full(shape, 256.0)),
        lambda handle: handle.create_dataset("x", (1 << 20, 96, 96, 3), np.uint8, chunks=(1 << 16, 96, 96, 3)),
    ]
    path = tmp_path / "strange.h5"
    said = set()
    for i, make in enumerate(makes):
        try:
            strange_file(path, "x", make)
        except (TypeError, ValueError):  # what h5py itself does not write
            continue
        assert refused(all_blocks, path), i
        said.add(i)
    assert len(said) >= 30, len(said)
    labels: list[Any] = [
        np.array(0), np.array([[0, 2]]).T, np.array([0.5, 1]), np.array([np.nan, 1]), np.array([-1, 0]),
        np.array([b"0", b"1"]), np.array([1j, 0]), np.zeros((2, 2), np.uint8), np.array([(0, 1)], compound),
        np.array([255, 0], np.uint8), h5py.Empty("u1"),
    ]  # fmt: skip
    for values in labels:
        strange_file(path, "y", lambda handle, v=values: handle.create_dataset("y", data=v))
        assert refused(read_labels, path), values


def test_strange_patch_stores_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "strange.npy"
    arrays: list[Any] = [
        np.zeros(()), np.zeros((2, 96, 96, 3)), np.zeros((96, 96, 3), np.uint8), np.zeros((2, 96, 96, 4), np.uint8),
        np.zeros((2, 96, 96, 3), bool), np.array(["a"]), np.array([{"a": 1}], object), np.zeros(3, [("a", "u1")]),
    ]  # fmt: skip
    for array in arrays:
        np.save(path, array, allow_pickle=True)
        assert refused(open_store, path), array.dtype
    np.savez(tmp_path / "strange.npz", a=arrays[1])
    (tmp_path / "strange.npz").rename(path)
    assert refused(open_store, path)


def evidence_document(folder: Path) -> dict[str, Any]:
    number = {"start": 6, "end": 10, "cites": [0]}
    (folder / "a.json").write_text('{"b": 0.25}')
    (folder / "t.csv").write_text("c\n7\n")
    journal = {str(folder / "journal.md"): {"sha256": "0", "numbers": [number]}}
    text = {"text": "It is 0.25.", "numbers": [number]}
    return {
        "documents": journal,
        "verdicts": [{"title": "A", "at": "q1", "state": "good", "head": text, "text": text}],
        "cited": [
            {"file": str(folder / "a.json"), "key": "b", "value": 0.25},
            {"file": str(folder / "t.csv"), "key": "[0].c", "value": 7},
            {"file": str(folder / "gone.json"), "key": "", "value": None, "missing": True},
        ],
        "missing": [{"file": str(folder / "gone.json"), "key": ""}],
        "unbound": {"journal.md": ["12"]},
        "sources": {str(folder / "a.json"): {"rule": "r", "sha256": "0"}},
        "provenance": {"rule": "write_journal"},
    }


def test_damaged_and_strange_evidence_is_one_line(tmp_path: Path) -> None:
    """What the comparison and the page do with each part of it, too."""
    path = tmp_path / "evidence.json"
    document = evidence_document(tmp_path)
    content = json.dumps(document, indent=1).encode()
    rng = np.random.default_rng(2031)

    def read(path: Path) -> None:
        evidence = read_evidence(str(path))
        list(value_faults(evidence, CONFIG))
        verdict_cards(evidence["verdicts"], [])

    path.write_bytes(content)
    assert not refused(read, path)
    assert_refused(read, path, (damaged(content, rng) for _ in range(120)), 60)
    drawn = [(at, rng.choice(len(STRANGE), 6, replace=False)) for at in places(document)]
    changed = [altered(document, at, STRANGE[i]) for at, chosen in drawn for i in chosen]
    changed += [{key: value for key, value in document.items() if key != gone} for gone in document]
    assert_refused(read, path, (json.dumps(one).encode() for one in changed), 200)


def test_a_strange_reference_or_fingerprint_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    files = [{"content_digest": "c", "published_as": "x", "confidence": "by md5"}] * 2
    for read, document in (
        (lambda path: with_reference(KNOWN, str(path)), {"files": files}),
        (read_fingerprint, {**{cause: {"digest": "0"} for cause in CAUSES}, "hashes": dict.fromkeys(HASHES, "0")}),
    ):
        changed = [altered(document, at, value) for at in places(document) for value in STRANGE]
        assert_refused(read, path, (json.dumps(one).encode() for one in changed), 20)


def test_a_packed_file_of_data_directory_unpacks_to_no_more_than_it_states(tmp_path: Path) -> None:
    target = tmp_path / "out.h5"
    whole = sound(tmp_path, "x.h5")
    for content, said in (
        (whole + bytes(50 << 20), "packed.h5.gz: unpacks to more than the"),
        (bytes(50 << 20), "packed.h5.gz: no HDF5 file is packed in it"),
        (b"<html>", "packed.h5.gz: no HDF5 file is packed in it"),
        (b"", "packed.h5.gz: no HDF5 file is packed in it"),
    ):
        path = tmp_path / "packed.h5.gz"
        path.write_bytes(gzip.compress(content, 9))
        with pytest.raises(InputError, match=said):
            decompress(path, target, hdf5=True)
        assert not target.exists() and {one.name for one in tmp_path.iterdir()} == {"packed.h5.gz", "x.h5"}
    path.write_bytes(gzip.compress(whole))
    decompress(path, target, hdf5=True)
    assert target.read_bytes() == whole


def test_an_image_that_unpacks_to_far_more_than_its_pixels_is_read_no_further(tmp_path: Path) -> None:
    """PNG's own texts and profiles may be packed too; pixels behind the last line are never unpacked."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 8, 2, 0, 0, 0))
    lines = bytes(96 * (1 + 96 * 3))
    packed = zlib.compress(bytes(64 << 20), 9)
    sizes = []
    for name, chunks in (
        ("text", [chunk(b"zTXt", b"a\0\0" + packed), chunk(b"IDAT", zlib.compress(lines))]),
        ("profile", [chunk(b"iCCP", b"a\0\0" + packed), chunk(b"IDAT", zlib.compress(lines))]),
        ("pixels", [chunk(b"IDAT", zlib.compress(lines + bytes(64 << 20), 9))]),
    ):
        path = tmp_path / f"{name}.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join([head, *chunks, chunk(b"IEND", b"")]))
        tracemalloc.start()
        refused(read_image, path)
        sizes.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(sizes) < 16 << 20, sizes


def test_a_line_on_a_user_s_mistake_is_one_line_whatever_it_is_about(tmp_path: Path) -> None:
    """Names of files and values may hold line breaks and what a terminal obeys."""
    for name in ("a\nb", "\x1b[2J", "\udcff", "a\rb", "\u202egnp", "\u2028", "x" * 255, "<b>"):
        for read in (read_csv, read_json, read_image, open_store, load_checkpoint, read_labels, file_digest):
            with pytest.raises(InputError) as error:
                read(tmp_path / name)
            assert str(error.value).isprintable() and "no such file" in str(error.value), (read, name)
            assert len(str(error.value)) <= LONGEST
    for read in (read_csv, read_json, read_image, open_store, load_checkpoint, read_labels, file_digest):
        assert refused(read, tmp_path), read
    long = str(InputError(f"a.csv: {'9' * 5000}; write it again"))
    assert len(long) == LONGEST and long.startswith("a.csv: 9") and long.endswith("9; write it again")
