"""Intervals go by slide where there are enough, say so where not, and hold the truth as often as they claim."""

import json
from dataclasses import replace

import numpy as np
import pytest
from measure_coverage import measure_coverage
from scipy import stats

from pcam import coverage, intervals
from pcam import interval_methods as methods
from pcam.coverage import CASES, SEPARATION, describe_coverage, measure_case, true_metrics
from pcam.files import InputError, write_csv
from pcam.intervals import KINDS, Estimate, Groups, estimate_metrics, estimate_proportion, read_groups
from pcam.metrics import expected_calibration_error, roc_auc_interval, score, wilson_interval
from pcam.settings import EvaluationSettings

RULES = EvaluationSettings(level=0.95, resamples=400, least_groups=30, ece_bins=10, seed=0, coverage_draws=2000)
BETA = 2.0


def predicted(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and the probabilities of a model of middling skill."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(int)
    return labels, 1 / (1 + np.exp(-rng.normal(2.0 * labels - 1.0)))


def estimates(
    labels: np.ndarray, probabilities: np.ndarray, groups: Groups | None = None, threshold: float = 0.5
) -> dict[str, Estimate]:
    return estimate_metrics(labels, probabilities, threshold, beta=BETA, groups=groups, rules=RULES)


def test_every_metric_has_its_value_and_an_interval_around_it():
    labels, probabilities = predicted()
    found = estimates(labels, probabilities)
    values = score(labels, probabilities, 0.5, BETA)
    assert set(found) == set(KINDS) == {*values, "ece"}
    for name, estimate in found.items():
        if name != "ece":
            assert estimate.value == values[name]
            assert estimate.low < estimate.value < estimate.high
            assert estimate.note == "patches taken as independent"
    assert [found[name].n for name in ("accuracy", "sensitivity", "specificity")] == [
        300, labels.sum(), 300 - labels.sum()
    ]  # fmt: skip


def test_proportions_by_patch_are_wilson_and_the_same_draws_come_twice():
    labels, probabilities = predicted()
    found = estimates(labels, probabilities)
    hits = int(np.sum((probabilities >= 0.5) & (labels == 1)))
    assert (found["sensitivity"].low, found["sensitivity"].high) == wilson_interval(hits, int(labels.sum()))
    assert estimates(labels, probabilities) == found


def test_copies_of_a_patch_add_nothing_when_they_are_one_slide():
    labels, probabilities = predicted(120)
    copied, ids = (np.repeat(array, 8) for array in (labels, np.arange(120)))
    single = estimates(labels, probabilities, Groups(np.arange(120), "slide"))
    grouped = estimates(copied, np.repeat(probabilities, 8), Groups(ids, "slide"))
    alone = estimates(copied, np.repeat(probabilities, 8))
    for name, estimate in grouped.items():
        if name == "ece":
            assert estimate.null_high == pytest.approx(single[name].null_high)
            assert estimate.null_high > 1.5 * alone[name].null_high
            continue
        assert estimate.value == pytest.approx(single[name].value)
        width, expected = estimate.high - estimate.low, single[name].high - single[name].low
        # Wilson's centre and DeLong's divisors know the number of patches as well.
        assert width == pytest.approx(expected, rel=0.05)
        assert width > 2 * (alone[name].high - alone[name].low)
        assert estimate.kind.endswith(", by slide")


def test_too_few_slides_are_said_and_patches_then_count_as_independent():
    labels, probabilities = predicted()
    labels[:29], labels[29:58], probabilities[:29] = 1, 0, 0.7  # each slide holds what any metric needs
    few = estimates(labels, probabilities, Groups(np.arange(300) % 29, "slide"))
    alone = estimates(labels, probabilities)
    for name, estimate in few.items():
        assert (estimate.low, estimate.high, estimate.kind) == (alone[name].low, alone[name].high, alone[name].kind)
        assert estimate.note.endswith("too few slides (29)") and estimate.groups is None
    enough = estimates(labels, probabilities, Groups(np.arange(300) % 30, "leak group"))
    assert enough["accuracy"].kind == "Wilson, by leak group"
    assert (enough["accuracy"].groups, enough["accuracy"].note) == (30, None)


def test_slides_without_tumour_do_not_count_for_sensitivity():
    labels, probabilities = np.zeros(300, int), predicted()[1]
    labels[:60] = 1  # all on the first 20 of 100 slides
    found = estimates(labels, probabilities, Groups(np.arange(300) // 3, "slide"))
    assert found["sensitivity"].note == "too few slides (20 of 100)"
    assert found["roc_auc"].note == "too few slides (20 of 100)"
    assert (found["accuracy"].groups, found["specificity"].groups) == (100, 80)


@pytest.mark.parametrize(("label", "missing"), [(0, "no tumour"), (1, "no patch without tumour")])
def test_one_class_leaves_undefined_what_needs_both(label, missing):
    found = estimates(np.full(40, label), predicted(40)[1])
    assert found["roc_auc"].as_document() == {
        "value": None, "low": None, "high": None, "kind": KINDS["roc_auc"], "n": 40, "groups": None,
        "note": "one class only",
    }  # fmt: skip
    absent = found["specificity" if label else "sensitivity"]
    assert (absent.value, absent.n, absent.note) == (None, 0, missing)
    assert found["pr_auc"].value is found["balanced_accuracy"].value is None
    assert found["accuracy"].low < found["accuracy"].value


def test_no_call_has_no_precision_and_no_tumour_found_no_interval_of_f_beta():
    found = estimates(*predicted(), threshold=1.5)
    assert (found["precision"].value, found["precision"].note) == (None, "no patch was called tumour")
    f_beta = found["f_beta"]
    assert (f_beta.value, f_beta.low, f_beta.note) == (0.0, None, "every draw gives the same")


def test_a_perfect_ranking_has_an_exact_lower_bound():
    labels = np.repeat([1, 0], [20, 100])
    found = estimates(labels, np.where(labels == 1, 0.9, 0.1))
    # With a chance a of the right order, 20 pairs of different patches are all right with chance a^20.
    assert found["roc_auc"].low ** 20 == pytest.approx(0.05)
    assert (found["roc_auc"].high, found["roc_auc"].kind) == (1.0, "exact one-sided bound")
    assert (found["pr_auc"].value, found["pr_auc"].low) == (1.0, None)
    slides = estimates(labels, np.where(labels == 1, 0.9, 0.1), Groups(np.arange(120) % 30, "slide"))
    assert slides["roc_auc"].note.endswith("too few slides (20 of 30)")


def test_a_ranking_without_spread_and_a_loss_of_one_patch_have_no_interval():
    labels = predicted()[0]
    assert estimates(labels, np.full(300, 0.3))["roc_auc"].note == "the ranking has no spread"
    probabilities = np.where(labels == 1, 0.9999, 0.0001)
    probabilities[np.flatnonzero(labels == 0)[0]] = 0.9
    log_loss = estimates(labels, probabilities)["log_loss"]
    assert log_loss.low is None and "a few carry the mean" in log_loss.note


def test_ece_of_calibrated_probabilities_stays_in_its_band_and_of_others_leaves_it():
    rng = np.random.default_rng(7)
    probabilities = rng.random(1000)
    sound = estimates((rng.random(1000) < probabilities).astype(int), probabilities)["ece"]
    assert 0 < sound.value < sound.null_high and sound.low is sound.high is None
    shy = estimates((rng.random(1000) < np.round(probabilities)).astype(int), probabilities)["ece"]
    assert shy.value > 2 * shy.null_high


@pytest.mark.parametrize("patches", [200, 20_000])
def test_draws_in_blocks_are_bounded_and_all_there(patches, monkeypatch):
    monkeypatch.setattr(methods, "_CELLS", 50_000)
    labels, probabilities = predicted(patches)
    found = estimates(labels, probabilities)
    low, high = roc_auc_interval(labels, probabilities)
    assert found["roc_auc"].high - found["roc_auc"].low == pytest.approx(high - low, rel=0.05)
    error = float(np.std((probabilities - labels) ** 2)) / patches**0.5
    assert found["brier"].high - found["brier"].low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_groups_join_slides_with_leak_groups(tmp_path):
    table = tmp_path / "valid.csv"
    rows = [(0, 0, "a", ""), (1, 1, "a", "g"), (2, 0, "b", "g"), (3, 1, "c", ""), (4, 1, "", "")]
    write_csv(table, ("row", "label", "slide", "group"), rows)
    groups = read_groups(table)
    assert (groups.count, groups.noun) == (3, "slide")
    assert len(set(groups.ids[:3])) == 1
    write_csv(table, ("row", "label", "slide", "group"), [(row, label, "", group) for row, label, _, group in rows])
    assert (read_groups(table).count, read_groups(table).noun) == (4, "leak group")
    write_csv(table, ("row", "label"), [(0, 1)])
    with pytest.raises(InputError, match="'slide' is missing"):
        read_groups(table)


def test_no_patch_has_no_share():
    nothing = np.zeros(5, bool)
    told = estimate_proportion(nothing, nothing, None, RULES)
    assert (told.value, told.n, told.note) == (None, 0, "no patch")


# --- coverage --------------------------------------------------------------------------------------------------------


def test_the_truth_of_the_simulation_is_what_a_large_sample_has():
    rng = np.random.default_rng(8)
    labels = (rng.random(400_000) < 0.15).astype(int)
    scores = rng.normal(SEPARATION * labels)
    odds = 0.15 / 0.85 * stats.norm.pdf(scores, SEPARATION) / stats.norm.pdf(scores)
    found = score(labels, odds / (1 + odds), 0.15, BETA)
    assert found == {name: pytest.approx(value, abs=0.004) for name, value in true_metrics(0.15, BETA).items()}
    assert expected_calibration_error(labels, odds / (1 + odds), 10) < 0.003


def halved(interval):
    """An interval half as wide about its middle."""
    low, high = interval
    return low + (high - low) / 4, high - (high - low) / 4


def test_the_measure_shows_an_interval_that_is_too_narrow(monkeypatch):
    rules = replace(RULES, coverage_draws=150, resamples=100)
    sound = {row["metric"]: row for row in measure_case(CASES[0], BETA, rules)}
    monkeypatch.setattr(coverage, "proportion", lambda *given: halved(intervals.proportion(*given)))
    monkeypatch.setattr(coverage, "area", lambda *given: halved(intervals.area(*given)))
    for name in ("bootstrap_ratios", "bootstrap_losses"):
        broken = getattr(methods, name)
        monkeypatch.setattr(methods, name, lambda *given, broken=broken: np.array([halved(i) for i in broken(*given)]))
    monkeypatch.setattr(coverage, "balanced", lambda *given: halved(intervals.balanced(*given)))
    for row in measure_case(CASES[0], BETA, rules):
        assert sound[row["metric"]]["covered"] > 0.88
        if row["metric"] != "ece":
            assert row["covered"] < 0.8 and row["high"] < coverage.TARGET[0] and row["within"] is False
            assert row["mean_width"] == pytest.approx(sound[row["metric"]]["mean_width"] / 2)


def test_undefined_intervals_are_counted_apart_and_never_as_holding():
    told = describe_coverage([None, (np.nan, np.nan), (0.4, 0.6), (0.7, 0.8)], 0.5)
    assert (told["covered"], told["draws"], told["undefined"]) == (0.5, 2, 2)
    nothing = describe_coverage([None], 0.5)
    assert nothing["covered"] is nothing["within"] is nothing["mean_width"] is None


@pytest.mark.slow
def test_every_interval_holds_the_truth_in_93_to_97_of_100_draws(tmp_path):
    out = tmp_path / "coverage.json"
    measure_coverage(str(out), beta=BETA, rules=replace(RULES, resamples=1000), provenance={})
    document = json.loads(out.read_text())
    assert document["draws"] == 2000
    shares = {(row["case"], row["metric"]): row["covered"] for row in document["cases"]}
    assert len(shares) == len(CASES) * len(KINDS) + 1
    assert {key: share for key, share in shares.items() if not 0.93 <= share <= 0.97} == {}
    assert all(row["undefined"] == 0 and row["draws"] == 2000 for row in document["cases"])
