"""Shift between splits: planted shifts are found, none are claimed where there are none, slides count as one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from audit_shift import audit_shift, share_of_tumour
from cheap import Drawn
from conftest import ROOT

from pcam import shift
from pcam.facts import COURSE_LABEL_COUNTS, LABEL_COUNTS
from pcam.files import InputError, read_json
from pcam.settings import ShiftSettings, from_mapping

CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
SETTINGS = from_mapping(ShiftSettings, {**CONFIG["audit"]["shift"], "permutations": 99, "patches": 200})


def audited(data: Drawn) -> dict:
    out = data.path("shift.json")
    audit_shift(*data.write(), out, settings=SETTINGS, provenance={"rule": "test"})
    return read_json(out)


def verdicts(document: dict, kind: str) -> dict[tuple[str, str], bool | None]:
    return {tuple(each["splits"]): each["found"] for each in document["findings"] if each["kind"] == kind}


def slide_names(data: Drawn, patches: int) -> None:
    """Slides of so many patches, none in two splits."""
    for split, features in data.features.items():
        data.slides[split] = [f"camelyon16_train_normal_{split}{i // patches:03d}" for i in range(len(features))]


def test_alike_splits_show_no_shift(tmp_path: Path) -> None:
    document = audited(Drawn(tmp_path))
    assert set(verdicts(document, "covariate_shift").values()) == {False}
    assert set(verdicts(document, "prior_shift").values()) == {False}
    for pair in document["pairs"]:
        assert pair["n"] in ([199, 199], [200, 200]) and pair["two_sample"]["permutations"] == 99
        assert 0.4 < pair["two_sample"]["roc_auc"] < 0.6 and 0.45 < pair["two_sample"]["null_mean"] < 0.55


def test_without_shift_small_p_values_are_as_rare_as_they_say() -> None:
    small = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        features, units = rng.normal(size=(120, 12)), np.arange(120) // 2
        second = (units >= 30).astype(np.int64)
        # Pairs of equal patches: as units they are 60, as single patches they would look like 120.
        features[1::2] = features[::2]
        sides = shift.permuted_sides(units, second, 39, seed)
        areas = shift.areas(sides, shift.ridge_scores(features, sides, shift.unit_folds(units, 5, seed)))
        small += (1 + np.sum(areas[1:] >= areas[0])) / 40 <= 0.1
    assert small <= 9  # 4 expected; 10 or more would come up in under 1 of 100 such tests


def test_a_shift_of_colour_is_found_and_named(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    data.features["valid"][:, 32:48] = np.abs(data.features["valid"][:, 32:48]) + np.linspace(0, 1, 16)  # blue
    document = audited(data)
    assert verdicts(document, "covariate_shift") == {
        ("train", "valid"): True,
        ("train", "test"): False,
        ("valid", "test"): True,
    }
    (pair,) = [each for each in document["pairs"] if each["splits"] == ["train", "valid"]]
    assert pair["two_sample"]["roc_auc"] > 0.9 and pair["two_sample"]["p"] == pytest.approx(0.01)
    assert [each["feature"] for each in pair["features"] if each["p_all"] <= 0.02] == ["blue"]


def test_more_tumour_is_a_shift_of_the_prior_and_not_of_the_pictures(tmp_path: Path) -> None:
    data = Drawn(tmp_path, signal=1.0)
    train = data.y["train"]
    assert train is not None
    gone = np.flatnonzero(train == 1)[:250]
    kept = np.setdiff1d(np.arange(len(train)), gone)
    data.y["train"], data.features["train"] = train[kept], data.features["train"][kept]
    document = audited(data)
    assert verdicts(document, "prior_shift") == {
        ("train", "valid"): True,
        ("train", "test"): True,
        ("valid", "test"): False,
    }
    assert set(verdicts(document, "covariate_shift").values()) == {False}
    assert all(pair["matched_on_label"] for pair in document["pairs"])


def test_slides_that_differ_as_slides_do_are_no_shift(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    slide_names(data, 50)
    rng = np.random.default_rng(1)
    for features in data.features.values():
        for start in range(0, len(features), 50):
            features[start : start + 50] += rng.normal(scale=1.5, size=features.shape[1])
    known = audited(data)
    assert set(verdicts(known, "covariate_shift").values()) == {False}
    assert known["pairs"][0]["units"] == [16, 6] and "slide" in known["method"]["grouped_by"]
    data.slides = {split: [] for split in data.slides}
    unknown = audited(data)
    # Without the names of slides their differences cannot be told from a shift; the document says so.
    assert True in verdicts(unknown, "covariate_shift").values()
    assert "no slide is known" in unknown["method"]["grouped_by"]


def test_patches_that_stand_in_both_splits_are_left_out(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    data.groups = [("train", 0, 1), ("valid", 0, 1), ("train", 1, 2), ("train", 2, 2)]
    document = audited(data)
    assert [pair["left_out_in_both"] for pair in document["pairs"]] == [2, 0, 0]


def test_slides_and_hospitals_are_counted_and_shared_slides_named(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    data.slides["train"] = ["camelyon16_train_normal_001"] * 500 + ["camelyon16_train_tumor_071"] * 300
    data.slides["valid"] = ["camelyon16_train_normal_001"] * 100 + ["camelyon16_train_normal_150"] * 200
    slides = audited(data)["slides"]
    assert slides["slides"] == {"train": 2, "valid": 2, "test": 0}
    assert slides["hospitals"]["train"] == {"RUMC": 500, "UMCU": 300}
    assert slides["hospitals"]["valid"] == {"RUMC": 100, "UMCU": 200}
    assert slides["shared"] == {"train-valid": ["camelyon16_train_normal_001"], "train-test": [], "valid-test": []}


def test_a_split_without_labels_has_no_prior_but_pictures(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    data.y["test"] = None
    document = audited(data)
    assert document["prior"]["splits"]["test"] is None
    untold = {("train", "test"): None, ("valid", "test"): None}
    assert verdicts(document, "prior_shift") == {("train", "valid"): False, **untold}
    assert len(verdicts(document, "covariate_shift")) == 3
    assert [pair["matched_on_label"] for pair in document["pairs"]] == [True, False, False]


def test_one_slide_a_split_cannot_be_told_from_a_shift(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    slide_names(data, 1000)
    document = audited(data)
    assert set(verdicts(document, "covariate_shift").values()) == {None}
    assert all(pair["two_sample"] is None and "units" in pair["reason"] for pair in document["pairs"])


def test_too_few_permutations_for_the_level_are_said_and_not_called_no_shift(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    out = data.path("shift.json")
    audit_shift(*data.write(), out, settings=replace(SETTINGS, permutations=19), provenance={})
    document = read_json(out)
    assert set(verdicts(document, "covariate_shift").values()) == {None}
    assert document["pairs"][0]["reason"] == "no p-value below 0.05 is possible, and 0.0167 is needed"


def test_broken_rows_are_left_out(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    data.broken = [("train", row) for row in range(400)]
    data.features["train"][:400] = 50.0
    document = audited(data)
    assert set(verdicts(document, "covariate_shift").values()) == {False}
    assert document["method"]["excluded"] == {"train": 400, "valid": 0, "test": 0}


@pytest.mark.parametrize(
    ("counts", "split", "said"),
    [
        (LABEL_COUNTS["valid"], "valid", "PatchCamelyon valid"),
        (COURSE_LABEL_COUNTS["train"], "train", "every negative of PatchCamelyon train and a fifth of its positives"),
    ],
)
def test_published_counts_are_recognised(counts: tuple[int, int], split: str, said: str) -> None:
    found = share_of_tumour(split, np.repeat(np.array([0, 1], np.uint8), counts))
    assert found is not None and said in found["counts_equal"]
    fewer = share_of_tumour(split, np.repeat(np.array([0, 1], np.uint8), (counts[0] - 1, counts[1])))
    assert fewer is not None and fewer["counts_equal"] == []


def test_the_two_proportion_test_is_the_textbook_one() -> None:
    # 60 of 100 against 40 of 100: pooled share .5, standard error sqrt(.25 * .02).
    test = shift.compare_shares((60, 40), (100, 100))
    assert test["z"] == pytest.approx(-0.2 / np.sqrt(0.25 * 0.02)) and test["p"] == pytest.approx(0.004678, abs=1e-6)
    low, high = test["interval"]
    assert low < test["difference"] < high < 0 and test["difference"] == pytest.approx(-0.2)


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        audited(Drawn(tmp_path / name))
    assert (tmp_path / "one" / "shift.json").read_bytes() == (tmp_path / "two" / "shift.json").read_bytes()


def test_a_missing_file_is_named_in_one_line(tmp_path: Path) -> None:
    data = Drawn(tmp_path)
    arguments = data.write()
    Path(data.path("train_features.npy")).unlink()
    with pytest.raises(InputError, match=r"train_features.npy: no such file"):
        audit_shift(*arguments, data.path("shift.json"), settings=SETTINGS, provenance={})
