"""A search that makes no sense is named in one line; what a trial searches follows from its recipe alone."""

import copy
import re
from typing import Any

import pytest
import yaml
from conftest import ROOT

from pcam.files import InputError
from pcam.search_space import is_active, ordered, searched_settings
from pcam.settings import read_config

CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
MODEL = {"type": "categorical", "choices": ["resnet", "mlp"]}
WIDTH = {"type": "int", "low": 12, "high": 24, "step": 4}
RATE = {"type": "float", "low": 5e-4, "high": 1e-2, "log": True}
HIDDEN = {"type": "int", "low": 16, "high": 256, "log": True}


def config_with(**search: Any) -> dict[str, Any]:
    """The default config with other values of `search`; each stands in place of the default's."""
    config = copy.deepcopy(CONFIG)
    config["search"].update(search)
    return config


def when(parameter: dict[str, Any], **condition: list[Any]) -> dict[str, Any]:
    return {**parameter, "when": condition}


SOUND = {
    "model": MODEL,
    "width": when(WIDTH, model=["resnet"]),
    "hidden": when(HIDDEN, model=["mlp"]),
    "learning_rate": RATE,
}


def test_a_conditional_space_is_a_sound_one() -> None:
    assert read_config(config_with(space=SOUND)).search.space == SOUND
    fixed = {"learning_rate": RATE, "width": when(WIDTH, model=["resnet"])}
    assert read_config(config_with(space=fixed)).search.space == fixed


def test_a_configfile_can_take_an_entry_out_and_give_another_type_to_one() -> None:
    config = config_with()
    config["search"]["space"]["width"] = None
    # As Snakemake merges it: the default's bounds are still there.
    config["search"]["space"]["dropout"] |= {"type": "categorical", "choices": [0.0, 0.3]}
    space = read_config(config).search.space
    assert "width" not in space and space["dropout"] == {"type": "categorical", "choices": [0.0, 0.3]}


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"lr": RATE}, "search.space.lr: no such training setting; known are model, width"),
        ({"epochs": {"type": "int", "low": 1, "high": 9}}, "search.space.epochs: search.rungs says how long"),
        ({"width": {"type": "int", "low": 9, "high": 8}}, "search.space.width: low 9 is not below high 8"),
        ({"width": {"type": "int", "low": 8, "high": 8}}, "search.space.width: low 8 is not below high 8"),
        ({"width": {"type": "int", "low": 8, "high": 12, "step": 5}}, "step 5 leaves low 8 alone"),
        ({"width": {"type": "int", "low": 4, "high": 12, "step": 4, "log": True}}, "exclude each other"),
        ({"width": {"type": "int", "low": 2, "high": 12}}, "search.space.width: 2 is less than the minimum of 4"),
        ({"width": {"type": "gauss"}}, "search.space.width.type: 'gauss' is not one of"),
        ({"width": {"type": "int", "low": 8.5, "high": 12}}, "low 8.5: type int needs a whole number"),
        ({"dropout": {"type": "float", "low": 0.0, "high": 0.5, "step": 1}}, "type float takes no step"),
        ({"width": {**WIDTH, "choices": [8, 12]}}, "type int takes no choices"),
        ({"width": None}, "every entry is null; leave one setting to search"),
        ({"width": {"type": "int", "low": 8}}, "search.space.width: key 'high' is missing"),
        ({"width": {"type": "categorical"}}, "search.space.width: key 'choices' is missing"),
        ({"width": {"type": "float", "low": 8.0, "high": 12.0}}, "width takes whole numbers; use type int"),
        ({"dropout": {"type": "float", "low": 0, "high": 0.5, "log": True}}, "low 0 has no logarithm"),
        ({"dropout": {"type": "float", "low": 0.5, "high": 1.5}}, "search.space.dropout: 1.5"),
        ({"dropout": {"type": "float", "low": 0.1, "high": float("nan")}}, "nan and inf are no settings"),
        ({"dropout": {"type": "categorical", "choices": [0, 0.1]}}, "write dropout with a decimal point"),
        ({"model": {"type": "categorical", "choices": ["resnet", "vit"]}}, "search.space.model: 'vit'"),
        ({"model": {"type": "categorical", "choices": ["resnet"]}}, "search.space.model"),
        ({}, "search.space: {} should be non-empty"),
        ({"model": MODEL, "width": when(WIDTH, modle=["mlp"])}, "search.space.width.when.modle: no such training"),
        ({"width": when(WIDTH, width=[12])}, "search.space.width.when.width: a setting cannot depend on itself"),
        ({"model": MODEL, "width": when(WIDTH, model=["vit"])}, "search.space.width.when.model: 'vit'"),
        ({"model": MODEL, "width": when(WIDTH, model=["resnet50"])}, "'resnet50' is not among the choices"),
        ({"width": WIDTH, "dropout": when({"type": "float", "low": 0.0, "high": 0.4}, width=[12])}, "use categorical"),
        ({"width": when(WIDTH, model=["vit"])}, "search.space.width.when.model: 'vit'"),
        ({"width": when(WIDTH, model=[])}, "search.space.width"),
        ({"width": when(WIDTH, model=["mlp"], augment=[True])}, "search.space.width"),
        ({"model": MODEL, "width": when({"type": "int", "low": 2, "high": 12}, model=["resnet"])}, "width: 2 is less"),
        (
            {
                "model": when(MODEL, schedule=["cosine"]),
                "schedule": when({"type": "categorical", "choices": ["cosine", "step"]}, model=["mlp"]),
                "width": WIDTH,
            },
            "search.space: model, schedule: each waits for another",
        ),
    ],
)
def test_a_mistake_in_the_space_is_named_in_one_line(space: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        read_config(config_with(space=space))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rungs", "said"),
    [
        ([], "search.rungs: [] should be non-empty"),
        ([{"epochs": 5, "trials": 6}], "search.rungs.0: trials 6: all train for the first; drop the key"),
        ([{"epochs": 5}, {"epochs": 10}], "search.rungs.1: key 'trials' is missing"),
        ([{"epochs": 5}, {"epochs": 10, "trials": 6}], "search.rungs.1: trials 6 of the 6 before; a rung takes fewer"),
        ([{"epochs": 5}, {"epochs": 10, "trials": 9}], "search.rungs.1: trials 9 of the 6 before"),
        ([{"epochs": 5}, {"epochs": 5, "trials": 2}], "search.rungs.1: epochs 5 after 5; a rung trains for longer"),
        (
            [{"epochs": 5}, {"epochs": 10, "trials": 3}, {"epochs": 20, "trials": 3}],
            "search.rungs.2: trials 3 of the 3 before",
        ),
        ([{"epochs": 0}], "search.rungs.0.epochs: 0"),
        ([{"epochs": 5, "patches": 2}], "search.rungs.0: unknown key 'patches'"),
    ],
)
def test_rungs_that_do_not_narrow_are_named_in_one_line(rungs: list[dict[str, int]], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as error:
        read_config(config_with(rungs=rungs))
    assert "\n" not in str(error.value)


def test_fewer_trials_than_a_rung_takes_are_named() -> None:
    with pytest.raises(InputError, match=r"search\.rungs\.1: trials 2 of the 1 before"):
        read_config(config_with(rounds=1, trials=1))
    assert read_config(config_with(rounds=1, trials=1, rungs=[{"epochs": 2}])).search.rungs == ({"epochs": 2},)


def test_a_setting_comes_after_the_one_it_depends_on_whatever_the_order_of_the_config() -> None:
    space = {"hidden": when(HIDDEN, model=["mlp"]), "augment": MODEL, "model": MODEL}
    assert ordered(space) == ordered(dict(reversed(space.items()))) == ["augment", "model", "hidden"]
    assert ordered({"b": when(MODEL, fixed=["x"]), "a": MODEL}) == ["a", "b"]


@pytest.mark.parametrize(("model", "searched"), [("resnet", {"width"}), ("mlp", {"hidden"}), ("resnet50", set())])
def test_what_a_trial_searches_follows_from_its_recipe(model: str, searched: set[str]) -> None:
    recipe = {"model": model, "width": 12, "hidden": 64, "learning_rate": 1e-3, "dropout": 0.1}
    assert set(searched_settings(SOUND, recipe)) == {"model", "learning_rate", *searched}
    assert is_active(RATE, recipe)
