"""How many patches a PCam file holds and whether it is whole, from its ends, without reading it all."""

import io
import struct
import zlib
from pathlib import Path

import h5py

from pcam.acquisition import BLOCK_BYTES
from pcam.files import InputError
from pcam.hdf5 import PatchReader, read_labels

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What describes the one dataset of a PCam file stands at its beginning.
HEAD_BYTES = 1 << 16


class _Beginning(io.RawIOBase):
    """A file of which only the beginning is known; the rest reads as zeros."""

    def __init__(self, head: bytes, length: int) -> None:
        self._head, self._length, self._at = head, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = max(min(len(buffer), self._length - self._at), 0)
        buffer[:count] = self._head[self._at : self._at + count].ljust(count, b"\0")
        self._at += count
        return count


def count_of(path: str) -> int | None:
    """Patches of an x file, or labels of a y file. Raises: InputError as PatchReader and read_labels do."""
    if path.endswith("_y.h5"):
        labels = read_labels(path)
        return None if labels is None else len(labels)
    with PatchReader(path) as patches:
        return len(patches)


def end_of_file(head: bytes) -> int | None:
    """Length of an HDF5 file as its superblock tells it; None when `head` is not the beginning of such a file.

    Places as in the HDF5 File Format Specification, section "Disk Format: Level 0A".
    """
    if not head.startswith(SIGNATURE) or len(head) < 96:
        return None
    at = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8])
    return None if at is None else int(struct.unpack_from("<Q", head, at)[0])


def _count_from(head: bytes, length: int) -> int | None:
    try:
        with h5py.File(_Beginning(head, length), "r") as handle:
            return next((len(handle[key]) for key in ("x", "y") if key in handle), None)
    except (OSError, KeyError, RuntimeError):
        return None  # it is described further on; the import will tell


def peek_gzip(path: str) -> dict[str, int | None]:
    """`unpacked_bytes` of a gzipped HDF5 file, and `patches` where its beginning tells them.

    gzip ends with the length of what it holds, modulo 2³². Where that is not the length the HDF5 file within tells, the
    whole is unpacked, in memory and thrown away, before it is called damaged.

    Raises: InputError when it is cut short or holds no HDF5 file.
    """
    with Path(path).open("rb") as handle:
        packed = handle.read(HEAD_BYTES)
        handle.seek(-4, io.SEEK_END)
        (tail,) = struct.unpack("<I", handle.read(4))
    try:
        head = zlib.decompressobj(wbits=31).decompress(packed, HEAD_BYTES)
    except zlib.error as error:
        raise InputError(f"{path}: not a gzip file ({error}); fetch it again") from None
    length = end_of_file(head)
    if length is None:
        raise InputError(f"{path}: what is packed there is no HDF5 file; fetch it again")
    # What follows the end of the HDF5 file, h5py ignores.
    if length % 2**32 != tail and (found := unpacked_length(path)) < length:
        raise InputError(f"{path}: cut short: it unpacks to {found:,} bytes of {length:,}; fetch it again")
    return {"unpacked_bytes": length, "patches": _count_from(head, length)}


def unpacked_length(path: str) -> int:
    """Bytes that a gzip file gives until it ends or breaks off."""
    length, inflate = 0, zlib.decompressobj(wbits=31)
    with Path(path).open("rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            while block:
                try:
                    length += len(inflate.decompress(block))
                except zlib.error:
                    return length
                block = inflate.unused_data
                if inflate.eof:
                    inflate = zlib.decompressobj(wbits=31)
    return length
