"""The README is a contract: each of its commands is run here, in a copy of the project whose sample is tiny."""

import json
import os
import re
import shutil
import signal
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from bundles import registry_reached
from conftest import ROOT
from repository import shell
from test_config import CONFIG, merged
from test_live import free_port

from bench import cost_table, result_table
from bench.readme_part import write_part
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import file_digest, read_csv, read_json
from pcam.hdf5 import write_labels, write_patches
from workflow import TINY, of_its_own_data

README = (ROOT / "README.md").read_text()
# `make run` and `make test` set up an environment of their own: .ci/run runs them, on a clean checkout.
RUN_BY_CI = {"make run", "make test"}


def commands() -> list[str]:
    """The commands of all sh blocks, in order, without their remarks."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def write_course_files(folder: Path) -> Path:
    """Files shaped like the course's subset: float32 train, no test labels, no slides."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split, n in zip(FILE_SPLITS, (80, 80, 30), strict=True):
        patches = rng.integers(0, 256, (n, 96, 96, 3)).astype(np.float32 if split == "train" else np.uint8)
        write_patches(folder / pcam_filename(split, "x.h5"), patches)
        if split != "test":
            write_labels(folder / pcam_filename(split, "y.h5"), np.arange(n) % 2, n)
    return folder


def assert_course_run(results: Path) -> None:
    """The files came without test labels, and the documents of their run say so."""
    assert read_json(results / "splits" / "splits.json")["test_carved_from_valid"] is True
    unlabelled = read_csv(results / "champion" / "predict" / "unlabelled.csv")
    assert len(unlabelled) == 30 and {line["label"] for line in unlabelled} == {""}
    for name in ("journal.md", "report.html"):
        text = of_its_own_data(results / name)
        assert "No test labels were at hand." in text
        assert "is a declared, seeded part of the validation file, set aside before training." in text
        assert "SYNTHETIC" not in text


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, copy_tiny_run: Callable[[Path], Path]) -> Path:
    """A copy of the project whose default config makes a tiny sample, as `make run` leaves it."""
    copy = tmp_path_factory.mktemp("readme") / "project"
    ignored = shutil.ignore_patterns(".venv", ".git", ".snakemake", "results", "data", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    tiny = yaml.safe_load(TINY.read_text())
    # Keys in the order in which Snakemake merges the two files: in another order its parameters count as changed.
    merged_config = merged(tiny, merged(CONFIG, tiny))
    (copy / "config" / "config.yaml").write_text(yaml.safe_dump(merged_config, sort_keys=False))
    finished = copy_tiny_run(copy.with_name("finished"))
    for folder in ("results", "data", ".snakemake"):
        (finished / folder).rename(copy / folder)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    shell(copy, "git init -q -b main && git add . && git commit -q -m first")  # `snakemake publish` asks for one
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)[0])
    files = write_course_files(copy / "files")
    example["data"]["directory"] = str(files)
    # search.train_seed is seed 0, and one seed is quick.
    (copy / "mine.yaml").write_text(yaml.safe_dump({**example, "seeds": [0]}))
    return copy


def run(project: Path, command: str) -> subprocess.CompletedProcess[str]:
    sample = project / "data" / "sample"
    command = command.replace("IMAGE_OR_FOLDER_OR_H5", str(sample / pcam_filename("test", "x.h5")))
    if "run=ID" in command:
        runs = json.loads((project / "results" / "tracking" / "runs.json").read_text())["runs"]
        command = command.replace("run=ID", f"run={next(run['run_id'] for run in runs if run['kind'] == 'train')}")
    if "profiles/slurm" in command:
        command = command.replace("path/to/the/files", str(project / "files")) + " --dry-run"
        # The head job without a cluster, in a queue that is empty; tests/test_slurm.py submits it to a real one.
        queue = project / "queue" / "squeue"
        queue.parent.mkdir(exist_ok=True)
        queue.write_text("#!/bin/sh\n")
        queue.chmod(0o755)
        head = f"PATH={queue.parent}:$PATH SLURM_JOB_ID=1 SLURM_SUBMIT_DIR={project} bash profiles"
        command = command.replace("sbatch profiles", head)
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
    if command == "make ui":
        return serve(project, f"make ui PORT={free_port()}", environment)
    return subprocess.run(
        ["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def serve(project: Path, command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A command that serves until it is stopped: stopped, and counted as good, when it says that it has started."""
    process = subprocess.Popen(
        ["bash", "-c", command], cwd=project, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Application startup complete" in line:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate()
            return subprocess.CompletedProcess(command, 0, "".join(lines), "")
    return subprocess.CompletedProcess(command, process.wait() or 1, "".join(lines), "")


def test_ci_runs_the_two_commands_of_a_fresh_machine() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert set(commands()) >= RUN_BY_CI
    assert all(command in ci for command in RUN_BY_CI)


def test_its_tables_tell_what_the_kept_measurements_give(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(re.sub(r"(-->\n\n)\|.*?(\n<!-- end)", r"\1another table\2", README, flags=re.DOTALL))
    assert copy.read_text().count("another table") == 2
    write_part("results", result_table.render(), copy)
    write_part("costs", cost_table.render(), copy)
    assert copy.read_text() == README, "run make readme-tables"
    with pytest.raises(SystemExit, match="<!-- planted"):
        write_part("planted", "", copy)


@pytest.mark.slow
def test_every_command_works_as_written(project: Path) -> None:
    tried = [command for command in commands() if command not in RUN_BY_CI]
    # The whole run first: what the README says about reports and inference follows one.
    tried.sort(key=lambda command: (command != ".venv/bin/snakemake --cores 4", "mine.yaml" in command))
    assert len(tried) >= 7
    for command in tried:
        if "results/handover" in command and not registry_reached(project / "tried"):
            warnings.warn(f"not tried, pip reaches no registry: {command}", stacklevel=1)
            continue
        if "pandoc" in command and not (shutil.which("pandoc") and shutil.which("weasyprint")):
            warnings.warn(f"not tried, pandoc or weasyprint is not there: {command}", stacklevel=1)
            continue
        done = run(project, command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        if " publish " in command:  # before another run makes another champion
            brought, own = (project / place / "champion" / "weights.pt" for place in ("assets", "results"))
            assert file_digest(brought) == file_digest(own)
        if "results/handover" in command:
            verdict, manifest = (
                read_json(project / "results" / "handover" / f"{n}.json") for n in ("verify", "manifest")
            )
            assert verdict["passed"] and verdict["bundle"] == manifest["sha256"]
            # The documents then tell of the bundle, which holds the cards: neither makes the other stale.
            assert run(project, ".venv/bin/snakemake --cores 4").returncode == 0
            assert manifest["sha256"] in (project / "results" / "journal.md").read_text()
            again = run(project, ".venv/bin/snakemake --cores 4 --dry-run all results/handover/verify.json")
            assert "Nothing to be done" in again.stdout + again.stderr
            template = project / "workflow" / "report" / "model_card.md.j2"
            text = template.read_text()
            template.write_text(f"{text}\nAnother card.\n")
            again = run(project, ".venv/bin/snakemake --cores 4 --dry-run results/handover/verify.json")
            assert "build_bundle" in again.stdout + again.stderr, "the bundle would keep the earlier card"
            template.write_text(text)
        if "mine.yaml" in command:
            assert_course_run(project / "results")
    assert (project / "results" / "snakemake-report.html").exists()
    assert (project / "journal.md").exists()
    assert any(" publish " in command for command in tried)
