"""Alarms of the watch are counted on sets that are what they are called, and their intervals do not pretend."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measure_drift import SHIFTS, measure_drift
from plot_drift import plot_drift
from test_deployment import champion

from pcam.drift import (
    PRIORS,
    SETS,
    SIZES,
    count_alarms,
    disjoint_sets,
    fit,
    members_of,
    on_other_prior,
    on_sound_sets,
    on_unseen_units,
    whole_units,
)
from pcam.files import InputError, read_csv, read_json, write_csv
from pcam.guard import PROPERTIES, Guard
from pcam.intervals import Groups


def patches_like(seed: int, units: int, each: int = 1, *, spread: float = 0.0) -> tuple[np.ndarray, np.ndarray, Groups]:
    """Statistics of made-up patches, labels and slides; slides differ by `spread` standard deviations of a patch."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(units), each)
    n = len(ids)
    labels = rng.permutation(np.arange(n) % 2)
    answers = np.where(labels == 1, rng.beta(4, 2, n), rng.beta(2, 4, n))
    pixels = rng.normal(size=(n, len(PROPERTIES))) + spread * rng.normal(size=(units, len(PROPERTIES)))[ids]
    return np.column_stack([pixels, answers]), labels, Groups(ids, "slide")


def guard_of(values: np.ndarray, labels: np.ndarray, groups: Groups, rate: float = 0.05) -> Guard:
    return fit(values, labels, groups, false_alarm_rate=rate, seed=0)


def alarms(points: list[dict[str, Any]]) -> list[float]:
    return [point["alarms"] for point in points]


# ---- false alarms


def test_sound_sets_of_a_guard_raise_about_the_stated_rate_and_the_interval_holds_it() -> None:
    guard = guard_of(*patches_like(0, 2000))
    values, _, groups = patches_like(1, 4000)
    for point in on_sound_sets(guard, values, groups, level=0.95, seed=0):
        assert point["sets"] == SETS and point["alarms"] <= 0.12
        assert point["low"] <= 0.05 <= point["high"]
        assert max(point["pixels"], point["answers"]) <= point["alarms"] <= point["pixels"] + point["answers"]


def test_guards_of_one_half_of_the_slides_hold_on_the_other_half() -> None:
    values, labels, groups = patches_like(0, 120, 5, spread=1.0)
    points, told = on_unseen_units(values, labels, groups, false_alarm_rate=0.05, level=0.95, seed=0)
    assert told == "sets of whole slides, drawn from 60 slides"
    assert max(alarms(points)[:3]) <= 0.15 and all(point["low"] <= 0.05 for point in points[:3])
    assert points[3]["note"] == "fewer patches than two sets need"


def test_slides_taken_for_patches_are_found_out_by_the_unseen_half() -> None:
    """The fault: limits that ignore slides. Sets of whole slides then raise far more alarms than stated."""
    values = patches_like(0, 400, 8, spread=1.0)[0]
    deaf = guard_of(values, np.arange(len(values)) % 2, Groups(np.arange(len(values)), "slide"))
    fresh, _, slides = patches_like(1, 400, 8, spread=1.0)
    point = on_sound_sets(deaf, fresh, slides, level=0.95, seed=0)[1]
    assert point["alarms"] > 0.5 and point["low"] > 0.05


def test_no_half_with_both_classes_gives_null_with_its_reason() -> None:
    values, _, groups = patches_like(0, 40)
    points, told = on_unseen_units(values, np.zeros(40, int), groups, false_alarm_rate=0.05, level=0.95, seed=0)
    assert told is None and alarms(points) == [None] * len(SIZES)
    assert {point["note"] for point in points} == {"a half of the slides holds one class only"}


# ---- shifts


def test_a_shift_of_the_pixels_is_seen_by_the_pixels_and_more_often_in_larger_sets() -> None:
    guard = guard_of(*patches_like(0, 1000))
    values, _, groups = patches_like(1, 1000)
    values[:, 1] += 0.6
    points = on_sound_sets(guard, values, groups, level=0.95, seed=0)
    assert alarms(points) == sorted(alarms(points)) and alarms(points)[-1] == 1
    assert points[-1]["pixels"] == 1 and points[-1]["answers"] < 0.2


@pytest.mark.parametrize("prior", PRIORS)
def test_another_share_of_tumour_is_seen_by_the_answers(prior: float) -> None:
    guard = guard_of(*patches_like(0, 1000))
    values, labels, _ = patches_like(1, 4000)
    points = on_other_prior(guard, values, labels, prior, level=0.95, seed=0)
    assert points[-1]["answers"] > 0.6 and points[-1]["pixels"] < 0.2
    same = on_other_prior(guard, values, labels, 0.5, level=0.95, seed=0)
    assert same[-1]["answers"] < 0.1


def test_a_prior_of_a_class_that_is_missing_is_null() -> None:
    guard = guard_of(*patches_like(0, 100))
    values, labels, _ = patches_like(1, 100)
    points = on_other_prior(guard, values[labels == 0], labels[labels == 0], 0.1, level=0.95, seed=0)
    assert alarms(points) == [None] * len(SIZES) and points[0]["note"] == "fewer patches than two sets need"


# ---- intervals


def test_intervals_go_by_disjoint_sets_and_where_there_are_not_two_nothing_is_counted() -> None:
    guard = guard_of(*patches_like(0, 100))
    verdict = guard.check(patches_like(1, 16)[0])
    few, many = (count_alarms(16, disjoint, lambda: verdict, 0.95) for disjoint in (2.9, 1e9))
    assert few["high"] - few["low"] > 0.5 > many["high"] - many["low"] and few["alarms"] == many["alarms"]
    none = count_alarms(16, 1.9, lambda: verdict, 0.95)
    assert none["sets"] == 0 and none["note"] == "fewer patches than two sets need"
    assert {none[name] for name in ("alarms", "low", "high", "pixels", "answers")} == {None}
    singles, tens = members_of(np.arange(100)), members_of(np.repeat(np.arange(10), 10))
    assert disjoint_sets(singles, 20) == disjoint_sets(tens, 20) == 5
    assert disjoint_sets(tens, 1) == 10  # a unit speaks for one set only


def test_a_set_holds_whole_units_and_no_patch_twice() -> None:
    members = members_of(np.array([2, 0, 0, 1, 1, 1, 2, 2, 2, 3]))
    rng = np.random.default_rng(0)
    for size in range(1, 11):
        drawn = whole_units(rng, members, size)
        assert len(drawn) == len(set(drawn.tolist())) == size
        parts = [len(np.intersect1d(own, drawn)) for own in members]
        assert sum(0 < part < len(own) for part, own in zip(parts, members, strict=True)) <= 1


# ---- the rule


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("drift")
    champion(made)
    return made


def measure(folder: Path, out: str = "drift.json") -> dict[str, Any]:
    def path(name: str) -> str:
        return str(folder / name)

    measure_drift(
        path("weights.pt"),
        path("guard.json"),
        (path("valid.npy"), path("valid.csv"), path("predict-valid.csv")),
        (path("test.npy"), path("test.csv"), path("predict.csv")),
        path(out),
        patches=60,
        level=0.95,
        seed=0,
        threads=1,
        provenance={"rule": "a_test"},
    )  # fmt: skip
    return read_json(folder / out)


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, Any]:
    return measure(folder)


def test_every_shift_and_prior_has_a_point_a_size(measured: dict[str, Any]) -> None:
    assert [s["name"] for s in measured["shifts"] if s["kind"] == "pixels"] == list(SHIFTS)
    assert [s["name"] for s in measured["shifts"] if s["kind"] == "prior"] == [f"{100 * p:g} % tumour" for p in PRIORS]
    for listed in (*measured["sound"].values(), *measured["shifts"]):
        assert [point["size"] for point in listed["points"]] == list(SIZES)
    assert measured["n"] == {"valid": 200, "test": 90, "shifted": 90}  # all there are, for larger sets
    assert measured["false_alarm_rate"] == 0.01 and measured["prior"] == {"valid": 0.5, "test": 0.5}


def test_stain_light_and_blur_are_seen_and_so_is_another_share_of_tumour(measured: dict[str, Any]) -> None:
    found = {shift["name"]: shift["points"][0] for shift in measured["shifts"]}
    for name in SHIFTS:
        assert found[name]["pixels"] > 0.9, name
    few = next(shift["points"] for shift in measured["shifts"] if shift["name"] == "10 % tumour")
    assert (
        few[0]["answers"] > 0.25 > measured["sound"]["test"]["points"][0]["answers"]
        and few[1]["note"] == "fewer patches than two sets need"
    )
    assert measured["sound"]["test"]["points"][0]["alarms"] < 0.2


def test_it_counts_the_same_again(folder: Path, measured: dict[str, Any]) -> None:
    assert measure(folder, "again.json") == measured


def test_predictions_of_other_patches_are_refused(tmp_path: Path, folder: Path) -> None:
    for path in folder.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = read_csv(tmp_path / "predict.csv")[:-1]
    write_csv(tmp_path / "predict.csv", list(table[0]), [list(line.values()) for line in table])
    with pytest.raises(InputError, match="its rows are not those of"):
        measure(tmp_path)


# ---- the picture


def drawn(tmp_path: Path, document: dict[str, Any]) -> str:
    (tmp_path / "d.json").write_text(json.dumps(document))
    plot_drift(str(tmp_path / "d.json"), str(tmp_path / "d.png"), str(tmp_path / "d.txt"), label="A TEST")
    assert (tmp_path / "d.png").stat().st_size > 20_000
    return (tmp_path / "d.txt").read_text()


def test_the_caption_states_the_rate_what_refutes_it_and_what_is_not_measured(
    tmp_path: Path, measured: dict[str, Any]
) -> None:
    document = json.loads(json.dumps(measured))
    test = document["sound"]["test"]["points"]
    for point, (alarm, low, high) in zip(test, [(0.0, 0.0, 0.02), (0.2, 0.1, 0.3)], strict=False):
        point.update(alarms=alarm, low=low, high=high)
    for point in document["sound"]["unseen"]["points"]:
        point.update(alarms=None, low=None, high=None, note="a planted reason")
    said = drawn(tmp_path, document)
    assert "The watch allows 1 % of sound sets an alarm." in said
    reason = "fewer patches than two sets need"
    assert "Sound sets, test: 0.0 % at 16, 20.0 % at 64; more than stated at 64." in said
    assert "unseen half of valid: not measured." in said
    assert f"Where a point is missing: {reason}." in said and "Where a point is missing: a planted reason." in said
    assert said.endswith("Data: A TEST.\n")


def test_rates_that_hold_are_told_as_held(tmp_path: Path, measured: dict[str, Any]) -> None:
    document = json.loads(json.dumps(measured))
    for sound in document["sound"].values():
        for point in sound["points"]:
            point.update(alarms=0.01, low=0.0, high=0.05)
    said = drawn(tmp_path, document)
    assert said.count("the intervals hold the stated rate") == 2 and "too few sets" not in said
    document["sound"]["test"]["points"][0]["high"] = 0.11
    assert "the intervals hold the stated rate (too few sets to tell at 16)." in drawn(tmp_path, document)
