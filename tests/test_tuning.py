"""Proposals are a pure function of the trials; a trial that dies is a result; validation alone chooses the champion."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import plot_search
import propose_trials
import pytest
import train_trial
from conftest import ROOT
from matplotlib.figure import Figure
from planted import killed_in_epoch_2
from select_champion import select_champion
from training_files import SETTINGS, make_inputs, outputs, result, train_in

from pcam.answers_model import tuning_sentence
from pcam.checkpoint import load_checkpoint
from pcam.children import Outcome
from pcam.documents import Source, open_evidence
from pcam.files import InputError, read_csv, read_json, write_json
from pcam.metrics import best_threshold, f_beta
from pcam.settings import SearchSettings
from pcam.survival import lock_target
from pcam.tuning import FinishedTrial, propose

SPACE = {
    "learning_rate": {"type": "float", "low": 5e-4, "high": 1e-2, "log": True},
    "width": {"type": "int", "low": 12, "high": 24, "step": 4},
    "model": {"type": "categorical", "choices": ["resnet", "mlp"]},
}
FIRST = propose(SPACE, 0, 0, 4, [])
FINISHED = [FinishedTrial(i, params, 0.8 + 0.01 * i) for i, params in enumerate(FIRST)]


def test_proposals_stay_inside_the_space_and_differ() -> None:
    second = propose(SPACE, 0, 1, 4, FINISHED)
    for params in FIRST + second:
        assert 5e-4 <= params["learning_rate"] <= 1e-2
        assert params["width"] in {12, 16, 20, 24} and params["model"] in {"resnet", "mlp"}
    assert len({json.dumps(params, sort_keys=True) for params in FIRST + second}) == 8


def test_proposals_do_not_depend_on_the_order_trials_finished_in_nor_on_the_order_of_the_config() -> None:
    second = propose(SPACE, 0, 1, 3, FINISHED)
    assert propose(SPACE, 0, 1, 3, FINISHED[::-1]) == second
    assert propose(dict(reversed(SPACE.items())), 0, 1, 3, FINISHED) == second


def test_proposals_are_the_same_in_another_process() -> None:
    code = (
        f"import sys, json; sys.path.insert(0, {str(ROOT / 'workflow' / 'scripts')!r})\n"
        "from pcam.tuning import propose\n"
        f"print(json.dumps(propose({SPACE!r}, 0, 0, 4, [])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == FIRST


def test_another_seed_or_result_gives_other_proposals() -> None:
    assert propose(SPACE, 1, 0, 4, []) != FIRST
    worse_last = [*FINISHED[:-1], FinishedTrial(3, FINISHED[3].params, 0.1)]
    assert propose(SPACE, 0, 1, 4, worse_last) != propose(SPACE, 0, 1, 4, FINISHED)


def test_a_failed_trial_is_taken_as_failed() -> None:
    assert len(propose(SPACE, 0, 1, 2, [*FINISHED, FinishedTrial(4, FINISHED[0].params, None)])) == 2


def candidate(folder: Path, name: str, value: float | None, data: str = "d") -> str:
    """A sidecar as a training leaves it; without a value, as a failed trial does."""
    path = folder / name / "weights.json"
    made = {"settings": {"epochs": 2, "width": 16}, "digests": {"data": data}}
    if value is None:
        write_json(path, {**made, "state": "failed", "reason": "died by SIGKILL", "signal": "SIGKILL", "valid": None})
    else:
        write_json(path, {**made, "state": "complete", "valid": {"roc_auc": value}})
    return str(path)


def test_the_best_on_validation_is_champion_and_of_equals_the_first(tmp_path: Path) -> None:
    paths = [
        candidate(tmp_path, "baseline/seed-0", 0.90),
        candidate(tmp_path, "round-0/trial-0", 0.95),
        candidate(tmp_path, "round-0/trial-1", 0.95),
    ]
    out = (str(tmp_path / "selection.json"), str(tmp_path / "trials.csv"))
    select_champion(paths, *out, metric="roc_auc", searched=["width"], provenance={})
    selection = read_json(out[0])
    assert selection["chosen"]["name"] == "round-0/trial-0"
    assert [c["name"] for c in selection["candidates"]] == ["round-0/trial-0", "round-0/trial-1", "baseline/seed-0"]
    assert read_csv(out[1])[1] == {
        "round": "0",
        "trial": "1",
        "state": "COMPLETE",
        "value": "0.95",
        "epochs": "2",
        "width": "16",
        "reason": "",
    }


@pytest.mark.parametrize("others", [[0.5, None], [None, None]])
def test_a_failed_trial_is_listed_and_never_chosen(tmp_path: Path, others: list[float | None]) -> None:
    paths = [candidate(tmp_path, "baseline/seed-0", 0.6)]
    paths += [candidate(tmp_path, f"round-0/trial-{i}", value) for i, value in enumerate(others)]
    out = (str(tmp_path / "selection.json"), str(tmp_path / "trials.csv"))
    select_champion(paths, *out, metric="roc_auc", searched=["width"], provenance={})
    selection, table = read_json(out[0]), read_csv(out[1])
    assert selection["chosen"]["name"] == "baseline/seed-0"
    assert len(selection["candidates"]) == 1 + sum(value is not None for value in others)
    assert {"name": "round-0/trial-1", "reason": "died by SIGKILL"} in selection["failed"]
    assert [row["state"] for row in table] == ["FAIL" if value is None else "COMPLETE" for value in others]
    assert (table[1]["value"], table[1]["width"], table[1]["reason"]) == ("", "16", "died by SIGKILL")
    sentence = tuning_sentence(open_evidence(Source(out[0], "select_champion")))
    assert sentence.endswith("Trial round-0/trial-1 failed: died by SIGKILL.")
    assert ("not above the 0.600 of the baseline" in sentence) == (0.5 in others)


def test_candidates_of_different_data_are_refused(tmp_path: Path) -> None:
    paths = [candidate(tmp_path, "baseline/seed-0", 0.9), candidate(tmp_path, "round-0/trial-0", 0.8, data="other")]
    with pytest.raises(InputError, match="different data"):
        select_champion(paths, str(tmp_path / "s"), str(tmp_path / "t"), metric="roc_auc", searched=[], provenance={})
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_no_other_threshold_has_a_higher_f_beta(beta: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 200)
    probabilities = np.round(np.clip(0.4 * labels + rng.normal(0.3, 0.25, 200), 0, 1), 2)
    threshold = best_threshold(labels, probabilities, beta)
    best = f_beta(labels, (probabilities >= threshold).astype(int), beta)
    assert best == max(f_beta(labels, (probabilities >= t).astype(int), beta) for t in np.unique(probabilities))
    assert threshold not in probabilities


# --- trials that die --------------------------------------------------------------------------------------------------


def in_this_process(work: Callable[..., None], *arguments: object, **named: object) -> Outcome:
    """run_child for what comes back from a child as it is, which test_children shows, in a third of the time."""
    try:
        return Outcome(value=work(*arguments, **named))
    except InputError as error:
        return Outcome(error=error)


def try_trial(inputs: Path, folder: Path) -> dict[str, object]:
    """Run the trial of these inputs as the rule does; its sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    train_trial.train_trial(
        str(inputs / "settings.json"),
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


def test_a_failed_trial_is_handed_to_the_sampler_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handed = []
    monkeypatch.setattr(propose_trials, "propose", lambda *of: (handed.append(of), propose(*of))[1])
    base = tmp_path / "base.json"
    write_json(base, vars(SETTINGS))
    finished = [candidate(tmp_path, f"round-0/trial-{i}", value) for i, value in enumerate([0.7, None, 0.8])]
    search = SearchSettings(
        rounds=2, trials=2, seed=0, train_seed=0, metric="roc_auc", epochs=5, space={"width": SPACE["width"]}
    )
    written = []
    for attempt in ("a", "b"):
        out = [tmp_path / attempt / f"trial-{i}.json" for i in range(2)]
        propose_trials.propose_trials(str(base), finished, [*map(str, out)], round_number=1, search=search)
        written.append([path.read_bytes() for path in out])
    assert [trial.value for trial in handed[0][-1]] == [0.7, None, 0.8]
    assert written[0] == written[1]
    proposed = json.loads(written[0][0])
    assert proposed == {**vars(replace(SETTINGS, epochs=5)), "width": proposed["width"]}


def test_failed_trials_are_crosses_in_the_figure_and_counted_in_its_caption() -> None:
    trials = [
        {"round": "0", "trial": str(i), "state": "COMPLETE" if value else "FAIL", "value": value, "width": width}
        for i, (value, width) in enumerate([("0.9", "12"), ("", "24"), ("0.8", "16"), ("", "20")])
    ]
    history, setting = Figure().subplots(2)
    plot_search.draw_history(history, trials, "ROC-AUC")
    plot_search.draw_setting(setting, trials, "width", SPACE["width"], "ROC-AUC")
    for axes, expected in ((history, [1, 3]), (setting, [24, 20])):
        (crosses,) = (line for line in axes.get_lines() if line.get_label() == "failed")
        assert crosses.get_xdata().tolist() == expected
    caption = " ".join(plot_search.findings(trials, "ROC-AUC"))
    assert "2 finished" in caption and "2 failed (crosses)" in caption and "the worst 0.800" in caption
