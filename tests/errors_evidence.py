"""Results of question 6 as their rules write them: errors, slices, silent failure, watch. Its numbers occur once."""

from typing import Any

from results_evidence import estimate

from pcam.gaps import NO_SLIDES, TWO_METHODS


def discovered_slice(words: str, confirmed: bool) -> dict[str, Any]:
    def figures(share: float) -> dict[str, Any]:
        return {"n": 17, "error_rate": estimate(share), "rest_error_rate": estimate(share / 4)}

    return {
        "words": words,
        "confirmed": confirmed,
        "confirm": {**figures(0.523), "excess_loss": 0.384, "p_corrected": 0.0119, "groups": 9, "note": NO_SLIDES},
        "test": figures(0.486),
        "global_roc_auc": {"valid": {"all": 0.9512, "without": 0.9587, "change": 0.0075}},
    }


def errors_results() -> dict[str, Any]:
    contrast = {"unit": "a unit", "low": -1.21, "high": -0.23, "p": 0.001, "p_corrected": 0.013}
    alarms = [{"size": size, "alarms": size / 1000, "low": 0.004, "high": 0.047, "note": None} for size in (16, 64)]
    return {
        "errors": {
            "n": 41,
            "positives": 23,
            "threshold": 0.271,
            "interval_level": 0.93,
            "counts": {"false_positives": 7, "false_negatives": 13},
            "attention": {"maps": [{"centre_share": 0.47}]},
            "patterns": {
                "missed": {
                    "words": "13 missed tumours against 10 found ones: missed tumours are paler",
                    "reason": None,
                    "note": None,
                    "contrasts": [{"attribute": "haematoxylin", "difference": -0.72, **contrast, "claimed": True}],
                },
                "alarms": {
                    "words": "7 false alarms: too few to compare (fewer than 10)",
                    "reason": "too few to compare (fewer than 10)",
                    "contrasts": [],
                },
            },
        },
        "slices_summary": {
            "claims": [
                {
                    "slice": "haematoxylin", "value": "up to 0.19", "n": 31, "positives": 11, "metric": "sensitivity",
                    "estimate": 0.357, "low": 0.21, "high": 0.51, "gap": -0.431, "gap_low": -0.61, "gap_high": -0.19,
                    "p_corrected": 0.0017, "note": f"{NO_SLIDES}; {TWO_METHODS}",
                }
            ],
            "tested": 109,
            "gaps": 131,
            "group": "leak group",
            "least_groups": 14,
            "level": 0.05,
            "interval_level": 0.92,
            "n": 41,
            "patches_without_slide": 0,
            "patches_without_hospital": 41,
        },
        "discovered": {
            "confirmed": [discovered_slice("nuclear density below 2288", True)],
            "candidates": [discovered_slice("nuclear density below 2288", True), discovered_slice("blurred", False)],
            "searched": [2115, 2098],
            "group": "leak group",
            "least_groups": 8,
            "level": 0.05,
        },
        "silent": {
            "n": 41,
            "interval_level": 0.91,
            "mix": {
                "factor": 2.0,
                "metrics": {
                    "accuracy": {
                        "reason": None, "slicing": "sharpness", "now": 0.777, "mixed": 0.743, "change": -0.034,
                        "low": -0.063, "high": -0.003, "note": "too few slides (14)",
                    },
                    "f_beta": {"reason": "no slicing has two slices large enough"},
                },
            },
            "unseen": {
                "fall": 0.01,
                "reason": None,
                "slices": [
                    {
                        "slice": "nuclear_density", "value": "above 8960", "n": 29, "tumours": 19, "failing": 3,
                        "sensitivity": 0.4545, "sensitivity_failing": 0.2727,
                    }
                ],
            },
            "confidence": {
                "sure_from": 0.9,
                "wrong": {"n": 21, "sure": estimate(0.0896)},
                "missed": {"n": 14, "sure": estimate(0.0713)},
                "alarms": {"n": 6, "sure": estimate(0.0182)},
                "wrong_among_sure": estimate(0.0366),
            },
            "calibration": {
                "tested": 37,
                "slices": [
                    {
                        "slice": "slide", "value": "tumor_003", "gap": 0.116, "low": 0.05, "high": 0.19,
                        "claimed": True, "note": None,
                    }
                ],
            },
            "selective": {
                "areas": {"model": 0.0861, "best": 0.0274, "random": 0.2233},
                "all": {"error": estimate(0.2239)},
                "targets": [
                    {"target": "80 % of valid answered", "limit": 0.84, "coverage": estimate(0.8123),
                     "error": estimate(0.1548)}
                ],
            },
        },
        "drift": {
            "false_alarm_rate": 0.01,
            "holds_for": "also for sets of few slides",
            "sizes": [16, 64],
            "sound": {"test": {"points": alarms}},
            "shifts": [{"name": "haematoxylin +25 %", "points": [{**p, "alarms": 10 * p["alarms"]} for p in alarms]}],
        },
    }  # fmt: skip


SHOWN = [
    ("errors", "threshold"), ("errors", "counts", "false_negatives"), ("errors", "counts", "false_positives"),
    ("errors", "attention", "maps", 0, "centre_share"), ("errors", "patterns", "missed", "contrasts", 0, "difference"),
    ("errors", "patterns", "missed", "contrasts", 0, "low"),
    ("errors", "patterns", "missed", "contrasts", 0, "p_corrected"),
    ("slices", 1, 5), ("slices", 1, 2), ("slices", 1, 8), ("slices", 1, 12), ("slices_summary", "tested"),
    ("slices_summary", "claims", 0, "estimate"), ("slices_summary", "claims", 0, "gap_low"),
    ("slices_summary", "claims", 0, "p_corrected"), ("slices_summary", "least_groups"), ("slices_summary", "gaps"),
    ("discovered", "least_groups"), ("slices_summary", "patches_without_hospital"),
    ("discovered", "searched", 0), ("discovered", "confirmed", 0, "confirm", "error_rate", "value"),
    ("discovered", "confirmed", 0, "test", "rest_error_rate", "high"),
    ("discovered", "confirmed", 0, "confirm", "p_corrected"), ("discovered", "confirmed", 0, "confirm", "excess_loss"),
    ("discovered", "confirmed", 0, "global_roc_auc", "valid", "without"), ("silent", "mix", "factor"),
    ("silent", "mix", "metrics", "accuracy", "mixed"), ("silent", "mix", "metrics", "accuracy", "high"),
    ("silent", "interval_level"), ("errors", "interval_level"),
    ("slices_summary", "interval_level"),
    ("silent", "unseen", "slices", 0, "failing"), ("silent", "unseen", "slices", 0, "sensitivity_failing"),
    ("silent", "confidence", "wrong", "sure", "value"), ("silent", "confidence", "wrong_among_sure", "low"),
    ("silent", "calibration", "slices", 0, "gap"), ("silent", "calibration", "tested"),
    ("silent", "selective", "targets", 0, "error", "value"), ("silent", "selective", "areas", "best"),
    ("drift", "false_alarm_rate"), ("drift", "sound", "test", "points", 1, "alarms"),
    ("drift", "shifts", 0, "points", 0, "alarms"),
]  # fmt: skip
