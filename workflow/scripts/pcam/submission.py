"""The six items of the submission checklist: each gives whether it is done, what was found, and what is to do.

What git knows comes as remotes.submission_state gives it.
"""

import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from PIL import Image

from pcam.checkpoint import load_checkpoint
from pcam.files import InputError
from pcam.remotes import same_place
from pcam.sidecar import sidecar_path

LIMIT_S = 180
PUBLISH = "run `snakemake publish --cores 1` and the git commands it prints"

Answer = tuple[bool, str, str]  # ok, what was found, what is to do ("" where nothing is)


def check_repository(link: str | None, remotes: Mapping[str, str]) -> Answer:
    """The link is given, and is where a remote of this clone is."""
    if not link:
        return False, "journal.repository is null", "give the link as journal.repository in the config"
    if not remotes:
        return True, f"{link}; this clone has no remote to compare it with", ""
    names = [name for name, place in remotes.items() if place == same_place(link)]
    if not names:
        known = ", ".join(f"{name} is {place}" for name, place in remotes.items())
        return False, f"{link} is no remote of this clone ({known})", "correct journal.repository, or the remote"
    return True, f"{link}, which is the remote {', '.join(names)}", ""


def _short(digest: str) -> str:
    return digest[:12]


def _pushed(entry: Mapping[str, Any], state: Mapping[str, Any]) -> Answer:
    """Whether a remote branch holds the commit of a checkpoint, as far as this clone knows."""
    commit = str(entry["commit"])[:8]
    if entry["branches"]:
        told = [f"{name} (known since {time or 'a time not recorded'})" for name, time in entry["branches"].items()]
        return True, f"its commit {commit} is on {', '.join(told)}; the server itself was not asked", ""
    if not state["remotes"]:
        return False, f"its commit {commit} is nowhere else: this clone has no remote", "add the remote, then push"
    asked = f"as of {state['asked']}" if state["asked"] else "and when this clone last saw one change is not recorded"
    return False, f"its commit {commit} is on no remote branch that this clone knows, {asked}", "push, or fetch"


def judge_checkpoint(root: str, entry: Mapping[str, Any], champion: str, state: Mapping[str, Any]) -> Answer:
    """One checkpoint below assets: it loads, is committed with its sidecar, is this run's champion, and is pushed."""
    path = entry["path"]
    sidecar = str(sidecar_path(path))
    try:
        _, _, document = load_checkpoint(Path(root) / path)
    except InputError as error:
        return False, f"{path} is tracked and does not load: {str(error).replace(f'{root}/', '')}", PUBLISH
    if sidecar not in state["tracked"]:
        return False, f"{path} is tracked, {sidecar} is not", f"commit {sidecar} as well"
    if entry["changed"] is None:
        return False, f"git status of {path} fails", "repair what `git status` complains of"
    if entry["changed"]:
        return False, f"not as committed: {', '.join(entry['changed'])}", "commit them, then push"
    digest = document["digests"]["weights"]
    if digest != champion:
        found = f"{path} loads and is another run's ({document['data_source']}, digest {_short(digest)})"
        return False, f"{found}; this run's champion has {_short(champion)}", f"to hand in this run, {PUBLISH}"
    ok, found, todo = _pushed(entry, state)
    return ok, f"{path} loads and is this run's champion (digest {_short(digest)}); {found}", todo


def check_checkpoint(weights: str, root: str, state: Mapping[str, Any]) -> Answer:
    """The champion of this run lies below assets and is pushed. Of several checkpoints the best judged one counts."""
    try:
        champion = load_checkpoint(weights)[2]["digests"]["weights"]
    except InputError as error:
        return False, str(error), "run select_champion and choose_threshold again"
    if not state["checkpoints"]:
        return False, f"{weights} loads, no checkpoint is tracked below assets/", PUBLISH
    answers = [judge_checkpoint(root, entry, champion, state) for entry in state["checkpoints"]]
    return next((answer for answer in answers if answer[0]), answers[0])


def _answers(script: str, weights: Path) -> str:
    """What is wrong with a prediction of one made-up patch; "" when nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        patch = Path(folder) / "patch.png"
        Image.fromarray(np.indices((96, 96, 3)).sum(axis=0).astype(np.uint8)).save(patch)
        command = [sys.executable, script, str(weights.resolve()), str(patch)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return f"did not end within {LIMIT_S} s"
    lines = done.stdout.splitlines()
    if done.returncode == 0 and len(lines) == 2 and "probability" in lines[0]:
        return ""
    last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
    return f"exit code {done.returncode}, {len(lines)} lines; {last.replace(folder, '…')}"


def check_inference(script: str, weights: str, root: str, committed: Sequence[str]) -> Answer:
    """inference.py classifies a patch, as a stranger would run it: with the champion and with what is committed."""
    if not Path(script).is_file():
        return False, "inference.py does not exist", "add inference.py to the repository's root"
    for name, path in {"the champion's weights": Path(weights), **{p: Path(root) / p for p in committed}}.items():
        if wrong := _answers(script, path):
            shown = wrong.replace(f"{root}/", "")
            return False, f"with {name}: {shown}", "repair inference.py, or the checkpoint by `snakemake publish`"
    tried = ", and the same with ".join(["the champion's weights", *committed])
    return True, f"classified one patch with {tried} and printed a header and a row", ""


def check_slurm(root: str, names: Sequence[str], files: Sequence[str]) -> Answer:
    """The Slurm files are there, tracked, and what the settings at the top of the profile make."""
    absent = [name for name in names if not (Path(root) / name).is_file()]
    if absent:
        return False, f"missing: {', '.join(absent)}", "add them to the repository"
    loose = [name for name in names if name not in files]
    if loose:
        return False, f"all present, not tracked by git: {', '.join(loose)}", "commit them"
    folder = Path(root) / "profiles" / "slurm"
    try:
        settings = yaml.safe_load((folder / "config.yaml").read_text())["__variables__"]
        made = runpy.run_path(str(folder / "make_sbatch.py"))["make_sbatch"](settings)
    except (OSError, KeyError, yaml.YAMLError, jinja2.TemplateError) as error:
        told = " ".join(str(error).split())[:160]
        return False, f"the batch files cannot be made from profiles/slurm/config.yaml: {told}", "repair that file"
    stale = [name for name, text in made.items() if (folder / name).read_text() != text]
    if stale:
        return False, f"not what profiles/slurm/config.yaml makes: {', '.join(stale)}", "run `make sbatch`, then commit"
    return True, f"present, tracked and as their settings make them: {', '.join(names)}", ""


def check_images(pictures: Sequence[str], journal_folder: str) -> Answer:
    """The journal can show no picture but these. That its links lead to them is checked when it is published."""
    away = [path for path in pictures if Path(path).parent != Path(journal_folder) / "assets"]
    absent = [path for path in pictures if not Path(path).is_file()]
    if away or absent:
        return False, f"not in assets/ or missing: {', '.join([*away, *absent])}", "run the plot rules again"
    return True, f"{len(pictures)} pictures, all in assets/ beside the journal, which can show no other", ""


def check_members(members: Sequence[str]) -> Answer:
    """Each member has a name and an id; the journal prints them on its first page."""
    if not members:
        return False, "journal.members is empty", "list each member as Name / ID in the config"
    bad = [member for member in members if not all(part.strip() for part in member.partition("/")[::2])]
    if bad:
        return False, f"{len(bad)} of {len(members)} members lack a name or an id", "write each as Name / ID"
    if len(set(members)) < len(members):
        return False, "a member is listed twice", "list each member once"
    return True, f"{len(members)} members with name and id", ""
