"""Check the six items of the submission checklist, each by looking, none by promise.

Reads: the champion's weights, the journal's pictures, inference.py, the Slurm files, checkpoints below assets; group
details and what git knows come in the parameters.
Writes: results/checklist.json.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pcam.files import write_json
from pcam.stage import run_stage
from pcam.submission import (
    check_checkpoint,
    check_images,
    check_inference,
    check_members,
    check_repository,
    check_slurm,
)

# The template's items, word for word and in its order.
ITEMS = (
    "Group repository link provided?",
    "Best model checkpoint pushed to GitHub?",
    "inference.py script included and functional?",
    "All Slurm scripts included in the repository?",
    "All images use relative paths (assets/)?",
    "Names and IDs of all members on the first page?",
)


def check_submission(
    weights_path: str,
    pictures: Sequence[str],
    checklist_path: str,
    *,
    inference_path: str,
    root: str,
    state: Mapping[str, Any],
    slurm_files: Sequence[str],
    journal: Mapping[str, Any],
    provenance: Mapping[str, object],
) -> None:
    """Write every item with what was found; an open item stays open and says what is to do.

    `state`: what git knows, as remotes.submission_state gives it.
    """
    answers = (
        check_repository(journal["repository"], state["remotes"]),
        check_checkpoint(weights_path, root, state),
        check_inference(inference_path, weights_path, root, [entry["path"] for entry in state["checkpoints"]]),
        check_slurm(root, slurm_files, state["tracked"]),
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
            state=snakemake.params.state,
            slurm_files=snakemake.params.slurm_files,
            journal=snakemake.params.journal,
            provenance=provenance,
        )
