"""What stands behind the documents: every cited value with file and key, and where each cited file comes from."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from pcam.binding import Citation, Number, clean, clean_tree, parts_of, take_marks
from pcam.checks import FIX, UNKNOWN, WARN
from pcam.documents import Source, cell, commit_of
from pcam.files import InputError, document_digest, file_digest, iter_csv, read_json

CONFIG = "config"  # the merged config of a run, cited like a file
ANEW = "snakemake --forcerun write_journal -- results/report.html writes it anew"
# What evidence.json holds: parts, and the keys of each of their entries.
_BOUND = {"text": str, "numbers": list}
_SHAPE: dict[str, tuple[type, dict[str, Any]]] = {
    "documents": (dict, {"sha256": str, "numbers": list}),
    "verdicts": (list, {"title": str, "at": str, "state": str, "head": dict, "text": dict}),
    "cited": (list, {"file": str, "key": str, "value": (str, int, float, NoneType)}),
    "missing": (list, {"file": str, "key": str}),
    "unbound": (dict, {}),
    "sources": (dict, {"rule": str, "sha256": str}),
    "provenance": (dict, {}),
}
_HEADER = re.compile(r"# \w+ \| [^|]* \| commit (\w+)( \(dirty\))?(?: \| code (\w+))? \| (.*)")


class Absent:
    """What a key gives that is not there."""


class Results:
    """Values of result files by key, each file read once. Of an object or a list the value is a digest."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = clean_tree(config)
        self._digest = cache(file_digest)
        self._json = cache(lambda path: clean_tree(read_json(path)))
        self._rows: dict[str, dict[int, dict[str, str]]] = {}

    def expect(self, citations: Iterable[Citation]) -> None:
        """Read the rows of tables that are going to be asked for, each table in one pass."""
        wanted: dict[str, set[int]] = {}
        for file, key in citations:
            if file.endswith(".csv") and (at := _cell_of(key)):
                wanted.setdefault(file, set()).add(at[0])
        for file, places in wanted.items():
            rows = enumerate(iter_csv(file)) if os.path.isfile(file) else ()
            self._rows[file] = {i: row for i, row in rows if i in places}

    def value(self, file: str, key: str) -> Any:
        """A number, text, truth value or None; "sha256:…" for a whole file, object or list; Absent.

        Raises: InputError when the file cannot be read.
        """
        if file == CONFIG:
            return _part(self._config, parts_of(key))
        if not os.path.isfile(file):
            return Absent
        if file.endswith(".json") and key:
            return _part(self._json(file), parts_of(key))
        if file.endswith(".csv") and key:
            if (at := _cell_of(key)) is None:
                return Absent
            if file not in self._rows:
                self.expect([(file, key)])
            row = self._rows[file].get(at[0], {})
            return cell(row[at[1]]) if at[1] in row else Absent
        if file.endswith(".txt"):
            return clean(Path(file).read_text().strip())
        return f"sha256:{self._digest(file)}"


def _cell_of(key: str) -> tuple[int, str] | None:
    """Row and column that a key of a table names; None for a key that names no cell."""
    match parts_of(key):
        case [int(row), str(column)]:
            return row, column
    return None


def _part(value: Any, parts: Sequence[str | int]) -> Any:
    for part in parts:
        if isinstance(part, int):
            if not isinstance(value, list | tuple) or part >= len(value):
                return Absent
            value = value[part]
        else:
            names = {str(name): name for name in value} if isinstance(value, Mapping) else {}
            if part not in names:
                return Absent
            value = value[names[part]]
    return f"sha256:{document_digest(value)}" if isinstance(value, Mapping | list | tuple) else value


def _entries(whole: Any) -> Iterable[tuple[Any, Any]]:
    return whole.items() if isinstance(whole, dict) else enumerate(whole)


def _check(where: str, entry: Any, keys: Mapping[str, Any]) -> None:
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is no object")
    for key, kind in keys.items():
        if key not in entry:
            raise ValueError(f"{where} lacks {key}")
        if not isinstance(entry[key], kind):
            raise ValueError(f"{where} has a {key} of another type")


def _check_numbers(where: str, numbers: Sequence[Any], length: int | None, cited: int) -> None:
    """Numbers stand one behind the other in a text of `length` letters, where that is known, and cite what is there."""
    end = 0
    for place, number in enumerate(numbers):
        _check(f"{where}.numbers[{place}]", number, {"start": int, "end": int, "cites": list})
        known = all(isinstance(i, int) and 0 <= i < cited for i in number["cites"])
        if not known or not end <= number["start"] <= number["end"] <= (number["end"] if length is None else length):
            raise ValueError(f"{where}.numbers[{place}] has no place in the text, or cites what is not cited")
        end = number["end"]


def read_evidence(path: str) -> dict[str, Any]:
    """Raises: InputError when there is no evidence.json, or it is damaged or that of another version."""
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file, so there is nothing to check; snakemake results/report.html")
    evidence = read_json(path)
    try:
        _check("it", evidence, {part: kind for part, (kind, _) in _SHAPE.items()})
        for part, (_, keys) in _SHAPE.items():
            for place, entry in _entries(evidence[part]) if keys else ():
                _check(f"{part}[{place!r}]", entry, keys)
        for place, words in evidence["unbound"].items():
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"unbound[{place!r}] is no list of texts")
        cited = len(evidence["cited"])
        for place, document in evidence["documents"].items():
            _check_numbers(f"documents[{place!r}]", document["numbers"], None, cited)
        for i, verdict in enumerate(evidence["verdicts"]):
            for part in ("head", "text"):
                _check(f"verdicts[{i}].{part}", verdict[part], _BOUND)
                _check_numbers(f"verdicts[{i}].{part}", verdict[part]["numbers"], len(verdict[part]["text"]), cited)
    except ValueError as error:
        raise InputError(f"{path}: {error}; another version wrote it, or it is damaged: {ANEW}") from None
    return evidence


class Book:
    """Gives each citation its id, in the order in which documents cite."""

    def __init__(self) -> None:
        self._ids: dict[Citation, int] = {}

    def bind(self, marked: str) -> dict[str, Any]:
        """`text` without marks, and `numbers`: start, end and the ids of what each cites."""
        text, numbers = take_marks(marked)
        bound: list[Number] = [
            {**number, "cites": [self._ids.setdefault(cite, len(self._ids)) for cite in number["cites"]]}
            for number in numbers
        ]
        return {"text": text, "numbers": bound}

    def cited(self, results: Results) -> list[dict[str, Any]]:
        """File, key and value of each; a value that was sought and is not there is `missing`."""
        results.expect(self._ids)
        entries = []
        for file, key in self._ids:
            value = results.value(file, key)
            gone = {"value": None, "missing": True} if value is Absent else {"value": value}
            entries.append({"file": file, "key": key, **gone})
        return entries


class Origins:
    """Where results come from: commit, dirty, code and device, as the result says itself, or a JSON file that its rule
    wrote beside it, or its rule's log, whose first line stands again where a GPU was named. What none tells is None.
    """

    def __init__(self, sources: Mapping[str, Source], logs: Mapping[str, str]) -> None:
        self._logs = logs
        self._beside: dict[tuple[str, Path], str] = {}
        for source in sources.values():
            if source.path.endswith(".json") and Path(source.path).is_file():
                self._beside.setdefault((source.rule, Path(source.path).parent), source.path)
        self._told = cache(lambda path: clean_tree(read_json(path).get("provenance", {})))

    def of(self, source: Source) -> dict[str, Any]:
        if source.path.endswith(".json"):
            path = source.path if Path(source.path).is_file() else None
        else:
            path = self._beside.get((source.rule, Path(source.path).parent))
        told = self._told(path) if path else self._of_log(self._logs.get(source.path))
        return {key: told.get(key) for key in ("commit", "dirty", "code", "device")}

    def _of_log(self, log: str | None) -> dict[str, Any]:
        if log is None or not Path(log).is_file():
            return {}
        with Path(log).open(errors="replace") as lines:
            first = next(lines, "")
            same = f"{first.rpartition(' | ')[0]} | "  # all but the device
            found = _HEADER.match([first, *(line for line in lines if line.startswith(same))][-1])
        if found is None:
            return {}
        commit, dirty, code, device = (told and clean(told) for told in found.groups())
        known = commit != "None"
        return {"commit": commit if known else None, "dirty": bool(dirty) if known else None, "code": code,
                "device": device}  # fmt: skip


def preflight_words(path: str | Path) -> list[str] | None:
    """What the documents rest on of a pre-flight table: its result, its commit and each check that did not pass.

    None without a table. A file that is no such table says so: the rule that reads it fails on it, not every rule.
    """
    if not Path(path).is_file():
        return None
    try:
        table = read_json(path)
        rows = [(i, row) for i, row in enumerate(table["checks"]) if row["result"] in (FIX, WARN, UNKNOWN)]
        told = [f"{i} {row['check']}: {row['result']} {document_digest(row)}" for i, row in rows]
        return [str(table["result"]), commit_of(table["provenance"]), *told]
    except (InputError, KeyError, TypeError) as error:
        return [f"unreadable: {error}"]


def documented(
    texts: Mapping[str, str],
    verdicts: Sequence[Mapping[str, str]],
    unbound: Mapping[str, Sequence[str]],
    sources: Mapping[str, Source],
    logs: Mapping[str, str],
    config: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> tuple[dict[str, str], dict[str, Any]]:
    """The documents without marks, and results/evidence.json: their numbers, what these cite, where that comes from."""
    book, plain, documents = Book(), {}, {}
    for path, marked in texts.items():
        bound = book.bind(marked)
        plain[path] = bound["text"]
        documents[path] = {"sha256": hashlib.sha256(bound["text"].encode()).hexdigest(), "numbers": bound["numbers"]}
    screen = [{**verdict, **{key: book.bind(verdict[key]) for key in ("head", "text")}} for verdict in verdicts]
    cited = book.cited(Results(config))
    origins = Origins(sources, logs)
    told: dict[str, Any] = {}
    for source in sources.values():
        if Path(source.path).is_file():
            written = datetime.fromtimestamp(Path(source.path).stat().st_mtime, UTC).isoformat(timespec="seconds")
            digest = file_digest(source.path)
            told[source.path] = {"rule": source.rule, **origins.of(source), "written": written, "sha256": digest}
    run = {key: provenance.get(key) for key in ("rule", "commit", "dirty", "code", "device")}
    told[CONFIG] = {**run, "written": None, "sha256": document_digest(config)}
    return plain, {
        "documents": documents,
        "verdicts": screen,
        "cited": cited,
        "missing": [{"file": entry["file"], "key": entry["key"]} for entry in cited if entry.get("missing")],
        "unbound": {path: list(words) for path, words in unbound.items() if words},
        "sources": told,
        "provenance": dict(provenance),
    }
