"""Slices are made from pixels and names, every score has its interval, and what is undefined says why."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from slice_metrics import slice_metrics

from pcam.files import InputError, write_csv, write_json
from pcam.metrics import roc_auc, roc_auc_interval, wilson_interval
from pcam.slices import by_brightness, by_name, mean_brightness

N, MINIMUM, THRESHOLD = 160, 30, 0.5
# Slide of each patch: two large ones of each hospital, a small one, one without tumour, one without healthy tissue.
SLIDES = ["normal_001"] * 40 + ["tumor_071"] * 40 + ["tumor_002"] * 10 + ["normal_101"] * 35 + ["tumor_003"] * 35


@dataclass
class Case:
    """A test split with predictions on disk, and how slice_metrics is called on it."""

    root: Path
    labels: np.ndarray
    probabilities: np.ndarray
    patches: np.ndarray
    slides: list[str]
    threshold: float | None = THRESHOLD

    def run(self, bins: int = 4, first_row: int = 0) -> tuple[dict[tuple[str, str, str], dict[str, str]], dict]:
        paths = {name: str(self.root / name) for name in ("p.csv", "w.json", "s.npy", "r.csv", "o.csv", "o.json")}
        np.save(paths["s.npy"], self.patches)
        table = zip(range(len(self.labels)), self.labels.tolist(), self.slides, strict=True)
        write_csv(paths["r.csv"], ("row", "label", "slide", "group"), [(*line, "") for line in table])
        rows = zip(range(first_row, first_row + N), self.labels, [0.0] * N, self.probabilities, strict=True)
        write_csv(paths["p.csv"], ("row", "label", "logit", "probability"), rows)
        write_json(paths["w.json"], {"threshold": self.threshold})
        slice_metrics(*paths.values(), brightness_bins=bins, minimum_n=MINIMUM, provenance={"rule": "a_test"})
        with open(paths["o.csv"], newline="") as handle:
            found = list(csv.DictReader(handle))
        summary = json.loads(Path(paths["o.json"]).read_text())
        return {(row["slice"], row["value"], row["metric"]): row for row in found}, summary


@pytest.fixture
def case(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], N // 2)
    labels[90:125], labels[125:] = 0, 1
    patches = np.full((N, 96, 96, 3), rng.permutation(N)[:, None, None, None] + 40, np.uint8)
    probabilities = np.round(1 / (1 + np.exp(-rng.normal(2 * labels - 1, 1.2))), 6)
    return Case(tmp_path, labels, probabilities, patches, SLIDES)


def test_the_whole_split_comes_first_and_has_every_metric(case):
    rows, _ = case.run()
    assert list(rows)[:3] == [("all", "all", metric) for metric in ("roc_auc", "sensitivity", "specificity")]
    called = case.probabilities >= THRESHOLD
    for metric, label, right in (("sensitivity", 1, called), ("specificity", 0, ~called)):
        row, of = rows["all", "all", metric], case.labels == label
        assert float(row["estimate"]) == pytest.approx(right[of].mean())
        interval = wilson_interval(int(right[of].sum()), int(of.sum()))
        assert (float(row["low"]), float(row["high"])) == pytest.approx(interval)
    row = rows["all", "all", "roc_auc"]
    assert float(row["estimate"]) == pytest.approx(roc_auc(case.labels, case.probabilities))
    interval = roc_auc_interval(case.labels, case.probabilities)
    assert (float(row["low"]), float(row["high"])) == pytest.approx(interval)
    assert (row["n"], row["positives"], row["status"]) == (str(N), str(case.labels.sum()), "ok")


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
        assert rows["slide", slide, defined]["status"] == "ok"
        assert rows["slide", slide, defined]["estimate"] != ""


def test_a_small_slice_is_listed_without_a_claim(case):
    rows, summary = case.run()
    row = rows["slide", "tumor_002", "roc_auc"]
    assert (row["n"], row["status"]) == ("10", "too few (n < 30)")
    assert row["estimate"] != ""
    for gap in summary["widest_gaps"]:
        assert "tumor_002" not in (gap["lowest"]["value"], gap["highest"]["value"])


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
    assert statuses["specificity"] == "ok"


def test_a_bad_slide_is_found_as_the_widest_gap(case):
    tumor_071 = np.array(SLIDES) == "tumor_071"
    case.probabilities[tumor_071] = 1 - case.probabilities[tumor_071]  # the planted failure
    rows, summary = case.run()
    gap = next(gap for gap in summary["widest_gaps"] if (gap["slice"], gap["metric"]) == ("slide", "roc_auc"))
    assert (gap["lowest"]["value"], gap["highest"]["value"]) == ("tumor_071", "normal_001")
    assert gap["intervals_apart"] is True
    estimates = [float(rows["slide", slide, "roc_auc"]["estimate"]) for slide in ("normal_001", "tumor_071")]
    assert gap["gap"] == pytest.approx(estimates[0] - estimates[1])
    hospital = next(gap for gap in summary["widest_gaps"] if (gap["slice"], gap["metric"]) == ("hospital", "roc_auc"))
    assert hospital["lowest"]["value"] == "UMCU"


def test_hospitals_follow_from_slides(case):
    rows, _ = case.run()
    assert rows["hospital", "RUMC", "roc_auc"]["n"] == str(40 + 10 + 35)
    assert rows["hospital", "UMCU", "roc_auc"]["n"] == str(40 + 35)


def test_unknown_slides_make_no_slice(case):
    case.slides = [""] * N
    rows, summary = case.run()
    assert {name for name, _, _ in rows} == {"all", "brightness"}
    assert summary["patches_without_slide"] == summary["patches_without_hospital"] == N


def test_slices_do_not_depend_on_what_the_model_says(case):
    members = {key: (row["n"], row["positives"]) for key, row in case.run()[0].items()}
    case.probabilities = np.random.default_rng(9).uniform(size=N)
    assert {key: (row["n"], row["positives"]) for key, row in case.run()[0].items()} == members


def test_brightness_quantiles_run_from_dark_to_bright_and_hold_every_patch_once(case):
    rows, summary = case.run()
    values = [value for name, value, metric in rows if (name, metric) == ("brightness", "roc_auc")]
    assert values == ["q1 (darkest)", "q2", "q3", "q4 (brightest)"]
    assert [rows["brightness", value, "roc_auc"]["n"] for value in values] == [str(N // 4)] * 4
    assert summary["brightness_edges"] == sorted(summary["brightness_edges"])
    groups, _ = by_brightness(mean_brightness(case.patches), 4)
    assert sorted(np.concatenate(list(groups.values()))) == list(range(N))
    levels = mean_brightness(case.patches)
    assert levels[groups["q1 (darkest)"]].max() < levels[groups["q2"]].min()


def test_equally_bright_patches_stay_together():
    groups, _ = by_brightness(np.array([100.0] * 6 + [200.0] * 2), 4)
    assert [len(members) for members in groups.values() if len(members)] == [6, 2]


def test_an_empty_quantile_is_undefined(case):
    case.patches[:] = 128
    rows, _ = case.run()
    assert {row["status"] for (name, _, _), row in rows.items() if name == "brightness" and row["n"] == "0"} == {
        "undefined: no positives", "undefined: no negatives",
    }  # fmt: skip


def test_brightness_is_the_mean_of_all_values_of_a_patch():
    patches = np.random.default_rng(1).integers(0, 256, (3, 96, 96, 3)).astype(np.uint8)
    assert mean_brightness(patches) == pytest.approx([patch.mean() for patch in patches])


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
