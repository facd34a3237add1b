"""Evidence: every figure of a document is looked up in a result file, remembers where, and what is missing says so.

A template sees each result file by name. A file or key that does not exist renders as
`missing: results/… (rule …)`; there are no defaults.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2

from pcam.binding import Citation, bare, cited, clean, clean_tree, fixed, key_of, mark
from pcam.files import iter_csv, read_json

FILL_IN = "[fill in]"
PERCENT_95 = fixed("95 %")  # the level of every interval over seeds and of Wilson's: pcam.metrics has no other
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "f_beta": "F-beta",
    "brier": "Brier score",
    "ece": "ECE (calibration error)",
}


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[+-]?(?:inf|infinity|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """Where one piece of evidence stands, and the rule that writes it."""

    path: str
    rule: str


class Missing:
    """What a lookup gives when file or key is not there. Everything of it is missing too, and cites what was sought."""

    def __init__(self, source: Source, key: str = "") -> None:
        self._source, self._key = source, key
        self.cites: tuple[Citation, ...] = ((source.path, key),)

    def __getattr__(self, name: str) -> "Missing":
        if name.startswith("__"):  # protocols ask for these
            raise AttributeError(name)
        return self

    def __getitem__(self, key: object) -> "Missing":
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __str__(self) -> str:
        key = f", key {self._key}" if self._key else ""
        return mark(f"missing: {clean(self._source.path)}{key} (rule {self._source.rule})", self.cites)


class Node:
    """A JSON object of a result file; `node.key` and `node["key"]` look up, iteration gives the keys.

    Numbers and texts in it cite the file and their key, see `pcam.binding`.
    """

    def __init__(self, data: Mapping[str, Any], source: Source, at: str = "") -> None:
        self._data, self._source, self._at = data, source, at

    @property
    def cites(self) -> tuple[Citation, ...]:
        return ((self._source.path, self._at),)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, key: object) -> Any:
        name, at = str(bare(key)), key_of(self._at, key)
        if name not in self._data:
            return Missing(self._source, at)
        return self._wrapped(self._data[name], at)

    def _wrapped(self, value: Any, at: str) -> Any:
        return _wrapped(value, self._source, at)

    def __iter__(self) -> Iterator[str]:
        source = self._source.path
        return (cited(key, [(source, key_of(self._at, key))]) for key in self._data if key != "provenance")

    def __len__(self) -> int:
        return sum(1 for key in self._data if key != "provenance")

    def __contains__(self, key: object) -> bool:
        return str(bare(key)) in self._data


class Row(Node):
    """A row of a CSV file: its cells are numbers, texts, or None for what is empty or not a number."""

    def _wrapped(self, value: Any, at: str) -> Any:
        return super()._wrapped(cell(value), at)


class Items(list[Any]):
    """A JSON list of a result file, wrapped item by item as it is read."""

    def __init__(self, values: Sequence[Any], source: Source, at: str) -> None:
        super().__init__(values)
        self._source, self._at = source, at

    @property
    def cites(self) -> tuple[Citation, ...]:
        return ((self._source.path, self._at),)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        place = range(len(self))[index]
        return _wrapped(super().__getitem__(place), self._source, f"{self._at}[{place}]")

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __reversed__(self) -> Iterator[Any]:
        return (self[i] for i in reversed(range(len(self))))


class Rows(Sequence[Any]):
    """The rows of a CSV file, read from it each time they are asked for: there may be hundreds of thousands."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.cites: tuple[Citation, ...] = ((source.path, ""),)

    def __iter__(self) -> Iterator[Any]:
        for i, row in enumerate(iter_csv(self._source.path)):
            yield Row(row, self._source, f"[{i}]")

    @cached_property
    def _length(self) -> int:
        return sum(1 for _ in iter_csv(self._source.path))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        return next(islice(self, range(len(self))[index], None))


def _wrapped(value: Any, source: Source, at: str) -> Any:
    if isinstance(value, dict):
        return Node(value, source, at)
    return Items(value, source, at) if isinstance(value, list) else cited(value, [(source.path, at)])


def cell(text: str) -> int | float | str | None:
    """A cell of a CSV file: a number, a text, or None for what is empty or not finite.

    Only what a number is written as is one: 0042 or 1_000 is a name, and so is 12e400, which no float holds.
    """
    if not text or _NOT_FINITE.fullmatch(text):
        return None
    if found := _NUMBER.fullmatch(text):
        value = float(text) if found[1] or found[2] else int(text)
        if isinstance(value, int) or math.isfinite(value):
            return value
    return clean(text)


def open_evidence(source: Source) -> Any:
    """A result file as Node (JSON), Rows (CSV), or text; Missing when it does not exist.

    Raises: InputError when it exists and cannot be read; of a CSV file, when its rows are read.
    """
    if not Path(source.path).is_file():
        return Missing(source)
    if source.path.endswith(".json"):
        return Node(clean_tree(read_json(source.path)), source)
    if source.path.endswith(".csv"):
        return Rows(source)
    return cited(clean(Path(source.path).read_text().strip()), [(source.path, "")])


def is_measured(value: object) -> bool:
    """Whether a value exists and is defined."""
    return value is not None and not isinstance(value, Missing | jinja2.Undefined)


def commit_of(provenance: Any) -> str:
    """Short commit, with what makes it uncertain."""
    commit = provenance["commit"]
    if not is_measured(commit):
        return "none (no commit)"
    return f"{commit[:8]} with uncommitted changes" if provenance["dirty"] is True else commit[:8]


def words(name: object) -> str:
    """A key as a reader writes it."""
    return METRIC_NAMES.get(str(name), str(name).replace("_", " "))


def plain(value: Any) -> str:
    """A setting as the config writes it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {plain(of)}" for key, of in value.items()) + "}" if value else "none"
    return str(value)


def counted(n: Any, noun: str) -> Any:
    """Such as "1 run" or "3 runs"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}" if isinstance(n, int) else n


def number(value: Any, digits: int = 3) -> Any:
    """A float in fixed notation; undefined and missing values stay what they are."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) else value


def percent(value: Any, digits: int = 1) -> Any:
    return f"{100 * value:.{digits}f} %" if isinstance(value, int | float) else value


def interval(pair: Any, digits: int = 3) -> Any:
    if not isinstance(pair, list | tuple):
        return pair
    return f"{pair[0]:.{digits}f} to {pair[1]:.{digits}f}"


def mean_sd(summary: Any, digits: int = 3) -> Any:
    """mean ± sd (interval; n) of a summary over seeds; of one seed, the value alone, said so."""
    if not is_measured(summary) or not is_measured(summary.mean):
        return summary.mean if isinstance(summary, Node) else summary
    n = summary.n
    if not is_measured(n) or n < 2:
        return f"{number(summary.mean, digits)} (one seed: no sd)"
    spread = f"± {number(summary.sd, digits)} ({PERCENT_95} interval {interval(summary.interval, digits)}; n = {n})"
    return f"{number(summary.mean, digits)} {spread}"


def estimate(told: Any, digits: int = 3) -> Any:
    """An estimate and its interval; what is undefined says why."""
    if not is_measured(told):
        return told
    if told.value is None:
        return f"undefined: {told.note}" if is_measured(told.note) else "undefined"
    value = number(told.value * 1.0, digits)
    return value if told.low is None else f"{value} ({interval([told.low, told.high], digits)})"


def merge_answers(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of all. Raises: ValueError when two answers have one name: the template would show the later one."""
    names = [name for part in parts for name in part]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two answers are called {', '.join(twice)}")
    return {name: answer for part in parts for name, answer in part.items()}
