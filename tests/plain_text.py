"""What answers say as a reader sees it: without the marks that bind their numbers."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from pcam.binding import bare, unmarked


def plain(value: Any) -> Any:
    """The same tables and sentences with plain numbers and texts."""
    if isinstance(value, Mapping):
        return {key: plain(of) for key, of in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    value = bare(value)
    return type(value)(unmarked(value)) if isinstance(value, str) else value


def read_plainly(names: dict[str, Any]) -> None:
    """In a test module's `globals()`: every function of pcam.answers_* and pcam.verdicts gives plain text."""

    def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(function)(lambda *values, **named: plain(function(*values, **named)))

    for name, thing in list(names.items()):
        if callable(thing) and str(getattr(thing, "__module__", "")).startswith(("pcam.answers_", "pcam.verdicts")):
            names[name] = plainly(thing)
