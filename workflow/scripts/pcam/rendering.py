"""Templates filled with what `pcam.documents` looked up; text from data is escaped, for Markdown and for HTML."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pcam.binding import count_of, fixed, unbound
from pcam.documents import Missing, counted, interval, is_measured, mean_sd, number, percent
from pcam.snippets import Snippet


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
    lines: list[list[Any]] = [[in_markdown(cell) for cell in row] for row in (head, *rows)]
    lines.insert(1, ["---"] * len(head))
    return Markup("\n".join(f"| {' | '.join(line)} |" for line in lines))


_loose: ContextVar[list[str]] = ContextVar("_loose")  # of the rendering that goes on


def _in_markdown(value: Any) -> Markup:
    text = in_markdown(value)
    if not isinstance(value, Snippet):
        _loose.get([]).extend(loose_digits(text))
    return text


def _in_html(value: Any) -> Any:
    return value if isinstance(value, Markup) else shown(value)


@cache
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
    environment.globals.update(table=table, counted=counted, count_of=count_of, fixed=fixed)
    return environment


def loose_digits(markdown: str) -> list[str]:
    """Figures that cite nothing, see `unbound`; code in backticks and addresses of links are no figures."""
    return unbound(re.sub(r"(?<!\\)(`[^`]*`|\]\([^)]*\))", " ", markdown))


def render_markdown(template: str | Path, context: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Fill a Markdown template: the text with its marks, and figures that an expression gave and that cite nothing.

    Raises: jinja2.UndefinedError on a name the template should not use.
    """
    loose: list[str] = []
    token = _loose.set(loose)
    try:
        text = _environment(Path(template).parent, _in_markdown).get_template(Path(template).name).render(context)
    finally:
        _loose.reset(token)
    return re.sub(r"\n{3,}", "\n\n", text), loose


def render_html(template: str | Path, context: Mapping[str, Any]) -> str:
    """Fill an HTML template."""
    return _environment(Path(template).parent, _in_html).get_template(Path(template).name).render(context)
