"""Score the champion on slices of the test split: by attribute, by the config's own ranges, by hospital and slide.

Reads: the champion's predictions on test and its sidecar (threshold), the table of test, the attributes of valid (for
       the edges of the slices) and of test.
Writes: slices.csv (a row per slice and metric, with interval, gap to the rest and status), slices.json (claims,
        counts, in how many slides a slice must lie to be tested, edges).
"""

from collections.abc import Mapping

from pcam.attributes import ATTRIBUTES, UNITS, open_attributes
from pcam.facts import hospital_of
from pcam.files import InputError, read_json, write_csv, write_json
from pcam.intervals import read_groups
from pcam.predictions import read_with_table
from pcam.settings import EvaluationSettings, SliceSettings, from_mapping
from pcam.slices import COLUMNS, Answers, claims, counted, quantile_edges, score_slices, slicings_of
from pcam.stage import run_stage


def slice_metrics(
    predictions_path: str,
    sidecar_path: str,
    rows_path: str,
    valid_attributes_path: str,
    attributes_path: str,
    slices_path: str,
    summary_path: str,
    *,
    settings: SliceSettings,
    rules: EvaluationSettings,
    provenance: Mapping[str, object],
) -> None:
    """Slices are made from pixels and names alone, never from what the model says.

    Raises: InputError when predictions, table and attributes are not of the same patches, or no threshold was chosen.
    """
    predictions, table = read_with_table(predictions_path, rows_path, ("slide",))
    attributes, reference = open_attributes(attributes_path, len(table)), open_attributes(valid_attributes_path)
    threshold = read_json(sidecar_path)["threshold"]
    if threshold is None:
        raise InputError(f"{sidecar_path}: holds no threshold; choose it on valid first (rule choose_threshold)")

    slides = [line["slide"] for line in table]
    edges = {name: quantile_edges(reference[:, i], settings.quantiles) for i, name in enumerate(ATTRIBUTES)}
    slicings = slicings_of(attributes, edges, settings.ranges, slides)
    told = Answers(predictions.labels, predictions.probabilities, threshold, read_groups(rows_path))
    rows, least = score_slices(slicings, told, settings, rules)
    claimed = claims(rows, settings.level)
    for claim in claimed:
        print(f"claimed: {claim['slice']} {claim['value']}: {claim['metric']} {claim['gap']:+.3f} to the rest")
    write_csv(slices_path, COLUMNS, ([getattr(row, name) for name in COLUMNS] for row in rows))
    write_json(
        summary_path,
        {
            "claims": claimed,
            "tested": sum(row.p is not None for row in rows),
            "level": settings.level,
            "group": told.groups.noun if told.groups is not None and least is not None else "patch",
            "least_groups": least,
            "gaps": sum(row.gap is not None for row in rows),
            "slices": {name: len(members) for name, members in slicings.items()},
            "status": counted(row.status for row in rows),
            "notes": counted(row.note for row in rows),
            "edges": {name: found.tolist() for name, found in edges.items()},
            "units": UNITS,
            "patches_without_slide": slides.count(""),
            "patches_without_hospital": [hospital_of(slide) for slide in slides].count(""),
            "minimum_n": settings.minimum_n,
            "interval_level": rules.level,
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
            snakemake.input.rows,
            snakemake.input.valid_attributes,
            snakemake.input.attributes,
            snakemake.output.slices,
            snakemake.output.summary,
            settings=from_mapping(SliceSettings, snakemake.params.slices),
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )
