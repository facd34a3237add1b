"""Plain files: atomic writing, JSON, CSV, digests, and the error a user's mistake raises."""

import csv
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST = 700  # letters of a user's mistake


def printable(text: str) -> str:
    """The text in one line that a terminal shows as it is: what is no letter of it is written as its escape, \\x1b."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class InputError(Exception):
    """A user's mistake: one line with the file, the value and the way out. Stages print it without a traceback.

    Names and values come from outside: the line is printable, and of one too long the middle is left out, for the file
    stands first and the way out last.
    """

    def __init__(self, line: str) -> None:
        shown = printable(line)
        super().__init__(
            shown if len(shown) <= LONGEST else f"{shown[: LONGEST // 2 - 2]} … {shown[1 - LONGEST // 2 :]}"
        )


class TrainingFailed(InputError):
    """A training that its settings cannot finish: it diverged, or needs too much memory. To a search it is a result."""


def current_umask() -> int:
    """The process's umask, which can be read only by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it when the block ends well and vanishes when it does not."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~current_umask())  # mkstemp makes files private; results are meant for the whole group
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that replaces it when the block ends well and vanishes when it does not."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        temporary.chmod(0o777 & ~current_umask())  # mkdtemp makes folders private, as mkstemp makes files
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write `document` atomically; NaN and infinity are refused, because JSON has none.

    Raises: ValueError on a non-finite number.
    """
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """Raises: InputError when the file is missing, not JSON or not an object."""
    try:
        document = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:  # a folder, other bytes, too long a number, too deep a list
        raise InputError(f"{path}: not a JSON file ({error}); rebuild it") from None
    if not isinstance(document, dict):
        raise InputError(f"{path}: holds {type(document).__name__}, not a JSON object; rebuild it")
    return document


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows atomically. Floats are written so that reading gives the same bits; None is an empty cell."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


@contextmanager
def _table(path: str | Path) -> "Iterator[csv.DictReader[str]]":
    """Raises: InputError when the file is missing, a folder, or not text."""
    try:
        with Path(path).open(newline="") as handle:
            yield csv.DictReader(handle)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({getattr(error, 'strerror', None) or error})") from None


def iter_csv(path: str | Path) -> Iterator[dict[str, str]]:
    """Rows as dicts of strings, one at a time. Raises: InputError when the file is missing or not text."""
    with _table(path) as reader:
        yield from reader


def read_csv(path: str | Path, columns: Sequence[str] = ()) -> list[dict[str, str]]:
    """Rows as dicts of strings.

    Raises: InputError when the file is missing, not text or lacks one of `columns`.
    """
    with _table(path) as reader:
        rows = list(reader)
        fields = reader.fieldnames or ()
    if missing := [name for name in columns if name not in fields]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; it holds {', '.join(fields) or 'nothing'}")
    return rows


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Hexadecimal digest of a file's bytes, read in blocks. Raises: InputError when it is missing or a folder."""
    try:
        with Path(path).open("rb") as handle:
            return hashlib.file_digest(handle, algorithm).hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def document_digest(document: Any) -> str:
    """sha256 of a JSON-like value, whatever the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def finite_or_none(value: float) -> float | None:
    """JSON knows no NaN: a value that is undefined is written as null."""
    return float(value) if math.isfinite(value) else None
