"""One small result of every kind that question 5 cites, each number its own."""

import copy
from typing import Any

METRICS = ("roc_auc", "pr_auc", "f_beta", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "precision",
           "brier", "log_loss", "ece")  # fmt: skip


def estimate(value: float | None, note: str | None = None, **more: Any) -> dict[str, Any]:
    ends = {"low": None, "high": None} if value is None else {"low": value - 0.02, "high": value + 0.02}
    return {"value": value, **ends, "kind": "a kind of interval", "n": 41, "groups": None, "note": note, **more}


def estimates(first: float) -> dict[str, Any]:
    found = {metric: estimate(first + i / 1000) for i, metric in enumerate(METRICS)}
    return {**found, "ece": {**estimate(first / 10), "low": None, "high": None, "null_high": 0.0421}}


def over_seeds(mean: float, n: int = 2, first: float | None = None) -> dict[str, Any]:
    alone = {"sd": "undefined (n = 1)", "interval": "undefined (n = 1)"}
    spread = alone if n == 1 else {"sd": 0.011, "interval": [mean - 0.05, mean + 0.05]}
    values = [mean if first is None else first] * n
    return {"mean": mean, "values": values, "n": n, "standard_errors": [0.021] * n, **spread}


def always_tumour() -> dict[str, Any]:
    told: dict[str, Any] = {"roc_auc": 0.5, "pr_auc": 0.411, "f_beta": 0.777, "sensitivity": 1.0, "specificity": 0.0}
    undefined = {"brier": "states no probability", "log_loss": "states no probability"}
    return {
        **told,
        "brier": None,
        "n": 41,
        "positives": 17,
        "estimates": {
            metric: estimate(None, undefined[metric]) if metric in undefined else estimate(told.get(metric, 0.415))
            for metric in METRICS
        },
    }


def results_evidence() -> dict[str, Any]:
    scores = {metric: over_seeds(0.901 + i / 1000) for i, metric in enumerate(METRICS)}
    by_split = {"test": copy.deepcopy(scores), "valid": scores}
    difference = {metric: over_seeds(0.031) for metric in METRICS}
    always = always_tumour()
    colour = {**always, "roc_auc": 0.712, "estimates": {**always["estimates"], "roc_auc": estimate(0.712)}}
    rates = {"missed": estimate(31.0), "false_alarms": estimate(83.0)}
    calibration = {
        "before": {"ece": 0.0911, "null_high": 0.0421, "brier": 0.0912, "log_loss": 0.2913},
        "after": {"ece": 0.0311, "null_high": 0.0422, "brier": 0.0902, "log_loss": 0.2813},
    }
    of_split = {"metrics": estimates(0.871), "per_1000": rates}
    return {
        "seeds": {
            "baseline": by_split,
            "tuned": copy.deepcopy(by_split),
            "differences": {"tuned": {"test": difference, "valid": difference}},
            "seeds": [0, 1],
            "beta": 2.0,
        },
        "baselines": {
            name: {split: copy.deepcopy(of) for split in ("valid", "test")}
            for name, of in (("always_tumour", always), ("train_majority", always), ("colour_histogram", colour))
        },
        "coverage": {
            "draws": 2000,
            "level": 0.95,
            "target": [0.93, 0.97],
            "cases": [
                {
                    "case": "n = 200",
                    "metric": "roc_auc",
                    "kind": "a kind of interval",
                    "covered": 0.951,
                    "within": True,
                    "undefined": 0,
                    "low": 0.941,
                    "high": 0.961,
                },
                {
                    "case": "n = 200",
                    "metric": "brier",
                    "kind": "a kind of interval",
                    "covered": 0.901,
                    "within": False,
                    "undefined": 3,
                    "low": 0.891,
                    "high": 0.911,
                },
            ],
        },
        "prior_effect": {
            "priors": {
                split: {
                    "prior": prior,
                    "precision": estimate(prior + 0.3),
                    "f_beta": estimate(prior + 0.4),
                    "threshold": prior + 0.1,
                    "on_test": {"f_beta": 0.8123, "sensitivity": 0.9123},
                }
                for split, prior in (("train", 0.168), ("valid", 0.497), ("test", 0.501))
            }
        },
        "runs": {
            "experiment": "pcam",
            "registered": {"name": "pcam", "version": 1, "alias": "champion"},
            "logged": {"runs": 1, "values": 5912, "seconds": 1.5, "database_bytes": 700000},
            "runs": [
                {
                    "name": "baseline/seed-0",
                    "run_id": "0123456789abcdef0123456789abcdef",
                    "kind": "train",
                    "metrics": 59,
                    "status": "FINISHED",
                    "tags": {"seed": "0", "commit": "fedcba98", "weights_digest": "beef"},
                }
            ],
        },
        "trials": [
            ("phase", "trial", "rung", "state", "value", "epochs", "learning_rate", "origin", "reason"),
            ("round-0", 0, 0, "FAIL", "", 3, 0.009, "", "the loss is nan"),
            ("round-0", 1, 0, "COMPLETE", 0.9021, 3, 0.004, "", ""),
            ("rung-1", 0, 1, "COMPLETE", 0.9321, 6, 0.004, "round-0/trial-1", ""),
        ],
        "recipe": {
            "metric": "roc_auc",
            "chosen": {"name": "rung-1/trial-0", "value": 0.9321, "origin": "round-0/trial-1"},
            "reason": None,
            "importance": {"learning_rate": 0.72, "width": 0.28},
            "searched": ["learning_rate", "width"],
        },
        "selection": {
            "metric": "roc_auc",
            "chosen": {"name": "tuned/seed-1", "variant": "tuned", "seed": 1, "weights": "w.pt", "value": 0.9341},
            "candidates": [
                {"variant": "tuned", "seeds": [0, 1], **over_seeds(0.9331)},
                {"variant": "baseline", "seeds": [0, 1], **over_seeds(0.9123)},
            ],
            "failed_trials": [{"name": "round-0/trial-0", "reason": "the loss is nan"}],
        },
        "champion": {
            "threshold": 0.375,
            "temperature": 1.234,
            "threshold_rule": {
                "rule": "f_beta",
                "beta": 2.0,
                "target": None,
                "value_on_valid": 0.876,
                "n": 43,
                "interval": [0.31, 0.42],
                "interval_kind": "bootstrap of 1,000 draws",
                "interval_note": "too few slides (10)",
            },
            "digests": {"weights": "abc123"},
            "seed": 0,
            "settings": {"width": 16, "dropout": 0.25},
        },
        "evaluation": {
            "valid": {
                "role": "chosen here",
                **copy.deepcopy(of_split),
                "confusion": {"found": 1, "missed": 1, "alarms": 1, "cleared": 2},
            },
            "test": {
                "role": "carried over",
                **copy.deepcopy(of_split),
                "confusion": {"found": 21, "missed": 2, "alarms": 5, "cleared": 13},
            },
            "calibration": {"valid": calibration, "test": calibration},
            "temperature": 1.234,
            "always_tumour": {"valid": 0.771, "test": 0.777},
            "beats_always_tumour": {"valid": True, "test": True},
        },
        "stress": {
            "n": 37,
            "issues": [
                {
                    "name": "blur",
                    "unit": "px",
                    "guard": "The guard sees sharpness.",
                    "points": [
                        {
                            "strength": strength,
                            "label": f"{strength:g}",
                            "status": "measured",
                            "roc_auc": estimate(0.9 - strength / 10),
                            "f_beta": estimate(0.8),
                            "flipped": strength / 40,
                            "guard": {
                                "warns": strength > 1,
                                "check": "warning: sharpness" if strength > 1 else None,
                                "note": None,
                            },
                        }
                        for strength in (0.0, 1.0, 2.0)
                    ],
                },
                {
                    "name": "another device",
                    "unit": "",
                    "guard": "The sidecar names the device.",
                    "points": [{"strength": None, "status": "not run: no GPU"}],
                },
            ],
        },
    }
