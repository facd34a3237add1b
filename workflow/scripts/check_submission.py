"""Check the six items of the submission checklist, each by looking, none by promise.

Reads: the champion's weights, the journal's pictures, inference.py, the Slurm files, the group details of the config.
Writes: results/checklist.json.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pcam.checkpoint import load_checkpoint
from pcam.files import InputError, write_json
from pcam.stage import run_stage

LIMIT_S = 180
# The template's items, word for word and in its order.
ITEMS = (
    "Group repository link provided?",
    "Best model checkpoint pushed to GitHub?",
    "inference.py script included and functional?",
    "All Slurm scripts included in the repository?",
    "All images use relative paths (assets/)?",
    "Names and IDs of all members on the first page?",
)

Answer = tuple[bool, str, str]  # ok, what was found, what is to do


def check_repository(link: str | None) -> Answer:
    if not link:
        return False, "journal.repository is null", "give the link as journal.repository in the config"
    return True, link, ""


def check_checkpoint(weights: str, files: set[str]) -> Answer:
    try:
        load_checkpoint(weights)
    except InputError as error:
        return False, str(error), "run select_champion and choose_threshold again"
    committed = sorted(name for name in files if name.startswith("assets/") and name.endswith(".pt"))
    if not committed:
        found = f"{weights} loads, no checkpoint is tracked under assets/"
        return False, found, "copy weights.pt and weights.json to assets/ and commit them"
    return True, f"{weights} loads; tracked: {', '.join(committed)}", ""


def check_inference(script: str, weights: str) -> Answer:
    """Run it on one made-up patch, as a stranger would."""
    if not Path(script).is_file():
        return False, "inference.py does not exist", "add inference.py to the repository's root"
    with tempfile.TemporaryDirectory() as folder:
        patch = Path(folder) / "patch.png"
        Image.fromarray(np.indices((96, 96, 3)).sum(axis=0).astype(np.uint8)).save(patch)
        command = [sys.executable, script, str(Path(weights).resolve()), str(patch)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return False, f"inference.py did not end within {LIMIT_S} s", "see why it hangs"
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != 2 or "probability" not in lines[0]:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1].replace(folder, "…")
        return False, f"exit code {done.returncode}, {len(lines)} lines; {last}", "repair inference.py"
    return True, "classified one patch with the champion's weights and printed a header and a row", ""


def check_slurm(root: str, names: Sequence[str], files: set[str]) -> Answer:
    absent = [name for name in names if not (Path(root) / name).is_file()]
    if absent:
        return False, f"missing: {', '.join(absent)}", "add them to the repository"
    loose = [name for name in names if name not in files]
    if loose:
        return False, f"all present, not tracked by git: {', '.join(loose)}", "commit them"
    return True, f"present and tracked: {', '.join(names)}", ""


def check_images(pictures: Sequence[str], journal_folder: str) -> Answer:
    """The journal refuses any image but these, so they stand for its content."""
    away = [path for path in pictures if Path(path).parent != Path(journal_folder) / "assets"]
    absent = [path for path in pictures if not Path(path).is_file()]
    if away or absent:
        return False, f"not in assets/ or missing: {', '.join([*away, *absent])}", "run the plot rules again"
    return True, f"{len(pictures)} images, all below assets/ beside the journal", ""


def check_members(members: Sequence[str]) -> Answer:
    if not members:
        return False, "journal.members is empty", "list each member as Name / ID in the config"
    bad = [member for member in members if not all(part.strip() for part in member.partition("/")[::2])]
    if bad:
        return False, f"{len(bad)} of {len(members)} members lack a name or an id", "write each as Name / ID"
    return True, f"{len(members)} members with name and id", ""


def check_submission(
    weights_path: str,
    pictures: Sequence[str],
    checklist_path: str,
    *,
    inference_path: str,
    root: str,
    tracked: Sequence[str],
    slurm_files: Sequence[str],
    journal: Mapping[str, Any],
    provenance: Mapping[str, object],
) -> None:
    """Write every item with what was found; an open item stays open and says what is to do."""
    files = set(tracked)
    answers = (
        check_repository(journal["repository"]),
        check_checkpoint(weights_path, files),
        check_inference(inference_path, weights_path),
        check_slurm(root, slurm_files, files),
        check_images(pictures, str(Path(checklist_path).parent)),
        check_members(journal["members"]),
    )
    items = [
        {"item": item, "ok": ok, "found": found, "todo": todo or None}
        for item, (ok, found, todo) in zip(ITEMS, answers, strict=True)
    ]
    write_json(
        checklist_path, {"items": items, "open": sum(not item["ok"] for item in items), "provenance": provenance}
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        check_submission(
            snakemake.input.weights,
            list(snakemake.input.pictures),
            snakemake.output[0],
            inference_path=snakemake.params.inference,
            root=snakemake.params.root,
            tracked=snakemake.params.tracked,
            slurm_files=snakemake.params.slurm_files,
            journal=snakemake.params.journal,
            provenance=provenance,
        )
