"""`make ui` shows the runs, their curves and the champion to a browser."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from test_live import free_port, serves
from tracked_results import Results

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


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Results]]:
    """The address of the pages over a finished run's tracker."""
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed: no browser looks at MLflow's pages")
    results = Results(tmp_path_factory.mktemp("ui"))
    results.track()
    port = free_port()
    with serves(make_ui(results.tracking / "mlflow.db", port), ROOT) as lines:
        assert f"MLflow opens at http://127.0.0.1:{port}\n" in lines
        yield f"http://127.0.0.1:{port}", results


def seen(url: str, folder: Path, picture: str | None = None) -> str:
    """The page as the browser has it when it has come to rest, as HTML; with `picture` it is painted there instead."""
    wanted = f"--screenshot={picture}" if picture else "--dump-dom"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder}/profile", wanted, url]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=180).stdout


@pytest.mark.slow
def test_the_browser_sees_the_runs_and_the_trials_folded_into_the_search(
    opened: tuple[str, Results], tmp_path: Path
) -> None:
    address, results = opened
    experiment = next(iter(results.in_tracker().values())).info.experiment_id
    page = seen(f"{address}/#/experiments/{experiment}/runs", tmp_path)
    assert [name for name in results.in_tracker() if f">{name}<" not in page] == ["round-0/trial-1", "round-0/trial-0"]


@pytest.mark.slow
def test_the_browser_sees_the_curves_of_a_run(opened: tuple[str, Results], tmp_path: Path) -> None:
    address, results = opened
    run = results.in_tracker()["baseline/seed-7"].info
    # Chromium's virtual time may end before MLflow's many requests do: a warm cache the next time helps.
    pages = (
        seen(f"{address}/#/experiments/{run.experiment_id}/runs/{run.run_id}/model-metrics", tmp_path) for _ in range(4)
    )
    page = next((page for page in pages if "js-line" in page), "")
    assert "steps/loss" in page
    assert "js-line" in page, "no curve is drawn"


@pytest.mark.slow
def test_the_browser_sees_the_champion_in_the_registry(opened: tuple[str, Results], tmp_path: Path) -> None:
    address, _ = opened
    page = seen(f"{address}/#/models/pcam", tmp_path)
    assert "Version 1" in page and "@ champion" in page.replace("&nbsp;", " ")
