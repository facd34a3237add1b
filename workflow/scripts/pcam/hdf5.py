"""PCam's HDF5 files: x (N,96,96,3) under key "x", y (N,1,1,1) under key "y". Everything streams.

An unlabelled y file (the course hands out no test labels) holds 255 in every place and the attribute `labelled` false.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from pcam.facts import PATCH_SHAPE
from pcam.files import InputError, atomic_path

UNLABELLED = 255
# Registered numbers of HDF5 filters, see portal.hdfgroup.org under registered filter plugins.
FILTERS = {
    **{1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 307: "bzip2", 32000: "lzf"},
    **{32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32026: "blosc2"},
}
CHUNK_CACHE_BYTES = 128 << 20  # holds a chunk of thousands of patches: else each row read unpacks it anew
SUPERBLOCK = 64  # bytes of an HDF5 file that tell where it ends
MOST_LABEL_BYTES = 1 << 30  # read in one piece: PCam's are 0.3 MB, and a file of 2 KB may claim terabytes
CHUNK = 1024  # patches read at a time: 28 MB of uint8, 113 MB of float32


@contextmanager
def _opened(path: str | Path) -> Iterator[h5py.File]:
    try:
        handle = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, RuntimeError) as error:
        with_head = _first_bytes(path)
        raise InputError(f"{path}: not a readable HDF5 file ({with_head}; {_short(error)}); fetch it again") from None
    with handle:
        yield handle


def _first_bytes(path: str | Path) -> str:
    try:
        with Path(path).open("rb") as handle:
            head = handle.read(8)
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    if not head:
        return "the file is empty"
    if head.startswith(b"\x1f\x8b"):
        return "it begins like gzip"
    return (
        "it begins like HDF5, so it is cut short or damaged"
        if head.startswith(b"\x89HDF")
        else f"it begins with {head!r}"
    )


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0].partition(" (")[2].rstrip(")") or str(error)


@contextmanager
def _inside(path: str | Path) -> Iterator[None]:
    """What a damaged file does once it is open is one line too. Raises: InputError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:  # h5py has no error of its own
        told = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: damaged inside ({told}); fetch it again") from None


def _dataset(handle: h5py.File, path: str | Path, key: str) -> h5py.Dataset:
    try:
        dataset = handle.get(key)
    except (OSError, RuntimeError, ValueError) as error:  # such as a link that leads to itself
        told = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: {key} cannot be opened ({told}); write the file again") from None
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(f"{path}: no dataset {key!r}; it holds {', '.join(sorted(handle)) or 'nothing'}")
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if missing := [code for code in codes if not h5py.h5z.filter_avail(code)]:
        raise InputError(
            f"{path}: {key} is packed with HDF5 filter {FILTERS.get(missing[0], 'number')} {missing[0]}, which is not "
            f"installed here; unpack it where it is, with h5repack -f GZIP=4 {Path(path).name} repacked.h5"
        )
    return dataset


def filters_of(dataset: h5py.Dataset) -> list[str]:
    """Names of the filters that a chunk passes through, in order, such as ["shuffle", "gzip level 4"]."""
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    names = [FILTERS.get(code) or name.decode() or f"filter {code}" for code, _, _, name in filters]
    return [
        f"{name} level {values[0]}" if name == "gzip" else name
        for name, (_, _, values, _) in zip(names, filters, strict=True)
    ]


class PatchReader:
    """Patches of one x file, by row. Use as a context manager; no handle may cross a fork.

    alone: refuse an x whose values lie in another file, which whoever sent this one may not have been meant to read.

    Raises: InputError when the file is missing, damaged, lacks key "x", or has another shape or dtype.
    """

    def __init__(self, path: str | Path, *, alone: bool = False) -> None:
        self.path, self.alone = path, alone
        self._manager = _opened(path)

    def __enter__(self) -> "PatchReader":
        handle = self._manager.__enter__()
        try:
            with _inside(self.path):
                self._check(handle)
        except BaseException:
            self._manager.__exit__(None, None, None)
            raise
        return self

    def _check(self, handle: h5py.File) -> None:
        linked = self.alone and isinstance(handle.get("x", getlink=True), h5py.ExternalLink)
        if not linked:
            self.dataset = _dataset(handle, self.path, "x")
        if linked or (self.alone and self._elsewhere()):
            raise InputError(f"{self.path}: x lies in another file; name that one, or copy x into one file")
        if self.dataset.ndim != 4 or self.dataset.shape[1:] != PATCH_SHAPE:
            raise InputError(f"{self.path}: x has shape {self.dataset.shape}, not (N, 96, 96, 3)")
        if self.dataset.dtype != np.uint8 and self.dataset.dtype.kind != "f":
            raise InputError(f"{self.path}: x has dtype {self.dataset.dtype}, not uint8 or a float")
        if len(self.dataset) == 0:
            raise InputError(f"{self.path}: x holds no patch; an empty split cannot be used")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._manager.__exit__(kind, error, trace)

    def __len__(self) -> int:
        return int(self.dataset.shape[0])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start..stop-1, (n,96,96,3) in the file's own dtype. Raises: InputError on damaged data."""
        try:
            return np.asarray(self.dataset[start:stop])
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path}: rows {start} to {stop - 1} cannot be read ({_short(error)}); fetch it again"
            ) from None

    def _elsewhere(self) -> bool:
        linked = not os.path.samefile(self.dataset.file.filename, self.path)
        return bool(linked or self.dataset.external or self.dataset.is_virtual)

    def mapped(self) -> np.ndarray | None:
        """All patches as a read-only memory map, or None where they do not lie in one piece as they are."""
        offset = self.dataset.id.get_offset()
        if offset is None or self._elsewhere():
            return None
        return np.asarray(np.memmap(self.path, self.dataset.dtype, "r", offset, self.dataset.shape))

    def chunks(self, size: int = CHUNK) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, patches) over the whole file, `size` patches at a time."""
        for start in range(0, len(self), size):
            yield start, self.read(start, min(start + size, len(self)))


def read_labels(path: str | Path) -> np.ndarray | None:
    """Labels of a y file as uint8 (N,), None when it says it is unlabelled.

    Raises: InputError when the file is missing or damaged, lacks key "y", or holds anything but 0 and 1.
    """
    with _opened(path) as handle, _inside(path):
        dataset = _dataset(handle, path, "y")
        labelled = dataset.attrs.get("labelled", True)
        if not isinstance(labelled, bool | np.bool_ | np.integer):
            raise InputError(f"{path}: attribute labelled of y is {labelled!r:.80}, not true or false; write it again")
        if not labelled:
            return None
        if dataset.size != len(dataset) or dataset.size == 0:
            raise InputError(f"{path}: y has shape {dataset.shape}, not (N, 1, 1, 1)")
        if dataset.dtype.kind not in "uifb":
            raise InputError(f"{path}: y holds {dataset.dtype}, not numbers; write the labels as 0 and 1")
        if dataset.nbytes > MOST_LABEL_BYTES:
            raise InputError(
                f"{path}: says it holds {len(dataset):,} labels, more than any set of patches; fetch it again"
            )
        try:
            labels = np.asarray(dataset).reshape(len(dataset), 1)
        except OSError as error:
            raise InputError(f"{path}: y cannot be read ({_short(error)}); fetch it again") from None
    labels = labels[:, 0]
    wrong = np.flatnonzero(~np.isin(labels, (0, 1)))
    if len(wrong):
        raise InputError(f"{path}: label {labels[wrong[0]]} in row {wrong[0]}; only 0 and 1 are labels")
    return labels.astype(np.uint8)


def stated_end(head: bytes) -> int | None:
    """Length in bytes that the first bytes of an HDF5 file state; None where they are no such bytes.

    Superblocks of versions 0 to 3, see the HDF5 file format specification, section II.A.
    """
    if len(head) < SUPERBLOCK or not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return None
    version = head[8]
    wide, at = (head[13], 40 + 4 * version) if version < 2 else (head[9], 28)
    return struct.unpack_from("<Q", head, at)[0] if version <= 3 and wide == 8 else None


def check_pair(x_path: str | Path, y_path: str | Path) -> tuple[int, np.ndarray | None]:
    """Number of patches and labels (None when unlabelled) of a split.

    Raises: InputError as PatchReader and read_labels do, and when x and y differ in length or a class is missing.
    """
    with PatchReader(x_path) as patches:
        n = len(patches)
    with _opened(y_path) as handle, _inside(y_path):
        n_labels = len(_dataset(handle, y_path, "y"))
    if n_labels != n:
        raise InputError(f"{y_path}: {n_labels} labels for the {n} patches of {x_path}; the pair must have one length")
    labels = read_labels(y_path)
    if labels is not None and len(np.unique(labels)) < 2:
        raise InputError(f"{y_path}: every label is {labels[0]}; a split needs both classes")
    return n, labels


def convert_lossless(patches: np.ndarray) -> np.ndarray:
    """uint8 patches from uint8 or float ones.

    Raises: ValueError when a value is not an integer in 0..255, because rounding would invent data.
    """
    if patches.dtype == np.uint8:
        return patches
    if not np.all(np.isfinite(patches)) or patches.min(initial=0) < 0 or patches.max(initial=0) > 255:
        raise ValueError("a value lies outside 0..255 or is not finite")
    converted = patches.astype(np.uint8)
    if not np.array_equal(converted, patches):
        raise ValueError("a value is not an integer")
    return converted


def write_patches(path: str | Path, patches: np.ndarray) -> None:
    """Write an x file atomically, contiguous and uncompressed, in the array's dtype (uint8 or float32)."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w", track_order=False) as handle:
        handle.create_dataset("x", data=patches, track_times=False)


def write_labels(path: str | Path, labels: np.ndarray | None, n: int) -> None:
    """Write a y file (N,1,1,1) atomically; None writes the unlabelled form."""
    values = np.full(n, UNLABELLED, np.uint8) if labels is None else labels.astype(np.uint8)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as handle:
        dataset = handle.create_dataset("y", data=values.reshape(n, 1, 1, 1), track_times=False)
        dataset.attrs["labelled"] = labels is not None
