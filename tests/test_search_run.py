"""The search run for real, tiny: the same at any --cores, killed in the middle, with a trial that dies."""

import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_files import make_inputs

from pcam.files import file_digest, read_csv, read_json
from workflow import TINY, snakemake, start_snakemake, succeeded

RECIPE, SELECTION = "results/search/recipe.json", "results/champion/selection.json"
SEARCH = {
    "rounds": 2,
    "trials": 2,
    "rungs": [{"epochs": 25}, {"epochs": 26, "trials": 1}],
    "space": {
        "model": {"type": "categorical", "choices": ["resnet", "mlp"]},
        "width": {"type": "int", "low": 4, "high": 12, "step": 4, "when": {"model": ["resnet"]}},
        "hidden": {"type": "int", "low": 4, "high": 16, "when": {"model": ["mlp"]}},
    },
}
RULES = ("resolve_variant", "propose_trials", "train_trial", "promote_trial", "select_recipe", "train_seed",
         "select_champion")  # fmt: skip
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "mine.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(TINY.read_text()), "search": SEARCH}))
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that trainings read, made without the stages before them."""
    made, folder = make_inputs(tmp_path_factory.mktemp("made")), tmp_path_factory.mktemp("prepared")
    store, splits = folder / "data" / "sample" / "store", folder / "results" / "splits"
    for target in (store, splits):
        target.mkdir(parents=True)
    for split in ("train", "valid"):
        shutil.move(made / f"{split}.npy", store)
        shutil.move(made / f"{split}.csv", splits)
    shutil.move(made / "normalisation.json", splits)
    return folder


def arguments(target: str) -> list[str]:
    """Snakemake's, for a target of these rules alone: the stages before them would want to make the data anew."""
    return ["--allowed-rules", *RULES, "--", target]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, prepared: Path, config: Path) -> Path:
    """A search and its champion, one job after the other."""
    folder = shutil.copytree(prepared, tmp_path_factory.mktemp("undisturbed") / "work")
    succeeded(snakemake(folder, *arguments(SELECTION), config=config, cores=1))
    return folder


def without_provenance(path: Path) -> dict[str, Any]:
    return {name: value for name, value in read_json(path).items() if name != "provenance"}


def found(folder: Path) -> dict[str, Any]:
    """What a search found: every trial's weights, its table, its recipe."""
    search = folder / "results" / "search"
    weights = sorted(search.glob("*/*/weights.pt"))
    assert len(weights) == 5
    return {
        **{str(path.relative_to(search)): file_digest(path) for path in weights},
        "trials": (search / "trials.csv").read_text(),
        "recipe": without_provenance(folder / RECIPE),
        "tuned": read_json(folder / "results" / "train" / "tuned" / "settings.json"),
    }


@pytest.mark.parametrize("cores", [4])
def test_the_champion_is_the_same_at_any_cores(
    prepared: Path, undisturbed: Path, config: Path, tmp_path: Path, cores: int
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "work")
    succeeded(snakemake(folder, *arguments(SELECTION), config=config, cores=cores))
    assert found(folder) == found(undisturbed)
    assert without_provenance(folder / SELECTION) == without_provenance(undisturbed / SELECTION)
    weights = read_json(folder / SELECTION)["chosen"]["weights"]
    assert file_digest(folder / weights) == file_digest(undisturbed / weights)


def wait_for_epoch_2(process: subprocess.Popen[bytes], folder: Path, trial: str) -> int:
    """Return when a trial is in the middle of its training, with the process it trains in."""
    log = folder / "results" / "logs" / "train_trial" / f"{trial}.log"
    while not (log.exists() and "epoch 2/" in log.read_text()):
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"ended with {process.wait(timeout=0.1)} before {trial} came to its second epoch")
    return int((folder / "results" / "search" / trial / ".lock").read_text().split()[1])


def test_a_search_killed_in_the_middle_goes_on_without_repeating_a_trial(
    prepared: Path, undisturbed: Path, config: Path, tmp_path: Path
) -> None:
    """Snakemake and all it started die by SIGKILL in the second round."""
    folder = shutil.copytree(prepared, tmp_path / "work")
    search = folder / "results" / "search"
    with start_snakemake(folder, *arguments(RECIPE), config=config, cores=1) as first:
        wait_for_epoch_2(first, folder, "round-1/trial-0")
        os.killpg(first.pid, signal.SIGKILL)
    assert not (search / "round-1" / "trial-0" / "weights.json").exists()
    finished = {path: path.stat().st_mtime_ns for path in search.glob("round-*/*/weights.*")}
    assert len(finished) in (4, 6)  # of the second round's trials either may come first

    succeeded(snakemake(folder, "--unlock", config=config))
    said = succeeded(snakemake(folder, *arguments(RECIPE), config=config))
    assert len(re.findall(r"Finished jobid: \d+ \(Rule: train_trial\)", said)) == 5 - len(finished) // 2
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    log = folder / "results" / "logs" / "train_trial" / "round-1" / "trial-0.log"
    assert "resumed after step" in log.read_text()
    assert found(folder) == found(undisturbed)


def test_a_trial_that_is_killed_is_a_line_of_the_table_and_the_search_goes_on(
    prepared: Path, undisturbed: Path, config: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(prepared, tmp_path / "work")
    with start_snakemake(folder, *arguments(RECIPE), config=config, cores=1) as running:
        os.kill(wait_for_epoch_2(running, folder, "round-0/trial-1"), signal.SIGKILL)
        assert running.wait(timeout=900) == 0, (folder / "snakemake.txt").read_text()[-4000:]
    trials = {f"{row['phase']}/trial-{row['trial']}": row for row in read_csv(folder / "results/search/trials.csv")}
    failed = trials.pop("round-0/trial-1")
    assert (failed["state"], failed["value"]) == ("FAIL", "") and failed["reason"].startswith("died by SIGKILL")
    assert {row["state"] for row in trials.values()} == {"COMPLETE"} and len(trials) == 4
    recipe = read_json(folder / RECIPE)
    assert recipe["chosen"]["name"] == "rung-1/trial-0" and recipe["chosen"]["origin"] in trials
    # Its settings are those of the undisturbed search: the first round learns from nothing.
    same = read_csv(undisturbed / "results/search/trials.csv")[1]
    assert all(failed[name] == same[name] for name in recipe["searched"])
