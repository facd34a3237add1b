"""List the champion's most telling answers on test, what it looked at, and what sets its errors apart.

Reads: the champion's weights and its predictions on test; the test store and table; the attributes of valid and test.
Writes: errors.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.attention import SQUARE_PX, STRIDE_PX, centre_share, occlusion_map
from pcam.attributes import ATTRIBUTES, open_attributes
from pcam.checkpoint import load_checkpoint
from pcam.determinism import fix_device
from pcam.errors import borderline, find_patterns, read_answers, telling, wrong_answers
from pcam.facts import hospital_of
from pcam.files import InputError, write_json
from pcam.settings import EvaluationSettings, from_mapping
from pcam.stage import run_stage
from pcam.store import open_store

SHOWN = 12  # of each kind of error
NEAR = 6  # borderline patches
LOOKED_AT = 4  # of each kind of error: a map takes some 800 passes of the model


def measure_errors(
    paths: Mapping[str, str],
    out_path: str,
    *,
    rules: EvaluationSettings,
    level: float,
    threads: int,
    provenance: Mapping[str, Any],
) -> None:
    """Paths by role: predictions, weights, sidecar, store, rows, attributes and attributes_valid.

    Raises: InputError when they are not of the same patches, or the checkpoint is damaged or has no threshold.
    """
    told, table = read_answers(paths["predictions"], paths["sidecar"], paths["rows"])
    attributes, reference = open_attributes(paths["attributes"], len(table)), open_attributes(paths["attributes_valid"])
    store = open_store(paths["store"])
    if len(store) != len(table):
        raise InputError(f"{paths['store']}: {len(store)} patches for the {len(table)} rows of {paths['rows']}")
    alarms, missed = wrong_answers(told)
    chosen = {
        "false_positives": alarms[:SHOWN],
        "false_negatives": missed[:SHOWN],
        "borderline": borderline(told, NEAR),
    }

    def described(places: np.ndarray) -> list[dict[str, Any]]:
        far = telling(attributes[places], reference)
        return [
            {
                "place": at,
                "row": int(table[at]["row"]),
                "slide": table[at]["slide"],
                "hospital": hospital_of(table[at]["slide"]),
                "label": int(told.labels[at]),
                "probability": float(told.probabilities[at]),
                "right": not bool(told.wrong[at]),
                "attributes": dict(zip(ATTRIBUTES, map(float, attributes[at]), strict=True)),
                "telling": off,
            }
            for at, off in zip(places.tolist(), far, strict=True)
        ]

    device = fix_device(threads)
    model, preprocessing, _ = load_checkpoint(paths["weights"])
    model.to(device)
    maps = []
    for kind in ("false_positives", "false_negatives"):
        for at in chosen[kind][:LOOKED_AT].tolist():
            effects = occlusion_map(model, np.asarray(store[at]), preprocessing, device)
            looked = {"kind": kind, "place": at, "row": int(table[at]["row"]), "effects": effects.tolist()}
            maps.append({**looked, "centre_share": centre_share(effects)})
    patterns = find_patterns(told, attributes, rules, level)
    for kind in patterns.values():
        print(kind["words"])
    write_json(
        out_path,
        {
            "n": len(table),
            "positives": int(told.tumour.sum()),
            "threshold": told.threshold,
            "level": level,
            "interval_level": rules.level,
            "counts": {"false_positives": len(alarms), "false_negatives": len(missed)},
            "shown": {kind: described(places) for kind, places in chosen.items()},
            "attention": {
                "method": "squares exchanged for tissue of the same patch; an indication, not a proof",
                "square_px": SQUARE_PX,
                "stride_px": STRIDE_PX,
                "maps": maps,
            },
            "patterns": patterns,
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_errors(
            {
                name: snakemake.input[name]
                for name in ("predictions", "weights", "sidecar", "store", "rows", "attributes", "attributes_valid")
            },
            snakemake.output[0],
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            level=snakemake.params.level,
            threads=snakemake.params.threads,
            provenance=provenance,
        )
