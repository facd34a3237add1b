"""What one figure for the whole of test hides: other mixes of slices, failing slices, sure errors, calibration.

Reads: the champion's sidecar and its predictions on valid and test; tables and attributes of both splits.
Writes: silent.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.attributes import ATTRIBUTES, open_attributes
from pcam.confidence import calibration_by_slice, confidence, selective
from pcam.errors import read_answers
from pcam.files import write_json
from pcam.metrics import roc_auc
from pcam.settings import EvaluationSettings, SliceSettings, from_mapping
from pcam.silent import MIX_FACTOR, UNSEEN, crossed, fail_unseen, mix_shift
from pcam.slices import Answers, Members, quantile_edges, slicings_of
from pcam.stage import run_stage

SPLITS = ("valid", "test")
LISTED = 20  # slices that can fail unseen


def measure_silent_failure(
    sidecar_path: str,
    predictions_paths: Mapping[str, str],
    rows_paths: Mapping[str, str],
    attributes_paths: Mapping[str, str],
    out_path: str,
    *,
    beta: float,
    slices: SliceSettings,
    rules: EvaluationSettings,
    provenance: Mapping[str, Any],
) -> None:
    """Paths by split, "valid" and "test". Edges, mixes and limits are chosen on valid; all figures are of test.

    Raises: InputError when tables are not of the same patches, or no threshold was chosen.
    """
    answers: dict[str, Answers] = {}
    named: dict[str, dict[str, Members]] = {}
    edges: dict[str, np.ndarray] = {}
    for split in SPLITS:
        answers[split], table = read_answers(predictions_paths[split], sidecar_path, rows_paths[split])
        attributes = open_attributes(attributes_paths[split], len(table))
        if split == "valid":
            columns = zip(ATTRIBUTES, attributes.T, strict=True)
            edges = {name: quantile_edges(values, slices.quantiles) for name, values in columns}
        named[split] = slicings_of(attributes, edges, slices.ranges, [line["slide"] for line in table])
    test = answers["test"]
    slicings = {split: {**found, **crossed(found)} for split, found in named.items()}
    failing = fail_unseen(slicings["test"], test, slices.minimum_n)
    calibrated = calibration_by_slice(named["test"], test, rules, slices.minimum_n, slices.level)
    tested = sum(row["p"] is not None for row in calibrated)
    document = {
        "n": len(test.labels),
        "positives": int(test.tumour.sum()),
        "threshold": test.threshold,
        "beta": beta,
        "minimum_n": slices.minimum_n,
        "level": slices.level,
        "interval_level": rules.level,
        "mix": {
            "factor": MIX_FACTOR,
            "metrics": mix_shift(answers, slicings, rules, beta=beta, minimum_n=slices.minimum_n),
        },
        "unseen": {
            "fall": UNSEEN,
            "roc_auc": roc_auc(test.labels, test.probabilities),
            "checked": len(failing),
            "slices": [vars(one) for one in failing[:LISTED]],
            "reason": None if failing else "no slice of enough patches of both classes could lose a tumour unseen",
        },
        "confidence": confidence(test, rules),
        "calibration": {"tested": tested, "slices": calibrated},
        "selective": selective(answers, rules),
    }
    for metric, mix in document["mix"]["metrics"].items():
        moved = mix["reason"] or f"{mix['now']:.3f} to {mix['mixed']:.3f} by {mix['slicing']}"
        print(f"{metric} under another mix: {moved}")
    print(f"calibration: {sum(row['claimed'] for row in calibrated)} of {tested} slices claimed")
    write_json(out_path, {**document, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_silent_failure(
            snakemake.input.sidecar,
            *(dict(zip(SPLITS, snakemake.input[name], strict=True)) for name in ("predictions", "rows", "attributes")),
            snakemake.output[0],
            beta=snakemake.params.beta,
            slices=from_mapping(SliceSettings, snakemake.params.slices),
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )
