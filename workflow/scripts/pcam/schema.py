"""A config, or a part of one, against its JSON schema: the first mistake in one line."""

import math
from collections.abc import Mapping
from typing import Any

import jsonschema

from pcam.files import InputError

MOST = 500  # letters of a line


def _mistake(error: jsonschema.ValidationError) -> str:
    """One line for one schema error: where, what value, what is allowed."""
    where = ".".join(str(part) for part in error.absolute_path) or "the config"
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(allowed))[0]
        return f"{where}: unknown key {unknown!r}; known are {', '.join(allowed)}"
    if error.validator == "required":
        return f"{where}: key {next(k for k in error.validator_value if k not in error.instance)!r} is missing"
    hint = error.schema.get("description", "")
    return f"{where}: {error.message}" + (f" ({hint})" if hint else "")


def non_finite(value: Any, where: str = "") -> str | None:
    """Path of the first NaN or infinity: comparing with a bound does not catch them."""
    if isinstance(value, float) and not math.isfinite(value):
        return where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = (non_finite(child, f"{where}.{key}".lstrip(".")) for key, child in items)
    return next((path for path in found if path), None)


def check_schema(instance: Any, schema: Mapping[str, Any]) -> None:
    """Raises: InputError with the first mistake in one line."""
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(instance), key=lambda e: list(map(str, e.path)))
    if errors:
        line = " ".join(f"config: {_mistake(errors[0])}".split())
        # The value stands in the middle, what is allowed behind it.
        raise InputError(line if len(line) <= MOST else f"{line[: MOST // 2]} … {line[-MOST // 2 :]}")


def check_ranges(ranges: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises: InputError when the low of a range of `slices` is not below its high: it would hold no patch."""
    for name, ends in ranges.items():
        if ends.get("low", -math.inf) >= ends.get("high", math.inf):
            raise InputError(f"config: slices.ranges.{name}: low {ends['low']} is not below high {ends['high']}")
