"""Small evidence of what training's steps tell, each number its own, for the tests of question 4."""

from typing import Any


def run_of(seed: int, **changed: Any) -> dict[str, Any]:
    """One run of spikes.json."""
    return {
        "variant": "baseline", "seed": seed, "steps": 961 + seed, "judged": 951 + seed, "limit": 4.64,
        "spikes": 1 - seed, "below": seed, "largest_z": 5.13 - seed,
        "median": 0.765 + seed, "correlation_with_next": 0.041 + seed / 100,
        "correlation_with_loss": 0.672 + seed / 10, "epochs": 20,
        "largest": {"step": 383 + seed, "epoch": 8, "grad_norm": 9.767 - seed, "epoch_median": 0.813, "ratio": 12.01},
        "spread_of_steps": 75.8 + seed, "spread_of_medians": 2.67 + seed, "spikes_in_epoch_medians": 0,
        "spikes_in_epoch_largest": 1, "false_alarms": {"runs": 500, "with_spike": 8, "rate": 0.016, "interval": [0, 1]},
        "layers": {
            "stem": {"first_epoch": 0.193 + seed, "last_epoch": 0.412, "share": 0.31},
            "head": {"first_epoch": 1.11, "last_epoch": 0.177, "share": 0.11},
        },
        **changed,
    }  # fmt: skip


def over_seeds(mean: float) -> dict[str, Any]:
    return {"mean": mean, "sd": 0.0023, "values": [mean, mean], "n": 2}


STEP_COLUMNS = (
    "variant", "seed", "step", "epoch", "above_limit", "grad_norm", "expected", "ratio", "z", "loss", "loss_z",
    "learning_rate", "layer", "layer_ratio", "hardest_row", "hardest_label", "hardest_loss", "rows",
)  # fmt: skip


def step_line(**changed: Any) -> tuple[Any, ...]:
    """One line of spikes.csv."""
    line = {
        "variant": "baseline", "seed": 0, "step": 383, "epoch": 8, "above_limit": 1, "grad_norm": 9.767,
        "expected": 0.765, "ratio": 12.77, "z": 5.13, "loss": 0.459, "loss_z": 2.21, "learning_rate": 0.003,
        "layer": "stages.0", "layer_ratio": 20.83, "hardest_row": 1570, "hardest_label": 0, "hardest_loss": 6.05,
        "rows": "1415 510 1570", **changed,
    }  # fmt: skip
    return tuple(line[name] for name in STEP_COLUMNS)


def comparison(metric: str, mean: float, verdict: str) -> dict[str, Any]:
    return {
        "variant": "constant_lr", "schedule": "constant", "metric": metric, "differences": [mean, mean], "mean": mean,
        "interval": [mean - 0.0121, mean + 0.0122], "n": 2, "told_apart": verdict != "not told apart",
        "verdict": verdict,
    }  # fmt: skip


def dynamics_evidence() -> dict[str, Any]:
    other = step_line(seed=1, step=75, above_limit=0, z=4.3, hardest_row=754, rows="79 707 754")
    return {
        "spikes": {
            "runs": [run_of(0), run_of(1)], "level": 0.01, "neighbours": 25, "least_neighbours": 5, "scale_steps": 201,
            "batches": {
                "same": [{"runs": [["baseline", 0], ["constant_lr", 0]], "steps": 951, "correlation": 0.68}],
                "other": [{"runs": [["baseline", 0], ["baseline", 1]], "steps": 951, "correlation": c}
                          for c in (-0.08, 0.09)],
            },
            "recurring": [{"row": 1571, "steps": [{"variant": "baseline", "seed": 0, "step": 1}] * 2}],
        },
        "spike_steps": [STEP_COLUMNS, step_line(), other],
        "schedules": {
            "variants": {
                "baseline": {"schedule": "one_cycle", "roc_auc": over_seeds(0.9446), "loss": over_seeds(0.3716)},
                "constant_lr": {"schedule": "constant", "roc_auc": over_seeds(0.9449), "loss": over_seeds(0.3825)},
            },
            "comparisons": [comparison("roc_auc", -0.0004, "not told apart"), comparison("loss", 0.0508, "worse")],
            "seeds": [0, 1], "n_valid": 599, "roc_auc_standard_error": 0.0091,
        },
    }  # fmt: skip
