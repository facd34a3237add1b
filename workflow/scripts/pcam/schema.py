"""A config, or a part of one, against its JSON schema: the first mistake in one line."""

import difflib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from pcam.files import InputError

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"
TAKEN = "\n\t\u200c\u200d"  # unprintable, but texts need them: the two joiners belong to names in several scripts
DEEPEST, MOST_VALUES = 20, 100_000  # of a config: an anchor can make a few lines hold more than any memory


# JSON Schema counts 2.0 as an integer; range() and torch do not.
_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
    ),
)


@cache
def config_schema() -> Mapping[str, Any]:
    return dict(yaml.safe_load(SCHEMA.read_text()))


def _mistake(error: jsonschema.ValidationError) -> str:
    """One line for one schema error: where, what value, what is allowed."""
    where = ".".join(str(part) for part in error.absolute_path)
    where = f"{where}: " if where else ""
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema.get("properties", {}))
        unknown = sorted(set(error.instance) - set(allowed), key=str)[0]
        near = difflib.get_close_matches(str(unknown), allowed, n=1)
        meant = f", perhaps {near[0]} is meant" if near else ""
        return f"{where}unknown key {unknown!r}{meant}; known are {', '.join(allowed)}"
    if error.validator == "required":
        return f"{where}key {next(k for k in error.validator_value if k not in error.instance)!r} is missing"
    hint = error.schema.get("description", "")
    return f"{where}{error.message}" + (f" ({hint})" if hint else "")


def _parts(value: Any) -> list[tuple[Any, Any]]:
    return [*value.items()] if isinstance(value, Mapping) else [*enumerate(value)] if isinstance(value, list) else []


def check_values(config: Mapping[str, Any]) -> None:
    """What a schema does not see: too much to look through, names and texts that are none, NaN and infinity.

    Raises: InputError with the first of them in one line.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), config)]
    seen = 0
    while waiting:
        at, value = waiting.pop()
        where, seen = ".".join(at) or "the config", seen + 1
        if len(at) > DEEPEST or seen > MOST_VALUES:
            raise InputError(
                f"config: {'.'.join(at[:3])}: holds more than {DEEPEST} levels or {MOST_VALUES:,} values; "
                "look for an anchor (&, *) that repeats itself"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"config: {where}: nan and inf are no settings; give a finite number")
        if isinstance(value, str) and (strange := [c for c in value if not c.isprintable() and c not in TAKEN]):
            raise InputError(f"config: {where}: holds {strange[0]!r}, which is no letter; take it out")
        if isinstance(value, Mapping) and (names := [name for name in value if not isinstance(name, str)]):
            raise InputError(f"config: {where}: key {names[0]!r} is no text; put it in quotes")
        waiting += [((*at, str(key)), child) for key, child in reversed(_parts(value))]


def check_doubled_keys(path: str | Path) -> None:
    """YAML and JSON take the last of two equal keys and do not tell.

    Raises: InputError when a mapping of a config file states a key twice.
    """
    try:
        waiting: list[Any] = [yaml.compose(Path(path).read_text(), yaml.SafeLoader)]
    except (OSError, ValueError, yaml.YAMLError):
        return  # JSON that is no YAML: Snakemake has read it already
    seen: set[int] = set()  # an anchor may hold itself
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                waiting.append(value)
                if isinstance(key, yaml.ScalarNode):
                    if key.value in names:
                        line = key.start_mark.line + 1
                        raise InputError(f"{path}: line {line}: key {key.value!r} stands here a second time; drop one")
                    names.add(key.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def check_schema(instance: Any, schema: Mapping[str, Any]) -> None:
    """Raises: InputError with the first mistake in one line."""
    errors = sorted(_Validator(schema).iter_errors(instance), key=lambda e: list(map(str, e.path)))
    if errors:
        raise InputError(" ".join(f"config: {_mistake(errors[0])}".split()))


def check_ranges(ranges: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises: InputError when the low of a range of `slices` is not below its high: it would hold no patch."""
    for name, ends in ranges.items():
        if ends.get("low", -math.inf) >= ends.get("high", math.inf):
            raise InputError(f"config: slices.ranges.{name}: low {ends['low']} is not below high {ends['high']}")
