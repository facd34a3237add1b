"""Score the audit on the embedded sample, whose planted defects are known.

Reads:  planted.csv, the truth, which no audit sees; the table of patches.
Writes: score.json, recall and precision of each kind with Wilson intervals.
"""

from collections.abc import Mapping
from typing import Any

from pcam.audits import POISON_KINDS
from pcam.files import read_csv, write_json
from pcam.metrics import wilson_interval
from pcam.stage import run_stage

# Kinds of which the sample holds none but the planted ones. Overlaps come with how its patches are cut.
SCORED = (*POISON_KINDS, "label_conflict", "exact_duplicate", "cross_split_duplicate")


def share(part: int, whole: int) -> tuple[float | None, list[float] | None]:
    """A rate and its interval, both None when there is nothing to divide by."""
    return (part / whole, list(wilson_interval(part, whole))) if whole else (None, None)


def score_kind(planted: set[tuple[str, int]], found: set[tuple[str, int]]) -> dict[str, Any]:
    """Recall and precision of one kind; each is None when undefined."""
    hit = len(planted & found)
    recall, recall_interval = share(hit, len(planted))
    precision, precision_interval = share(hit, len(found))
    return {
        "planted": len(planted),
        "found": len(found),
        "true_positives": hit,
        "recall": recall,
        "recall_interval": recall_interval,
        "precision": precision,
        "precision_interval": precision_interval,
    }


def score_audit(planted_path: str, patches_path: str, score_path: str, *, provenance: Mapping[str, object]) -> None:
    """Compare what was planted with what the audit says of each patch."""
    planted: dict[str, set[tuple[str, int]]] = {kind: set() for kind in SCORED}
    for line in read_csv(planted_path, ("split", "row", "kind")):
        planted.setdefault(line["kind"], set()).add((line["split"], int(line["row"])))
    found: dict[str, set[tuple[str, int]]] = {kind: set() for kind in planted}
    for line in read_csv(patches_path, ("split", "row", "defects")):
        for kind in line["defects"].split(";"):
            if kind in found:
                found[kind].add((line["split"], int(line["row"])))
    kinds = {kind: score_kind(planted[kind], found[kind]) for kind in planted}
    write_json(score_path, {"kinds": kinds, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        score_audit(snakemake.input.planted, snakemake.input.patches, snakemake.output.score, provenance=provenance)
