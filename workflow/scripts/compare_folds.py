"""Compare the variance between folds with that between seeds, and honest folds with ones that leak, on a cheap model.

Reads:  the table of the clean training split, the features of its file's patches.
Writes: folds.json: ROC-AUC of every fit, variances with intervals, and how much random folds flatter.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from pcam.cheap_model import can_be_folded, deal_folds, fit_cheap, joined_units
from pcam.facts import CLASSES
from pcam.features import open_features
from pcam.files import InputError, read_csv, write_json
from pcam.metrics import roc_auc, roc_auc_error, t_interval
from pcam.settings import FoldSettings, from_mapping
from pcam.stage import run_stage

SEED_VARIES = "the bootstrap sample of the training patches: the regression itself has one solution"


def score_fold(
    features: np.ndarray, labels: np.ndarray, fold: np.ndarray, k: int, seed: int
) -> tuple[float | None, float | None]:
    """ROC-AUC on fold k of a model fitted to a bootstrap sample of the others, and its standard error by DeLong."""
    outside, inside = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
    rng = np.random.default_rng([seed, k])
    # Class by class, so that no sample lacks one.
    drawn = [rng.choice(mine, len(mine)) for mine in (outside[labels[outside] == label] for label in CLASSES)]
    scores = fit_cheap(features, labels, np.concatenate(drawn)).logits(features[inside])
    return roc_auc(labels[inside], scores), roc_auc_error(labels[inside], scores)


def spread(variance: float, freedom: int) -> dict[str, Any]:
    """A standard deviation with its 95 % interval by chi-squared, as if the values were normal."""
    bounds = [float(np.sqrt(variance * freedom / stats.chi2.ppf(q, freedom))) for q in (0.975, 0.025)]
    return {"sd": float(np.sqrt(variance)), "interval": bounds, "degrees_of_freedom": freedom}


def decompose(areas: np.ndarray, errors: np.ndarray) -> dict[str, Any]:
    """Spread of ROC-AUC (K,S) between K folds (means over seeds) and between S seeds (within folds)."""
    folds, seeds = areas.shape
    seed_variance = float(areas.var(axis=1, ddof=1).mean())
    fold_variance = float(areas.mean(axis=1).var(ddof=1))
    return {
        "n_folds": folds,
        "n_seeds": seeds,
        "between_folds": spread(fold_variance, folds - 1),
        "between_seeds": spread(seed_variance, folds * (seeds - 1)),
        # A mean over seeds still varies by seed: its share is taken off, and less than nothing is nothing.
        "between_folds_without_seeds_sd": float(np.sqrt(max(0.0, fold_variance - seed_variance / seeds))),
        "expected_from_patches_sd": float(np.sqrt(np.mean(errors[:, 0] ** 2))),
        "variance_ratio": fold_variance / seed_variance if seed_variance else None,
    }


def cross_validate(
    features: np.ndarray, labels: np.ndarray, units: np.ndarray, settings: FoldSettings
) -> dict[str, Any]:
    """Every fit of one way to deal folds: all seeds on the first partition, the first seed on the others."""
    fits, reason = [], None
    for partition in range(settings.partitions):
        fold = deal_folds(units, labels, settings.folds, partition)
        if not can_be_folded(labels, fold):
            reason = "too few units of each class to deal folds"
            break
        for k in np.unique(fold).tolist():
            for seed in range(settings.seeds if partition == 0 else 1):
                area, error = score_fold(features, labels, fold, k, seed)
                n = int((fold == k).sum())
                fits.append({"partition": partition, "fold": k, "seed": seed, "n": n, "roc_auc": area, "error": error})
    whole = [fit for fit in fits if fit["error"] is not None]
    first = [fit for fit in whole if fit["partition"] == 0]
    usable = len(first) // settings.seeds
    by_partition: dict[int, list[float]] = {partition: [] for partition in range(settings.partitions)}
    for fit in whole:
        if fit["seed"] == 0:
            by_partition[fit["partition"]].append(fit["roc_auc"])
    if reason is None and min(map(len, by_partition.values())) < 2:
        reason = "fewer than two folds hold both classes"
    table = {
        name: np.array([fit[name] for fit in first]).reshape(usable, settings.seeds) for name in ("roc_auc", "error")
    }
    return {
        "reason": reason,
        "units": len(np.unique(units)),
        "spread": None if reason else decompose(table["roc_auc"], table["error"]),
        "roc_auc_by_partition": [] if reason else [float(np.mean(areas)) for areas in by_partition.values()],
        "fits": fits,
    }


def compare_folds(
    table_path: str, features_path: str, out_path: str, *, settings: FoldSettings, provenance: Mapping[str, object]
) -> None:
    """Raises: InputError when table and features do not belong together, or a class is missing."""
    table = read_csv(table_path, ("row", "label", "slide", "group"))
    rows, labels = (np.array([int(line[name]) for line in table], np.int64) for name in ("row", "label"))
    every = open_features(features_path)
    if len(rows) and rows.max() >= len(every):
        raise InputError(f"{features_path}: {len(every)} patches, but {table_path} has row {rows.max()}; rebuild it")
    if len(np.unique(labels)) < 2:
        raise InputError(f"{table_path}: one class only; folds need both")
    features = every[rows]
    slides, groups = (np.array([line[name] for line in table], dtype=str) for name in ("slide", "group"))
    schemes = {
        "grouped": cross_validate(features, labels, joined_units(slides, groups), settings),
        "random": cross_validate(features, labels, np.arange(len(rows)), settings),
    }
    means = [np.array(schemes[name]["roc_auc_by_partition"]) for name in ("random", "grouped")]
    optimism = None
    if all(len(each) for each in means):
        gaps = means[0] - means[1]
        interval = t_interval(gaps.tolist(), differences=True)
        optimism = {
            "mean": float(gaps.mean()),
            "interval": list(interval) if interval else None,
            "values": gaps.tolist(),
        }
    document = {
        "n": len(rows),
        "positives": int(labels.sum()),
        "grouped_by": "slide and leak group" if np.any(slides != "") else "leak group alone: no slide is known",
        "folds": settings.folds,
        "seeds": settings.seeds,
        "partitions": settings.partitions,
        "seed_varies": SEED_VARIES,
        "schemes": schemes,
        "optimism_of_random_folds": optimism,
        "provenance": provenance,
    }
    write_json(out_path, document)
    for name, scheme in schemes.items():
        print(f"{name}: {scheme['reason'] or scheme['spread']}")
    print(f"random folds flatter by {optimism}")


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        compare_folds(
            snakemake.input.rows,
            snakemake.input.features,
            snakemake.output[0],
            settings=from_mapping(FoldSettings, snakemake.params.settings),
            provenance=provenance,
        )
