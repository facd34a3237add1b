"""Whether the search of a config makes sense, and which settings it searches: a setting may depend on another."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pcam.files import InputError
from pcam.schema import check_schema

Space = Mapping[str, Mapping[str, Any]]
_BOUNDS = ("low", "high", "step", "log")
_NEEDED = {"float": ("low", "high"), "int": ("low", "high"), "categorical": ("choices",)}
_FOREIGN = {"float": ("step", "choices"), "int": ("choices",), "categorical": ()}


def read_space(space: Mapping[str, Mapping[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """What is searched, of a merged config: null takes an entry of the default out.

    An entry of a configfile merges over the default's, so one that makes it categorical leaves bounds: they go.
    Raises: InputError when a key is missing, or is of another type.
    """
    read: dict[str, dict[str, Any]] = {}
    for name, parameter in space.items():
        if parameter is None:
            continue
        kind, where = parameter["type"], f"config: search.space.{name}"
        if missing := [key for key in _NEEDED[kind] if key not in parameter]:
            raise InputError(f"{where}: key {missing[0]!r} is missing; type {kind} needs it")
        if foreign := [key for key in _FOREIGN[kind] if key in parameter]:
            raise InputError(f"{where}: type {kind} takes no {foreign[0]}; drop it, or use another type")
        for key in ("low", "high") if kind == "int" else ():
            if not isinstance(parameter[key], int):
                raise InputError(f"{where}: {key} {parameter[key]}: type int needs a whole number")
        read[name] = {k: v for k, v in parameter.items() if kind != "categorical" or k not in _BOUNDS}
    if not read:
        raise InputError("config: search.space: every entry is null; leave one setting to search")
    return read


def check_rungs(rungs: Sequence[Mapping[str, int]], trials: int) -> None:
    """`trials`: those of all rounds, which all train for the first rung.

    Raises: InputError when a later rung trains no fewer trials, or for no more epochs, than the one before.
    """
    if "trials" in rungs[0]:
        raise InputError(f"config: search.rungs.0: trials {rungs[0]['trials']}: all train for the first; drop the key")
    left = trials
    for number, (before, rung) in enumerate(pairwise(rungs), 1):
        where = f"config: search.rungs.{number}"
        if "trials" not in rung:
            raise InputError(f"{where}: key 'trials' is missing; say how many of the trials before go on")
        if rung["trials"] >= left:
            raise InputError(f"{where}: trials {rung['trials']} of the {left} before; a rung takes fewer")
        if rung["epochs"] <= before["epochs"]:
            raise InputError(f"{where}: epochs {rung['epochs']} after {before['epochs']}; a rung trains for longer")
        left = rung["trials"]


def parent(parameter: Mapping[str, Any]) -> str | None:
    """The setting that decides whether this one is searched."""
    return next(iter(parameter.get("when", ())), None)


def ordered(space: Space) -> list[str]:
    """The searched settings in alphabetical order, but none before the one that it depends on.

    The order in which a config names them decides nothing. Raises: InputError when settings depend on each other.
    """
    done: list[str] = []
    while len(done) < len(space):
        ready = [name for name in sorted(space) if name not in done and parent(space[name]) not in {*space} - {*done}]
        if not ready:
            left = [name for name in sorted(space) if name not in done]
            raise InputError(f"config: search.space: {', '.join(left)}: each waits for another; drop a when")
        done.append(ready[0])
    return done


def is_active(parameter: Mapping[str, Any], recipe: Mapping[str, Any]) -> bool:
    """Whether the setting is searched in a recipe that holds the setting it depends on, searched or fixed."""
    return all(recipe[other] in values for other, values in parameter.get("when", {}).items())


def searched_settings(space: Space, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What of a trial's recipe the search chose; the rest is the base recipe's."""
    return {name: recipe[name] for name in ordered(space) if is_active(space[name], recipe)}


def check_space(space: Space, recipe: Mapping[str, Any]) -> None:
    """Every value a trial could get must be valid in `recipe`, the schema of a training recipe.

    Raises: InputError when a searched name is no training setting, or a bound is reversed or out of its range.
    """
    for name, parameter in space.items():
        where = f"config: search.space.{name}"
        if name not in recipe:
            raise InputError(f"{where}: no such training setting; known are {', '.join(recipe)}")
        if name == "epochs":
            raise InputError(f"{where}: search.rungs says how long a trial trains; drop this entry")
        if "low" in parameter and parameter["low"] >= parameter["high"]:
            raise InputError(f"{where}: low {parameter['low']} is not below high {parameter['high']}")
        if parameter.get("log") and parameter["low"] <= 0:
            raise InputError(f"{where}: low {parameter['low']} has no logarithm; set it above 0 or drop log")
        if parameter.get("log") and parameter.get("step", 1) != 1:
            raise InputError(f"{where}: log and a step of {parameter['step']} exclude each other; drop one")
        if "step" in parameter and parameter["step"] > parameter["high"] - parameter["low"]:
            raise InputError(
                f"{where}: step {parameter['step']} leaves low {parameter['low']} alone; take a smaller one"
            )
        if parameter["type"] == "float" and recipe[name].get("type") == "integer":
            raise InputError(f"{where}: {name} takes whole numbers; use type int")
        if recipe[name].get("type") == "integer" and any(isinstance(c, float) for c in parameter.get("choices", ())):
            raise InputError(f"{where}: choices {parameter['choices']}: {name} takes whole numbers; drop the points")
        if recipe[name].get("type") == "number" and any(isinstance(c, int) for c in parameter.get("choices", ())):
            raise InputError(f"{where}: choices {parameter['choices']}: write {name} with a decimal point, as 0.0")
        _check_values(parameter.get("choices", [parameter.get("low"), parameter.get("high")]), recipe[name], where)
    for name, parameter in space.items():
        for other, values in parameter.get("when", {}).items():
            _check_when(f"config: search.space.{name}.when.{other}", name, other, values, space, recipe)
    ordered(space)


def _check_values(values: Sequence[Any], schema: Mapping[str, Any], where: str) -> None:
    for value in values:
        try:
            check_schema(value, schema)
        except InputError as error:
            raise InputError(f"{where}: {str(error).removeprefix('config: ')}") from None


def _check_when(
    where: str, name: str, other: str, values: Sequence[Any], space: Space, recipe: Mapping[str, Any]
) -> None:
    if other not in recipe:
        raise InputError(f"{where}: no such training setting; known are {', '.join(recipe)}")
    if other == "epochs":
        raise InputError(f"{where}: search.rungs says how long a trial trains; name another setting")
    if other == name:
        raise InputError(f"{where}: a setting cannot depend on itself; name another")
    _check_values(values, recipe[other], where)
    if other not in space:
        return
    if space[other]["type"] != "categorical":
        raise InputError(f"{where}: {other} is of type {space[other]['type']}; only choices decide, so use categorical")
    choices = space[other]["choices"]
    if strange := [value for value in values if value not in choices]:
        raise InputError(f"{where}: {strange[0]!r} is not among the choices {choices} of {other}")
