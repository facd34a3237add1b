"""Render config/README.md from the schema and the default config; `make config-readme` writes it, a test compares."""

from collections.abc import Iterator
from typing import Any

import yaml
from conftest import ROOT

HEAD = """# Configuration

`config/config.yaml` holds every value; there are no hidden defaults. A `--configfile` of your own merges over it, so it
needs only what differs. An unknown key, a wrong type or a value out of bounds stops the run with one line.
This page is rendered from `workflow/schemas/config.schema.yaml` by `make config-readme`.

`variants` names training recipes, each as its difference from `train`; `baseline` must exist. `search.space` names
settings of `train` with `{type: float | int, low, high, log, step}` or `{type: categorical, choices}`; with
`when: {model: [resnet]}` beside them a setting is searched only in trials whose `model` is one of those listed, and
keeps the value of `train` in the others. A configfile's entry merges over the default's key by key; `null` in place
of an entry takes it out of the search.

| key | default | allowed | meaning |
|---|---|---|---|
"""


def allowed(schema: dict[str, Any]) -> str:
    """Type and bounds of one key in words."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "minItems": "items ≥"}
    return " or ".join(kinds) + "".join(f", {sign} {schema[key]}" for key, sign in signs.items() if key in schema)


def leaves(schema: dict[str, Any], values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """(key, default, allowed, meaning) of every key, in the order of the default config."""
    if "properties" in schema:
        for name, value in values.items():
            yield from leaves(schema["properties"][name], value, (*path, name))
        return
    default = yaml.safe_dump(values, default_flow_style=True, width=1000).strip().removesuffix("...").strip()
    yield ".".join(path), f"`{default}`", allowed(schema), schema["description"]


def render() -> str:
    schema = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())
    values = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    rows = leaves(schema, values)
    return HEAD + "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


if __name__ == "__main__":
    print(render(), end="")
