"""Each threshold rule against every threshold there is; the interval and the temperature against what is planted."""

from dataclasses import replace

import numpy as np
import pytest

from pcam.metrics import score
from pcam.settings import ThresholdSettings
from pcam.sidecar import probabilities, probabilities_of
from pcam.thresholds import TEMPERATURE_BOUNDS, choose, fit_temperature, prior_weights, threshold_interval

RULE = ThresholdSettings(rule="f_beta", beta=2.0, sensitivity=0.95, missed_cost=10.0)
SENSITIVITY, COST = replace(RULE, rule="sensitivity"), replace(RULE, rule="cost")


def drawn(n: int = 200, seed: int = 3, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities with ties, as a model of middling skill gives them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    return labels, np.round(np.clip(0.4 * labels + rng.normal(0.3, 0.25, n), 0, 1), digits)


def every_threshold(probabilities: np.ndarray) -> np.ndarray:
    """One for each set of patches that a threshold can call, highest first; the first calls none."""
    return np.append(1.5, np.unique(probabilities)[::-1])


def called_alike(probabilities: np.ndarray, one: float, other: float) -> bool:
    return bool(np.array_equal(probabilities >= one, probabilities >= other))


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_no_other_threshold_has_a_higher_f_beta(beta: float) -> None:
    labels, predicted = drawn()
    threshold = choose(labels, predicted, replace(RULE, beta=beta))
    values = [score(labels, predicted, t, beta)["f_beta"] for t in every_threshold(predicted)]
    assert score(labels, predicted, threshold, beta)["f_beta"] == max(v for v in values if v is not None)
    assert threshold not in predicted


@pytest.mark.parametrize("target", [0.3, 0.8, 0.95, 1.0])
def test_no_higher_threshold_reaches_the_sensitivity(target: float) -> None:
    labels, predicted = drawn()
    threshold = choose(labels, predicted, replace(SENSITIVITY, sensitivity=target))
    reaching = [t for t in every_threshold(predicted) if predicted[labels == 1].__ge__(t).mean() >= target]
    assert called_alike(predicted, threshold, max(reaching))
    assert threshold not in predicted


def test_of_equal_thresholds_the_highest_counts_midway_to_the_next_probability() -> None:
    labels, predicted = np.array([1, 0, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.5, 0.1])
    assert choose(labels, predicted, replace(RULE, beta=1.0)) == pytest.approx(0.85)  # F1 2/3 here and at 0.3
    assert choose(labels, predicted, RULE) == pytest.approx(0.3)
    assert choose(labels[:4], predicted[:4], RULE) == pytest.approx(0.25)  # below the last there is 0


def test_a_sensitivity_that_is_reached_exactly_is_enough() -> None:
    labels, predicted = np.array([1] * 20 + [0] * 5), np.linspace(0.9, 0.1, 25)
    assert int((predicted >= choose(labels, predicted, SENSITIVITY)).sum()) == 19  # 19 of 20 are the 0.95


@pytest.mark.parametrize("missed_cost", [0.2, 1.0, 10.0, 200.0])
def test_no_other_threshold_costs_less(missed_cost: float) -> None:
    labels, predicted = drawn()
    threshold = choose(labels, predicted, replace(COST, missed_cost=missed_cost))

    def cost(at: float) -> float:
        return missed_cost * np.sum(labels[predicted < at]) + np.sum(1 - labels[predicted >= at])

    assert cost(threshold) == min(cost(t) for t in every_threshold(predicted))


def test_where_a_tumour_missed_costs_next_to_nothing_none_is_called() -> None:
    labels, predicted = np.array([0, 1, 0, 1]), np.array([1.0, 0.4, 0.3, 0.2])
    assert not np.any(predicted >= choose(labels, predicted, replace(COST, missed_cost=0.01)))


@pytest.mark.parametrize("rule", [RULE, SENSITIVITY, COST], ids=lambda rule: rule.rule)
def test_patches_that_count_twice_are_as_patches_that_stand_there_twice(rule: ThresholdSettings) -> None:
    labels, predicted = drawn(60)
    weights = np.random.default_rng(1).integers(0, 4, 60)
    told = choose(labels, predicted, rule, weights.astype(float))
    assert told == pytest.approx(choose(np.repeat(labels, weights), np.repeat(predicted, weights), rule), abs=1e-12)


@pytest.mark.parametrize("rule", [RULE, SENSITIVITY, COST], ids=lambda rule: rule.rule)
def test_the_order_of_the_patches_does_not_matter(rule: ThresholdSettings) -> None:
    labels, predicted = drawn()
    shuffled = np.random.default_rng(0).permutation(len(labels))
    assert choose(labels[shuffled], predicted[shuffled], rule) == choose(labels, predicted, rule)


def test_under_a_lower_prior_f_beta_wants_a_higher_threshold_and_a_sensitivity_the_same() -> None:
    labels, predicted = drawn()
    rare = prior_weights(labels, 0.05)
    assert rare @ labels / rare.sum() == pytest.approx(0.05)
    assert choose(labels, predicted, RULE, rare) > choose(labels, predicted, RULE)
    assert choose(labels, predicted, SENSITIVITY, rare) == choose(labels, predicted, SENSITIVITY)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_gives_neither_threshold_nor_temperature(label: int) -> None:
    labels, predicted = np.full(5, label), np.linspace(0, 1, 5)
    with pytest.raises(ValueError, match="both classes"):
        choose(labels, predicted, COST)
    with pytest.raises(ValueError, match="both classes"):
        choose(np.array([0, 1, 1, 1, 1]), predicted, COST, np.array([0.0, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match="both classes"):
        threshold_interval(labels, predicted, RULE, None, 0.95)
    with pytest.raises(ValueError, match="both classes"):
        fit_temperature(labels, predicted)


@pytest.mark.parametrize("rule", [RULE, SENSITIVITY, COST], ids=lambda rule: rule.rule)
def test_the_interval_holds_the_threshold_and_narrows_with_more_patches(rule: ThresholdSettings) -> None:
    widths = []
    for n in (100, 3000):
        labels, predicted = drawn(n, digits=6)
        told = threshold_interval(labels, predicted, rule, None, 0.95)
        shuffled = np.random.default_rng(0).permutation(n)
        assert told == threshold_interval(labels[shuffled], predicted[shuffled], rule, np.arange(n), 0.95)
        assert 0 <= told[0] < choose(labels, predicted, rule) < told[1] <= 1
        widths.append(told[1] - told[0])
    assert widths[1] < widths[0] / 1.5


def test_where_patches_of_a_slide_look_alike_the_interval_by_slide_is_wider() -> None:
    rng = np.random.default_rng(0)
    slides = np.repeat(np.arange(40), 25)
    labels = np.tile([0, 1], 500)
    predicted = probabilities_of(2.0 * labels + rng.normal(0, 2, 40)[slides] + rng.normal(0, 0.3, 1000))
    whole = threshold_interval(labels, predicted, SENSITIVITY, slides, 0.95)
    single = threshold_interval(labels, predicted, SENSITIVITY, None, 0.95)
    assert whole[1] - whole[0] > 1.5 * (single[1] - single[0])


@pytest.mark.parametrize(("rule", "truth"), [(RULE, 0.1745), (SENSITIVITY, 0.2102), (COST, 1 / 11)])
def test_the_interval_holds_the_true_threshold_at_least_as_often_as_it_says(
    rule: ThresholdSettings, truth: float
) -> None:
    """Honest logits of a binormal model. Truths: cost by theory, the others by 400,000 patches, to 0.005."""
    rng, held = np.random.default_rng(5), 0
    for _ in range(150):
        labels = (rng.random(200) < 0.5).astype(int)
        predicted = probabilities_of(rng.normal(2 * (labels - 0.5), np.sqrt(2)))
        low, high = threshold_interval(labels, predicted, rule, None, 0.95)
        held += low <= truth <= high
    assert held >= 0.93 * 150


# --- temperature ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("planted", [0.3, 1.0, 4.0])
def test_a_planted_temperature_is_found(planted: float) -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 40_000)
    labels = (rng.random(40_000) < probabilities_of(honest)).astype(int)
    assert fit_temperature(labels, honest * planted) == pytest.approx(planted, rel=0.05)


def test_no_other_temperature_has_less_log_loss() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    logits = (6 * (labels - 0.5) + rng.normal(0, 5, 300)).astype(np.float32)

    def loss(temperature: float) -> float:
        return float(np.mean(np.logaddexp(0, np.where(labels == 1, -logits, logits) / temperature)))

    best = fit_temperature(labels, logits)
    assert all(loss(best) <= loss(float(t)) for t in np.geomspace(*TEMPERATURE_BOUNDS, 400))
    assert best == fit_temperature(labels, logits)


def test_where_the_data_determine_no_temperature_there_is_none() -> None:
    labels = np.tile([0, 1], 10)
    perfect = np.where(labels == 1, 3.0, -3.0)
    assert fit_temperature(labels, perfect) is None
    assert fit_temperature(labels, -perfect) is None
    assert fit_temperature(labels, np.zeros(20)) is None
    one_mistake = np.where(np.arange(20) == 0, 3.0, perfect)
    assert fit_temperature(labels, one_mistake) == pytest.approx(3 / np.log(19))  # then 19 of 20 are right


@pytest.mark.parametrize("temperature", [*TEMPERATURE_BOUNDS, 0.7, 3.0])
def test_tempered_probabilities_keep_ranks_and_decisions(temperature: float) -> None:
    labels, predicted = drawn(digits=6)
    logits = (6 * predicted - 3).astype(np.float32)
    raw, tempered = probabilities_of(logits), probabilities(logits, {"temperature": temperature})
    assert np.array_equal(np.argsort(raw, kind="stable"), np.argsort(tempered, kind="stable"))
    for rule in (RULE, SENSITIVITY, COST):
        one, other = choose(labels, raw, rule), choose(labels, tempered, rule)
        assert np.array_equal(raw >= one, tempered >= other), rule.rule


def test_a_sidecar_without_a_temperature_leaves_the_probabilities_as_they_are() -> None:
    logits = np.array([-1000.0, -1.5, 0.0, 1000.0], np.float32)
    for sidecar in ({}, {"temperature": None}, {"temperature": 1.0}):
        assert np.array_equal(probabilities(logits, sidecar), probabilities_of(logits))
    assert probabilities(logits, {"temperature": 0.5})[1] == pytest.approx(1 / (1 + np.exp(3.0)))
