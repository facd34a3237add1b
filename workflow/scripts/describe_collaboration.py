"""Describe how the group worked together: the repository's history, its merges replayed, and what its CI checks.

Reads: the repository's history and its CI files.
Writes: results/collaboration.json.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pcam.ci_checks import describe_ci
from pcam.files import write_json
from pcam.history import read_history
from pcam.stage import run_stage

MOST_MERGES = 100  # looked at one by one, newest first: a few dozen milliseconds each


def describe_collaboration(
    output_path: str, *, root: str, provenance: Mapping[str, Any], most: int = MOST_MERGES
) -> None:
    """Write the description. No repository, no git and a shallow clone are said in `note`, and none is an error."""
    told = read_history(Path(root), most)
    print(told["note"] or f"{told['history']['commits']} commits, {told['history']['merges']['found']} merges")
    write_json(output_path, {**told, "ci": describe_ci(Path(root)), "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        describe_collaboration(snakemake.output[0], root=snakemake.params.root, provenance=provenance)
