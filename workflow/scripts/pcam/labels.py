"""Flipped labels: which patches contradict a model that never saw them, and what finding them is worth.

Suspects come from confident learning (Northcutt, Jiang and Chuang 2021): a patch is suspect when the other class is at
least as probable as that class is on average among the patches that carry it. Every model has such patches, also where
no label is wrong; whether they mean flips, pcam.floors tells, and planted flips measure both on the data themselves.

The package cleanlab (2.9.0, Apache-2.0) names exactly the same suspects on the sample and on 2,000 real patches. It is
not used: for two classes they are one formula, and neither the test nor the planting, which give their number a
meaning, is in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from pcam.cases import Cases
from pcam.cheap_model import can_be_folded, deal_folds, out_of_fold
from pcam.facts import CLASSES, FILE_SPLITS
from pcam.floors import FloorCurve
from pcam.metrics import roc_auc, roc_auc_interval, t_interval
from pcam.settings import LabelSettings

TOGETHER = "together"  # beside the names of the splits


def cut_offs(labels: np.ndarray, logits: np.ndarray) -> tuple[float, float]:
    """For label 0 and label 1 the probability of the other class from which on a patch is suspect.

    The thresholds are mean self-confidences; where both classes reach theirs, the more probable one counts.
    """
    tumour = expit(logits)
    normal_at, tumour_at = float((1 - tumour)[labels == 0].mean()), float(tumour[labels == 1].mean())
    return max(tumour_at, min(1 - normal_at, 0.5)), max(normal_at, min(1 - tumour_at, 0.5))


def suspicion(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Probability (N,) that the model gives the class a patch does not carry."""
    return np.asarray(expit(np.where(labels == 1, -logits, logits)))


def suspects(labels: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Mask (N,) of the off-diagonal of the confident joint."""
    return suspicion(labels, logits) >= np.array(cut_offs(labels, logits))[labels]


def plant_flips(labels: np.ndarray, rate: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) with the share `rate` of them inverted at random, and the mask of those."""
    flipped = np.zeros(len(labels), bool)
    number = max(1, round(rate * len(labels)))
    flipped[np.random.default_rng(seed).choice(len(labels), number, replace=False)] = True
    return np.where(flipped, 1 - labels, labels), flipped


def level_of_test(cases: Cases, settings: LabelSettings) -> float:
    """Level of one test: `settings.level` holds for those of each labelled split and of all of them together."""
    return settings.level / (1 + len(np.unique(cases.split)))


def logits_out_of_fold(cases: Cases, labels: np.ndarray, settings: LabelSettings) -> np.ndarray | None:
    """Log odds (N,) under these labels; None when there is no way to deal folds with both classes outside each."""
    fold = deal_folds(cases.unit, labels, settings.folds, settings.seed)
    return out_of_fold(cases.features, labels, fold) if can_be_folded(labels, fold) else None


def judge_split(labels: np.ndarray, logits: np.ndarray | None, least: float, level: float) -> dict[str, Any]:
    """Whether flips are claimed in one split; None for logits when there is no model out of fold."""
    entry: dict[str, Any] = {"n": len(labels), "roc_auc": None, "roc_auc_interval": None, "classes": {}}
    if logits is None or len(np.unique(labels)) < 2:
        return {
            **entry,
            "verdict": "cannot tell",
            "reason": "too few sound patches, or slides, of each class for a model out of fold",
        }
    interval = roc_auc_interval(labels, logits)
    entry |= {"roc_auc": roc_auc(labels, logits), "roc_auc_interval": list(interval) if interval else None}
    if interval is not None and interval[0] <= 0.5:
        return {**entry, "verdict": "cannot tell", "reason": "out of fold the model is no better than chance"}
    curve = FloorCurve(labels, logits)
    claimed = curve.claimed(least, level)
    for label in CLASSES:
        floor = curve.floor(label)
        entry["classes"][str(label)] = {
            "flip_rate": floor.rate,
            "flip_rate_interval": [floor.low, floor.high],
            "claimed": claimed and floor.rate > least,
        }
    if claimed:
        reason = "labels contradict the model also where it is sure: flips, or patches that do not show their label"
        return {**entry, "verdict": "flips", "reason": reason}
    return {**entry, "verdict": "none claimed", "reason": "the model's own errors explain what contradicts it"}


def judge_splits(
    cases: Cases, logits: np.ndarray | None, settings: LabelSettings
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Verdict on each split and on all of them together; `cases` are labelled. Where flips are claimed only of all
    together, every split inherits the claim."""
    least, level = settings.least_rate, level_of_test(cases, settings)
    together = judge_split(cases.label, logits, least, level)
    judged: dict[str, dict[str, Any]] = {}
    for k, split in enumerate(FILE_SPLITS):
        mine = cases.split == k
        judged[split] = judge_split(cases.label[mine], None if logits is None else logits[mine], least, level)
        if cases.labels[split] is None:
            judged[split] |= {"verdict": "unlabelled", "reason": "the file holds no labels"}
        judged[split]["excluded"] = cases.excluded[split]
    if together["verdict"] == "flips" and all(each["verdict"] != "flips" for each in judged.values()):
        for each in judged.values():
            if each["verdict"] == "none claimed":
                each |= {"verdict": "flips", "reason": "claimed of all labelled splits together, not of this one alone"}
                for label, own in each["classes"].items():
                    own["claimed"] = together["classes"][label]["claimed"]
    return judged, together


def over_plantings(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation and Student interval over plantings."""
    interval = t_interval(values)
    return {
        "mean": float(np.mean(values)) if len(values) else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "interval": list(interval) if interval else None,
        "values": list(values),
    }


def score_plantings(cases: Cases, rate: float, settings: LabelSettings) -> dict[str, Any]:
    """What flips at one rate show of the audit, planted `settings.plantings` times into labelled cases.

    Flips the data already hold count as false alarms, so precision is a lower bound.
    """
    scores: dict[str, list[float]] = {"roc_auc": [], "precision": [], "recall": []}
    present, level = np.unique(cases.split), level_of_test(cases, settings)
    parts = {TOGETHER: np.ones(len(cases.split), bool), **{FILE_SPLITS[k]: cases.split == k for k in present}}
    claimed = dict.fromkeys(parts, 0)
    for number in range(settings.plantings):
        labels, flipped = plant_flips(cases.label, rate, settings.seed + number)
        logits = logits_out_of_fold(cases, labels, settings)
        if logits is None:
            continue
        called = suspects(labels, logits)
        scores["roc_auc"].append(roc_auc(flipped, suspicion(labels, logits)) or 0.0)
        scores["precision"].append(float(flipped[called].mean()) if called.any() else 0.0)
        scores["recall"].append(float(called[flipped].mean()))
        for name, mine in parts.items():
            claimed[name] += FloorCurve(labels[mine], logits[mine]).claimed(settings.least_rate, level)
    measured = {name: over_plantings(values) for name, values in scores.items()}
    return {"rate": rate, "n": len(cases.label), "plantings": len(scores["recall"]), **measured, "claimed": claimed}


def smallest_rate(planted: Sequence[Mapping[str, Any]], split: str) -> float | None:
    """Least planted rate from which on every planting led to the claim for a split; None when there is none.

    More flips are not always easier to see: they also spoil the model.
    """
    smallest = None
    for each in sorted(planted, key=lambda each: each["rate"], reverse=True):
        if each["plantings"] == 0 or each["claimed"].get(split, 0) < each["plantings"]:
            break
        smallest = each["rate"]
    return smallest
