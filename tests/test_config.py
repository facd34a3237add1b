"""The default config, the schema, the settings dataclasses and config/README.md say the same."""

import copy
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest
import yaml
from conftest import ROOT
from render_config_readme import render

from pcam.files import InputError
from pcam.settings import Settings, TrainSettings, read_config

CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
SCHEMA = yaml.safe_load((ROOT / "workflow" / "schemas" / "config.schema.yaml").read_text())


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


def keys_of_dataclass(kind: Any, path: str = "") -> set[str]:
    found = set()
    for field in fields(kind):
        hint = get_type_hints(kind)[field.name]
        found |= keys_of_dataclass(hint, f"{path}{field.name}.") if is_dataclass(hint) else {f"{path}{field.name}"}
    return found


def keys_of_schema(schema: dict[str, Any], path: str = "") -> set[str]:
    if "properties" in schema and path.removesuffix(".") != "audit.policy":
        return {k for name, child in schema["properties"].items() for k in keys_of_schema(child, f"{path}{name}.")}
    return {path.removesuffix(".")}


def test_schema_and_dataclasses_name_the_same_keys() -> None:
    assert keys_of_schema(SCHEMA) == keys_of_dataclass(Settings)


def test_every_key_is_required_and_described_and_none_has_a_hidden_default() -> None:
    def walk(schema: dict[str, Any], path: str) -> None:
        assert "default" not in schema, path
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            assert set(schema["required"]) == set(schema["properties"]), path
            for name, child in schema["properties"].items():
                walk(child, f"{path}.{name}")
        elif path:
            assert schema["description"], path

    walk(SCHEMA, "")


def test_readme_is_rendered_from_schema_and_default_config() -> None:
    assert (ROOT / "config" / "README.md").read_text() == render()


def test_default_config_is_valid() -> None:
    settings = read_config(CONFIG)
    assert settings.variant("baseline") == settings.train
    assert settings.variant("mlp").model == "mlp"


@pytest.mark.parametrize("name", ["pcam.yaml", "course.yaml"])
def test_other_configs_merge_over_the_default(name: str) -> None:
    change = yaml.safe_load((ROOT / "config" / name).read_text())
    if change["data"].get("directory", "") is None:
        change["data"]["directory"] = "somewhere"
    assert read_config(merged(CONFIG, change)).data.source in {"pcam", "directory"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tran": {}}, "config: unknown key 'tran', perhaps train is meant; known are "),
        ({"train": {"epoch": 3}}, "train: unknown key 'epoch'"),
        ({"train": {"epochs": "many"}}, "train.epochs: 'many' is not of type 'integer'"),
        ({"train": {"epochs": 0}}, "train.epochs: 0"),
        ({"train": {"learning_rate": "1e-3"}}, "train.learning_rate: '1e-3' is not of type 'number'"),
        ({"train": {"learning_rate": float("nan")}}, "train.learning_rate: nan and inf are no settings"),
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate: nan and inf are no settings"),
        ({"variants": {"baseline": {"widht": 8}}}, "variants.baseline: unknown key 'widht'"),
        ({"variants": {"Big Model": {}}}, "Big Model"),
        ({"variants": {"beta": {}}}, "variants"),
        ({"variants": {"baseline": None}}, "variants.baseline: None"),
        ({"seeds": []}, "seeds: []"),
        ({"seeds": [0, 0]}, "seeds: [0, 0]"),
        ({"seeds": 0}, "seeds: 0 is not of type 'array'"),
        ({"shards": 2.0}, "shards: 2.0 is not of type 'integer'"),
        ({"seeds": [1, 2]}, "search.train_seed 0 is not one of seeds [1, 2]"),
        ({"data": {"source": "web"}}, "data.source: 'web'"),
        ({"data": {"source": "directory"}}, "data.directory is null"),
        ({"audit": {"policy": {"blackout": "erase"}}}, "audit.policy.blackout: 'erase'"),
        ({"audit": {"waive": {"ghosts": "none"}}}, "ghosts"),
        ({"benchmark": {"batch_sizes": [0]}}, "benchmark.batch_sizes.0: 0"),
        ({"train": None}, "train: None is not of type 'object'"),
    ],
)
def test_a_mistake_is_named_in_one_line(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        read_config(merged(CONFIG, change))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_is_named() -> None:
    config = copy.deepcopy(CONFIG)
    del config["train"]["epochs"]
    with pytest.raises(InputError, match="train: key 'epochs' is missing"):
        read_config(config)


def test_a_variant_changes_only_what_it_names() -> None:
    settings = read_config(merged(CONFIG, {"variants": {"wide": {"width": 24}}}))
    assert settings.variant("wide") == TrainSettings(**{**CONFIG["train"], "width": 24})
