"""Slices are made from attributes and names, every score has its interval and gap, and what is undefined says why."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from plot_slices import NAMED, plot_slices
from slice_metrics import slice_metrics

from pcam.attributes import ATTRIBUTES
from pcam.files import InputError, write_csv, write_json
from pcam.gaps import Gaps
from pcam.intervals import estimate_metrics, read_groups
from pcam.settings import EvaluationSettings, SliceSettings
from pcam.slices import COLUMNS, by_edges, by_name, lacking, quantile_edges

N, MINIMUM, THRESHOLD = 160, 30, 0.5
RULES = EvaluationSettings(level=0.95, resamples=50, least_groups=30, ece_bins=10, seed=0, coverage_draws=1)
# Slide of each patch: two large ones of each hospital, a small one, one without tumour, one without healthy tissue.
SLIDES = ["normal_001"] * 40 + ["tumor_071"] * 40 + ["tumor_002"] * 10 + ["normal_101"] * 35 + ["tumor_003"] * 35

Row = dict[str, str]


@dataclass
class Case:
    """A test split with predictions and attributes on disk, and how slice_metrics is called on it."""

    root: Path
    labels: np.ndarray
    probabilities: np.ndarray
    attributes: np.ndarray
    valid: np.ndarray
    slides: list[str]
    threshold: float | None = THRESHOLD
    ranges: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, quantiles: int = 4, first_row: int = 0) -> tuple[dict[tuple[str, str, str], Row], dict[str, Any]]:
        paths = {
            name: str(self.root / name) for name in ("p.csv", "w.json", "r.csv", "v.npy", "a.npy", "o.csv", "o.json")
        }
        np.save(paths["v.npy"], self.valid)
        np.save(paths["a.npy"], self.attributes)
        table = zip(range(len(self.labels)), self.labels.tolist(), self.slides, strict=True)
        write_csv(paths["r.csv"], ("row", "label", "slide", "group"), [(*line, "") for line in table])
        rows = zip(range(first_row, first_row + N), self.labels, [0.0] * N, self.probabilities, strict=True)
        write_csv(paths["p.csv"], ("row", "label", "logit", "probability"), rows)
        write_json(paths["w.json"], {"threshold": self.threshold})
        settings = SliceSettings(quantiles, self.ranges, MINIMUM, 0.05)
        slice_metrics(*paths.values(), settings=settings, rules=RULES, provenance={"rule": "a_test"})
        with open(paths["o.csv"], newline="") as handle:
            reader = csv.DictReader(handle)
            found = list(reader)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        summary = json.loads(Path(paths["o.json"]).read_text())
        return {(row["slice"], row["value"], row["metric"]): row for row in found}, summary

    def draw(self) -> str:
        """The caption; the picture is there and no empty sheet."""
        paths = [str(self.root / name) for name in ("o.csv", "o.json", "s.png", "s.txt")]
        plot_slices(*paths, label="A TEST")
        assert imread(paths[2]).std() > 0.01
        return Path(paths[3]).read_text()


@pytest.fixture
def case(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], N // 2)
    labels[90:125], labels[125:] = 0, 1
    probabilities = np.round(1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.2))), 6)
    attributes, valid = (rng.normal(size=(n, len(ATTRIBUTES))).astype(np.float32) for n in (N, 200))
    return Case(tmp_path, labels, probabilities, attributes, valid, SLIDES)


def test_the_whole_split_comes_first_with_the_intervals_of_the_evaluation(case):
    rows, _ = case.run()
    assert list(rows)[:3] == [("all", "all", metric) for metric in ("roc_auc", "sensitivity", "specificity")]
    groups = read_groups(case.root / "r.csv")
    told = estimate_metrics(case.labels, case.probabilities, THRESHOLD, beta=2.0, groups=groups, rules=RULES)
    for metric in ("roc_auc", "sensitivity", "specificity"):
        row = rows["all", "all", metric]
        assert [float(row[name]) for name in ("estimate", "low", "high")] == [
            told[metric].value, told[metric].low, told[metric].high
        ]  # fmt: skip
        assert (row["n"], row["positives"], row["status"]) == (str(N), str(case.labels.sum()), "ok")
        assert row["gap"] == row["p"] == row["p_corrected"] == ""


def test_a_gap_is_that_of_the_slice_to_all_other_patches(case):
    case.slides = [f"tumor_{i % 32:03d}" for i in range(N)]
    case.labels = np.tile([0, 1], N // 2)[np.random.default_rng(1).permutation(N)]
    case.ranges = {"half": {"attribute": "eosin", "low": 0.0}}
    rows, summary = case.run()
    members = case.attributes[:, ATTRIBUTES.index("eosin")] >= 0
    groups = read_groups(case.root / "r.csv")
    for metric in ("roc_auc", "sensitivity", "specificity"):
        row = rows["range", "half", metric]
        gaps = Gaps(metric, case.labels, case.probabilities, threshold=THRESHOLD, groups=groups, rules=RULES)
        told = gaps.to_rest(members)
        assert [float(row[name]) for name in ("gap", "gap_low", "gap_high", "groups", "p")] == [
            told.value, told.low, told.high, told.groups, told.p
        ]  # fmt: skip
        assert float(row["p_corrected"]) >= float(row["p"])
    tested = [row for row in rows.values() if row["p"]]
    assert summary["tested"] == len(tested) > 40
    least = min(tested, key=lambda row: float(row["p"]))
    assert float(least["p_corrected"]) == pytest.approx(min(1.0, len(tested) * float(least["p"])))
    assert min(int(row["groups"]) for row in tested) >= summary["least_groups"] and summary["group"] == "slide"


def test_a_slice_that_is_one_slide_has_a_gap_and_no_claim(case):
    tumor_071 = np.array(SLIDES) == "tumor_071"
    case.probabilities[tumor_071] = 1 - case.probabilities[tumor_071]
    rows, summary = case.run()
    row = rows["slide", "tumor_071", "roc_auc"]
    assert float(row["gap"]) < -0.2 and row["p"] == row["p_corrected"] == ""
    assert row["status"] == f"too few slides (1, {summary['least_groups']} needed)"
    assert (summary["tested"], summary["claims"]) == (0, []) and summary["gaps"] > 40
    assert "No gap was tested: none lies in enough patches and slides (" in case.draw()


def test_a_slice_without_positives_or_negatives_is_undefined_and_never_zero(case):
    rows, _ = case.run()
    for slide, missing, defined in (
        ("normal_101", "positives", "specificity"),
        ("tumor_003", "negatives", "sensitivity"),
    ):
        for metric in {"roc_auc", "sensitivity", "specificity"} - {defined}:
            row = rows["slide", slide, metric]
            assert row["status"] == f"undefined: no {missing}"
            assert row["estimate"] == row["low"] == row["high"] == ""
        assert rows["slide", slide, defined]["status"].startswith("too few slides (1, ")
        assert rows["slide", slide, defined]["estimate"] != ""


def test_a_small_slice_is_listed_without_a_claim(case):
    rows, summary = case.run()
    row = rows["slide", "tumor_002", "roc_auc"]
    assert (row["n"], row["status"]) == ("10", "too few (n < 30)")
    assert row["estimate"] != "" and row["gap"] == row["p"] == ""
    assert summary["status"]["too few (n < 30)"] >= 3


def test_a_rate_on_few_patches_of_its_class_carries_no_claim(case):
    first = np.array(SLIDES) == SLIDES[0]
    case.labels[first] = 0
    case.labels[np.flatnonzero(first)[:9]] = 1
    case.slides = ["tumor_001" if member else slide for member, slide in zip(first, SLIDES, strict=True)]
    rows, _ = case.run()
    statuses = {
        metric: rows["slide", "tumor_001", metric]["status"] for metric in ("sensitivity", "specificity", "roc_auc")
    }
    assert int(rows["slide", "tumor_001", "sensitivity"]["n"]) >= MINIMUM
    assert statuses["sensitivity"] == statuses["roc_auc"] == "too few (class n < 10)"
    assert statuses["specificity"].startswith("too few slides (1, ")


def test_a_bad_slice_is_claimed_as_the_worst(case):
    case.slides = [f"tumor_{i % 32:03d}" for i in range(N)]
    bad = case.attributes[:, ATTRIBUTES.index("eosin")] >= 0.4
    case.probabilities[bad] = 1 - case.probabilities[bad]  # the planted failure
    case.ranges = {"stained": {"attribute": "eosin", "low": 0.4}}
    _, summary = case.run()
    claims = summary["claims"]
    assert {claim["slice"] for claim in claims} == {"range", "eosin"} and claims[0]["slice"] == "range"
    assert [claim["gap"] for claim in claims] == sorted(claim["gap"] for claim in claims)
    assert all(claim["p_corrected"] <= summary["level"] == 0.05 for claim in claims)
    caption = case.draw()
    assert f"in stained (n {bad.sum()})" in caption and "below the rest" in caption


def test_without_a_weak_slice_none_is_claimed_and_the_picture_says_so(case):
    case.slides = [f"tumor_{i % 32:03d}" for i in range(N)]
    _, summary = case.run()
    assert summary["claims"] == []
    caption = case.draw()
    assert "None is claimed at the corrected level 0.05" in caption
    assert f"{summary['tested']} gaps to the rest tested together" in caption


def test_hospitals_follow_from_slides(case):
    rows, _ = case.run()
    assert rows["hospital", "RUMC", "roc_auc"]["n"] == str(40 + 10 + 35)
    assert rows["hospital", "UMCU", "roc_auc"]["n"] == str(40 + 35)


def test_unknown_slides_make_no_slice(case):
    case.slides = [""] * N
    rows, summary = case.run()
    assert {name for name, _, _ in rows} == {"all", *ATTRIBUTES}
    assert summary["patches_without_slide"] == summary["patches_without_hospital"] == N
    assert set(summary["slices"]) == {"all", *ATTRIBUTES}


def test_slices_do_not_depend_on_what_the_model_says(case):
    members = {key: (row["n"], row["positives"]) for key, row in case.run()[0].items()}
    case.probabilities = np.random.default_rng(9).uniform(size=N)
    assert {key: (row["n"], row["positives"]) for key, row in case.run()[0].items()} == members


def test_quantile_slices_have_the_edges_of_valid_and_hold_every_patch_once(case):
    case.attributes[:, 0] += 0.5  # test is brighter than valid, so its slices are of unequal size
    rows, summary = case.run()
    edges = summary["edges"]["brightness"]
    assert edges == pytest.approx(np.quantile(case.valid[:, 0].astype(float), [0.25, 0.5, 0.75], method="inverted_cdf"))
    values = [value for name, value, metric in rows if (name, metric) == ("brightness", "roc_auc")]
    expected = np.bincount(np.searchsorted(edges, case.attributes[:, 0]), minlength=4)
    assert [int(rows["brightness", value, "roc_auc"]["n"]) for value in values] == expected.tolist()
    assert values[0] == f"up to {edges[0]:.3g}" and values[-1] == f"above {edges[2]:.3g}"
    assert expected[-1] > N / 4 + 10


def test_equal_values_stay_together_and_a_constant_makes_no_slice(case):
    assert quantile_edges(np.array([0.0] * 6 + [1.0, 2.0]), 4).tolist() == [0.0]
    assert quantile_edges(np.array([0.0] * 9 + [1.0]), 4).tolist() == [0.0]
    assert quantile_edges(np.array([0.0] + [1.0] * 9), 4).tolist() == []
    assert quantile_edges(np.full(9, 3.0), 4).tolist() == []
    case.valid[:, -1] = case.attributes[:, -1] = 0
    rows, summary = case.run()
    assert summary["edges"]["fold_fraction"] == []
    assert not any(name == "fold_fraction" for name, _, _ in rows)


def test_slices_are_named_by_edges_that_can_be_told_apart():
    names = list(by_edges(np.zeros(1), np.array([-0.5, 0.00012, 0.12341, 0.12342, 6086.9, 12345.0])))
    assert names[0] == "up to -0.5" and names[-1] == "above 12345"
    assert len(set(names)) == 7
    assert list(by_edges(np.zeros(1), np.array([3330.6]))) == ["up to 3330", "above 3330"]
    groups = by_edges(np.array([1.0, 2.0, 2.5]), np.array([2.0]))
    assert {name: members.tolist() for name, members in groups.items()} == {"up to 2": [0, 1], "above 2": [2]}


def test_a_slice_that_test_does_not_fill_is_undefined(case):
    case.valid[:, 0] += 100
    rows, _ = case.run()
    brightness = {key: row for key, row in rows.items() if key[0] == "brightness"}
    assert {row["status"] for row in brightness.values() if row["n"] == "0"} == {"undefined: no patches"}
    whole = [row for row in brightness.values() if row["n"] == str(N)]
    assert {row["status"] for row in whole} == {"ok"} and {row["gap"] for row in whole} == {""}


def test_a_slice_of_nearly_everything_has_too_little_to_compare_with(case):
    case.ranges = {"most": {"attribute": "eosin", "high": float(np.sort(case.attributes[:, 7])[-20])}}
    rows, _ = case.run()
    row = rows["range", "most", "roc_auc"]
    assert (row["n"], row["status"]) == (str(N - 20), "no gap: in the rest too few (n < 30)")
    assert row["estimate"] != "" and row["gap"] == row["p"] == ""


def test_ranges_of_the_config_include_their_low_end_and_not_their_high(case):
    values = np.sort(case.attributes[:, 3])
    case.ranges = {
        "middling": {"attribute": "sharpness", "low": float(values[40]), "high": float(values[100])},
        "upper": {"attribute": "sharpness", "low": float(values[100])},
    }
    rows, _ = case.run()
    assert [rows["range", name, "roc_auc"]["n"] for name in ("middling", "upper")] == ["60", "60"]


def test_reasons_for_no_claim():
    assert lacking("roc_auc", np.array([], int), 30) == "undefined: no patches"
    assert lacking("sensitivity", np.zeros(50, int), 30) == "undefined: no positives"
    assert lacking("specificity", np.zeros(50, int), 30) is None
    assert lacking("specificity", np.zeros(29, int), 30) == "too few (n < 30)"
    assert lacking("roc_auc", np.array([1] * 9 + [0] * 40), 30) == "too few (class n < 10)"
    assert lacking("roc_auc", np.array([1] * 10 + [0] * 40), 30) is None


def test_the_picture_of_many_slides_names_what_it_leaves_out(case):
    case.slides = [f"tumor_{i % 20:03d}" for i in range(N)]
    case.run()
    assert f"Of the slides the {NAMED} with most patches are shown, {20 - NAMED} are not." in case.draw()


def test_names_are_sorted_and_the_unknown_left_out():
    groups = by_name(["b", "", "a", "b"])
    assert {name: members.tolist() for name, members in groups.items()} == {"a": [2], "b": [0, 3]}
    assert list(groups) == ["a", "b"]


def test_predictions_of_other_patches_are_refused(case):
    with pytest.raises(InputError, match=r"p\.csv: its rows are not those of"):
        case.run(first_row=1)
    assert not (case.root / "o.csv").exists()


def test_weights_without_a_threshold_are_refused(case):
    case.threshold = None
    with pytest.raises(InputError, match=r"w\.json: holds no threshold"):
        case.run()


def test_attributes_of_other_patches_are_refused(case):
    case.attributes = case.attributes[1:]
    with pytest.raises(InputError, match=r"a\.npy: attributes of 159 patches where 160 are expected"):
        case.run()
