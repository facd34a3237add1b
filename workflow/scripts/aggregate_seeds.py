"""Put the seeds of every variant side by side: each metric with its interval, the mean, and what a variant changes.

Reads: weights.json and the predictions on valid and test of every variant and seed; the tables of these splits.
Writes: seeds.json with {variant: {split: {metric: {mean, sd, interval, kind, values, n, estimates}}}}, and differences
        {variant: {split: {metric: {mean, sd, interval, kind, values, n}}}} from the baseline variant, seed by seed.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pcam.aggregation import Evaluation, difference, score_run, side_by_side
from pcam.files import InputError, read_csv, read_json, write_json
from pcam.intervals import Groups, read_groups
from pcam.predictions import Predictions, read_predictions
from pcam.settings import EvaluationSettings, ThresholdSettings, from_mapping
from pcam.stage import run_stage

SPLITS = ("valid", "test")
BASELINE = "baseline"
OTHER_KEYS = ("differences", "seeds", "beta", "rule", "provenance")

Run = tuple[str, int]  # variant, seed


def check_digests(sidecars: Mapping[Run, Mapping[str, Any]], paths: Mapping[Run, str]) -> None:
    """Raises: InputError when runs do not belong together: other data or code, or other settings in a variant."""
    first = next(iter(sidecars))
    firsts: dict[str, Run] = {}
    for run, sidecar in sidecars.items():
        variant, seed = run
        if sidecar["seed"] != seed:
            raise InputError(f"{paths[run]}: was trained with seed {sidecar['seed']}, not {seed}; train it again")
        same_variant = firsts.setdefault(variant, run)
        for kind, other in (("data", first), ("settings", same_variant), ("code", first)):
            if sidecar["digests"][kind] != sidecars[other]["digests"][kind]:
                raise InputError(
                    f"{paths[run]}: its digest of {kind} differs from the one in {paths[other]}; "
                    "these runs do not belong together, train the older one again"
                )


def check_rows(predictions: Mapping[Run, Predictions], paths: Mapping[Run, str]) -> None:
    """Raises: InputError when two runs predicted other patches, or hold other labels of them."""
    (first, reference), *others = predictions.items()
    for run, predicted in others:
        same = np.array_equal(predicted.rows, reference.rows) and np.array_equal(predicted.labels, reference.labels)
        if not same:
            raise InputError(f"{paths[run]}: its rows or labels are not those of {paths[first]}; predict both again")


def read_split_groups(rows_path: str, predictions: Mapping[Run, Predictions], paths: Mapping[Run, str]) -> Groups:
    """Groups of a split. Raises: InputError when its table has other rows than the runs predicted."""
    run, predicted = next(iter(predictions.items()))
    if [line["row"] for line in read_csv(rows_path, ("row",))] != [str(row) for row in predicted.rows]:
        raise InputError(f"{paths[run]}: its rows are not those of {rows_path}; predict the split again")
    return read_groups(rows_path)


def describe(variant: str, split: str, metrics: Mapping[str, Any], n: int) -> str:
    """One line for the log."""
    shown = []
    for name in ("roc_auc", "f_beta"):
        mean, sd = metrics[name]["mean"], metrics[name]["sd"]
        spread = f"± {sd:.4f}" if isinstance(sd, float) else f"(sd {sd})"
        shown.append(f"{name} undefined" if mean is None else f"{name} {mean:.4f} {spread}")
    errors = [error for error in metrics["roc_auc"]["standard_errors"] if error is not None]
    error = f"{np.mean(errors):.4f}" if errors else "undefined"
    return f"{variant} on {split}: {', '.join(shown)}; standard error of roc_auc on {n} patches {error}"


def aggregate_seeds(
    sidecar_paths: Sequence[str],
    prediction_paths: Mapping[str, Sequence[str]],
    rows_paths: Mapping[str, str],
    out_path: str,
    *,
    variants: Sequence[str],
    seeds: Sequence[int],
    threshold: ThresholdSettings,
    rules: EvaluationSettings,
    provenance: Mapping[str, object],
) -> None:
    """Paths of runs are given variant by variant, within each in the order of `seeds`.

    Raises: InputError when runs do not belong together, or a variant has the name of another key of the file.
    """
    if taken := sorted(set(variants) & set(OTHER_KEYS)):
        raise InputError(f"config: variants.{taken[0]}: the name means something else in {out_path}; choose another")
    runs = list(product(variants, seeds))
    sidecars = dict(zip(runs, sidecar_paths, strict=True))
    paths = {split: dict(zip(runs, prediction_paths[split], strict=True)) for split in SPLITS}
    check_digests({run: read_json(path) for run, path in sidecars.items()}, sidecars)
    predictions = {split: {run: read_predictions(path) for run, path in paths[split].items()} for split in SPLITS}
    for split in SPLITS:
        check_rows(predictions[split], paths[split])
    groups = {split: read_split_groups(rows_paths[split], predictions[split], paths[split]) for split in SPLITS}
    judged = Evaluation(threshold, groups, rules)

    document: dict[str, Any] = {}
    for variant in variants:
        scored = []
        for run in product([variant], seeds):
            try:
                scored.append(score_run({split: predictions[split][run] for split in SPLITS}, judged))
            except ValueError as error:
                told = f"{paths['valid'][run]}: {error}; clean the split less or take another"
                raise InputError(told) from None
        document[variant] = {split: side_by_side([one[split] for one in scored], rules.level) for split in SPLITS}
        for split, metrics in document[variant].items():
            print(describe(variant, split, metrics, len(groups[split].ids)))
    differences = {
        variant: {
            split: difference(document[variant][split], document[BASELINE][split], rules.level) for split in SPLITS
        }
        for variant in variants
        if variant != BASELINE
    }
    others = {"differences": differences, "seeds": list(seeds), "beta": threshold.beta, "rule": threshold.rule}
    write_json(out_path, {**document, **others, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        aggregate_seeds(
            snakemake.input.sidecars,
            {split: snakemake.input[split] for split in SPLITS},
            dict(zip(SPLITS, snakemake.input.rows, strict=True)),
            snakemake.output[0],
            variants=snakemake.params.variants,
            seeds=snakemake.params.seeds,
            threshold=from_mapping(ThresholdSettings, snakemake.params.threshold),
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )
