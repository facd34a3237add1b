"""Evidence and rendering: every figure of a document is looked up in a result file, and what is missing says so.

A template sees each result file by name. A file or key that does not exist renders as
`missing: results/… (rule …)`; there are no defaults. Text from data is escaped, for Markdown and for HTML.
"""

import ast
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pcam.files import InputError, read_csv, read_json

FILL_IN = "[fill in]"
METRIC_NAMES = {
    "roc_auc": "ROC-AUC",
    "pr_auc": "PR-AUC",
    "f_beta": "F-beta",
    "brier": "Brier score",
    "ece": "ECE (calibration error)",
}


@dataclass(frozen=True)
class Source:
    """Where one piece of evidence stands, and the rule that writes it."""

    path: str
    rule: str


class Missing:
    """What a lookup gives when file or key is not there. Everything of it is missing too."""

    def __init__(self, source: Source, key: str = "") -> None:
        self._source, self._key = source, key

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
        return f"missing: {self._source.path}{key} (rule {self._source.rule})"


class Node:
    """A JSON object of a result file; `node.key` and `node["key"]` look up, iteration gives the keys."""

    def __init__(self, data: Mapping[str, Any], source: Source, at: str = "") -> None:
        self._data, self._source, self._at = data, source, at

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, key: object) -> Any:
        at = f"{self._at}.{key}".lstrip(".")
        if str(key) not in self._data:
            return Missing(self._source, at)
        return _wrapped(self._data[str(key)], self._source, at)

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._data if key != "provenance")

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return str(key) in self._data


def _wrapped(value: Any, source: Source, at: str) -> Any:
    if isinstance(value, dict):
        return Node(value, source, at)
    if isinstance(value, list):
        return [_wrapped(item, source, f"{at}[{i}]") for i, item in enumerate(value)]
    return value


def _cell(text: str) -> int | float | str | None:
    """A number, a text, or None for what is empty or not a number."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else None
    return text or None


def open_evidence(source: Source) -> Any:
    """A result file as Node (JSON), rows (CSV), or text; Missing when it does not exist.

    Raises: InputError when it exists and cannot be read.
    """
    if not Path(source.path).is_file():
        return Missing(source)
    if source.path.endswith(".json"):
        return Node(read_json(source.path), source)
    if source.path.endswith(".csv"):
        rows = [{key: _cell(value) for key, value in row.items()} for row in read_csv(source.path)]
        return _wrapped(rows, source, "")
    return Path(source.path).read_text().strip()


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
    return "none" if value == {} else str(value)


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
    spread = f"± {number(summary.sd, digits)} (95 % interval {interval(summary.interval, digits)}; n = {n})"
    return f"{number(summary.mean, digits)} {spread}"


def estimate(told: Any, digits: int = 3) -> Any:
    """An estimate and its interval; what is undefined says why."""
    if not is_measured(told):
        return told
    if told.value is None:
        return f"undefined: {told.note}" if is_measured(told.note) else "undefined"
    value = number(float(told.value), digits)
    return value if told.low is None else f"{value} ({interval([told.low, told.high], digits)})"


def merge_answers(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping of all. Raises: ValueError when two answers have one name: the template would show the later one."""
    names = [name for part in parts for name in part]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two answers are called {', '.join(twice)}")
    return {name: answer for part in parts for name, answer in part.items()}


def escape_markdown(text: str) -> str:
    """Text of any origin as Markdown that shows exactly it, in a paragraph or in a table's cell."""
    text = re.sub(r"([\\`*\[\]<>|&~#])", r"\\\1", " ".join(text.split()))
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)


def code(text: object) -> Markup:
    """Inline code that holds in a table's cell."""
    shown = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return Markup(f"`{shown}`") if not isinstance(text, Missing) else Markup(escape_markdown(str(text)))


def shown(value: Any) -> str:
    """A value as plain text. Raises: TypeError for a float, whose digits the template has to choose."""
    if value is None:
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        raise TypeError(f"{value!r} has no number of digits; use the filter number or percent")
    if isinstance(value, jinja2.Undefined):
        str(value)  # StrictUndefined raises and names the variable
    return str(value)


def in_markdown(value: Any) -> Markup:
    return value if isinstance(value, Markup) else Markup(escape_markdown(shown(value)))


def table(head: Sequence[str], rows: Iterable[Sequence[Any]] | Missing) -> Markup:
    """A Markdown table, every cell escaped."""
    if isinstance(rows, Missing):
        return in_markdown(rows)
    lines: list[list[Any]] = [list(head), ["---"] * len(head), *([in_markdown(cell) for cell in row] for row in rows)]
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


def _environment(folder: Path, finalize: Callable[[Any], Any]) -> jinja2.Environment:
    # Autoescaping marks what is safe already (Markup), and `finalize` escapes the rest for the document's language.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, percent=percent, interval=interval, mean_sd=mean_sd, code=code)
    environment.tests["measured"] = is_measured
    environment.globals.update(table=table, counted=counted)
    return environment


def render_markdown(template: str | Path, context: Mapping[str, Any]) -> str:
    """Fill a Markdown template. Raises: jinja2.UndefinedError on a name the template should not use."""
    text = _environment(Path(template).parent, in_markdown).get_template(Path(template).name).render(context)
    return re.sub(r"\n{3,}", "\n\n", text)


def render_html(template: str | Path, context: Mapping[str, Any]) -> str:
    """Fill an HTML template."""

    def plain(value: Any) -> Any:
        return value if isinstance(value, Markup) else shown(value)

    return _environment(Path(template).parent, plain).get_template(Path(template).name).render(context)


def cut_function(path: str | Path, name: str | None = None, calling: str | None = None) -> tuple[int, str]:
    """First line and source of a function: of this name, or the first whose body calls something named `calling`.

    Raises: InputError when there is no such function.
    """
    text = Path(path).read_text()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef):
            continue
        called = {call.func for call in ast.walk(node) if isinstance(call, ast.Call)}
        names = {getattr(function, "attr", getattr(function, "id", None)) for function in called}
        if node.name == name or (calling is not None and calling in names):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return first, "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    raise InputError(f"{path}: no function {name or f'that calls {calling}'}; the journal cites it")


def cut_snippets(cuts: Mapping[str, Mapping[str, str]], root: str | Path) -> dict[str, dict[str, Any]]:
    """Functions cut from the repository's files, with file and line. Raises: InputError as cut_function does."""
    result = {}
    for name, cut in cuts.items():
        line, text = cut_function(Path(root) / cut["path"], cut.get("name"), cut.get("calling"))
        result[name] = {"place": f"{cut['path']}:{line}", "text": Markup(text)}
    return result
