"""Run Snakemake as a user does, in a folder of its own; read its dry-runs."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

TINY = ROOT / "tests" / "config" / "tiny.yaml"


# Colour codes would hide the words from the tests.
ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}


def command(folder: Path, *arguments: object, root: Path, config: Path | None, cores: int) -> list[str]:
    options = [sys.executable, "-m", "snakemake", "--snakefile", root / "Snakefile", "--directory", folder]
    # --configfile takes several files: another option must stand between it and the targets.
    options += [*(["--configfile", config] if config else []), "--cores", cores]
    return [*map(str, options), *map(str, arguments)]


def snakemake(
    folder: Path, *arguments: object, root: Path = ROOT, config: Path | None = TINY, cores: int = 2
) -> subprocess.CompletedProcess[str]:
    """`snakemake` of this environment with `folder` as working directory; stdout and stderr together in stdout."""
    return subprocess.run(
        command(folder, *arguments, root=root, config=config, cores=cores),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=root,
        env=ENVIRONMENT,
    )


@contextmanager
def start_snakemake(
    folder: Path, *arguments: object, config: Path = TINY, cores: int = 2
) -> Iterator[subprocess.Popen[bytes]]:
    """The same in the background, in a session of its own, killed alone at the end: its children go on."""
    line = command(folder, *arguments, root=ROOT, config=config, cores=cores)
    with (folder / "snakemake.txt").open("wb") as output:
        process = subprocess.Popen(
            line, stdout=output, stderr=output, cwd=ROOT, env=ENVIRONMENT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def of_its_own_data(document: Path) -> str:
    """A document's text, less the checklist's word that the committed champion is the sample's."""
    return document.read_text().replace("another run's (SYNTHETIC SAMPLE", "another run's")


@dataclass(frozen=True)
class Job:
    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def planned_jobs(dry_run: str) -> list[Job]:
    """The jobs that a dry-run prints, with their files."""
    jobs = []
    for block in re.split(r"\n(?=(?:local)?rule \w+:\n)", dry_run)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        assert rule
        files = {
            key: tuple(found.group(1).split(", ")) if (found := re.search(rf"\n    {key}: (.*)", block)) else ()
            for key in ("input", "output")
        }
        jobs.append(Job(rule.group(1), files["input"], files["output"]))
    return jobs
