"""The rows that each of several jobs takes of one set; Snakemake names a shard by its scatter item, as in "3-of-8"."""

import csv
from collections.abc import Sequence
from pathlib import Path

from pcam.files import InputError


def shard_rows(shard: str | None, n: int, unit: int = 1) -> range:
    """The rows of `shard` among n, all of them where it is None.

    Shards follow one another, begin at multiples of `unit` and differ by at most one unit; where there are fewer units
    than shards, some are empty.
    """
    if shard is None:
        return range(n)
    number, shards = map(int, shard.split("-of-"))
    units = -(-n // unit)
    return range(*(min(units * k // shards * unit, n) for k in (number - 1, number)))


def read_rows(path: str | Path, columns: Sequence[str], rows: range) -> tuple[list[dict[str, str]], int]:
    """Lines `rows` of a table as dicts of strings, and how many lines it has; memory holds those lines alone.

    Raises: InputError when the file is missing, not text or lacks one of `columns`.
    """
    try:
        with Path(path).open(newline="") as handle:
            reader, lines, n = csv.DictReader(handle), [], 0
            held = reader.fieldnames or []
            for n, line in enumerate(reader, 1):
                if rows.start < n <= rows.stop:
                    lines.append(line)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file ({error})") from None
    if missing := [name for name in columns if name not in held]:
        raise InputError(f"{path}: column {missing[0]!r} is missing; it holds {', '.join(held or ['nothing'])}")
    return lines, n
