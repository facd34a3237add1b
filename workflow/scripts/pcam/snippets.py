"""Functions of the repository's own source, cut for the journal to show."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from pcam.binding import clean
from pcam.files import InputError


class Snippet(Markup):
    """Source code to show as it is: its digits are no figures."""


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
        result[name] = {"place": f"{cut['path']}:{line}", "text": Snippet(clean(text))}
    return result
