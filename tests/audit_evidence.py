"""Small evidence of every audit, each number its own, for the tests of what the documents say of question 2."""

from typing import Any

FOUND = {"split": "train", "of": 83, "rate": 0.0723, "interval": [0.03, 0.15], "rows": [3, 5]}
WHERE = ("train-train", "train-valid", "train-test", "valid-valid", "valid-test", "test-test")


def summary(mean: float) -> dict[str, Any]:
    return {"mean": mean, "sd": 0.01, "interval": [mean - 0.02, mean + 0.02], "values": [mean, mean]}


def file_of(**changed: Any) -> dict[str, Any]:
    """One file of storage.json."""
    return {
        "key": "x", "file": "train_x.h5", "patches": 3, "dtype": "float32", "layout": "contiguous", "chunks": None,
        "filters": [], "elsewhere": [], "bytes_on_disk": 40_404, "bytes_data": 40_000, "bytes_other": 103,
        "bytes_structure": 301, "bytes_expected": 40_001, "bytes_as_uint8": 10_101, "factor": 4.0,
        "factors": {"dtype": 4, "layout": 1.0, "filters": 1.0, "structure": 1.07}, "cause": "wide",
        "bytes_gzip_estimate": 7_007, "bytes_gzip_interval": [6_006, 8_008], "gzip_patches_measured": 2,
        "gzip_setting": "level 4", "saving_as_uint8": 29_899, "saving_gzip_estimate": 32_993, **changed,
    }  # fmt: skip


def line_of(kind: str, recall: float | None, planted: int = 400) -> dict[str, Any]:
    """The line of score.json for a kind, all variants and rates together."""
    between = None if recall is None else [max(0.0, recall - 0.013), recall]
    return {
        "kind": kind, "variant": None, "level": None, "unit": None, "rate": None, "planted": planted, "found": planted,
        "recall": recall, "recall_interval": between, "precision": recall, "precision_interval": between,
    }  # fmt: skip


def fold_scheme(folds: tuple[float, float, float], seeds: tuple[float, float, float]) -> dict[str, Any]:
    """Spread of one way to deal folds: (sd, low, high) between folds and between seeds."""
    told = {
        name: {"sd": sd, "interval": [low, high], "degrees_of_freedom": 4}
        for name, (sd, low, high) in (("between_folds", folds), ("between_seeds", seeds))
    }
    return {"reason": None, "units": 24, "spread": {**told, "expected_from_patches_sd": 0.0123, "n_seeds": 4}}


def part_of(area: float | None, n: int) -> dict[str, Any]:
    between = None if area is None else [area - 0.03, area + 0.03]
    return {
        "n": n,
        "positives": n // 2,
        "roc_auc": area,
        "interval": between,
        "reason": None if area else "one class only",
    }


def audit_evidence() -> dict[str, Any]:
    """Checksums, storage, leakage, poison, labels, shift, score, folds and leaking rows as the rules write them."""
    sums = {"md5": "m", "content_digest": "c0ffee0123456789", "source": None, "published_as": None}
    said = {"meaning": "not a published file", "content_of": [], "confidence": None}
    test = {
        "p": 0.041,
        "roc_auc": 0.631,
        "null_mean": 0.498,
        "null_quantile_95": 0.588,
        "permutations": 19,
        "null": [0.5],
    }
    features = [
        {"feature": "red", "difference_sd": 0.444, "p_all": 0.91},
        {"feature": "blue", "difference_sd": 0.1, "p_all": 1},
    ]
    shares = {"n": 83, "tumours": 14, "share": 0.1687, "interval": [0.103, 0.264], "counts_equal": []}
    classes = {"flip_rate": 0.0311, "flip_rate_interval": [0.01, 0.06], "claimed": True, "candidates": 37}
    judged = {
        "verdict": "flips",
        "reason": "labels contradict",
        "n": 79,
        "roc_auc": 0.887,
        "roc_auc_interval": [0.8, 0.95],
        "classes": {"0": classes, "1": {**classes, "claimed": False}},
        "smallest_rate_seen": 0.05,
    }
    return {
        "checksums": {
            "findings": [
                {"kind": kind, "split": "train", "n": 0, "of": 3, "told": []}
                for kind in ("swapped_split", "same_content")
            ],
            "files": [
                {"split": "train", "key": "x", "file": "train_x.h5", "patches": 83, "labels": [69, 14], **sums, **said}
            ],
        },
        "storage": {"findings": [], "files": [file_of()]},
        "leakage": {
            "findings": [
                {"kind": "overlap", "class": None, "n": 13, **FOUND},
                {"kind": "exact_duplicate", "class": None, "n": 9, "of_which_blank": 4, **FOUND},
                {"kind": "near_duplicate", "class": None, "n": 0, **FOUND},
                {"kind": "slide_overlap", "class": None, "n": 0, **FOUND},
            ],
            "method": {"largest_shift_px": 80, "patches_compared": 78, "slides_known": 83},
            "coordinates": {
                "unit_per_px": 1.0,
                "unit_measured_on": 21,
                "pairs": 27,
                "pairs_comparable": 26,
                "pairs_confirmed": 25,
            },
            "pairs": {"overlap": dict(zip(WHERE, (19, 3, 1, 2, 0, 0), strict=True))},
            "class_mix": {"overlap": {"both_0": 15, "both_1": 6, "mixed": 4, "unknown": 0}},
            "group_sizes": {"2": 11, "5": 1},
            "clusters": [
                {
                    "group": 0,
                    "size": 5,
                    "splits": {"train": 4, "test": 1},
                    "classes": {"0": 5},
                    "members": [["train", 3]],
                }
            ],
            "examples": [],
        },
        "poison": {
            "findings": [
                {"kind": "blackout", "class": 0, "n": 6, **FOUND},
                {"kind": "constant", "class": 1, "n": 0, **FOUND},
            ],
            "method": {"recurrences": 3, "stamp_share_seen": {"train": 0.002, "valid": 0.004, "test": None}},
            "stamps": [
                {
                    "height": 6,
                    "width": 7,
                    "flat": False,
                    "patches": 16,
                    "places": 12,
                    "place": None,
                    "classes": {"0": 16, "1": 0},
                    "rows": [["train", 33]],
                    "corners": [[0, 0]],
                    "pixels": [],
                }
            ],
            "by_class": [
                {
                    "split": "train",
                    "kind": "blackout",
                    "n": [6, 1],
                    "of": [69, 14],
                    "p_holm": 0.002,
                    "level": 0.027,
                    "depends": True,
                }
            ],
        },
        "labels": {
            "findings": [{"kind": "label_suspect", "class": 0, "n": 8, "verdict": "flips", **FOUND}],
            "method": {"model": "regression", "folds": 5, "grouped_by": "slide"},
            "splits": {"train": judged},
            "planted": [
                {
                    "rate": 0.05,
                    "plantings": 5,
                    "roc_auc": summary(0.934),
                    "precision": summary(0.561),
                    "recall": summary(0.722),
                    "claimed": {"train": 4},
                }
            ],
            "most_suspicious": [{"split": "train", "row": 61, "label": 1, "score": 0.991}],
        },
        "shift": {
            "findings": [
                {"kind": "prior_shift", "splits": ["train", "valid"], "p": 0.001, "effect": 0.333, "found": True},
                {"kind": "covariate_shift", "splits": ["train", "valid"], "p": 0.041, "effect": 0.631, "found": False},
            ],
            "method": {"level_of_one_pair": 0.0163, "excluded": {"train": 58, "valid": 0, "test": 0}},
            "prior": {"splits": {"train": shares, "test": None}, "pairs": []},
            "pairs": [
                {
                    "splits": ["train", "valid"],
                    "n": [38, 36],
                    "units": [4, 3],
                    "two_sample": test,
                    "features": features,
                    "reason": None,
                }
            ],
            "slides": {
                "known": True,
                "slides": {"train": 4},
                "patches_with_slide": {"train": 81},
                "hospitals": {"train": {"RUMC": 48, "UMCU": 33}},
                "shared": {"train-valid": []},
            },
        },
        "score": {
            "kinds": {
                "blackout": {**line_of("blackout", 0.95, 20), "found": 19},
                "constant": line_of("constant", None, 0),
            },
            "planted": [
                line_of("blackout", 0.975),
                line_of("constant", 0.8),
                line_of("overlap", 0.96),
                line_of("near_duplicate", 0.9),
            ],
            "limits": [
                {
                    "kind": "blackout",
                    "variant": None,
                    "level": None,
                    "by": "rate",
                    "direction": "from",
                    "limit": 0.002,
                    "tried": [0.002],
                }
            ],
        },
        "folds": {
            "n": 77,
            "folds": 5,
            "seeds": 4,
            "grouped_by": "slide and leak group",
            "seed_varies": "the bootstrap sample",
            "schemes": {
                "grouped": fold_scheme((0.0213, 0.0128, 0.0612), (0.0062, 0.0048, 0.0090)),
                "random": fold_scheme((0.0060, 0.0036, 0.0173), (0.0038, 0.0029, 0.0055)),
            },
            "optimism_of_random_folds": {"mean": 0.0161, "interval": [0.0141, 0.0181], "values": [0.0161, 0.0161]},
        },
        "leaking": {
            "file": "test",
            "partners_in": ["train", "valid"],
            "n": 41,
            "n_leaking": 6,
            "by_kind": {"overlap": 6},
            "variants": {
                "baseline": {
                    "all": part_of(0.911, 41),
                    "without": part_of(0.899, 35),
                    "leaking": part_of(None, 6),
                    "difference": {"value": -0.012, "interval": [-0.02, -0.004], "reason": None},
                }
            },
        },
    }
