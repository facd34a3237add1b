"""Spikes that are planted are found and traced to their patches, none is seen in noise, and schedules are compared."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from compare_schedules import compare_schedules
from conftest import ROOT
from dynamics_evidence import comparison, dynamics_evidence, run_of, step_line
from find_spikes import COLUMNS, find_spikes
from matplotlib.image import imread
from plain_text import read_plainly
from plot_schedules import NAMES, plot_schedules
from plot_training import plot_training
from scipy import stats
from show_spikes import BELOW, chosen_steps, show_spikes
from training_files import SETTINGS, make_inputs, outputs, train_in

from pcam.answers_dynamics import dynamics_answers
from pcam.determinism import epoch_batches
from pcam.documents import Missing, Source, open_evidence
from pcam.dynamics import (
    LEAST_NEIGHBOURS,
    LEVEL,
    STEPS_COLUMNS,
    by_epoch,
    compare_batches,
    compare_granularity,
    false_alarms,
    find_deviations,
    paired_difference,
    running_median,
)
from pcam.files import InputError, read_csv, read_json, write_csv, write_json
from pcam.schedules import learning_rate_at, schedule_variants
from pcam.schema import SCHEMA
from pcam.settings import TrainSettings
from pcam.training import HISTORY_COLUMNS
from workflow import planned_jobs, snakemake, succeeded

read_plainly(globals())

LABEL = "SYNTHETIC SAMPLE"
FRAME = (0.941, 0.894, 0.259)  # yellow of an outline
RING = (0.835, 0.369, 0.0)  # red of a spike in a figure


def noise(n: int, seed: int = 0, sigma: float = 0.5) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(scale=sigma, size=n))


@pytest.mark.parametrize("n", [60, 400, 960])
def test_runs_without_a_spike_show_one_as_often_as_is_said(n: int) -> None:
    measured = false_alarms(n, 1000)
    assert measured["runs"] == 1000 and measured["rate"] == measured["with_spike"] / 1000
    # Less often is no fault in short runs; above twice the level by chance comes once in a thousand tests.
    assert measured["rate"] <= 2 * LEVEL
    assert n < 100 or measured["interval"][1] > LEVEL / 2


def test_the_chance_is_one_of_the_level_and_not_of_a_limit_that_is_never_reached() -> None:
    """At a level of a half, about half of the runs without a spike have to show one."""
    found = sum(len(find_deviations(noise(300, seed), level=0.5).spikes) > 0 for seed in range(300))
    assert 100 < found < 180


@pytest.mark.parametrize("drift", [0.0, -2.0, 3.0])
def test_planted_spikes_are_found_where_they_stand_and_nothing_else_is(drift: float) -> None:
    n, at = 600, [LEAST_NEIGHBOURS, 30, 200, 201, 599 - LEAST_NEIGHBOURS]
    norms = noise(n, 1) * np.exp(np.linspace(0, drift, n))
    norms[at] *= np.exp(0.5 * 8)  # eight standard deviations
    found = find_deviations(norms)
    assert sorted(found.spikes.tolist()) == at and found.below == 0
    assert found.judged == n - 2 * LEAST_NEIGHBOURS
    assert np.all(found.z[found.spikes] > found.limit)


def test_the_most_outstanding_step_comes_first() -> None:
    norms = noise(300, 2)
    norms[[50, 120, 260]] = np.exp([6.0, 9.0, 7.0])
    assert find_deviations(norms).spikes.tolist() == [120, 260, 50]


@pytest.mark.parametrize("course", ["steep", "stairs", "cycle", "spread"])
def test_a_change_that_lasts_is_no_spike(course: str) -> None:
    """Neither the steep start of a training, nor a rate that drops to a tenth, nor noise that grows."""
    at = np.arange(600)
    sigma = np.full(600, 0.3)
    log = {
        "steep": -at / 20,
        "stairs": -2.3 * (at > 300) - 2.3 * (at > 450),
        "cycle": 2 * np.sin(at / 100),
        "spread": np.zeros(600),
    }[course]
    if course == "spread":
        sigma = np.linspace(0.1, 1.0, 600)
    told = [find_deviations(np.exp(log + sigma * np.log(noise(600, seed, 1.0)))) for seed in range(40)]
    assert sum(len(found.spikes) > 0 for found in told) <= 3


def test_the_median_has_two_equal_sides_and_a_straight_line_is_its_own() -> None:
    line = np.arange(100.0)
    median = running_median(line, 25)
    inside = slice(LEAST_NEIGHBOURS, -LEAST_NEIGHBOURS)
    assert np.array_equal(median[inside], line[inside])
    assert np.isnan(median[:LEAST_NEIGHBOURS]).all() and np.isnan(median[-LEAST_NEIGHBOURS:]).all()
    for n in range(12):
        known = np.isfinite(running_median(np.arange(float(n)), 25)).sum()
        assert known == max(0, n - 2 * LEAST_NEIGHBOURS), n


def test_what_cannot_be_judged_is_not() -> None:
    for norms in (noise(10), np.ones(300), np.zeros(300)):
        found = find_deviations(norms)
        assert found.judged == 0 and len(found.spikes) == 0 and len(found.ranked) == 0 and found.below == 0
    assert find_deviations(noise(11)).judged == 1


def test_an_epoch_s_median_hides_a_spike_that_its_largest_keeps() -> None:
    epochs, norms = np.repeat(np.arange(1, 31), 40), noise(1200, 3, 0.2)
    norms[777] *= 50
    told = compare_granularity(epochs, norms)
    assert find_deviations(norms).spikes.tolist() == [777]
    assert (told["spikes_in_epoch_medians"], told["spikes_in_epoch_largest"]) == (0, 1)
    own = np.median(norms[760:800])
    assert told["largest"] == {"step": 777, "epoch": 20, "grad_norm": norms[777], "epoch_median": own,
                               "ratio": norms[777] / own}  # fmt: skip
    assert told["spread_of_medians"] < 1.5 and told["spread_of_steps"] > 50
    # Too few epochs: not zero but undefined.
    assert compare_granularity(epochs[:80], norms[:80])["spikes_in_epoch_medians"] is None
    numbers, medians, largest = by_epoch(np.array([3, 3, 3, 4]), np.array([1.0, 2.0, 9.0, 5.0]))
    assert (numbers.tolist(), medians.tolist(), largest.tolist()) == ([3, 4], [2.0, 5.0], [9.0, 5.0])


class Trained:
    """Files as train_seed leaves them: steps whose batches are real, with norms that are made up."""

    seed = 4

    def __init__(self, folder: Path, *, n: int = 64, epochs: int = 30, planted: Iterable[int] = ()) -> None:
        self.folder, self.n, self.epochs = folder, n, epochs
        self.rows = np.arange(n) * 3 + 7  # file rows, with gaps as cleaning leaves them
        self.settings = replace(SETTINGS, batch_size=8, epochs=epochs)
        self.batches = np.concatenate([epoch_batches(self.seed, epoch, n, 8) for epoch in range(epochs)])
        self.norms = noise(len(self.batches), 5)
        self.hardest = self.rows[self.batches[:, 3]]
        for step in planted:
            self.norms[step] *= np.exp(0.5 * 9)
        folder.mkdir(exist_ok=True)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def write(self) -> "Trained":
        steps = len(self.batches)
        rates = [learning_rate_at(self.settings, step, steps) for step in range(steps)]
        epoch = np.arange(steps) // (self.n // 8) + 1
        lines = zip(range(steps), epoch.tolist(), [0.5] * steps, rates, self.norms.tolist(), self.hardest.tolist(),
                    [2.0] * steps, strict=True)  # fmt: skip
        write_csv(self.path("steps.csv"), STEPS_COLUMNS, lines)
        shares = ("stem", 0.6 * self.norms), ("head", 0.8 * np.where(self.norms > 20, 2, 1) * self.norms)
        layers = zip(range(steps), epoch.tolist(), *(norms.tolist() for _, norms in shares), strict=True)
        write_csv(self.path("layers.csv"), ("step", "epoch", *(name for name, _ in shares)), layers)
        write_json(self.path("settings.json"), asdict(self.settings))
        write_csv(self.path("train.csv"), ("row", "label"), [(row, row % 2) for row in self.rows.tolist()])
        store = np.random.default_rng(0).integers(0, 200, (self.n, 96, 96, 3), dtype=np.uint8)
        np.save(self.folder / "train.npy", store)
        curve = [(e + 1, 0.5, 0.6 - e / 1000, 0.8 + e / 1000, 0.001, 1.0, 2.0) for e in range(self.epochs)]
        write_csv(self.path("history.csv"), HISTORY_COLUMNS, curve)
        return self

    def find(self) -> tuple[dict[str, Any], list[dict[str, str]]]:
        run = ("baseline", self.seed)
        find_spikes(
            {run: self.path("steps.csv")}, {run: self.path("layers.csv")}, {"baseline": self.path("settings.json")},
            self.path("train.csv"), self.path("spikes.json"), self.path("spikes.csv"), provenance={"rule": "test"},
        )  # fmt: skip
        return read_json(self.path("spikes.json")), read_csv(self.path("spikes.csv"), COLUMNS)

    def show(self) -> str:
        names = ("spikes.csv", "spikes.json", "train.csv", "train.npy", "spikes.png", "spikes.txt")
        show_spikes(*map(self.path, names), label=LABEL)
        return (self.folder / "spikes.txt").read_text()


def test_a_planted_spike_is_traced_to_the_rows_of_its_batch_and_to_its_layer(tmp_path: Path) -> None:
    trained = Trained(tmp_path, planted=[101, 30]).write()
    document, steps = trained.find()
    assert [int(step["step"]) for step in steps] == find_deviations(trained.norms).spikes.tolist()
    assert {int(step["step"]) for step in steps} == {30, 101} and document["runs"][0]["spikes"] == 2
    for step in steps:
        at = int(step["step"])
        epoch, within = divmod(at, 8)
        expected = trained.rows[epoch_batches(4, epoch, 64, 8)[within]]
        assert [int(row) for row in step["rows"].split()] == expected.tolist()
        assert int(step["hardest_row"]) == expected[3] and int(step["epoch"]) == epoch + 1
        assert int(step["hardest_label"]) == expected[3] % 2
        assert step["layer"] == "head" and float(step["ratio"]) > 20 and step["above_limit"] == "1"
        assert float(step["learning_rate"]) == learning_rate_at(trained.settings, at, 240)
    alarms = document["runs"][0]["false_alarms"]
    assert alarms == false_alarms(240) and alarms["runs"] == 500


def test_a_real_training_is_traced(tmp_path: Path) -> None:
    """What train_seed writes is what find_spikes reads: each step's hardest patch is in the batch found again."""
    inputs = make_inputs(tmp_path / "in")
    train_in(inputs, tmp_path / "out", seed=2)
    left, run = outputs(tmp_path / "out"), ("baseline", 2)
    paths = [str(tmp_path / name) for name in ("spikes.json", "spikes.csv")]
    find_spikes({run: left.steps}, {run: left.layers}, {"baseline": str(inputs / "settings.json")},
                str(inputs / "train.csv"), *paths, provenance={})  # fmt: skip
    told = read_json(paths[0])["runs"][0]
    assert told["steps"] == 20 and told["judged"] == 10 and set(told["layers"]) >= {"stem", "head"}
    step = read_csv(paths[1])[0]
    assert step["hardest_row"] in step["rows"].split() and len(step["rows"].split()) == 8
    files = {"2": (left.history, left.steps, left.layers)}
    plot_training(files, str(tmp_path / "t.png"), str(tmp_path / "t.txt"), variant="baseline", label=LABEL)
    assert "Variant baseline, 1 seed:" in (tmp_path / "t.txt").read_text()


def test_norms_that_follow_the_batch_are_told_from_norms_that_do_not() -> None:
    rng = np.random.default_rng(6)
    seen = {seed: rng.integers(0, 500, (300, 8)) for seed in (0, 1)}
    hard = rng.normal(size=500)
    own = {(variant, seed): hard[seen[seed]].sum(1) + rng.normal(size=300) for variant in "ab" for seed in (0, 1)}
    batches = {(variant, seed): seen[seed] for variant, seed in own}
    own["b", 0], batches["b", 0] = own["b", 0][:200], batches["b", 0][:200]  # a shorter run of the same order
    told = compare_batches(own, batches)
    assert [(pair["runs"], pair["steps"]) for pair in told["same"]] == [
        ([["a", 0], ["b", 0]], 200),
        ([["a", 1], ["b", 1]], 300),
    ]
    assert all(pair["correlation"] > 0.8 for pair in told["same"])
    assert len(told["other"]) == 4 and all(abs(pair["correlation"]) < 0.25 for pair in told["other"])
    batches["b", 1] = batches["b", 1][::-1].copy()
    assert len(compare_batches(own, batches)["same"]) == 1  # the same seed, but other batches


def test_a_patch_that_is_hardest_twice_is_named(tmp_path: Path) -> None:
    order = Trained(tmp_path).batches
    again = next(step for step in range(100, 200) if order[30][3] in order[step])
    trained = Trained(tmp_path, planted=[30, again])
    row = int(trained.rows[order[30][3]])
    trained.hardest[[30, again]] = row
    document, _ = trained.write().find()
    assert [entry["row"] for entry in document["recurring"]] == [row]
    assert {step["step"] for step in document["recurring"][0]["steps"]} == {30, again}


def test_without_a_spike_the_largest_deviation_is_shown_and_said_to_be_none(tmp_path: Path) -> None:
    trained = Trained(tmp_path).write()
    document, steps = trained.find()
    found = find_deviations(trained.norms)
    assert document["runs"][0]["spikes"] == 0
    assert [(int(step["step"]), step["above_limit"]) for step in steps] == [(int(found.ranked[0]), "0")]
    told = trained.show()
    assert BELOW in told and "no step's gradient norm is a spike" in told and told.endswith(f"Data: {LABEL}.\n")


def test_steps_of_other_data_are_refused(tmp_path: Path) -> None:
    trained = Trained(tmp_path).write()
    write_csv(trained.path("train.csv"), ("row", "label"), [(row + 1, 0) for row in trained.rows.tolist()])
    with pytest.raises(
        InputError, match=r"steps.csv: its batches are not those of the 64 training rows at hand; train"
    ):
        trained.find()
    write_csv(trained.path("steps.csv"), STEPS_COLUMNS, [])
    with pytest.raises(InputError, match=r"steps.csv: no step; train again"):
        trained.find()


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        trained = Trained(tmp_path / name, planted=[60]).write()
        trained.find()
        trained.show()
        written.append([(trained.folder / file).read_bytes() for file in ("spikes.json", "spikes.csv", "spikes.png")])
    assert written[0] == written[1]


def test_the_montage_shows_the_hardest_first_and_frames_it_alone(tmp_path: Path) -> None:
    trained = Trained(tmp_path, planted=[30, 60, 101, 180]).write()
    _, steps = trained.find()
    # The hardest patch of the first step is one colour, which no other place of the picture may have.
    store = np.load(trained.folder / "train.npy")
    store[np.flatnonzero(trained.rows == int(steps[0]["hardest_row"]))] = (0, 255, 0)
    np.save(trained.folder / "train.npy", store)
    told = trained.show()
    assert "4 spikes of the gradient norm in 1 of 1 run of 240 steps" in told and "shown: the largest 3" in told
    picture = imread(trained.path("spikes.png"))[..., :3]
    green = np.argwhere(np.isclose(picture, (0, 1, 0), atol=0.01).all(axis=2))
    assert green[:, 1].max() < picture.shape[1] / 8 and green[:, 0].min() < picture.shape[0] / 3
    yellow = np.isclose(picture, FRAME, atol=0.02).all(axis=2)
    assert yellow.sum() > 100 and np.argwhere(yellow)[:, 1].max() < picture.shape[1] / 8


def test_at_most_three_spikes_are_shown_the_largest_first() -> None:
    listed = [{"above_limit": a, "z": z} for a, z in (("1", "5"), ("0", "4.6"), ("1", "9"), ("1", "6"), ("1", "7"))]
    assert [step["z"] for step in chosen_steps(listed)] == ["9", "7", "6"]
    assert [step["z"] for step in chosen_steps([listed[1], {"above_limit": "0", "z": "2"}])] == ["4.6"]
    assert chosen_steps([]) == []


def test_a_run_too_short_to_judge_is_drawn_and_said_to_be(tmp_path: Path) -> None:
    trained = Trained(tmp_path, n=16, epochs=2).write()
    document, steps = trained.find()
    told = document["runs"][0]
    assert steps == [] and told["judged"] == 0 and told["limit"] is None and told["largest_z"] is None
    assert "has the neighbours it takes to judge it" in trained.show()
    files = {"4": (trained.path("history.csv"), trained.path("steps.csv"), trained.path("layers.csv"))}
    plot_training(files, trained.path("t.png"), trained.path("t.txt"), variant="mlp", label=LABEL)
    assert "spikes: 0." in (tmp_path / "t.txt").read_text()


def test_the_training_figure_rings_the_spikes_and_says_what_the_median_hides(tmp_path: Path) -> None:
    rings = []
    for name, planted in (("without", []), ("with", [101])):
        trained = Trained(tmp_path / name, planted=planted).write()
        files = {"4": (trained.path("history.csv"), trained.path("steps.csv"), trained.path("layers.csv"))}
        plot_training(files, trained.path("t.png"), trained.path("t.txt"), variant="baseline", label=LABEL)
        picture = imread(trained.path("t.png"))[..., :3]
        rings.append(int(np.isclose(picture, RING, atol=0.02).all(axis=2).sum()))
    assert rings[1] > 1.5 * rings[0] > 0  # the legend's, and another
    norms, own = trained.norms, trained.norms[96:104]
    told = (trained.folder / "t.txt").read_text()
    assert f"at step 101 of seed 4, is {norms[101] / np.median(own):.1f} times the median of its epoch" in told
    assert "spikes: 1." in told


def test_variants_that_differ_in_the_schedule_alone_are_found() -> None:
    base = asdict(SETTINGS)
    recipes = {
        "baseline": base,
        "same": dict(base),
        "constant_lr": {**base, "schedule": "constant"},
        "both": {**base, "schedule": "cosine", "epochs": 9},
        "other": {**base, "epochs": 9},
    }
    assert schedule_variants(recipes) == ["constant_lr"]


def test_paired_differences_have_student_s_interval_also_where_all_are_positive() -> None:
    one, other = [0.91, 0.93, 0.95], [0.90, 0.90, 0.945]
    told = paired_difference(one, other)
    expected = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert told["interval"] == pytest.approx([expected.low, expected.high])
    assert told["interval"][0] < 0 and told["told_apart"] is False  # not cut at 0
    assert paired_difference([0.9, 0.92, 0.94], [0.8, 0.821, 0.839])["told_apart"] is True
    assert paired_difference([0.9], [0.8])["interval"] is None
    assert paired_difference([0.9, 0.9], [0.8, 0.8])["told_apart"] is None


class Schedules:
    """Files of baseline and of one variant at another schedule, as train_seed leaves them."""

    def __init__(self, folder: Path, areas: dict[str, list[float]], losses: dict[str, list[float]]) -> None:
        self.folder, self.seeds = folder, list(range(len(areas["baseline"])))
        schedules = {"baseline": "one_cycle", "constant_lr": "constant"}
        self.recipes = {name: replace(SETTINGS, schedule=schedules[name], epochs=3) for name in areas}
        self.sidecars = {
            (name, seed): {
                "seed": seed, "settings": asdict(self.recipes[name]), "digests": {"data": "d", "code": "c"},
                "valid": {"roc_auc": areas[name][seed], "roc_auc_standard_error": 0.01, "n": 60},
            }
            for name in areas for seed in self.seeds
        }  # fmt: skip
        self.losses = losses

    def paths(self, name: str) -> dict[tuple[str, int], str]:
        return {run: str(self.folder / f"{run[0]}-{run[1]}-{name}") for run in self.sidecars}

    def compare(self) -> dict[str, Any]:
        for run, sidecar in self.sidecars.items():
            write_json(self.paths("weights.json")[run], sidecar)
            loss = self.losses[run[0]][run[1]]
            lines = [(e + 1, 0.5, loss + (2 - e), 0.7 + e / 10, 0.001, 1.0, 2.0) for e in range(3)]
            write_csv(self.paths("history.csv")[run], HISTORY_COLUMNS, lines)
        variants = [name for name in self.recipes if name != "baseline"]
        compare_schedules(self.paths("weights.json"), self.paths("history.csv"), str(self.folder / "schedules.json"),
                          variants=variants, seeds=self.seeds, provenance={"rule": "test"})  # fmt: skip
        return read_json(self.folder / "schedules.json")

    def plot(self, comparison_path: str | None) -> str:
        settings = {name: str(self.folder / f"{name}.json") for name in self.recipes}
        for name, recipe in self.recipes.items():
            write_json(settings[name], asdict(recipe))
        base = self.recipes["baseline"]
        lines = [(step, step // 10 + 1, 0.5, learning_rate_at(base, step, 30), 1.0, 0, 1.0) for step in range(30)]
        write_csv(self.folder / "steps.csv", STEPS_COLUMNS, lines)
        histories = {
            name: [path for run, path in self.paths("history.csv").items() if run[0] == name] for name in self.recipes
        }
        plot_schedules(settings, str(self.folder / "steps.csv"), histories, comparison_path,
                       str(self.folder / "s.png"), str(self.folder / "s.txt"), label=LABEL)  # fmt: skip
        return (self.folder / "s.txt").read_text()


LOSSES = {"baseline": [0.30, 0.31, 0.32], "constant_lr": [0.30, 0.32, 0.31]}


@pytest.mark.parametrize(
    ("base", "verdict"),
    [
        ([0.95, 0.951, 0.949], "better"),
        ([0.85, 0.851, 0.849], "worse"),
        ([0.95, 0.89, 0.92], "not told apart"),
        ([0.95], "undefined"),
    ],
)
def test_the_verdict_on_a_schedule_follows_from_the_seeds(tmp_path: Path, base: list[float], verdict: str) -> None:
    other = [0.90, 0.903, 0.905][: len(base)]
    runs = Schedules(tmp_path, {"baseline": base, "constant_lr": other}, LOSSES)
    document = runs.compare()
    area, loss = document["comparisons"]
    assert (area["metric"], area["verdict"]) == ("roc_auc", verdict)
    assert area["differences"] == pytest.approx(np.subtract(base, other).tolist()) and area["n"] == len(base)
    # The loss is that of the last epoch, and less of it is better.
    assert document["variants"]["baseline"]["loss"]["values"] == LOSSES["baseline"][: len(base)]
    assert loss["verdict"] == ("undefined" if verdict == "undefined" else "not told apart")
    assert document["variants"]["constant_lr"]["roc_auc"]["mean"] == pytest.approx(np.mean(other))
    assert (document["variants"]["baseline"]["roc_auc"]["sd"] is None) == (len(base) == 1)
    told = runs.plot(str(tmp_path / "schedules.json"))
    assert f"n = {len(base)}): {verdict}" in told and "uses one_cycle" in told


def test_a_lower_loss_is_better(tmp_path: Path) -> None:
    areas = {"baseline": [0.9, 0.9, 0.91], "constant_lr": [0.9, 0.91, 0.9]}
    low, high = [0.20, 0.21, 0.205], [0.30, 0.305, 0.31]
    runs = Schedules(tmp_path, areas, {"baseline": low, "constant_lr": high})
    assert runs.compare()["comparisons"][1]["verdict"] == "better"
    runs.losses = {"baseline": high, "constant_lr": low}
    assert runs.compare()["comparisons"][1]["verdict"] == "worse"


def test_runs_of_another_budget_are_not_compared(tmp_path: Path) -> None:
    def runs() -> Schedules:
        return Schedules(tmp_path, {"baseline": [0.9, 0.9], "constant_lr": [0.8, 0.81]}, LOSSES)

    longer, other_data, other_seed = runs(), runs(), runs()
    longer.sidecars["constant_lr", 1]["settings"]["epochs"] = 4
    with pytest.raises(InputError, match=r"constant_lr-1-weights.json: its epochs is not that of .*baseline-0"):
        longer.compare()
    other_data.sidecars["baseline", 1]["digests"]["data"] = "e"
    with pytest.raises(InputError, match=r"baseline-1-weights.json: its digest of data is not that of"):
        other_data.compare()
    other_seed.sidecars["baseline", 1]["seed"] = 7
    with pytest.raises(InputError, match=r"was trained with seed 7, not 1; train it again"):
        other_seed.compare()
    one_class = runs()
    one_class.sidecars["baseline", 0]["valid"]["roc_auc"] = None
    with pytest.raises(InputError, match=r"valid holds one class only"):
        one_class.compare()


def test_schedules_are_drawn_without_a_comparison_and_only_at_the_rates_that_were_used(tmp_path: Path) -> None:
    runs = Schedules(tmp_path, {"baseline": [0.9, 0.9]}, LOSSES)
    runs.compare()
    assert "none is compared" in runs.plot(None)
    runs.recipes["baseline"] = replace(runs.recipes["baseline"], schedule="cosine")
    steps = read_csv(tmp_path / "steps.csv")
    with pytest.raises(InputError, match=r"the learning rate of step 0 is .*, and cosine gives .*; train again"):
        plot_schedules({"baseline": write_recipe(tmp_path, runs.recipes["baseline"])}, str(tmp_path / "steps.csv"),
                       {"baseline": [runs.paths("history.csv")["baseline", 0]]}, None, str(tmp_path / "s.png"),
                       str(tmp_path / "s.txt"), label=LABEL)  # fmt: skip
    assert len(steps) == 30


def write_recipe(folder: Path, recipe: TrainSettings) -> str:
    write_json(folder / "recipe.json", asdict(recipe))
    return str(folder / "recipe.json")


def test_the_schedules_drawn_are_those_that_a_config_may_name() -> None:
    schema = yaml.safe_load(SCHEMA.read_text())
    assert list(NAMES) == schema["properties"]["train"]["properties"]["schedule"]["enum"]


def test_without_a_variant_at_another_schedule_nothing_is_compared(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"variants": {"constant_lr": {"schedule": "one_cycle"}}}))
    # That the default run compares is seen in test_workflow.
    dry_run = snakemake(tmp_path, "--dry-run", "results/assets/schedules.png", config=config)
    rules = {job.rule for job in planned_jobs(succeeded(dry_run))}
    assert "plot_schedules" in rules and "compare_schedules" not in rules


def answers(folder: Path, content: dict[str, Any], config: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the journal would say of these results; what is left out is missing."""
    found: dict[str, Any] = {}
    for name in ("spikes", "spike_steps", "schedules"):
        path = folder / f"{name}.{'csv' if name == 'spike_steps' else 'json'}"
        path.unlink(missing_ok=True)
        if name in content and name == "spike_steps":
            write_csv(path, content[name][0], content[name][1:])
        elif name in content:
            write_json(path, content[name])
        found[name] = open_evidence(Source(str(path), "r"))
    config = config or yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    return dynamics_answers(found, config, [("baseline", 0), ("baseline", 1)])


def test_the_journal_says_what_was_found(tmp_path: Path) -> None:
    content = dynamics_evidence()
    told = answers(tmp_path, content)
    assert told["spike_sentence"].startswith(
        "1 spike in 1 of 2 runs. Were the norms lognormal and no spike among them, 0.03 of these runs would"
    )
    assert [row[4] for row in told["spike_table"]] == ["spike", "below the limit"]
    assert told["spike_batches"] == ["baseline seed 0, step 383: train rows 1415 510 1570."]
    assert "finds 0 when an epoch keeps its median alone, and 2 when it" in told["granularity_sentence"]
    assert "stem 2.3 times that of head" in told["layers_sentence"]
    assert "row 1571, of 2" in told["cause_sentence"] and "0.67 to 0.77" in told["cause_sentence"]
    assert (
        "correlate at 0.68 (1 pair), those of runs with other batches at -0.08 to 0.09 (2 pairs)"
        in told["cause_sentence"]
    )
    assert "are not shown to decide" in told["cause_sentence"], "three pairs are too few to say so"
    for kind, correlations in (("other", (0.0, 0.02, -0.04, 0.05)), ("same", (0.6, 0.5, 0.7))):
        pairs = content["spikes"]["batches"][kind]
        pairs += [{**pairs[0], "correlation": correlation} for correlation in correlations]
    assert "decide part of" in answers(tmp_path, content)["cause_sentence"]
    content["spikes"]["batches"]["same"][0]["correlation"] = 0.05
    assert "are not shown to decide" in answers(tmp_path, content)["cause_sentence"]
    assert told["layer_table"][0] == ["baseline", "stem", "0.193 to 1.193", "0.412", "31 %"]
    assert told["schedule_variants"] == ["constant_lr"]


def test_the_journal_says_that_there_is_no_spike(tmp_path: Path) -> None:
    content = dynamics_evidence()
    content["spikes"]["runs"] = [run_of(seed, spikes=0, spikes_in_epoch_medians=None) for seed in (0, 1)]
    content["spikes"]["recurring"] = []
    content["spike_steps"][1:] = [step_line(above_limit=0, z=3.0), step_line(above_limit=0, z=4.0, step=9)]
    told = answers(tmp_path, content)
    assert told["spike_sentence"].startswith("No step of 2 runs is a spike; listed is what stands out most in each.")
    assert [row[2] for row in told["spike_table"]] == [9, 383]
    assert told["spike_batches"] == ["baseline seed 0, step 9: train rows 1415 510 1570."]
    assert told["granularity_sentence"].endswith("No run has epochs enough for the test of spikes to be tried on them.")
    assert told["cause_sentence"].endswith("No patch is the hardest of two of the listed steps.")
    short = {
        "judged": 0,
        "limit": None,
        "largest_z": None,
        "correlation_with_next": None,
        "correlation_with_loss": None,
    }
    content["spikes"]["runs"] = [run_of(seed, **short) for seed in (0, 1)]
    told = answers(tmp_path, {**content, "spike_steps": content["spike_steps"][:1]})
    assert told["spike_sentence"] == "No step of 2 runs has the neighbours it takes: nothing was judged."
    assert told["spike_table"] == told["spike_batches"] == [] and told["gradients"][0][8] == "not judged"


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("better", "one_cycle ranks valid better than constant: the measurement supports the choice"),
        ("worse", "one_cycle ranks valid worse than constant: the measurement speaks against the choice"),
        ("not told apart", "one_cycle is not told apart from constant on valid: the measurement does not decide"),
        ("undefined", "one_cycle and constant differ on valid by a figure without an interval"),
    ],
)
def test_the_journal_justifies_the_schedule_by_the_verdict_alone(tmp_path: Path, verdict: str, said: str) -> None:
    content = dynamics_evidence()
    content["schedules"]["comparisons"][0] = comparison("roc_auc", 0.0123, verdict)
    if verdict == "undefined":
        content["schedules"]["comparisons"][0]["interval"] = None
    (sentence,) = answers(tmp_path, content)["schedule_sentences"]
    assert sentence.startswith(said) and "+0.0123, n = 2" in sentence
    assert ("undefined)" in sentence) == (verdict == "undefined")


def test_what_is_missing_reads_as_missing_throughout(tmp_path: Path) -> None:
    told = answers(tmp_path, {})
    for name in ("gradients", "granularity", "layer_table", "spike_sentence", "spike_table", "cause_sentence",
                 "layers_sentence", "granularity_sentence", "schedule_table", "comparison_table"):  # fmt: skip
        assert isinstance(told[name], Missing), name
    assert told["spike_batches"] == [] and isinstance(told["schedule_sentences"][0], Missing)
