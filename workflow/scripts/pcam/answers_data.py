"""What the documents say of questions 1 and 3: tables and sentences that follow from the evidence.

Every function takes the evidence by name (see documents.open_evidence) and gives table rows or a sentence; where the
evidence is missing it gives the Missing, which renders as such.
"""

from collections.abc import Mapping
from typing import Any

from pcam.binding import count_of, fixed
from pcam.documents import Missing, plain
from pcam.schema import config_schema

Found = Mapping[str, Any]


def config_rows(config: Mapping[str, Any]) -> list[list[Any]]:
    """Every key of the config with its value and the schema's description."""
    rows: list[list[Any]] = []

    def walk(values: Mapping[str, Any], schema: Mapping[str, Any], at: str, inherited: str) -> None:
        order = list(schema.get("properties", values))
        for key, value in sorted(values.items(), key=lambda item: order.index(item[0])):
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
            below = below if isinstance(below, dict) else {}
            text = below.get("description", inherited)
            if isinstance(value, dict) and value:
                walk(value, below, f"{at}{key}.", text)
            else:
                rows.append([f"{at}{key}", plain(value), fixed(text)])

    # Names and ids stand on the first page, once.
    walk({key: value for key, value in config.items() if key != "journal"}, config_schema(), "", "")
    return rows


def risks(environment: Any, config: Mapping[str, Any]) -> list[Any]:
    """The risks that the configuration leaves, each checked."""
    if isinstance(environment, Missing):
        return [environment]
    commit, dirty = environment.git.commit, environment.git.dirty
    tree = "Working tree: clean."
    if commit is None:
        tree = "Working tree: no commit exists, so nothing names the code but its digests."
    elif dirty:
        tree = "Working tree: tracked files differ from the commit, which alone does not rebuild this run."
    unpinned, differing = environment.unpinned, environment.differing
    packages = f"Packages: {count_of(environment.packages)} direct ones, {count_of(unpinned)} without an exact pin"
    packages += f" ({', '.join(map(str, unpinned))})" if unpinned else ""
    packages += f"; {count_of(differing)} installed in another version than pinned" + (
        f" ({', '.join(map(str, differing))})." if differing else "."
    )
    places = [
        f"data.{key}" for key in ("root", "directory") if str(config["data"][key] or "").startswith(("/", "..", "~"))
    ]
    paths = (
        f"Paths that lead out of the repository: {', '.join(places)}; another machine needs its own."
        if places
        else "Paths: none in the config leads out of the repository."
    )
    variables = [name for name in environment.variables if environment.variables[name] is not None]
    return [
        tree,
        packages,
        paths,
        f"Environment variables that change speed or bits and were set: {', '.join(variables) or 'none'}.",
    ]


def data_answers(found: Found, config: Mapping[str, Any]) -> dict[str, Any]:
    """All that the journal's template needs for questions 1 and 3."""
    return {"config_table": config_rows(config), "risks": risks(found["environment"], config)}
