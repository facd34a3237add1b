"""Measure what other stain, light, focus, files, statistics, precision and device do to the champion on test.

Reads: the champion, its guard, its predictions on test, the store and table of test.
Writes: deployment.json.
"""

from collections.abc import Mapping

import numpy as np

from pcam.checkpoint import load_checkpoint
from pcam.deployment import AS_IT_IS, ISSUES, Bench, logits_at, stratified
from pcam.determinism import fix_device
from pcam.files import InputError, read_csv, write_json
from pcam.guard import read_guard
from pcam.intervals import Groups, read_groups
from pcam.settings import EvaluationSettings, from_mapping
from pcam.stage import run_stage
from pcam.store import open_store

LARGEST_DIFFERENCE = 1e-3  # of a logit from the stored prediction: batches of other sizes may sum in another order


def measure_deployment(
    weights_path: str,
    guard_path: str,
    predictions_path: str,
    store_path: str,
    rows_path: str,
    out_path: str,
    *,
    patches: int,
    beta: float,
    rules: EvaluationSettings,
    threads: int,
    provenance: Mapping[str, object],
) -> None:
    """Raises: InputError when champion, guard, predictions, store and table do not belong together."""
    device = fix_device(threads)
    model, preprocessing, sidecar = load_checkpoint(weights_path)
    table, store = read_csv(predictions_path, ("row", "label", "logit")), open_store(store_path)
    if [line["row"] for line in table] != [line["row"] for line in read_csv(rows_path, ("row",))]:
        raise InputError(f"{predictions_path}: its rows are not those of {rows_path}; predict again")
    labels = np.array([int(line["label"]) for line in table])
    chosen = stratified(labels, patches, rules.seed)
    sound = np.array(store[chosen])
    logits = logits_at(model.to(device), sound, preprocessing, device)
    difference = float(np.abs(logits - np.array([float(table[i]["logit"]) for i in chosen])).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(f"{predictions_path}: a logit differs by {difference:.3g} from what {weights_path} gives now")
    groups = read_groups(rows_path)
    bench = Bench(
        model, preprocessing, sidecar, guard_path, read_guard(guard_path, sidecar), device, sound, labels[chosen],
        Groups(groups.ids[chosen], groups.noun), logits, beta, rules,
    )  # fmt: skip
    baseline = bench.measure(AS_IT_IS)
    issues = []
    for issue in ISSUES:
        points = [bench.measure(step) if step.strength else {**baseline, "label": step.label} for step in issue.steps]
        issues.append({"name": issue.name, "unit": issue.unit, "guard": issue.guard, "points": points})
        for point in points:
            told = (
                f"flipped {point['flipped']:.3f}, {point['guard']['check']}" if "flipped" in point else point["status"]
            )
            print(f"{issue.name} {point['label']}: {told}", flush=True)
    write_json(
        out_path,
        {
            "issues": issues,
            "baseline": {**baseline, "largest_difference_from_predictions": difference},
            "n": len(chosen),
            "positives": int(labels[chosen].sum()),
            "threshold": sidecar["threshold"],
            "beta": beta,
            "device": device.type,
            "provenance": provenance,
        },
    )


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_deployment(
            snakemake.input.weights,
            snakemake.input.guard,
            snakemake.input.predictions,
            snakemake.input.store,
            snakemake.input.rows,
            snakemake.output[0],
            patches=snakemake.params.patches,
            beta=snakemake.params.beta,
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            threads=snakemake.params.threads,
            provenance=provenance,
        )
