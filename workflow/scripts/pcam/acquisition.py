"""Getting hold of PCam files: which are at hand, whether they are the published ones, and unpacking them."""

import errno
import gzip
import hashlib
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pcam.facts import (
    BYTES_GZ,
    FILE_SPLITS,
    MD5_GZ,
    MD5_H5,
    MD5_META,
    PATCH_BYTES,
    PATCHES,
    SHA256_GZ,
    pcam_filename,
)
from pcam.files import InputError, atomic_path
from pcam.hdf5 import SUPERBLOCK, stated_end

BLOCK_BYTES = 1 << 20
# EFBIG: a file system, or a limit of the process, that takes no file of that size.
CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS}


@dataclass(frozen=True)
class Published:
    """What is known beforehand of one file of the record, as it is served and, when that is packed, unpacked."""

    name: str
    digests: Mapping[str, str]  # by algorithm
    size_bytes: int | None  # None: no source gives it
    unpacked_md5: str | None  # None: it is served unpacked
    unpacked_bytes: int  # of the data alone; a file's own structures come on top


def published_file(name: str) -> Published:
    """The published file that gives `name`, an .h5 file or a meta CSV."""
    if name in MD5_META:
        return Published(name, {"md5": MD5_META[name]}, None, None, 0)
    packed = f"{name}.gz"
    unpacked = {
        pcam_filename(split, part): PATCHES[split] * size
        for split in FILE_SPLITS
        for part, size in (("x.h5", PATCH_BYTES), ("y.h5", 1))
    }
    digests = {"md5": MD5_GZ[packed], "sha256": SHA256_GZ[packed]}
    return Published(packed, digests, BYTES_GZ[packed], MD5_H5[name], unpacked[name])


def files_at_hand(directory: str | Path) -> dict[str, str]:
    """Paths of the files of a folder by role (train_x, train_y, train_meta, …), plain before gzipped.

    test_y and the meta CSVs are optional. Raises: InputError when the folder or a needed file is missing.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; set data.directory to the folder with the PCam files")
    found: dict[str, str] = {}
    for split in FILE_SPLITS:
        for part in ("x", "y"):
            plain = folder / pcam_filename(split, f"{part}.h5")
            candidates = [path for path in (plain, plain.with_suffix(".h5.gz")) if path.exists()]
            if candidates:
                found[f"{split}_{part}"] = str(candidates[0])
            elif (split, part) != ("test", "y"):
                raise InputError(f"{plain}: no such file, and none with .gz; data.directory needs it")
        meta = folder / pcam_filename(split, "meta.csv")
        if meta.exists():
            found[f"{split}_meta"] = str(meta)
    return found


def is_web_page(head: bytes) -> bool:
    """Whether a file that begins with `head` is HTML: neither gzip, HDF5 nor PCam's CSV begins with "<"."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<")


def what_differs(path: Path, digests: Mapping[str, str], size_bytes: int | None = None) -> str | None:
    """In words, why the file is not the published one with these digests; None when it is. Reads it once."""
    with path.open("rb") as handle:
        if is_web_page(handle.read(64)):
            return "a web page under the name of a data file"
        found_bytes = path.stat().st_size
        if size_bytes is not None and found_bytes != size_bytes:
            verdict = "cut short" if found_bytes < size_bytes else "too long"
            return f"{verdict}: {found_bytes:,} bytes, the published file has {size_bytes:,}"
        handle.seek(0)
        sums = {algorithm: hashlib.new(algorithm) for algorithm in digests}
        while block := handle.read(BLOCK_BYTES):
            for digest in sums.values():
                digest.update(block)
    for algorithm, expected in digests.items():
        if (found := sums[algorithm].hexdigest()) != expected:
            return f"wrong digest: {algorithm} {found}, the published file has {expected}"
    return None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name a disk that cannot take what the block writes to `path`. Raises: InputError when full or not writable."""
    try:
        yield
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); make room there, or set data.root to another disk"
        ) from None


def require_space(folder: Path, needed_bytes: int, name: str) -> None:
    """Raises: InputError when the disk of `folder` has less than `needed_bytes` free."""
    if (free := shutil.disk_usage(folder).free) < needed_bytes:
        raise InputError(
            f"{folder}: {name} needs {needed_bytes / 1e9:,.2f} GB and {free / 1e9:,.2f} GB are free; "
            "make room there, or set data.root to another disk"
        )


def decompress(source: Path, target: Path, *, md5: str | None = None, hdf5: bool = False) -> None:
    """Unpack a .gz file in blocks, atomically; with `md5`, only what has that digest takes the place of `target`.

    hdf5: refuse what holds no HDF5 file, and go no further than the length that it states: a file of a few MB can
    unpack to more than any disk holds.

    Raises: InputError when it is truncated, damaged or no gzip file (an HTML page saved under that name), when it
    unpacks to something else, or when the disk is full.
    """
    digest = hashlib.md5()
    try:
        with gzip.open(source, "rb") as packed, writing(target), atomic_path(target) as temporary:
            with temporary.open("wb") as out:
                block = packed.read(BLOCK_BYTES)
                end = stated_end(block[:SUPERBLOCK]) if hdf5 else None
                if hdf5 and end is None:
                    raise InputError(f"{source}: no HDF5 file is packed in it; it begins with {block[:8]!r}")
                while block:
                    digest.update(block)
                    out.write(block)
                    if end is not None and out.tell() > end:
                        raise InputError(
                            f"{source}: unpacks to more than the {end:,} bytes of its HDF5 file; fetch it again"
                        )
                    block = packed.read(BLOCK_BYTES)
            if md5 is not None and (found := digest.hexdigest()) != md5:
                raise InputError(f"{source}: wrong digest: it unpacks to md5 {found}, not {md5}; fetch it again")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{source}: not a whole gzip file ({error}); fetch it again") from None
