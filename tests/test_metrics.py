"""Scores have the values the books give, are None where they are undefined, and their intervals hold."""

import numpy as np
import pytest

from pcam.metrics import (
    calibration_bins,
    expected_calibration_error,
    f_beta,
    pr_auc,
    pr_auc_influence,
    roc_auc,
    roc_auc_error,
    roc_auc_interval,
    score,
    t_interval,
    wilson_interval,
)

DRAWS = 400
# 95 % minus and plus about 2.8 standard errors of a share over 400 draws.
COVERED = pytest.approx(0.95, abs=0.03)


def contains(interval: tuple[float, float] | None, truth: float) -> bool:
    return interval is not None and interval[0] <= truth <= interval[1]


def auc_by_pairs(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """1 where the positive ranks higher, a half where the two tie: the definition."""
    positives, negatives = scores[labels == 1], scores[labels == 0]
    difference = positives[:, None] - negatives[None, :]
    return (difference > 0) + 0.5 * (difference == 0)


def test_wilson_gives_known_values():
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=5e-5)
    assert wilson_interval(5, 10) == pytest.approx((0.2366, 0.7634), abs=5e-5)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=5e-5)


def test_wilson_knows_nothing_without_patches():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_wilson_covers_the_truth():
    rng = np.random.default_rng(1)
    for rate, n in ((0.5, 40), (0.9, 60)):
        hits = rng.binomial(n, rate, DRAWS)
        assert np.mean([contains(wilson_interval(int(k), n), rate) for k in hits]) == COVERED


def test_t_interval_gives_a_known_value_and_needs_two():
    # t(0.975, 2) = 4.3027, sd = 0.1, n = 3
    assert t_interval([0.4, 0.5, 0.6]) == pytest.approx((0.5 - 0.24842, 0.5 + 0.24842), abs=1e-5)
    assert t_interval([1.4, 1.5, 1.6]) == pytest.approx((1.5 - 0.24842, 1.5 + 0.24842), abs=1e-5)
    assert t_interval([0.99, 0.93, 0.985]) == pytest.approx((0.88581, 1.0), abs=1e-3)
    assert t_interval([0.01, 0.02, 0.03], differences=True) == pytest.approx((0.02 - 0.02484, 0.02 + 0.02484), abs=1e-5)
    assert t_interval([0.7]) is None


def test_t_interval_of_three_seeds_covers_the_truth():
    draws = np.random.default_rng(2).normal(0.85, 0.02, (DRAWS, 3))
    assert np.mean([contains(t_interval(draw), 0.85) for draw in draws]) == COVERED


def test_roc_auc_is_the_share_of_pairs_in_order():
    labels, scores = np.array([0, 0, 1, 1, 1]), np.array([0.1, 0.4, 0.4, 0.35, 0.8])
    assert roc_auc(labels, scores) == pytest.approx(auc_by_pairs(labels, scores).mean())
    assert roc_auc(labels, np.full(5, 0.3)) == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_roc_auc_error_or_interval(label):
    labels, scores = np.full(5, label), np.linspace(0, 1, 5)
    assert roc_auc(labels, scores) is None
    assert roc_auc_error(labels, scores) is None
    assert roc_auc_interval(labels, scores) is None


def test_delong_error_follows_its_definition_with_ties():
    rng = np.random.default_rng(3)
    labels = np.array([1] * 12 + [0] * 15)
    scores = np.round(rng.normal(labels, 1.0), 1)  # rounding makes ties
    placed = auc_by_pairs(labels, scores)
    by_definition = placed.mean(axis=1).var(ddof=1) / 12 + placed.mean(axis=0).var(ddof=1) / 15
    assert roc_auc_error(labels, scores) == pytest.approx(np.sqrt(by_definition))


def test_delong_interval_stays_inside_and_is_undefined_for_a_perfect_ranking():
    labels = np.array([0] * 6 + [1] * 6)
    nearly = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.6, 0.75, 0.8, 0.85, 0.9, 0.95])
    low, high = roc_auc_interval(labels, nearly)
    assert 0 < low < roc_auc(labels, nearly) < high < 1
    assert roc_auc_interval(labels, labels.astype(float)) is None


def test_delong_interval_covers_the_truth():
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 1], [70, 50])
    truth = 0.8413447  # normal scores one standard deviation times the root of two apart
    found = [contains(roc_auc_interval(labels, rng.normal(labels * np.sqrt(2), 1.0)), truth) for _ in range(DRAWS)]
    assert np.mean(found) == COVERED


def test_always_tumour_has_the_f2_of_its_prevalence():
    labels = np.array([0, 1] * 50)
    assert f_beta(labels, np.ones(100, int), 2.0) == pytest.approx(5 / 6)
    assert f_beta(labels, np.zeros(100, int), 2.0) == 0.0
    assert f_beta(np.zeros(4, int), np.ones(4, int), 2.0) is None


def test_score_gives_known_values():
    labels, probabilities = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.5, 0.2, 0.6, 0.1])
    scores = score(labels, probabilities, 0.5, 2.0)
    assert scores["sensitivity"] == pytest.approx(2 / 3)
    assert scores["specificity"] == pytest.approx(1 / 2)
    assert scores["balanced_accuracy"] == pytest.approx(7 / 12)
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["f_beta"] == pytest.approx(5 * 2 / (5 * 2 + 4 * 1 + 1))
    assert scores["brier"] == pytest.approx((0.01 + 0.25 + 0.64 + 0.36 + 0.01) / 5)
    assert scores["log_loss"] == pytest.approx(-np.log([0.9, 0.5, 0.2, 0.4, 0.9]).mean())
    assert scores["roc_auc"] == pytest.approx(4 / 6)
    assert scores["precision"] == pytest.approx(2 / 3)


def test_score_names_what_one_class_leaves_undefined():
    negatives = score(np.zeros(4, int), np.array([0.1, 0.2, 0.6, 0.3]), 0.5, 2.0)
    undefined = {name for name, value in negatives.items() if value is None}
    assert undefined == {"roc_auc", "pr_auc", "f_beta", "balanced_accuracy", "sensitivity"}
    assert negatives["specificity"] == 0.75
    assert negatives["precision"] == 0.0
    assert score(np.array([0, 1]), np.array([0.1, 0.2]), 0.5, 2.0)["precision"] is None
    positives = score(np.ones(4, int), np.array([0.1, 0.2, 0.6, 0.3]), 0.5, 2.0)
    assert {name for name, value in positives.items() if value is None} == {
        "roc_auc", "pr_auc", "balanced_accuracy", "specificity",
    }  # fmt: skip


def weighted_average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Average precision by its definition, each patch as often as its weight says."""
    precision = [np.sum((weights * labels)[scores >= cut]) / np.sum(weights[scores >= cut]) for cut in scores]
    return float(np.sum(weights * labels * precision) / np.sum(weights * labels))


def test_pr_auc_influence_is_its_derivative_by_the_weight_of_a_patch():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 30)
    scores = np.round(rng.normal(labels, 1.0), 1)  # rounding makes ties
    even, step = np.ones(30), 1e-5
    assert weighted_average_precision(labels, scores, even) == pytest.approx(pr_auc(labels, scores))
    by_steps = [
        (
            weighted_average_precision(labels, scores, even + step * one)
            - weighted_average_precision(labels, scores, even - step * one)
        )
        / (2 * step)
        for one in np.eye(30)
    ]
    assert pr_auc_influence(labels, scores) == pytest.approx(np.array(by_steps), abs=1e-8)
    assert pr_auc_influence(np.zeros(5, int), scores[:5]) is None


def test_calibration_bins_hold_equal_counts_and_keep_ties_together():
    spread = np.random.default_rng(6).permutation(np.linspace(0, 1, 50))
    assert np.bincount(calibration_bins(spread, 5)).tolist() == [10] * 5
    tied = calibration_bins(np.array([0.1, 0.1, 0.1, 0.9]), 4)
    assert tied.tolist() == [0, 0, 0, 3]


def test_ece_is_the_mean_gap_of_the_bins():
    probabilities = np.array([0.1, 0.2, 0.7, 0.8])
    # First bin: 0.15 against 1/2; second bin: 0.75 against 1.
    assert expected_calibration_error(np.array([0, 1, 1, 1]), probabilities, 2) == pytest.approx((0.35 + 0.25) / 2)
    # Of patches that all have one probability, the order in the file makes no bins.
    labels = np.repeat([0, 1], 50)
    assert expected_calibration_error(labels, np.full(100, 0.5), 10) == pytest.approx(0.0)
