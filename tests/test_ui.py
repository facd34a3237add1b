"""`make ui` shows the runs, their curves and the champion to a browser."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT
from mlflow import MlflowClient
from mlflow.entities import RunInfo
from test_live import free_port, serves

CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1500,1100",
         "--virtual-time-budget=60000"]  # fmt: skip


def make_ui(database: Path, port: int) -> list[str]:
    return ["make", "-o", ".venv/runtime", "ui", f"DATABASE={database}", f"PORT={port}",
            f"BIN={Path(sys.executable).parent}"]  # fmt: skip


def test_without_a_database_it_says_what_to_do(tmp_path: Path) -> None:
    command = make_ui(tmp_path / "mlflow.db", free_port())
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert f"{tmp_path}/mlflow.db: no such file; make run logs every run there" in done.stdout.splitlines()


@dataclass(frozen=True)
class Opened:
    """The pages over the tracker of a finished run, and the runs that stand in it, by name."""

    address: str
    runs: dict[str, RunInfo]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, copy_tiny_run: Callable[[Path], Path]) -> Iterator[Opened]:
    """The pages over a finished run: the one that PCAM_RUN names, as CI does with the default run, or the tiny one."""
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed: no browser looks at MLflow's pages")
    named = os.environ.get("PCAM_RUN")
    folder = Path(named) if named else copy_tiny_run(tmp_path_factory.mktemp("ui") / "run")
    database = folder / "results" / "tracking" / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("pcam")
    assert experiment is not None, f"{database} holds no experiment: this run is not finished"
    port = free_port()
    with serves(make_ui(database, port), ROOT) as lines:
        assert f"MLflow opens at http://127.0.0.1:{port}\n" in lines
        runs = {run.info.run_name: run.info for run in client.search_runs([experiment.experiment_id])}
        yield Opened(f"http://127.0.0.1:{port}", runs)


def seen(url: str, folder: Path, picture: str | None = None) -> str:
    """The page as the browser has it when it has come to rest, as HTML; with `picture` it is painted there instead."""
    wanted = f"--screenshot={picture}" if picture else "--dump-dom"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}/profile", wanted, url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout


def experiment_of(opened: Opened) -> str:
    return f"{opened.address}/#/experiments/{next(iter(opened.runs.values())).experiment_id}"


@pytest.mark.slow
def test_the_browser_sees_the_runs_and_the_trials_folded_into_the_search(opened: Opened, tmp_path: Path) -> None:
    page = seen(f"{experiment_of(opened)}/runs", tmp_path)
    trials = {name for name in opened.runs if "/trial-" in name}
    assert trials and {"baseline/seed-0", "champion", "search"} <= opened.runs.keys()
    assert {name for name in opened.runs if f">{name}<" not in page} == trials


@pytest.mark.slow
def test_the_browser_sees_the_curves_of_a_run(opened: Opened, tmp_path: Path) -> None:
    address = f"{experiment_of(opened)}/runs/{opened.runs['baseline/seed-0'].run_id}/model-metrics"
    # Chromium's virtual time may end before MLflow's many requests do: a warm cache the next time helps.
    pages = (seen(address, tmp_path) for _ in range(4))
    page = next((page for page in pages if "js-line" in page), "")
    assert "steps/loss" in page
    assert "js-line" in page, "no curve is drawn"


@pytest.mark.slow
def test_the_browser_sees_the_champion_in_the_registry(opened: Opened, tmp_path: Path) -> None:
    page = seen(f"{opened.address}/#/models/pcam", tmp_path)
    assert "Version 1" in page and "@ champion" in page.replace("&nbsp;", " ")
