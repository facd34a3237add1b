"""Tests import the library and the stage scripts the way Snakemake runs them: from workflow/scripts."""

import fcntl
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))
sys.path.insert(0, str(ROOT))

# Files of minutes come first, so that at the end neither of two processes waits long for the other.
LONGEST = ("test_slurm", "test_run", "test_readme", "test_reproduce", "test_search_run", "test_preflight")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def copy_tiny_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[Path], Path]:
    """Fills a folder with the whole tiny run at --cores 4, which is made once for all test files and processes."""
    from workflow import snakemake, succeeded

    base = tmp_path_factory.getbasetemp()
    made = (base if worker_id == "master" else base.parent) / "tiny-run"

    def copy(folder: Path) -> Path:
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                unfinished = made.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                succeeded(snakemake(unfinished, cores=4))
                unfinished.rename(made)
        return Path(shutil.copytree(made, folder, symlinks=True))

    return copy
