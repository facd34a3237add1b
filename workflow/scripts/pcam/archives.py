"""One archive of many files: the same bytes whenever the files are the same, unpacked only where it is safe."""

import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from pcam.files import InputError, atomic_path

MODIFIED = 315532800  # 1980-01-01 UTC; tar calls 1970 implausible
LEVEL = 6
_PIECE = 1 << 20  # bytes read at a time
# A part of a path: no space, no quote, no control character, neither a drive nor an option.
_PART = re.compile(r"[A-Za-z0-9_.+!][A-Za-z0-9_.+!-]*")


def pack(archive: str | Path, files: Mapping[str, Path], programs: Collection[str]) -> None:
    """Write a .tar.gz atomically: members sorted by name, one time, owner root, mode 755 for `programs`, else 644.

    Raises: ValueError on a name that `unpack` would refuse.
    """
    with (
        atomic_path(archive) as temporary,
        temporary.open("wb") as handle,
        gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=handle, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name in sorted(files):
            if fault := _fault_of_name(name):
                raise ValueError(f"{name!r}: {fault}")
            member = tarfile.TarInfo(name)
            member.size, member.mtime = files[name].stat().st_size, MODIFIED
            member.mode = 0o755 if name in programs else 0o644
            with files[name].open("rb") as content:
                tar.addfile(member, content)


class _Bounded(io.RawIOBase):
    """What an archive decompresses to; reading more than `limit` bytes of it raises InputError."""

    def __init__(self, stream: gzip.GzipFile, archive: str | Path, limit: int) -> None:
        self._stream, self._archive, self._limit, self._left = stream, archive, limit, limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise InputError(f"{self._archive}: unpacks to more than {self._limit:,} bytes; it is no bundle of ours")
        return content


def _fault_of_name(name: str) -> str | None:
    if name.startswith("/"):
        return "an absolute path"
    for part in name.split("/"):
        if part in ("", ".", ".."):
            return "a path that leaves its folder or says a folder twice"
        if not _PART.fullmatch(part):
            return "a name with characters that no file of a bundle has"
    return None


def _fault(member: tarfile.TarInfo, seen: set[str]) -> str | None:
    if member.issym() or member.islnk():
        return "a link"
    if not member.isreg() or member.issparse():
        return "no plain file"
    return _fault_of_name(member.name) or ("there twice" if member.name in seen else None)


@contextmanager
def _members(archive: str | Path, limit: int) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """The open archive and its members, each looked at before it is given. Raises: as `unpack` does."""

    def checked(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        seen: set[str] = set()
        total = 0
        for member in tar:
            if fault := _fault(member, seen):
                raise InputError(f"{archive}: its member {member.name[:80]!r} is {fault}; do not unpack it")
            seen.add(member.name)
            total += member.size
            if total > limit:
                raise InputError(f"{archive}: unpacks to more than {limit:,} bytes; it is no bundle of ours")
            yield member
        if not seen:
            raise InputError(f"{archive}: holds no file; build it again")
        while bounded.read(_PIECE):  # gzip compares its checksum at the very end, which tar does not read
            pass

    try:
        with gzip.open(archive, "rb") as stream:
            bounded = cast(IO[bytes], _Bounded(stream, archive, limit))
            with tarfile.open(fileobj=bounded, mode="r|") as tar:
                yield tar, checked(tar)
    except FileNotFoundError:
        raise InputError(f"{archive}: no such file") from None
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError) as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); build it again") from None


def unpack(archive: str | Path, folder: str | Path, limit: int) -> list[str]:
    """Write the archive's files below `folder`, which does not exist yet; their names in order.

    Nothing is written before every member has been looked at. `limit`: most bytes that it may decompress to.
    Raises: InputError when it is no .tar.gz, unpacks to more, or holds anything but plain files below its own folder.
    """
    with _members(archive, limit) as (_, members):
        for _ in members:
            pass
    Path(folder).mkdir(parents=True)
    names = []
    with _members(archive, limit) as (tar, members):
        for member in members:
            tar.extract(member, folder, filter="data")
            names.append(member.name)
    return sorted(names)
