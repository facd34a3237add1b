"""What a user names, as blocks of patches: images, tiles, .h5 and .h5.gz files, folders, patterns, lists on stdin."""

import glob
import gzip
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcam.files import InputError
from pcam.hdf5 import SUPERBLOCK, PatchReader, convert_lossless, stated_end
from pcam.images import IMAGE_SUFFIXES, SIZE, read_image, window_starts

HDF5_SUFFIXES = (".h5", ".hdf5")
PACKED_SUFFIXES = (".h5.gz", ".hdf5.gz")
MOST_CHUNK_BYTES = 1 << 30  # of an HDF5 file, which are unpacked in one piece
STDIN = "-"
_COPIED = 1 << 20  # bytes unpacked at a time


@dataclass(frozen=True)
class Block:
    """Patches uint8 (n,96,96,3) of a source. rows (n,): of an HDF5 file, else None. places (n,2): x, y in an image.

    source: the file's name as text; image: the image's own path, whose bytes may be no text, None for an HDF5 file.
    """

    source: str
    rows: np.ndarray | None
    places: np.ndarray
    pixels: np.ndarray
    image: Path | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, start: int, stop: int) -> "Block":
        rows = None if self.rows is None else self.rows[start:stop]
        return Block(self.source, rows, self.places[start:stop], self.pixels[start:stop], self.image)

    def where(self, place: int) -> str:
        """In words."""
        x, y = self.places[place]
        return f"{self.source} ({f'x {x}, y {y}' if self.rows is None else f'row {self.rows[place]}'})"


def shown(path: Path) -> str:
    """The path as text that any output can hold: bytes that are no UTF-8 are written as \\x.."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def image_blocks(path: Path, stride: int) -> Iterator[Block]:
    """A block for each line of windows of an image, top to bottom, every `stride` pixels and flush with its end."""
    pixels = read_image(path)
    height, width = pixels.shape[:2]
    xs = window_starts(width, stride)
    for y in window_starts(height, stride):
        windows = np.stack([pixels[y : y + SIZE, x : x + SIZE] for x in xs])
        yield Block(shown(path), None, np.column_stack([xs, np.full(len(xs), y)]), windows, path)


def hdf5_blocks(path: Path, named: Path) -> Iterator[Block]:
    """The patches of the HDF5 file at `path`, which the user knows as `named`."""
    with PatchReader(path, alone=True) as reader:
        chunk = reader.dataset.chunks
        if chunk is not None and np.prod(chunk, dtype=np.float64) * reader.dataset.dtype.itemsize > MOST_CHUNK_BYTES:
            raise InputError(
                f"{named}: its chunks of {chunk[0]:,} patches unpack to more than {MOST_CHUNK_BYTES >> 30} GiB each; "
                "write it with smaller ones (h5repack)"
            )
        for start, patches in reader.chunks():
            try:
                pixels = convert_lossless(patches)
            except ValueError:
                row, reason = next(_unfit(patches))
                raise InputError(f"{named}: row {start + row}: {reason}; the model takes uint8 pixels") from None
            rows = np.arange(start, start + len(pixels))
            yield Block(shown(named), rows, np.zeros((len(pixels), 2), np.intp), pixels)


def _unfit(patches: np.ndarray) -> Iterator[tuple[int, str]]:
    for row, patch in enumerate(patches):
        try:
            convert_lossless(patch)
        except ValueError as error:
            yield row, str(error)


def unpack_hdf5(path: Path, target: Path) -> None:
    """Unpack a gzip file that holds an HDF5 file, no further than the length that the latter states.

    Raises: InputError when it is damaged, holds anything else or more, or the disk of `target` has no room for it.
    """
    try:
        with gzip.open(path) as packed, target.open("wb") as handle:
            head = packed.read(SUPERBLOCK)
            if (end := stated_end(head)) is None:
                raise InputError(f"{path}: no HDF5 file is packed in it; it begins with {head[:8]!r}")
            if end > (free := shutil.disk_usage(target.parent).free):
                raise InputError(
                    f"{path}: unpacks to {end:,} bytes, but {target.parent} has {free:,} left; "
                    "set TMPDIR to a larger disk"
                )
            handle.write(head)
            while piece := packed.read(_COPIED):
                handle.write(piece)
                if handle.tell() > end:
                    raise InputError(f"{path}: unpacks to more than the {end:,} bytes of its HDF5 file; fetch it again")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); fetch it again") from None


def packed_blocks(path: Path) -> Iterator[Block]:
    """The patches of an .h5.gz file, through an unpacked copy in the folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="pcam-") as folder:
        copy = Path(folder) / "x.h5"
        unpack_hdf5(path, copy)
        yield from hdf5_blocks(copy, path)


def file_blocks(path: Path, stride: int) -> Iterator[Block]:
    """The patches of one file. Raises: InputError when it is missing, or no image or HDF5 file."""
    name = path.name.lower()
    if name.endswith(PACKED_SUFFIXES):
        yield from packed_blocks(path)
    elif name.endswith(HDF5_SUFFIXES):
        yield from hdf5_blocks(path, path)
    else:
        yield from image_blocks(path, stride)


def named_files(argument: str, tell: Callable[[str], None]) -> Iterator[Path]:
    """The files behind an argument: a file, the images of a folder in order of name, a pattern, or `-`: lines of stdin.

    `tell` is given the real path of an argument that is a link. Raises: InputError when nothing is behind it.
    """
    if argument == STDIN:
        for line in sys.stdin:
            if name := line.rstrip("\n"):
                if name == STDIN:
                    raise InputError("stdin: a line is -; give one path a line")
                yield from named_files(name, tell)
        return
    try:
        yield from _found(argument, tell)
    except (OSError, RuntimeError, ValueError) as error:  # no rights, too long a name, links in a ring, a zero byte
        told = getattr(error, "strerror", None) or error
        raise InputError(f"{argument}: cannot be looked up ({told}); mend the name, the link or the rights") from None


def _found(argument: str, tell: Callable[[str], None]) -> list[Path]:
    path = Path(argument)
    if os.path.lexists(path) and (real := path.resolve()) != Path(os.path.abspath(path)):
        tell(f"{shown(path)} is {shown(real)}")
    if path.is_dir():
        images = sorted(entry.name for entry in os.scandir(path) if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{path}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return [path / name for name in images]
    if glob.has_magic(argument) and not os.path.lexists(path):
        found = [name for name in sorted(glob.glob(argument, recursive=True)) if not Path(name).is_dir()]
        if not found:
            raise InputError(f"{argument}: no file fits this pattern")
        return [Path(name) for name in found]
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: neither file nor folder")
    return [path]


def blocks_of(arguments: Iterable[str], stride: int, tell: Callable[[str], None]) -> Iterator[Block]:
    """Blocks of patches behind the arguments, file by file; memory holds one image or one read of rows at a time."""
    for argument in arguments:
        for path in named_files(argument, tell):
            yield from file_blocks(path, stride)


def in_batches(blocks: Iterable[Block], size: int) -> Iterator[list[Block]]:
    """The same patches in the same order, in lists of blocks with `size` patches together, fewer in the last."""
    waiting: list[Block] = []
    count = 0
    for block in blocks:
        start = 0
        while start < len(block):
            taken = min(size - count, len(block) - start)
            waiting.append(block.part(start, start + taken))
            start, count = start + taken, count + taken
            if count == size:
                yield waiting
                waiting, count = [], 0
    if waiting:
        yield waiting


def ahead(batches: Iterator[list[Block]]) -> Iterator[list[Block]]:
    """The same batches; another thread reads the next one while one is worked on."""
    end: list[Block] = []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, batches, end)
        while batch := waiting.result():
            waiting = pool.submit(next, batches, end)
            yield batch
