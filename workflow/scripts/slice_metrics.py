"""Score the champion on slices of the test split: by brightness, slide and hospital.

Reads: the champion's predictions on test and its sidecar (threshold), the test store and table.
Writes: slices.csv (a row per slice and metric, with interval and status), slices.json (widest gaps, counts).
"""

from collections.abc import Mapping

import numpy as np

from pcam.facts import hospital_of
from pcam.files import InputError, read_csv, read_json, write_csv, write_json
from pcam.predictions import read_predictions
from pcam.slices import COLUMNS, by_brightness, by_name, mean_brightness, score_slice, widest_gaps
from pcam.stage import run_stage
from pcam.store import open_store


def slice_metrics(
    predictions_path: str,
    sidecar_path: str,
    store_path: str,
    rows_path: str,
    slices_path: str,
    summary_path: str,
    *,
    brightness_bins: int,
    minimum_n: int,
    provenance: Mapping[str, object],
) -> None:
    """Slices are made from pixels and names alone, never from what the model says.

    Raises: InputError when predictions, table and store are not of the same patches, or no threshold was chosen.
    """
    table, store = read_csv(rows_path, ("row", "slide")), open_store(store_path)
    predictions = read_predictions(predictions_path)
    if len(table) != len(store) or [int(line["row"]) for line in table] != predictions.rows.tolist():
        raise InputError(f"{predictions_path}: its rows are not those of {rows_path} and {store_path}; predict again")
    threshold = read_json(sidecar_path)["threshold"]
    if threshold is None:
        raise InputError(f"{sidecar_path}: holds no threshold; choose it on valid first (rule choose_threshold)")

    brightness, edges = by_brightness(mean_brightness(store), brightness_bins)
    slides = [line["slide"] for line in table]
    hospitals = [hospital_of(slide) for slide in slides]
    slices = {
        "all": {"all": np.arange(len(table))},
        "brightness": brightness,
        "slide": by_name(slides),
        "hospital": by_name(hospitals),
    }
    rows = [
        row
        for name, members in slices.items()
        for value, places in members.items()
        for row in score_slice(name, value, places, predictions, threshold, minimum_n)
    ]
    gaps = widest_gaps(rows)
    for gap in gaps:
        print(f"{gap['slice']}: {gap['metric']} {gap['lowest']['estimate']:.3f} to {gap['highest']['estimate']:.3f}")
    write_csv(slices_path, COLUMNS, (tuple(vars(row).values()) for row in rows))
    write_json(
        summary_path,
        {
            "widest_gaps": gaps,
            "slices": {name: len(members) for name, members in slices.items()},
            "patches_without_slide": slides.count(""),
            "patches_without_hospital": hospitals.count(""),
            "brightness_edges": edges,
            "minimum_n": minimum_n,
            "threshold": threshold,
            "n": len(table),
            "positives": int(predictions.labels.sum()),
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        slice_metrics(
            snakemake.input.predictions,
            snakemake.input.sidecar,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output.slices,
            snakemake.output.summary,
            brightness_bins=snakemake.params.brightness_bins,
            minimum_n=snakemake.params.minimum_n,
            provenance=provenance,
        )
