"""Put the seeds of every variant side by side: mean, standard deviation and interval of every metric.

Reads: weights.json and the predictions on valid and test of every variant and seed.
Writes: seeds.json with {variant: {split: {metric: {mean, sd, interval, values, n}}}}.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from pcam.files import InputError, read_json, write_json
from pcam.metrics import best_threshold, roc_auc_error, score, t_interval
from pcam.predictions import Predictions, read_predictions
from pcam.stage import run_stage

SPLITS = ("valid", "test")
OTHER_KEYS = ("seeds", "beta", "provenance")

Run = tuple[str, int]  # variant, seed


def summarise(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean over seeds with sd and Student interval; null where a seed has no value, undefined with one seed."""
    summary: dict[str, Any] = {"mean": None, "sd": None, "interval": None, "values": list(values), "n": len(values)}
    known = [value for value in values if value is not None]
    complete = len(known) == len(values)
    if complete:
        summary["mean"] = float(np.mean(known))
    if len(values) == 1:
        summary["sd"] = summary["interval"] = "undefined (n = 1)"
    elif complete and (interval := t_interval(known)) is not None:
        summary["sd"], summary["interval"] = float(np.std(known, ddof=1)), list(interval)
    return summary


def check_digests(sidecars: Mapping[Run, Mapping[str, Any]], paths: Mapping[Run, str]) -> None:
    """Raises: InputError when runs do not belong together: other data anywhere, other settings or code in a variant."""
    first = next(iter(sidecars))
    firsts: dict[str, Run] = {}
    for run, sidecar in sidecars.items():
        variant, seed = run
        if sidecar["seed"] != seed:
            raise InputError(f"{paths[run]}: was trained with seed {sidecar['seed']}, not {seed}; train it again")
        same_variant = firsts.setdefault(variant, run)
        for kind, other in (("data", first), ("settings", same_variant), ("code", same_variant)):
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


def score_run(
    predictions: Mapping[str, Predictions], beta: float, valid_path: str
) -> dict[str, dict[str, float | None]]:
    """Metrics of one run on each split, at the threshold that is best on its own validation predictions.

    Raises: InputError when validation holds one class only.
    """
    valid = predictions["valid"]
    try:
        threshold = best_threshold(valid.labels, valid.probabilities, beta)
    except ValueError as error:
        raise InputError(f"{valid_path}: {error}; clean the split less or take another") from None
    return {
        split: {
            **score(p.labels, p.probabilities, threshold, beta),
            "threshold": threshold,
            "standard_error": roc_auc_error(p.labels, p.probabilities),
        }
        for split, p in predictions.items()
    }


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
    out_path: str,
    *,
    variants: Sequence[str],
    seeds: Sequence[int],
    beta: float,
    provenance: Mapping[str, object],
) -> None:
    """Paths are given variant by variant, within each in the order of `seeds`.

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

    document: dict[str, Any] = {}
    for variant in variants:
        scored = []
        for run in product([variant], seeds):
            scored.append(score_run({split: predictions[split][run] for split in SPLITS}, beta, paths["valid"][run]))
        document[variant] = {}
        for split in SPLITS:
            names = [name for name in scored[0][split] if name != "standard_error"]
            metrics = {name: summarise([one[split][name] for one in scored]) for name in names}
            metrics["roc_auc"]["standard_errors"] = [one[split]["standard_error"] for one in scored]
            document[variant][split] = metrics
            print(describe(variant, split, metrics, len(predictions[split][run].labels)))
    write_json(out_path, {**document, "seeds": list(seeds), "beta": beta, "provenance": provenance})


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        aggregate_seeds(
            snakemake.input.sidecars,
            {split: snakemake.input[split] for split in SPLITS},
            snakemake.output[0],
            variants=snakemake.params.variants,
            seeds=snakemake.params.seeds,
            beta=snakemake.params.beta,
            provenance=provenance,
        )
