"""What answers say as a reader sees it: without the marks that bind their numbers."""

import functools
from collections.abc import Callable, Mapping
from types import ModuleType, SimpleNamespace
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
    """In a test module's `globals()`: each function of pcam.answers_* and pcam.verdicts gives plain text.

    Those of modules that the test imported whole, too.
    """

    def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(function)(lambda *values, **named: plain(function(*values, **named)))

    def speaks(thing: Any) -> bool:
        return callable(thing) and str(getattr(thing, "__module__", "")).startswith(("pcam.answers_", "pcam.verdicts"))

    for name, thing in list(names.items()):
        if isinstance(thing, ModuleType) and thing.__name__.startswith(("pcam.answers_", "pcam.verdicts")):
            names[name] = SimpleNamespace(**{key: plainly(of) if speaks(of) else of for key, of in vars(thing).items()})
        elif speaks(thing):
            names[name] = plainly(thing)
