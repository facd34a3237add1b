"""Proposals are a pure function of the trials; a trial that dies is a result; validation alone chooses the champion."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import plot_parallel
import plot_search
import pytest
import train_trial
from conftest import ROOT
from make_proposals import BASE, SEED, SPACE, make, results
from matplotlib.figure import Figure
from planted import killed_in_epoch_2
from promote_trial import promote_trial
from propose_trials import propose_trials
from select_champion import select_champion
from select_recipe import select_recipe
from training_files import SETTINGS, make_inputs, outputs, result, train_in

from pcam.checkpoint import load_checkpoint
from pcam.children import Outcome
from pcam.files import InputError, read_csv, read_json, write_json
from pcam.settings import SearchSettings
from pcam.survival import lock_target
from pcam.tuning import FinishedTrial, best, importance, propose

FIRST = propose(SPACE, BASE, 0, 0, 4, [])
FINISHED = [FinishedTrial(i, params, 0.8 + 0.01 * i) for i, params in enumerate(FIRST)]


# --- proposals --------------------------------------------------------------------------------------------------------


def alike(found: Any, kept: Any) -> bool:
    """Names, choices and whole numbers equal, the rest to nine digits: other processors round otherwise."""
    if isinstance(kept, dict):
        return found.keys() == kept.keys() and all(alike(found[key], kept[key]) for key in kept)
    return bool(found == pytest.approx(kept, rel=1e-9)) if isinstance(kept, float) else bool(found == kept)


def test_proposals_are_those_kept() -> None:
    kept, found = read_json(ROOT / "tests" / "golden" / "proposals.json"), make()
    for name, proposals in found.items():
        assert all(alike(*pair) for pair in zip(proposals, kept[name], strict=True)), (
            f"{name}: other proposals than those kept with Optuna {kept['optuna']}; renew them with `make golden` if "
            "the search was meant to change, and say why in the commit"
        )
    other = propose(SPACE, BASE, SEED + 1, 0, 4, [])
    assert not all(alike(*pair) for pair in zip(other, kept["round-0"], strict=True))


def test_proposals_stay_inside_the_space_and_differ() -> None:
    second = propose(SPACE, BASE, 0, 1, 4, FINISHED)
    for params in FIRST + second:
        assert 5e-4 <= params["learning_rate"] <= 1e-2 and 0 <= params["dropout"] <= 0.4
        assert params["model"] in {"resnet", "mlp"}
    assert len({json.dumps(params, sort_keys=True) for params in FIRST + second}) == 8


def test_a_conditional_setting_is_proposed_only_where_its_condition_holds() -> None:
    proposals = [params for seed in range(3) for params in propose(SPACE, BASE, seed, 0, 8, [])]
    finished = results(proposals[:8], 0)
    proposals += [params for number in (1, 2) for params in propose(SPACE, BASE, 0, number, 8, finished)]
    assert {params["model"] for params in proposals} == {"resnet", "mlp"}
    for params in proposals:
        assert ("width" in params, "hidden" in params) == (params["model"] == "resnet", params["model"] == "mlp")
    assert {params["width"] for params in proposals if "width" in params} == {12, 16, 20, 24}


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("model", ["resnet", "mlp"])
def test_a_condition_on_a_fixed_setting_is_on_or_off_for_all_trials(number: int, model: str) -> None:
    space = {name: SPACE[name] for name in ("learning_rate", "width")}
    first = propose(space, {**BASE, "model": model}, 0, 0, 3, [])
    proposals = propose(space, {**BASE, "model": model}, 0, 1, 3, results_of(first)) if number else first
    assert all(("width" in params) == (model == "resnet") for params in proposals)


def results_of(proposals: list[dict[str, Any]]) -> list[FinishedTrial]:
    return [FinishedTrial(i, params, 0.9 - 0.01 * i) for i, params in enumerate(proposals)]


def test_proposals_do_not_depend_on_the_order_trials_finished_in_nor_on_the_order_of_the_config() -> None:
    second = propose(SPACE, BASE, 0, 1, 3, FINISHED)
    assert propose(SPACE, BASE, 0, 1, 3, FINISHED[::-1]) == second
    turned = dict(reversed(SPACE.items()))
    assert propose(turned, BASE, 0, 1, 3, FINISHED) == second
    assert propose(turned, BASE, 0, 0, 4, []) == FIRST


def test_proposals_are_the_same_in_another_process() -> None:
    code = (
        f"import sys, json; sys.path.insert(0, {str(ROOT / 'workflow' / 'scripts')!r})\n"
        f"sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "import make_proposals; print(json.dumps(make_proposals.make()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == make()


def test_another_seed_or_result_gives_other_proposals() -> None:
    assert propose(SPACE, BASE, 1, 0, 4, []) != FIRST
    worse_last = [*FINISHED[:-1], FinishedTrial(3, FINISHED[3].params, 0.1)]
    assert propose(SPACE, BASE, 0, 1, 4, worse_last) != propose(SPACE, BASE, 0, 1, 4, FINISHED)


def test_a_failed_trial_is_taken_as_failed() -> None:
    failed = [*FINISHED[:-1], replace(FINISHED[-1], value=None)]
    assert len(propose(SPACE, BASE, 0, 1, 2, failed)) == 2
    assert propose(SPACE, BASE, 0, 1, 2, failed) != propose(SPACE, BASE, 0, 1, 2, FINISHED)
    assert propose(SPACE, BASE, 0, 1, 2, [replace(trial, value=None) for trial in FINISHED])


# --- the stages of a search, with made-up trainings -------------------------------------------------------------------


def search_settings(**changes: Any) -> SearchSettings:
    plain = SearchSettings(
        rounds=2, trials=3, seed=0, train_seed=0, metric="roc_auc", space=SPACE,
        rungs=({"epochs": 1}, {"epochs": 2, "trials": 2}, {"epochs": 4, "trials": 1}),
    )  # fmt: skip
    return replace(plain, **changes)


def sidecar(settings: dict[str, Any], value: float | None, reason: str = "diverged") -> dict[str, Any]:
    """What a training leaves of itself; without a value, as a failed trial does."""
    made = {"settings": settings, "digests": {"data": "d"}}
    if value is None:
        return {**made, "state": "failed", "reason": reason, "signal": None, "valid": None}
    return {**made, "state": "complete", "valid": {"roc_auc": value}}


class MadeUp:
    """A search whose trainings are a function of name and recipe: all stages but the training are the real ones."""

    def __init__(self, folder: Path, search: SearchSettings, value: Callable[[str, dict[str, Any]], float | None]):
        self.folder, self.search, self.value = folder, search, value
        write_json(folder / "base.json", vars(SETTINGS))
        first: list[str] = []
        for number in range(search.rounds):
            out = [str(folder / f"round-{number}" / f"trial-{t}" / "settings.json") for t in range(search.trials)]
            propose_trials(
                str(folder / "base.json"), first, out, round_number=number, space=search.space, seed=search.seed,
                metric="roc_auc", epochs=search.rungs[0]["epochs"],
            )  # fmt: skip
            first = [*first, *map(self.train, out)]
        self.sidecars, self.origins = first, list[str]()
        before, origins = first, list[str]()
        for number, rung in enumerate(search.rungs[1:], 1):
            made = [self.promote(number, place, rung["epochs"], before, origins) for place in range(rung["trials"])]
            before, origins = [path for path, _ in made], [path for _, path in made]
            self.sidecars, self.origins = self.sidecars + before, self.origins + origins
        names = [str(folder / name) for name in ("tuned.json", "trials.csv", "recipe.json")]
        select_recipe(
            str(folder / "base.json"),
            self.sidecars,
            self.origins,
            *names,
            space=search.space,
            metric="roc_auc",
            seed=search.seed,
            provenance={},
        )
        self.tuned, self.recipe = read_json(names[0]), read_json(names[2])
        self.trials = {f"{row['phase']}/trial-{row['trial']}": row for row in read_csv(names[1])}

    def promote(self, number: int, place: int, epochs: int, before: list[str], origins: list[str]) -> tuple[str, str]:
        to = self.folder / f"rung-{number}" / f"trial-{place}"
        settings, origin = str(to / "settings.json"), str(to / "origin.json")
        promote_trial(
            str(self.folder / "base.json"), before, origins, settings, origin,
            place=place, epochs=epochs, metric="roc_auc", provenance={},
        )  # fmt: skip
        return self.train(settings, read_json(origin)["reason"]), origin

    def train(self, settings_path: str, empty: str | None = None) -> str:
        path, settings = Path(settings_path), read_json(settings_path)
        name = "/".join(path.parts[-3:-1])
        write_json(
            path.with_name("weights.json"),
            sidecar(settings, None if empty else self.value(name, settings), empty or "diverged"),
        )
        return str(path.with_name("weights.json"))

    def settings(self, name: str) -> dict[str, Any]:
        return read_json(self.folder / name / "settings.json")


ROUNDS = {"round-0/trial-0": 0.7, "round-0/trial-1": 0.9, "round-0/trial-2": None, "round-1/trial-0": 0.9,
          "round-1/trial-1": 0.8, "round-1/trial-2": 0.6}  # fmt: skip


def by_name(values: dict[str, float | None]) -> Callable[[str, dict[str, Any]], float | None]:
    return lambda name, settings: values[name]


def test_the_best_of_a_rung_go_on_for_longer_and_the_last_rung_gives_the_tuned_recipe(tmp_path: Path) -> None:
    later = {"rung-1/trial-0": 0.91, "rung-1/trial-1": 0.95, "rung-2/trial-0": 0.85}
    search = MadeUp(tmp_path, search_settings(), by_name({**ROUNDS, **later}))
    # Of the two with 0.9 the one proposed first is first; 0.95 then decides between them.
    for promoted, origin, epochs in (
        ("rung-1/trial-0", "round-0/trial-1", 2),
        ("rung-1/trial-1", "round-1/trial-0", 2),
        ("rung-2/trial-0", "round-1/trial-0", 4),
    ):
        assert search.settings(promoted) == {**search.settings(origin), "epochs": epochs}
        assert search.trials[promoted]["origin"] == origin
    assert search.recipe["chosen"] == {"name": "rung-2/trial-0", "value": 0.85, "origin": "round-1/trial-0"}
    assert search.tuned == {**search.settings("round-1/trial-0"), "epochs": SETTINGS.epochs}
    assert search.recipe["settings"].items() <= search.tuned.items() and search.recipe["reason"] is None
    assert [search.trials[f"rung-{k}/trial-0"]["rung"] for k in (1, 2)] == ["1", "2"]
    failed = search.trials["round-0/trial-2"]
    assert (failed["state"], failed["value"], failed["reason"], failed["origin"]) == ("FAIL", "", "diverged", "")
    for name, row in search.trials.items():
        settings = search.settings(name)
        assert row["width"] == (str(settings["width"]) if settings["model"] == "resnet" else "")
        assert row["epochs"] == str(settings["epochs"])


def test_trials_learn_from_the_first_rung_alone_and_a_search_repeats_itself(tmp_path: Path) -> None:
    values = {**ROUNDS, "rung-1/trial-0": 0.5, "rung-1/trial-1": 0.4, "rung-2/trial-0": 0.3}
    other = {**ROUNDS, "rung-1/trial-0": 0.99, "rung-1/trial-1": None, "rung-2/trial-0": 0.98}
    searches = [MadeUp(tmp_path / str(i), search_settings(), by_name(v)) for i, v in enumerate((values, values, other))]
    assert searches[0].recipe == searches[1].recipe and searches[0].trials == searches[1].trials
    for name in ROUNDS:
        assert searches[0].settings(name) == searches[2].settings(name)


def test_a_place_without_a_trial_fails_with_its_reason_and_the_rung_below_decides(tmp_path: Path) -> None:
    only_one = {name: (0.9 if name == "round-1/trial-1" else None) for name in ROUNDS}
    later = {"rung-1/trial-0": None, "rung-1/trial-1": 0.99, "rung-2/trial-0": 0.99}
    search = MadeUp(tmp_path, search_settings(), by_name({**only_one, **later}))
    reason = search.trials["rung-1/trial-1"]["reason"]
    assert reason == "nothing to promote: 1 of the 6 trials of the rung before finished"
    assert search.trials["rung-2/trial-0"]["reason"].startswith("nothing to promote: 0 of the 2")
    empty = search.trials["rung-1/trial-1"]
    assert (empty["state"], empty["origin"], empty["learning_rate"]) == ("FAIL", "", "")
    assert search.recipe["chosen"] == {"name": "round-1/trial-1", "value": 0.9, "origin": "round-1/trial-1"}


def test_when_no_trial_finished_the_tuned_recipe_is_the_baselines_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = MadeUp(tmp_path, search_settings(), lambda name, settings: None)
    assert search.tuned == vars(SETTINGS)
    assert search.recipe["chosen"] is None and search.recipe["importance"] is None
    assert search.recipe["reason"] in capsys.readouterr().out and "none of the 9 trials" in search.recipe["reason"]
    assert search.recipe["importance_reason"].startswith("0 trials of the first rung finished")
    assert {row["state"] for row in search.trials.values()} == {"FAIL"}


def test_of_equals_the_first_is_best_and_unknown_values_never_are() -> None:
    assert best([0.5, None, 0.9, 0.9, 0.1], 2) == [2, 3]
    assert best([None, 0.0, None], 3) == [1]
    assert best([None], 1) == []


def test_importance_finds_the_setting_that_decides(tmp_path: Path) -> None:
    proposals = propose(SPACE, BASE, 0, 0, 32, [])
    finished = [FinishedTrial(i, params, 0.9 - params["dropout"]) for i, params in enumerate(proposals)]
    shares, reason = importance(SPACE, finished, 0)
    assert shares is not None and shares["dropout"] > 0.8 and sum(shares.values()) == pytest.approx(1)
    assert reason == "no share: hidden, width"
    assert importance(SPACE, finished[::-1], 0) == (shares, reason)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([0.8, 0.9, 0.7], "3 trials of the first rung finished; shares take 4 or more"),
        ([0.8, 0.8, 0.8, 0.8], "same value"),
        ([0.8, 0.9, 0.7, None], "3 trials of the first rung finished"),
    ],
)
def test_undefined_importance_is_null_with_its_reason(values: list[float | None], reason: str) -> None:
    finished = [FinishedTrial(i, params, value) for i, (params, value) in enumerate(zip(FIRST, values, strict=False))]
    shares, said = importance(SPACE, finished, 0)
    assert shares is None and said is not None and reason in said


# --- the champion -----------------------------------------------------------------------------------------------------


def chosen_from(
    folder: Path, values: dict[str, list[float | None]], data: dict[str, str] | None = None
) -> dict[str, Any]:
    """The selection among variants with these values, one a seed, after a search with one failed trial."""
    runs = {}
    for variant, own in values.items():
        for seed, value in enumerate(own):
            path = folder / variant / f"seed-{seed}" / "weights.json"
            digest = (data or {}).get(variant, "d")
            write_json(
                path, {"state": "complete", "digests": {"data": digest, "code": "c"}, "valid": {"roc_auc": value}}
            )
            runs[variant, seed] = str(path)
    (folder / "trials.csv").write_text(
        "phase,trial,state,reason\nround-0,0,COMPLETE,\nround-0,1,FAIL,died by SIGKILL\nrung-1,0,COMPLETE,\n"
    )
    select_champion(runs, str(folder / "trials.csv"), str(folder / "selection.json"), metric="roc_auc", provenance={})
    return read_json(folder / "selection.json")


def test_the_champion_is_the_best_seed_of_the_variant_with_the_best_mean(tmp_path: Path) -> None:
    selection = chosen_from(
        tmp_path, {"baseline": [0.99, 0.80, 0.80], "mlp": [0.5, 0.6, 0.7], "tuned": [0.90, 0.92, 0.91]}
    )
    assert [row["variant"] for row in selection["candidates"]] == ["tuned", "baseline", "mlp"]
    assert selection["chosen"] == {
        "name": "tuned/seed-1", "variant": "tuned", "seed": 1, "value": 0.92,
        "weights": str(tmp_path / "tuned" / "seed-1" / "weights.pt"),
    }  # fmt: skip
    best_variant = selection["candidates"][0]
    assert best_variant["mean"] == pytest.approx(0.91) and best_variant["sd"] == pytest.approx(0.01)
    low, high = best_variant["interval"]
    assert low < 0.91 < high and (best_variant["values"], best_variant["seeds"]) == ([0.9, 0.92, 0.91], [0, 1, 2])
    assert selection["failed_trials"] == [{"name": "round-0/trial-1", "reason": "died by SIGKILL"}]


def test_of_equals_the_first_named_is_champion(tmp_path: Path) -> None:
    selection = chosen_from(tmp_path, {"baseline": [0.8, 0.9, 0.9], "tuned": [0.9, 0.9, 0.8]})
    assert selection["chosen"]["name"] == "baseline/seed-1"


def test_a_variant_without_a_score_comes_last_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    selection = chosen_from(tmp_path, {"baseline": [None], "mlp": [0.1], "tuned": [None]})
    assert [row["variant"] for row in selection["candidates"]] == ["mlp", "baseline", "tuned"]
    assert selection["candidates"][1]["mean"] is None
    assert selection["candidates"][0]["sd"] is None and selection["candidates"][0]["interval"] is None


def test_without_any_score_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no variant has a roc_auc on valid") as error:
        chosen_from(tmp_path, {"baseline": [0.9, None], "tuned": [None, None]})
    assert "\n" not in str(error.value) and not (tmp_path / "selection.json").exists()


def test_candidates_of_different_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different data"):
        chosen_from(tmp_path, {"baseline": [0.9], "tuned": [0.8]}, data={"tuned": "other"})
    assert not (tmp_path / "selection.json").exists()


# --- trials that die --------------------------------------------------------------------------------------------------


def in_this_process(work: Callable[..., None], *arguments: object, **named: object) -> Outcome:
    """run_child for what comes back from a child as it is, which test_children shows, in a third of the time."""
    try:
        return Outcome(value=work(*arguments, **named))
    except InputError as error:
        return Outcome(error=error)


def try_trial(inputs: Path, folder: Path, origin: str | None = None) -> dict[str, object]:
    """Run the trial of these inputs as the rule does; its sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    train_trial.train_trial(
        str(inputs / "settings.json"),
        origin,
        {split: str(inputs / f"{split}.npy") for split in ("train", "valid")},
        {split: str(inputs / f"{split}.csv") for split in ("train", "valid")},
        str(inputs / "normalisation.json"),
        outputs(folder),
        seed=0,
        data_label="test",
        name="trial 0",
        provenance={"code": "c"},
    )
    return read_json(folder / "weights.json")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """Inputs of a trial, and what training them in this process leaves."""
    inputs = make_inputs(tmp_path_factory.mktemp("inputs"))
    folder = tmp_path_factory.mktemp("undisturbed")
    train_in(inputs, folder)
    return inputs, result(folder)


def test_a_trial_that_is_killed_is_recorded_and_when_forced_goes_on_to_the_same_bits(
    undisturbed: tuple[Path, dict[str, bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    inputs, whole = undisturbed
    with monkeypatch.context() as planted:
        planted.setattr(train_trial, "train_recipe", killed_in_epoch_2)
        sidecar = try_trial(inputs, tmp_path)
    complete = json.loads(whole["weights.json"])
    assert (sidecar["state"], sidecar["signal"]) == ("failed", "SIGKILL")
    assert "out-of-memory killer" in str(sidecar["reason"])
    assert sidecar["digests"] == {**complete["digests"], "weights": None}
    assert all(sidecar[key] == complete[key] for key in ("settings", "seed", "data_source"))
    assert (tmp_path / "weights.pt").read_bytes() == b""
    assert all(read_csv(tmp_path / name, ("epoch",)) == [] for name in ("history.csv", "steps.csv", "layers.csv"))
    with pytest.raises(InputError):
        load_checkpoint(tmp_path / "weights.pt")
    assert "failed: died by SIGKILL" in capfd.readouterr().out

    monkeypatch.setattr(train_trial, "run_child", in_this_process)
    assert try_trial(inputs, tmp_path)["state"] == "complete"
    assert "resumed after step" in capfd.readouterr().out
    assert result(tmp_path) == whole


def test_a_trial_that_diverges_is_recorded_with_step_rate_and_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_trial, "run_child", in_this_process)
    inputs = make_inputs(tmp_path / "inputs", model="mlp", learning_rate=1.0)
    write_json(inputs / "normalisation.json", {"mean": [0.5] * 3, "std": [1e-30] * 3})
    sidecar = try_trial(inputs, tmp_path / "trial")
    assert (sidecar["state"], sidecar["signal"]) == ("failed", None)
    assert re.search(r"diverged: loss .* step 0\b.* learning rate 0.04 on train rows 1\d\d, ", str(sidecar["reason"]))


def test_a_trial_that_needs_more_memory_than_there_is_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_trial, "run_child", in_this_process)
    inputs = make_inputs(tmp_path / "inputs", width=65536)
    sidecar = try_trial(inputs, tmp_path / "trial")
    assert sidecar["state"] == "failed" and "are free on" in str(sidecar["reason"])


def test_a_mistake_that_is_no_property_of_the_trial_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_trial, "run_child", in_this_process)
    inputs = make_inputs(tmp_path / "inputs")
    (inputs / "train.npy").unlink()
    with pytest.raises(InputError, match=r"train\.npy: no such file"):
        try_trial(inputs, tmp_path / "trial")
    assert not (tmp_path / "trial" / "weights.json").exists()


def test_a_failure_is_not_written_over_the_results_of_a_process_that_took_up_the_trial(tmp_path: Path) -> None:
    with ExitStack() as other:
        other.enter_context(lock_target(tmp_path, print))
        lines: list[str] = []

        def let_go(line: str) -> None:
            lines.append(line)
            if line.startswith("waiting for"):
                write_json(tmp_path / "weights.json", {"state": "complete"})
                other.close()

        train_trial.write_failure(outputs(tmp_path), {"state": "failed"}, let_go)
    assert read_json(tmp_path / "weights.json") == {"state": "complete"} and not (tmp_path / "weights.pt").exists()
    assert lines[-1].endswith("its results stand")


def test_a_failure_is_written_when_the_process_before_left_nothing(tmp_path: Path) -> None:
    with ExitStack() as other:
        other.enter_context(lock_target(tmp_path, print))
        train_trial.write_failure(outputs(tmp_path), {"state": "failed"}, lambda line: other.close())
    assert read_json(tmp_path / "weights.json") == {"state": "failed"}


@pytest.mark.parametrize("reason", [None, "nothing to promote: 0 of the 6 trials of the rung before finished"])
def test_a_place_without_a_trial_is_recorded_as_failed_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str | None
) -> None:
    ran: list[object] = []
    monkeypatch.setattr(train_trial, "run_child", lambda *of, **named: ran.append(of) or Outcome(value=None))
    inputs = make_inputs(tmp_path / "inputs")
    write_json(tmp_path / "origin.json", {"origin": None if reason else "round-0/trial-1", "reason": reason})
    (tmp_path / "trial").mkdir()
    write_json(tmp_path / "trial" / "weights.json", {})
    sidecar = try_trial(inputs, tmp_path / "trial", str(tmp_path / "origin.json"))
    assert len(ran) == (1 if reason is None else 0)
    assert sidecar.get("reason") == reason and sidecar.get("state") == ("failed" if reason else None)


# --- figures ----------------------------------------------------------------------------------------------------------


def drawn(search: MadeUp, folder: Path) -> tuple[str, str]:
    """Captions of both figures of a search, which are written beside its tables."""
    names = {name: str(folder / name) for name in ("trials.csv", "recipe.json", "s.png", "s.txt", "p.png", "p.txt")}
    looks: dict[str, Any] = {"space": search.search.space, "metric": "roc_auc", "label": "SYNTHETIC SAMPLE"}
    plot_search.plot_search(names["trials.csv"], names["recipe.json"], names["s.png"], names["s.txt"], **looks)
    plot_parallel.plot_parallel(names["trials.csv"], names["p.png"], names["p.txt"], **looks)
    assert min(Path(names[name]).stat().st_size for name in ("s.png", "p.png")) > 10_000
    return Path(names["s.txt"]).read_text(), Path(names["p.txt"]).read_text()


def test_the_captions_name_what_was_chosen_and_count_the_failed(tmp_path: Path) -> None:
    later = {"rung-1/trial-0": 0.91, "rung-1/trial-1": 0.95, "rung-2/trial-0": 0.99}
    search = MadeUp(tmp_path, search_settings(), by_name({**ROUNDS, **later}))
    history, parallel = drawn(search, tmp_path)
    assert "6 proposed trials and 3 trained again for longer; 8 finished." in history
    assert "rung-2/trial-0 was chosen, with 0.990 validation ROC-AUC; lowest: 0.600." in history
    assert "1 failed (crosses)" in history and "explains most" in history
    assert "round-1/trial-0 ends highest on rung 2, with 0.990" in parallel


def test_the_line_that_ends_highest_is_one_that_finished(tmp_path: Path) -> None:
    later = {"rung-1/trial-0": 0.91, "rung-1/trial-1": 0.95, "rung-2/trial-0": None}
    _, parallel = drawn(MadeUp(tmp_path, search_settings(), by_name({**ROUNDS, **later})), tmp_path)
    assert "round-1/trial-0 ends highest on rung 1, with 0.950" in parallel


def test_a_search_in_which_nothing_finished_is_drawn_and_said(tmp_path: Path) -> None:
    history, parallel = drawn(MadeUp(tmp_path, search_settings(), lambda name, settings: None), tmp_path)
    assert "0 finished. 9 failed" in history and "chosen" not in history
    assert "None of the 9 trials finished" in parallel


def test_failed_trials_are_crosses_and_those_that_do_not_search_a_setting_are_left_out() -> None:
    trials = [
        {"phase": "round-0", "rung": "0", "trial": str(i), "epochs": "5", "state": "COMPLETE" if value else "FAIL",
         "value": value, "width": width}
        for i, (value, width) in enumerate([("0.9", "12"), ("", "24"), ("0.8", ""), ("", "20")])
    ]  # fmt: skip
    history, setting = Figure().subplots(2)
    plot_search.draw_history(history, trials, "ROC-AUC")
    plot_search.draw_setting(setting, trials, "width", SPACE["width"], "ROC-AUC")
    for axes, expected in ((history, [1, 3]), (setting, [24, 20])):
        (crosses,) = (line for line in axes.get_lines() if line.get_label() == "failed")
        assert crosses.get_xdata().tolist() == expected
    assert setting.get_lines()[0].get_xdata().tolist() == [12, 24, 20]
    assert setting.get_title(loc="left") or setting.get_title() == "width (model resnet)"


def test_a_line_stands_where_its_trial_stood() -> None:
    assert plot_parallel.height("0.2", SPACE["dropout"]) == pytest.approx(0.5)
    assert plot_parallel.height(str((5e-4 * 1e-2) ** 0.5), SPACE["learning_rate"]) == pytest.approx(0.5)
    assert [plot_parallel.height(model, SPACE["model"]) for model in ("resnet", "mlp", "")] == [
        0,
        1,
        plot_parallel.BELOW,
    ]
    rows = [
        {"phase": "round-0", "trial": "0", "rung": "0", "value": "0.8", "origin": ""},
        {"phase": "round-0", "trial": "1", "rung": "0", "value": "", "origin": ""},
        {"phase": "rung-1", "trial": "0", "rung": "1", "value": "0.9", "origin": "round-0/trial-0"},
        {"phase": "rung-1", "trial": "1", "rung": "1", "value": "", "origin": ""},
    ]
    values = plot_parallel.rung_values(rows)
    assert values["round-0/trial-0"] == [0.8, 0.9] and str(values["round-0/trial-1"]) == "[nan]"
