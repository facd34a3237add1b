"""Flipped labels: which patches contradict a model that never saw them, and what finding them is worth.

Suspects come from confident learning (Northcutt, Jiang and Chuang 2021): a patch is suspect when the other class is at
least as probable as that class is on average among the patches that carry it. Every model has such patches, also where
no label is wrong; whether they mean flips, pcam.floors tells, and planted flips measure both on the data themselves.

The package cleanlab gives the same suspects. It is not used: of it we would need what for two classes is one formula,
and neither the test nor the planting, which give the count its meaning, is in it.
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
    """Level of one test: `settings.level` holds for all of them together, one per class of each labelled split."""
    return settings.level / (len(CLASSES) * max(1, len(np.unique(cases.split))))


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
    floors = {label: curve.floor(label, least, level) for label in CLASSES}
    entry["classes"] = {
        str(label): {"flip_rate": f.rate, "flip_rate_interval": [f.low, f.high], "claimed": f.claimed}
        for label, f in floors.items()
    }
    if any(f.claimed for f in floors.values()):
        return {**entry, "verdict": "flips", "reason": "labels are wrong also where the model is sure"}
    return {**entry, "verdict": "none claimed", "reason": "what contradicts the model, its own errors explain"}


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
    present = np.unique(cases.split)
    claimed = {FILE_SPLITS[k]: {str(label): 0 for label in CLASSES} for k in present}
    for number in range(settings.plantings):
        labels, flipped = plant_flips(cases.label, rate, settings.seed + number)
        logits = logits_out_of_fold(cases, labels, settings)
        if logits is None:
            continue
        called = suspects(labels, logits)
        scores["roc_auc"].append(roc_auc(flipped, suspicion(labels, logits)) or 0.0)
        scores["precision"].append(float(flipped[called].mean()) if called.any() else 0.0)
        scores["recall"].append(float(called[flipped].mean()))
        for k in present:
            mine = cases.split == k
            curve = FloorCurve(labels[mine], logits[mine])
            for label in CLASSES:
                claims = curve.claimed(label, settings.least_rate, level_of_test(cases, settings))
                claimed[FILE_SPLITS[k]][str(label)] += claims
    measured = {name: over_plantings(values) for name, values in scores.items()}
    return {"rate": rate, "n": len(cases.label), "plantings": len(scores["recall"]), **measured, "claimed": claimed}


def smallest_rate(planted: Sequence[Mapping[str, Any]], split: str, label: str) -> float | None:
    """Least planted rate that every planting claimed for a split and label; None when there is none."""
    seen = (each["rate"] for each in planted if each["plantings"] == each["claimed"][split][label] > 0)
    return min(seen, default=None)
