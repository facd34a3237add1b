"""A gap is slice minus rest with an error that holds for small slices, and chance alone is hardly ever claimed."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pcam.attributes import ATTRIBUTES
from pcam.gaps import Gap, gap_to_rest, holm
from pcam.intervals import Groups
from pcam.metrics import roc_auc
from pcam.settings import EvaluationSettings, SliceSettings
from pcam.slices import METRICS, Answers, by_edges, claims, lacking, quantile_edges, score_slices, slicings_of

RULES = EvaluationSettings(level=0.95, resamples=10, least_groups=30, ece_bins=10, seed=0, coverage_draws=1)
LEVEL, MINIMUM = 0.05, 30


def answers(
    rng: np.random.Generator, n: int, separation: float = 2.0, slides: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Groups | None]:
    """Labels, probabilities and attributes (n,A) that have nothing to do with each other, by slide if any."""
    labels = (rng.random(n) < 0.4).astype(int)
    scores = rng.normal(separation * labels)
    attributes = rng.normal(size=(n, len(ATTRIBUTES))) + rng.normal(size=(n, 3)) @ rng.normal(size=(3, len(ATTRIBUTES)))
    groups = None
    if slides:
        ids = rng.integers(0, slides, n)
        scores = 0.8 * scores + 0.6 * rng.normal(size=slides)[ids]
        attributes += 1.5 * rng.normal(size=(slides, len(ATTRIBUTES)))[ids]
        groups = Groups(ids, "slide")
    return labels, 1 / (1 + np.exp(separation / 2 - scores)), attributes.astype(np.float32), groups


def gap(metric: str, labels: np.ndarray, probabilities: np.ndarray, members: np.ndarray, groups: Groups | None = None,
        rules: EvaluationSettings = RULES) -> Gap:  # fmt: skip
    return gap_to_rest(metric, labels, probabilities, members, threshold=0.5, groups=groups, rules=rules)


def claims_by_chance(runs: int, n: int, separation: float, slides: int) -> int:
    """Data sets of so many in which any gap of a quantile slice is claimed though attributes tell nothing."""
    found = 0
    for run in range(runs):
        rng = np.random.default_rng([run, n, slides])
        labels, probabilities, attributes, groups = answers(rng, n, separation, slides)
        p = [
            gap(metric, labels, probabilities, np.isin(np.arange(n), members), groups).p
            for column in attributes.T
            for members in by_edges(column, quantile_edges(column, 4)).values()
            for metric in METRICS
            if lacking(metric, labels[members], MINIMUM) is None
        ]
        assert len(p) > 80
        found += bool(np.min(holm(np.array(p))) < LEVEL)
    return found


def most_by_chance(runs: int) -> int:
    """Claims that a family-wise error of just the level exceeds once in a thousand times."""
    return int(stats.binom.ppf(0.999, runs, LEVEL))


def test_chance_alone_is_claimed_at_most_at_the_level():
    assert claims_by_chance(50, 300, 2.0, 0) <= most_by_chance(50)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "separation", "slides"), [(300, 1.0, 0), (300, 4.0, 0), (600, 2.0, 60)])
def test_chance_alone_is_claimed_at_most_at_the_level_for_weak_and_strong_models_by_patch_and_by_slide(
    n, separation, slides
):
    assert claims_by_chance(100, n, separation, slides) <= most_by_chance(100)


def test_slides_taken_for_patches_are_claimed_far_too_often_and_the_simulation_sees_it():
    p = []
    for run in range(60):
        labels, probabilities, _, groups = answers(np.random.default_rng([run, 5]), 1500, 2.0, 80)
        p.append([gap("specificity", labels, probabilities, groups.ids < 40, g).p for g in (None, groups)])
    naive, by_slide = np.mean(np.array(p) < LEVEL, axis=0)
    assert naive > 0.25
    assert by_slide * 60 <= stats.binom.ppf(0.999, 60, LEVEL)


@pytest.mark.parametrize("slides", [0, 100])
def test_a_weak_slice_is_claimed_and_comes_first(slides):
    rng = np.random.default_rng(3)
    labels, probabilities, attributes, groups = answers(rng, 1200, 3.0, slides)
    weak = attributes[:, 4] > np.quantile(attributes[:, 4], 0.75)
    flipped = weak & (rng.random(1200) < 0.35)
    probabilities[flipped] = 1 - probabilities[flipped]
    edges = {name: quantile_edges(attributes[:, i], 4) for i, name in enumerate(ATTRIBUTES)}
    slicings = slicings_of(attributes, edges, {}, [""] * 1200)
    rows = score_slices(slicings, Answers(labels, probabilities, 0.5, groups), SliceSettings(4, {}, 30, LEVEL), RULES)
    worst = claims(rows, LEVEL)[0]
    assert (worst["slice"], worst["value"].split()[0]) == (ATTRIBUTES[4], "above")
    assert {claim["metric"] for claim in claims(rows, LEVEL) if claim["slice"] == ATTRIBUTES[4]} == set(METRICS)


def test_a_gap_is_slice_minus_rest_and_turns_round_with_the_slice():
    labels, probabilities, attributes, _ = answers(np.random.default_rng(0), 400)
    members = attributes[:, 0] > 0
    for metric in METRICS:
        there, back = (gap(metric, labels, probabilities, part) for part in (members, ~members))
        assert there.value == pytest.approx(-back.value)
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
        assert there.p == pytest.approx(back.p)
        assert there.low < there.value < there.high
    area = roc_auc(labels[members], probabilities[members]) - roc_auc(labels[~members], probabilities[~members])
    assert gap("roc_auc", labels, probabilities, members).value == pytest.approx(area)
    right = (probabilities >= 0.5) & (labels == 1)
    share = right[members].sum() / labels[members].sum() - right[~members].sum() / labels[~members].sum()
    assert gap("sensitivity", labels, probabilities, members).value == pytest.approx(share)


def test_shares_by_patch_are_compared_exactly():
    labels = np.array([1] * 40)
    members = np.arange(40) < 10
    for found_in, found_out in ((7, 29), (10, 22), (0, 0), (5, 15), (10, 30)):
        probabilities = np.where(
            np.where(members, np.arange(40), np.arange(40) - 10 - found_out + found_in) < found_in, 0.9, 0.1
        )
        found = gap("sensitivity", labels, probabilities, members)
        table = [[found_in, 10 - found_in], [found_out, 30 - found_out]]
        assert found.value == pytest.approx(found_in / 10 - found_out / 30)
        assert found.p == pytest.approx(stats.fisher_exact(table).pvalue)
        assert found.note == "patches taken as independent"


@pytest.mark.parametrize("metric", METRICS)
def test_interval_and_p_value_agree_for_areas_and_by_slide(metric):
    """0 lies outside the interval exactly when p is below one minus its level."""
    labels, probabilities, attributes, groups = answers(np.random.default_rng(1), 900, 2.0, 60)
    for column in attributes.T:
        found = gap(metric, labels, probabilities, column > np.median(column), groups)
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)
        level = 1 - found.p
        at_p = gap(metric, labels, probabilities, column > np.median(column), groups, replace(RULES, level=level))
        assert min(abs(at_p.low), abs(at_p.high)) == pytest.approx(0, abs=1e-9)


def test_a_small_slice_without_a_mistake_is_not_taken_for_certain():
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 200)
    probabilities = 1 / (1 + np.exp(-rng.normal(2.2 * labels - 1.1)))
    members = np.arange(400) < 24
    probabilities[:24] = labels[:24]  # a ranking without a flaw, which has no error of its own
    found = gap("roc_auc", labels, probabilities, members)
    assert found.value > 0
    assert found.low < 0 < found.high
    assert found.p > 0.05


def test_two_perfect_parts_have_no_gap_and_no_interval():
    labels = np.tile([0, 1], 50)
    found = gap("roc_auc", labels, labels.astype(float), np.arange(100) < 40)
    assert found == Gap(0.0, None, None, 1.0, "neither part has any spread")


def test_copies_of_patches_that_are_one_slide_add_nothing():
    labels, probabilities, attributes, _ = answers(np.random.default_rng(2), 300)
    members, ids = attributes[:, 0] > 0, np.arange(300)
    once = gap("roc_auc", labels, probabilities, members, Groups(ids, "slide"))
    copied = [np.repeat(array, 5) for array in (labels, probabilities, members)]
    by_slide = gap("roc_auc", *copied, Groups(np.repeat(ids, 5), "slide"))
    by_patch = gap("roc_auc", *copied)
    assert by_slide.value == pytest.approx(once.value)
    assert by_slide.high - by_slide.low == pytest.approx(once.high - once.low, rel=0.15)
    assert by_patch.high - by_patch.low < 0.6 * (by_slide.high - by_slide.low)


def test_too_few_slides_are_said():
    labels, probabilities, _, groups = answers(np.random.default_rng(2), 300, 2.0, 12)
    members = np.arange(300) < 150
    assert gap("roc_auc", labels, probabilities, members, groups).note == "too few slides (12)"


def test_holm_steps_down_and_leaves_the_undefined_out():
    p = np.array([0.01, np.nan, 0.04, 0.03, 0.5])
    assert holm(p) == pytest.approx([0.04, np.nan, 0.09, 0.09, 0.5], nan_ok=True)
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
    assert np.isnan(holm(np.array([np.nan]))).all()
    assert len(holm(np.array([]))) == 0
