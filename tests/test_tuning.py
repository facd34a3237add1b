"""Proposals are a pure function of the finished trials; champion and threshold come from validation alone."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from select_champion import select_champion

from pcam.files import InputError, read_csv, read_json, write_json
from pcam.metrics import best_threshold, f_beta
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


def candidate(folder: Path, name: str, value: float, data: str = "d") -> str:
    path = folder / name / "weights.json"
    settings = {"epochs": 2, "width": 16}
    write_json(path, {"valid": {"roc_auc": value}, "settings": settings, "digests": {"data": data}})
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
    }


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
