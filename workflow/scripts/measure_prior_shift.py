"""What another share of tumour does to the champion: its threshold kept, and its threshold chosen for that share.

Reads: the champion's weights.json and its predictions on valid and test; the tables of train, valid and test.
Writes: prior_shift.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pcam.files import InputError, read_csv, read_json, write_json
from pcam.interval_methods import effective_patches
from pcam.intervals import Estimate, Units, read_groups, units_of
from pcam.metrics import score
from pcam.predictions import Predictions, read_predictions
from pcam.settings import EvaluationSettings, ThresholdSettings, from_mapping
from pcam.stage import run_stage
from pcam.thresholds import choose, prior_weights

SPLITS = ("train", "valid", "test")
SHOWN = ("f_beta", "precision", "sensitivity", "specificity")


def prior_of(rows_path: str) -> float:
    """Share of tumour in a split. Raises: InputError when its table is missing or empty."""
    labels = [int(line["label"]) for line in read_csv(rows_path, ("label",))]
    if not labels:
        raise InputError(f"{rows_path}: holds no patch; a share of tumour needs some")
    return float(np.mean(labels))


def rates_under(prior: float, sensitivity: Any, specificity: Any, beta: float) -> dict[str, Any]:
    """Precision (Bayes' rule) and F-beta under a prior, of numbers or arrays; NaN where nothing would be called."""
    found, alarms = prior * np.asarray(sensitivity), (1 - prior) * (1 - np.asarray(specificity))
    with np.errstate(invalid="ignore"):
        precision = found / (found + alarms)
    return {"precision": precision, "f_beta": (1 + beta**2) * found / (found + alarms + beta**2 * prior)}


def drawn_rates(
    called: np.ndarray, labels: np.ndarray, ids: np.ndarray | None, rules: EvaluationSettings
) -> np.ndarray:
    """Draws (2, D) of sensitivity and specificity from their Jeffreys posteriors; ids as in Units.

    Quantiles of any function of the two are an interval that holds (Mossman and Berger 2001), also where a class has no
    patch wrong.
    """
    rng, drawn = np.random.default_rng(rules.seed), []
    for label in (1, 0):
        among = labels == label
        right = among & (called == (label == 1))
        n = float(among.sum()) if ids is None else effective_patches(right, among, ids)
        hits = n * float(right.sum() / among.sum())
        drawn.append(rng.beta(hits + 0.5, n - hits + 0.5, rules.resamples))
    return np.array(drawn)


def estimates_under(
    prior: float, rates: np.ndarray, draws: np.ndarray, n: int, units: Units, level: float, beta: float
) -> dict[str, Any]:
    """Precision and F-beta under a prior with their intervals, from rates (2,) and their draws (2, D)."""
    values, spreads = (rates_under(prior, told[0], told[1], beta) for told in (rates, draws))
    found = {}
    for name, value in values.items():
        kind = f"Jeffreys draws of both rates{units.by}"
        if np.isnan(value):
            found[name] = Estimate(None, None, None, kind, n, None, "no patch was called tumour").as_document()
            continue
        low, high = map(float, np.quantile(spreads[name], [(1 - level) / 2, (1 + level) / 2]))
        found[name] = Estimate(float(value), low, high, kind, n, units.groups, units.note).as_document()
    return found


def measure_prior_shift(
    sidecar_path: str,
    predictions_paths: Mapping[str, str],
    rows_paths: Mapping[str, str],
    out_path: str,
    *,
    rule: ThresholdSettings,
    rules: EvaluationSettings,
    provenance: Mapping[str, Any],
) -> None:
    """Sensitivity and specificity are those of valid. The champion stays as it is; what is chosen here is only shown.

    Raises: InputError when a table is missing, empty or unlabelled, or valid holds one class only.
    """
    threshold = float(read_json(sidecar_path)["threshold"])
    valid, test = (read_predictions(predictions_paths[split]) for split in ("valid", "test"))
    shares = {split: prior_of(rows_paths[split]) for split in SPLITS}
    called, tumour = valid.probabilities >= threshold, valid.labels == 1
    rates = np.array([np.mean(called[tumour]), np.mean(~called[~tumour])])
    units = units_of(read_groups(rows_paths["valid"]), (tumour, ~tumour), rules)
    draws = drawn_rates(called, valid.labels, units.ids, rules)
    priors = {}
    if not 0 < shares["valid"] < 1:
        raise InputError(f"{rows_paths['valid']}: holds one class only; a share of tumour needs both")
    for split, prior in shares.items():
        if not 0 < prior < 1:
            nothing = Estimate(None, None, None, "none", len(valid.labels), None, "one class only").as_document()
            priors[split] = {"prior": prior, "precision": nothing, "f_beta": nothing, "threshold": None,
                             "on_test": dict.fromkeys(SHOWN)}  # fmt: skip
            continue
        kept = estimates_under(prior, rates, draws, len(valid.labels), units, rules.level, rule.beta)
        other = choose(valid.labels, valid.probabilities, rule, prior_weights(valid.labels, prior))
        priors[split] = {"prior": prior, **kept, "threshold": other, "on_test": on_test(test, other, rule.beta)}
        print(f"{split}: {prior:.3f} tumour, F{rule.beta:g} {kept['f_beta']['value']:.4f}, threshold {other:.4f}")
    write_json(
        out_path,
        {
            "beta": rule.beta,
            "rule": rule.rule,
            "champion": {
                "threshold": threshold,
                "sensitivity": rates[0],
                "specificity": rates[1],
                "n": len(valid.labels),
                "on_test": on_test(test, threshold, rule.beta),
            },
            "priors": priors,
            "provenance": provenance,
        },
    )


def on_test(test: Predictions, threshold: float, beta: float) -> dict[str, float | None]:
    scores = score(test.labels, test.probabilities, threshold, beta)
    return {name: scores[name] for name in SHOWN}


if __name__ == "__main__":
    with run_stage(snakemake) as provenance:
        measure_prior_shift(
            snakemake.input.sidecar,
            dict(zip(("valid", "test"), snakemake.input.predictions, strict=True)),
            dict(zip(SPLITS, snakemake.input.rows, strict=True)),
            snakemake.output[0],
            rule=from_mapping(ThresholdSettings, snakemake.params.rule),
            rules=from_mapping(EvaluationSettings, snakemake.params.evaluation),
            provenance=provenance,
        )
