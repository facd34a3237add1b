"""What one figure hides is found where it is planted, by arithmetic that brute force agrees with."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from measure_silent_failure import measure_silent_failure
from plot_silent_failure import plot_silent_failure

from pcam.attributes import ATTRIBUTES
from pcam.confidence import (
    calibration_by_slice,
    confidence,
    kept,
    limits_of,
    margins,
    risk_coverage,
    selective,
)
from pcam.files import InputError, read_json, write_csv, write_json
from pcam.intervals import Groups
from pcam.metrics import roc_auc, score
from pcam.settings import EvaluationSettings, SliceSettings
from pcam.silent import MIX_FACTOR, MIX_METRICS, UNSEEN, crossed, fail_unseen, mix_shift, worst_mix
from pcam.slices import Answers, Members

RULES = EvaluationSettings(level=0.95, resamples=50, least_groups=30, ece_bins=5, seed=0, coverage_draws=20)
BETA, MINIMUM, LEVEL = 2.0, 30, 0.05


def slices_of(n: int, count: int) -> Members:
    return {f"s{i}": np.arange(i, n, count) for i in range(count)}


def calibrated(n: int, seed: int, sharp: float = 1.0, shift: float = 0.0) -> Answers:
    """Answers whose probabilities are right."""
    rng = np.random.default_rng(seed)
    probabilities = 1 / (1 + np.exp(-rng.normal(shift, 2.0 * sharp, n)))
    return Answers((rng.random(n) < probabilities).astype(int), probabilities, 0.5, None)


# --- Another mix


def test_the_worst_mix_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        above, below, shares = rng.random(4), rng.random(4) + 0.1, rng.dirichlet(np.full(4, 5.0))
        free = rng.random(4) < 0.8
        low, high = (np.where(free, shares * factor, shares) for factor in (1 / MIX_FACTOR, MIX_FACTOR))
        mix = worst_mix(above, below, shares, free, MIX_FACTOR)
        assert mix.sum() == pytest.approx(1) and np.all(mix >= low - 1e-12) and np.all(mix <= high + 1e-12)
        # A ratio of linear functions is least at a corner: all shares but one at a bound.
        least = float(shares @ above / (shares @ below))
        for left in range(4):
            for ends in product((0, 1), repeat=3):
                corner = np.insert(np.choose(ends, [np.delete(low, left), np.delete(high, left)]), left, 0.0)
                corner[left] = 1 - corner.sum()
                if low[left] - 1e-12 <= corner[left] <= high[left] + 1e-12:
                    least = min(least, float(corner @ above / (corner @ below)))
        assert float(mix @ above / (mix @ below)) == pytest.approx(least)


def weak_slice(n: int, seed: int, weak: np.ndarray) -> Answers:
    """Answers mostly right, but no better than chance on patches `weak`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) // 4 % 2
    right = rng.random(n) < np.where(np.isin(np.arange(n), weak), 0.5, 0.95)
    return Answers(labels, np.where(labels == right, 0.8, 0.2), 0.5, None)


def test_another_mix_moves_every_metric_while_each_slice_stays_exactly() -> None:
    n, members = 400, slices_of(400, 4)
    told = {split: weak_slice(n, seed, members["s2"]) for seed, split in enumerate(("valid", "test"))}
    slicings = {split: {"weak": members, "part": {"a": np.arange(9)}} for split in told}
    found = mix_shift(told, slicings, RULES, beta=BETA, minimum_n=MINIMUM)
    test = told["test"]
    whole = score(test.labels, test.probabilities, 0.5, BETA)
    for metric in MIX_METRICS:
        mix = found[metric]
        assert mix["slicing"] == "weak" and mix["change"] == pytest.approx(mix["mixed"] - mix["now"])
        assert mix["now"] == pytest.approx(whole[metric]) and mix["high"] < 0
        weights = np.ones(n)
        for row in mix["slices"]:
            places = members[row["value"]]
            weights[places] = row["mixed_share"] / row["share"]
            alone = score(test.labels[places], test.probabilities[places], 0.5, BETA)
            assert row["score"] == pytest.approx(alone[metric])
            assert len(set(weights[places])) == 1  # so a slice's own metric cannot move
        assert max(row["mixed_share"] for row in mix["slices"]) == mix["slices"][2]["mixed_share"]
        assert sum(row["mixed_share"] for row in mix["slices"]) == pytest.approx(1)
        assert mix["mixed"] == pytest.approx(weighted(test, weights)[metric])


def weighted(told: Answers, weights: np.ndarray) -> dict[str, float]:
    """The metrics by their definitions, patch by patch weighted."""
    found, right = (weights[mask].sum() for mask in (told.tumour & told.called, ~told.wrong))
    tumours, called = weights[told.tumour].sum(), weights[told.called].sum()
    return {
        "accuracy": right / weights.sum(),
        "sensitivity": found / tumours,
        "f_beta": (1 + BETA**2) * found / (BETA**2 * tumours + called),
    }


def test_small_slices_keep_their_share_and_where_nothing_can_be_mixed_the_reason_stands() -> None:
    n = 300
    members = {"large": np.arange(0, 140), "other": np.arange(140, 280), "small": np.arange(280, 300)}
    told = {split: weak_slice(n, seed, members["small"]) for seed, split in enumerate(("valid", "test"))}
    slicings = {split: {"x": members} for split in told}
    mix = mix_shift(told, slicings, RULES, beta=BETA, minimum_n=MINIMUM)["accuracy"]
    times = {row["value"]: row["mixed_share"] / row["share"] for row in mix["slices"]}
    assert times["small"] == pytest.approx(1) and times["large"] != pytest.approx(1)
    alone = {split: {"x": {"all": np.arange(n)}} for split in told}
    nothing = mix_shift(told, alone, RULES, beta=BETA, minimum_n=MINIMUM)
    assert nothing["accuracy"]["slicing"] is None and "two slices of 30 patches" in nothing["accuracy"]["reason"]
    healthy = {split: replace(one, labels=np.zeros(n, int)) for split, one in told.items()}
    assert mix_shift(healthy, slicings, RULES, beta=BETA, minimum_n=MINIMUM)["sensitivity"]["reason"] == "no tumour"


def test_hospitals_cut_the_slices_of_attributes_only_where_two_are_known() -> None:
    by_value = {"low": np.arange(0, 6), "high": np.arange(6, 10)}
    one = {"eosin": by_value, "hospital": {"RUMC": np.arange(10)}}
    assert crossed(one) == {}
    two = {"eosin": by_value, "hospital": {"RUMC": np.arange(0, 10, 2), "UMCU": np.arange(1, 10, 2)}}
    (members,) = crossed(two).values()
    assert members["low, UMCU"].tolist() == [1, 3, 5] and sum(map(len, members.values())) == 10


# --- A slice that fails


def test_as_many_tumours_fail_as_the_area_allows_and_one_more_shows() -> None:
    told = calibrated(500, 1)
    members = {"third": np.arange(0, 500, 3), "few": np.arange(29), "one class": np.flatnonzero(told.labels == 1)}
    (found,) = fail_unseen({"all": {"all": np.arange(500)}, "x": members}, told, MINIMUM)
    places = members["third"]
    tumours = places[told.tumour[places]]
    tumours = tumours[np.argsort(-told.probabilities[tumours], kind="stable")]
    healthy = np.median(told.probabilities[places[~told.tumour[places]]])
    before = roc_auc(told.labels, told.probabilities)
    assert before is not None
    for failing in range(1, len(tumours) + 1):
        after = told.probabilities.copy()
        after[tumours[:failing]] = healthy
        area = roc_auc(told.labels, after)
        assert area is not None
        if before - area >= UNSEEN:
            break
        assert np.mean(after[tumours] >= 0.5) <= found.sensitivity
    assert (found.failing, found.tumours) == (failing - 1, len(tumours)) and 0 < found.failing < len(tumours)
    assert found.share == pytest.approx(found.failing / len(tumours))
    assert found.sensitivity_failing < found.sensitivity and found.roc_auc_failing < found.roc_auc


def test_a_slice_with_few_of_the_tumours_can_fail_altogether() -> None:
    told = calibrated(20_000, 2)
    rare = np.flatnonzero(told.labels == 1)[:60], np.flatnonzero(told.labels == 0)[:60]
    (found,) = fail_unseen({"x": {"rare": np.concatenate(rare)}}, told, MINIMUM)
    # Those that were missed before cannot be lost.
    assert found.tumours == 60 and 0 < found.failing == np.sum(told.probabilities[rare[0]] >= told.threshold)
    assert found.sensitivity_failing == 0.0 and found.roc_auc_failing < found.roc_auc


def test_a_slice_whose_healthy_patches_are_called_tumour_loses_tumours_all_the_same() -> None:
    labels = np.arange(400) % 2
    told = Answers(labels, np.where(labels == 1, 0.95, 0.8), 0.5, None)
    (found,) = fail_unseen({"x": {"third": np.arange(0, 400, 3)}}, told, MINIMUM)
    assert found.failing > 0 and found.sensitivity_failing < found.sensitivity == 1.0
    told.probabilities[labels == 1] = 0.3  # all of them missed already
    assert fail_unseen({"x": {"third": np.arange(0, 400, 3)}}, told, MINIMUM) == []


# --- Confidence


def test_the_confidence_of_wrong_answers_is_that_of_the_class_called() -> None:
    probabilities = np.array([0.95, 0.97, 0.35, 0.02, 0.6, 0.05])
    told = Answers(np.array([1, 0, 0, 1, 1, 0]), probabilities, 0.25, None)
    found = confidence(told, RULES)
    assert found["wrong"]["n"] == 3 and found["right"]["n"] == 3
    assert found["wrong"]["median"] == pytest.approx(0.97)  # of 0.97 called, 0.35 called, 0.02 not called: 0.98
    assert found["wrong"]["sure"]["value"] == pytest.approx(2 / 3)
    assert found["wrong"]["counts"] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 2]
    assert found["wrong_among_sure"]["value"] == pytest.approx(2 / 4)
    nothing = confidence(replace(told, labels=(probabilities >= 0.25).astype(int)), RULES)["wrong"]
    assert nothing["median"] is None and nothing["sure"]["value"] is None and nothing["sure"]["note"]


# --- Calibration by slice


def test_a_planted_miscalibrated_slice_is_claimed_and_no_other() -> None:
    told, members = calibrated(1200, 4), slices_of(1200, 6)
    places = members["s3"]
    logits = np.log(told.probabilities / (1 - told.probabilities))
    told.probabilities[places] = 1 / (1 + np.exp(-(logits[places] + 1.5)))
    rows = calibration_by_slice({"x": members, "y": {"few": np.arange(29)}}, told, RULES, MINIMUM, LEVEL)
    assert [row["value"] for row in rows if row["claimed"]] == ["s3"] and len(rows) == 6
    row = rows[3]
    assert row["gap"] == pytest.approx(np.mean(told.probabilities[places] - told.labels[places]))
    assert 0 < row["low"] < row["gap"] < row["high"] and row["ece"] > row["ece_null_high"]
    assert calibration_by_slice({"x": {"short": np.arange(40)}}, told, RULES, MINIMUM, LEVEL)[0]["ece"] is None


@pytest.mark.parametrize(
    ("n", "sharp", "shift", "slides"),
    [(400, 1.0, 0.0, 0), (400, 1.0, -8.0, 0), (2000, 4.0, 0.0, 0), (1200, 1.0, 0.0, 40)],
)
def test_calibrated_probabilities_are_hardly_ever_accused(n: int, sharp: float, shift: float, slides: int) -> None:
    """Also where tumour is rare, where nearly all is certain, and where patches of a slide come out alike."""
    draws, accused = 200, 0
    for seed in range(draws):
        told = calibrated(n, seed, sharp, shift)
        if slides:
            rng = np.random.default_rng(seed)
            ids = rng.integers(0, slides, n)
            alike = rng.random(slides)[ids]  # one draw decides all patches of a slide
            told = Answers((alike < told.probabilities).astype(int), told.probabilities, 0.5, Groups(ids, "slide"))
        rows = calibration_by_slice({"x": slices_of(n, 4)}, told, RULES, MINIMUM, LEVEL)
        accused += any(row["claimed"] for row in rows)
    assert accused / draws <= LEVEL + 2.33 * np.sqrt(LEVEL * (1 - LEVEL) / draws)


def test_certain_and_wrong_probabilities_are_accused() -> None:
    told = Answers(np.zeros(50, int), np.ones(50), 0.5, None)
    (row,) = calibration_by_slice({"x": {"a": np.arange(50)}}, told, RULES, MINIMUM, LEVEL)
    assert row["claimed"] and row["gap"] == 1.0


# --- Selective prediction


def test_risk_and_coverage_are_those_of_brute_force_also_with_ties() -> None:
    wrong, clear = np.array([1, 0, 1, 0, 0], bool), np.array([2.0, 2.0, 0.5, 3.0, 2.0])
    orders = [order for order in permutations(range(5)) if np.all(np.diff(clear[list(order)]) <= 0)]
    each = np.array([np.cumsum(wrong[list(order)]) / np.arange(1, 6) for order in orders])
    assert risk_coverage(wrong, clear) == pytest.approx(each.mean(axis=0))


def test_no_order_beats_the_best_one_and_a_random_one_has_the_error_of_all() -> None:
    told = calibrated(300, 6)
    document = selective({"valid": calibrated(300, 7), "test": told}, RULES)
    areas = document["areas"]
    assert areas["best"] < areas["model"] < areas["random"] == pytest.approx(told.wrong.mean())
    drawn = [risk_coverage(told.wrong, np.random.default_rng(seed).random(300)).mean() for seed in range(200)]
    assert np.mean(drawn) == pytest.approx(areas["random"], abs=0.01)
    errors = int(told.wrong.sum())
    by_hand = np.maximum(0, np.arange(1, 301) - (300 - errors)) / np.arange(1, 301)
    assert areas["best"] == pytest.approx(by_hand.mean())
    assert document["curve"]["model"][-1] == pytest.approx(told.wrong.mean())


def test_limits_come_from_valid_and_reach_there_what_they_promise() -> None:
    valid = calibrated(400, 8)
    clear = margins(valid.probabilities, valid.threshold)
    limits = limits_of(valid.wrong, clear)
    share, half = limits.values()
    assert np.mean(clear >= share) == pytest.approx(0.8)
    assert half is not None and valid.wrong[clear >= half].mean() <= valid.wrong.mean() / 2
    following = np.sort(clear[clear < half])[-1]
    assert valid.wrong[clear >= following].mean() > valid.wrong.mean() / 2
    told = kept(valid.wrong, clear >= half, None, RULES)
    assert told["error"]["n"] == int(np.sum(clear >= half)) and told["error"]["low"] < told["error"]["value"]
    assert limits_of(np.ones(10, bool), np.arange(10.0))["half the error rate of valid"] is None


def test_a_decision_is_clear_by_its_distance_from_the_threshold_not_from_a_half() -> None:
    told = margins(np.array([0.2, 0.5, 0.2001, 0.0, 1.0]), 0.2)
    assert told[0] == pytest.approx(0) and told[1] == pytest.approx(np.log(4)) and told[2] < 0.001
    assert np.all(np.isfinite(told))


# --- The whole


def written(root: Path, told: Mapping[str, Answers], rng: np.random.Generator) -> list:
    paths: dict[str, dict[str, str]] = {"p": {}, "r": {}, "a": {}}
    for split, one in told.items():
        n = len(one.labels)
        for kind, end in (("p", "csv"), ("r", "csv"), ("a", "npy")):
            paths[kind][split] = str(root / f"{kind}-{split}.{end}")
        slides = [f"camelyon16_train_normal_{90 + i % 20:03}" for i in range(n)]
        table = (range(n), one.labels.tolist())
        write_csv(paths["r"][split], ("row", "label", "slide", "group"), zip(*table, slides, [""] * n, strict=True))
        write_csv(paths["p"][split], ("row", "label", "logit", "probability"),
                  zip(*table, [0.0] * n, one.probabilities.tolist(), strict=True))  # fmt: skip
        np.save(paths["a"][split], rng.normal(size=(n, len(ATTRIBUTES))).astype(np.float32))
    write_json(root / "w.json", {"threshold": 0.5})
    return [str(root / "w.json"), *paths.values()]


@pytest.mark.parametrize("flawless", [False, True])
def test_the_document_is_complete_and_drawn_with_its_findings_also_without_an_error(
    tmp_path: Path, flawless: bool
) -> None:
    told = {split: calibrated(240, seed) for seed, split in enumerate(("valid", "test"))}
    if flawless:
        told = {split: replace(one, labels=one.called.astype(int)) for split, one in told.items()}
    paths = written(tmp_path, told, np.random.default_rng(0))
    out, png, caption = (str(tmp_path / name) for name in ("silent.json", "a.png", "a.txt"))
    settings = SliceSettings(quantiles=3, ranges={}, minimum_n=MINIMUM, level=LEVEL)
    documents = []
    for _ in range(2):
        measure_silent_failure(*paths, out, beta=BETA, slices=settings, rules=RULES, provenance={"rule": "a_test"})
        documents.append(read_json(out))
    document, again = documents
    assert again == document
    assert document["n"] == 240 and document["selective"]["errors"] == int(told["test"].wrong.sum())
    # Thirty slices by attribute, two hospitals, and all; one hospital has too few slides of twelve patches each.
    rows = document["calibration"]["slices"]
    assert (document["calibration"]["tested"], len(rows)) == (32, 33)
    (untested,) = [row for row in rows if row["p"] is None]
    assert untested["slice"] == "hospital" and untested["note"].startswith("too few slides (")
    assert not untested["claimed"] and untested["p_corrected"] is None
    plot_silent_failure(out, png, caption, label="A TEST")
    said = Path(caption).read_text()
    if flawless:
        assert document["mix"]["metrics"]["accuracy"]["slicing"] is None and "wrong answers are" not in said
    else:
        mix = min(document["mix"]["metrics"].values(), key=lambda one: one["change"])
        assert f"from {mix['now']:.3f} to {mix['mixed']:.3f}" in said
        worst = document["unseen"]["slices"][0]
        assert f"{worst['failing']} of {worst['tumours']} tumours" in said


def test_splits_of_other_rows_are_refused_in_one_line(tmp_path: Path) -> None:
    told = {split: calibrated(60, seed) for seed, split in enumerate(("valid", "test"))}
    paths = written(tmp_path, told, np.random.default_rng(0))
    paths[2]["test"] = paths[2]["valid"].replace("valid", "other")
    table = Path(paths[2]["valid"]).read_text().splitlines()
    Path(paths[2]["test"]).write_text("\n".join(table[:-1]) + "\n")
    settings = SliceSettings(quantiles=3, ranges={}, minimum_n=MINIMUM, level=LEVEL)
    with pytest.raises(InputError, match=r"p-test.csv: its rows are not those of .*r-other.csv; predict"):
        measure_silent_failure(*paths, str(tmp_path / "s.json"), beta=BETA, slices=settings, rules=RULES, provenance={})
