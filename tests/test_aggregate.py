"""Seeds are summarised and never mixed up, differences are paired, and baselines see no test."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from aggregate_seeds import aggregate_seeds
from fit_baselines import fit_baselines
from score_baselines import score_baselines

from pcam.colour import BINS, colour_histograms
from pcam.files import InputError, write_csv, write_json
from pcam.intervals import estimate_metrics, read_groups
from pcam.metrics import roc_auc, roc_auc_error, score
from pcam.settings import EvaluationSettings, ThresholdSettings
from pcam.thresholds import choose

BETA = 2.0
RULE = ThresholdSettings(rule="f_beta", beta=BETA, sensitivity=0.9, missed_cost=10.0)
RULES = EvaluationSettings(level=0.95, resamples=60, least_groups=12, ece_bins=5, seed=0, coverage_draws=10)
LABELS = {"valid": np.array([0, 1] * 20), "test": np.array([0, 0, 1] * 15)}
PROVENANCE = {"rule": "a_test", "commit": None, "dirty": None, "code": "c0de", "device": "a CPU", "python": "3"}
RECIPE = {"model": "resnet", "learning_rate": 0.003}


def write_run(folder: Path, variant: str, seed: int, **changes: object) -> None:
    """A sidecar and predictions as train_seed and predict_seed leave them; `changes` plant a fault."""
    digests = {"weights": f"w{variant}{seed}", "data": "d", "settings": f"s{variant}", "code": "c"}
    digests |= {key: value for key, value in changes.items() if key in digests}
    sidecar = {
        "state": "complete",
        "digests": digests,
        "data_source": "SYNTHETIC SAMPLE",
        "seed": changes.get("sidecar_seed", seed),
        "settings": {**RECIPE, "learning_rate": changes.get("learning_rate", 0.003)},
        "valid": {"roc_auc": 0.8, "roc_auc_standard_error": 0.02, "pr_auc": 0.7, "n": 40},
        "threshold": None,
        "threshold_rule": None,
        "provenance": PROVENANCE,
    }
    write_json(folder / "weights.json", sidecar)
    rng = np.random.default_rng([seed, len(variant)])
    for split, labels in {**LABELS, **changes.get("labels", {})}.items():
        probabilities = np.round(1 / (1 + np.exp(-rng.normal(labels - 0.5, 1.0))), 6)
        first = changes.get("first_row", 0)
        rows = zip(range(first, first + len(labels)), labels, [0.0] * len(labels), probabilities, strict=True)
        write_csv(folder / f"{split}.csv", ("row", "label", "logit", "probability"), rows)


def write_rows(path: Path, labels: np.ndarray) -> str:
    """A split table: every three rows make a slide."""
    rows = [(row, int(label), f"slide-{row // 3}", "") for row, label in enumerate(labels)]
    write_csv(path, ("row", "label", "slide", "group"), rows)
    return str(path)


@dataclass
class Runs:
    """Folders of every variant and seed, and how aggregate_seeds is called on them."""

    root: Path
    variants: list[str]
    seeds: list[int]
    tables: dict[str, str]

    def folder(self, variant: str, seed: int) -> Path:
        return self.root / variant / f"seed-{seed}"

    def paths(self, name: str) -> list[str]:
        return [str(self.folder(variant, seed) / name) for variant in self.variants for seed in self.seeds]

    def aggregate(self, rule: ThresholdSettings = RULE) -> dict:
        out = self.root / "seeds.json"
        aggregate_seeds(
            self.paths("weights.json"),
            {split: self.paths(f"{split}.csv") for split in LABELS},
            self.tables,
            str(out),
            variants=self.variants,
            seeds=self.seeds,
            threshold=rule,
            rules=RULES,
            provenance=PROVENANCE,
        )
        return json.loads(out.read_text())


@pytest.fixture
def make_runs(tmp_path):
    def make(variants=("baseline", "mlp"), seeds=(7, 0, 2), **changes) -> Runs:
        labels = {**LABELS, **changes.get("labels", {})}
        tables = {split: write_rows(tmp_path / f"{split}_rows.csv", labels[split]) for split in LABELS}
        runs = Runs(tmp_path, list(variants), list(seeds), tables)
        for variant in variants:
            for seed in seeds:
                write_run(runs.folder(variant, seed), variant, seed, **changes)
        return runs

    return make


def predictions_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.genfromtxt(path, delimiter=",", names=True)
    return table["label"].astype(int), table["probability"]


def test_each_seed_keeps_its_estimates_by_slide(make_runs):
    runs = make_runs()
    test = runs.aggregate()["mlp"]["test"]
    threshold = test["threshold"]["values"][1]
    labels, probabilities = predictions_of(runs.folder("mlp", 0) / "test.csv")
    groups = read_groups(runs.tables["test"])
    assert groups.count == 15
    expected = estimate_metrics(labels, probabilities, threshold, beta=BETA, groups=groups, rules=RULES)
    for name, estimate in expected.items():
        assert test[name]["estimates"][1] == estimate.as_document()
        assert test[name]["values"][1] == estimate.value
    assert test["roc_auc"]["estimates"][1]["kind"] == "DeLong on the logit scale, by slide"
    assert test["roc_auc"]["kind"] == "Student, n = 3 seeds"


def test_differences_are_paired_by_seed_and_may_be_negative(make_runs):
    document = make_runs().aggregate()
    assert list(document["differences"]) == ["mlp"]
    for split in LABELS:
        for name in ("roc_auc", "log_loss", "threshold"):
            mlp, baseline = (np.array(document[variant][split][name]["values"]) for variant in ("mlp", "baseline"))
            told = document["differences"]["mlp"][split][name]
            assert told["values"] == pytest.approx(mlp - baseline)
            assert told["mean"] == pytest.approx(np.mean(mlp - baseline))
            half = 4.30265 * np.std(mlp - baseline, ddof=1) / 3**0.5
            assert told["interval"] == pytest.approx([told["mean"] - half, told["mean"] + half], rel=1e-4)
    assert min(told["interval"][0] for told in document["differences"]["mlp"]["test"].values()) < 0


def test_an_undefined_metric_has_no_difference(make_runs):
    differences = make_runs(labels={"test": np.zeros(12, int)}).aggregate()["differences"]["mlp"]["test"]
    assert differences["roc_auc"]["values"] == [None, None, None]
    assert differences["roc_auc"]["mean"] is differences["roc_auc"]["interval"] is None
    assert differences["accuracy"]["mean"] is not None


def test_the_threshold_follows_the_rule_of_the_config(make_runs):
    runs = make_runs()
    by_rule = {rule: runs.aggregate(replace(RULE, rule=rule)) for rule in ("f_beta", "sensitivity", "cost")}
    thresholds = {rule: tuple(found["mlp"]["valid"]["threshold"]["values"]) for rule, found in by_rule.items()}
    assert len(set(thresholds.values())) == 3
    assert min(by_rule["sensitivity"]["mlp"]["valid"]["sensitivity"]["values"]) >= 0.9


def test_a_table_of_other_rows_is_refused(make_runs):
    runs = make_runs()
    write_rows(Path(runs.tables["test"]), LABELS["test"][:-1])
    with pytest.raises(InputError, match=r"test\.csv: its rows are not those of .*test_rows\.csv"):
        runs.aggregate()


def test_values_stand_in_the_order_of_the_seeds(make_runs):
    runs = make_runs()
    document = runs.aggregate()
    assert document["seeds"] == [7, 0, 2]
    for split in LABELS:
        expected = [roc_auc(*predictions_of(runs.folder("baseline", seed) / f"{split}.csv")) for seed in (7, 0, 2)]
        assert document["baseline"][split]["roc_auc"]["values"] == expected


def test_mean_sd_and_interval_follow_from_the_values(make_runs):
    roc = make_runs().aggregate()["mlp"]["test"]["roc_auc"]
    values = roc["values"]
    assert roc["n"] == 3
    assert roc["mean"] == pytest.approx(np.mean(values))
    assert roc["sd"] == pytest.approx(np.std(values, ddof=1))
    assert roc["interval"] == pytest.approx(
        # Cut to what a ROC-AUC can be.
        [np.clip(roc["mean"] + side * 4.30265 * roc["sd"] / 3**0.5, 0, 1) for side in (-1, 1)]
    )


def test_roc_auc_carries_the_standard_error_of_every_seed(make_runs):
    runs = make_runs()
    errors = runs.aggregate()["baseline"]["valid"]["roc_auc"]["standard_errors"]
    assert errors == [roc_auc_error(*predictions_of(runs.folder("baseline", s) / "valid.csv")) for s in (7, 0, 2)]


def test_each_seed_is_judged_at_the_threshold_of_its_own_valid(make_runs):
    runs = make_runs()
    document = runs.aggregate()["baseline"]
    thresholds = [choose(*predictions_of(runs.folder("baseline", s) / "valid.csv"), RULE) for s in (7, 0, 2)]
    assert len(set(thresholds)) == 3
    for split in LABELS:
        assert document[split]["threshold"]["values"] == thresholds
    labels, probabilities = predictions_of(runs.folder("baseline", 2) / "test.csv")
    assert document["test"]["f_beta"]["values"][2] == score(labels, probabilities, thresholds[2], BETA)["f_beta"]


def test_one_seed_has_no_spread(make_runs):
    runs = make_runs(seeds=(5,))
    for metrics in runs.aggregate()["baseline"].values():
        for summary in metrics.values():
            assert summary["sd"] == summary["interval"] == "undefined (n = 1)"
            assert summary["n"] == 1
            assert summary["mean"] == summary["values"][0]


def test_an_undefined_metric_is_null_and_so_is_its_mean(make_runs):
    runs = make_runs(labels={"test": np.zeros(12, int)})
    test = runs.aggregate()["baseline"]["test"]
    assert test["roc_auc"]["values"] == [None, None, None]
    assert test["roc_auc"]["mean"] is test["roc_auc"]["sd"] is test["roc_auc"]["interval"] is None
    assert test["specificity"]["mean"] is not None


@pytest.mark.parametrize("kind", ["data", "settings", "code"])
def test_runs_that_do_not_belong_together_are_refused(make_runs, kind):
    runs = make_runs()
    write_run(runs.folder("mlp", 0), "mlp", 0, **{kind: "another"})
    with pytest.raises(InputError, match=rf"mlp/seed-0/weights\.json: its digest of {kind} differs"):
        runs.aggregate()
    assert not (runs.root / "seeds.json").exists()


def test_a_variant_of_other_data_is_refused_and_one_of_other_settings_is_not(make_runs):
    runs = make_runs()  # every variant has settings of its own
    runs.aggregate()
    for seed in runs.seeds:
        write_run(runs.folder("mlp", seed), "mlp", seed, data="another")
    with pytest.raises(InputError, match="digest of data"):
        runs.aggregate()


def test_a_run_of_another_seed_is_refused(make_runs):
    runs = make_runs()
    write_run(runs.folder("mlp", 2), "mlp", 2, sidecar_seed=0)
    with pytest.raises(InputError, match="seed 0, not 2"):
        runs.aggregate()


def test_predictions_of_other_patches_are_refused(make_runs):
    runs = make_runs()
    write_run(runs.folder("mlp", 2), "mlp", 2, first_row=1)
    with pytest.raises(InputError, match="rows or labels are not those of"):
        runs.aggregate()


def test_unlabelled_predictions_are_refused(make_runs):
    runs = make_runs()
    table = runs.folder("baseline", 7) / "test.csv"
    table.write_text("row,label,logit,probability\n0,,0.1,0.5\n1,,0.1,0.5\n")
    with pytest.raises(InputError, match="2 of 2 patches have no label"):
        runs.aggregate()


def test_valid_with_one_class_gives_no_threshold(make_runs):
    with pytest.raises(InputError, match=r"valid\.csv: a threshold needs both classes"):
        make_runs(labels={"valid": np.zeros(6, int)}).aggregate()


def test_a_variant_named_like_another_key_is_refused(make_runs):
    for taken in ("seeds", "differences"):
        with pytest.raises(InputError, match=rf"variants\.{taken}"):
            make_runs(variants=("baseline", taken)).aggregate()


# --- baselines -------------------------------------------------------------------------------------------------------


def tinted(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Patches whose positives are a little redder."""
    patches = rng.integers(90, 150, (len(labels), 96, 96, 3))
    patches[..., 0] += (rng.normal(12, 12, len(labels)) * labels).astype(int)[:, None, None]
    return np.clip(patches, 0, 255).astype(np.uint8)


@pytest.fixture
def splits(tmp_path):
    """Stores and tables of three small splits; train has fewer positives, as the course's subset has."""
    stores, tables, rng = {}, {}, np.random.default_rng(0)
    for split, labels in {"train": np.array([0, 0, 1] * 14), **LABELS}.items():
        stores[split], tables[split] = str(tmp_path / f"{split}.npy"), str(tmp_path / f"{split}_rows.csv")
        np.save(stores[split], tinted(labels, rng))
        rows = [(i, int(label), "", "") for i, label in enumerate(labels)]
        write_csv(tables[split], ("row", "label", "slide", "group"), rows)
    return stores, tables


def fit(splits, out: Path) -> dict:
    stores, tables = ({split: paths[split] for split in ("train", "valid")} for paths in splits)
    fit_baselines(stores, tables, str(out), rule=RULE, provenance=PROVENANCE)
    return json.loads(out.read_text())


def scored_baselines(splits, weights: Path, out: Path) -> dict:
    stores, tables = ({split: paths[split] for split in ("valid", "test")} for paths in splits)
    score_baselines(str(weights), stores, tables, str(out), beta=BETA, rules=RULES, provenance=PROVENANCE)
    return json.loads(out.read_text())


def test_histograms_count_every_pixel_once_per_channel():
    patches = np.random.default_rng(1).integers(0, 256, (300, 96, 96, 3)).astype(np.uint8)
    found = colour_histograms(patches).reshape(300, 3, BINS)
    for patch, channel in ((0, 0), (257, 1), (299, 2)):
        counts, _ = np.histogram(patches[patch, :, :, channel], bins=BINS, range=(0, 256))
        assert np.array_equal(found[patch, channel], counts / 96**2)


def test_fitting_reads_no_test_and_gives_the_same_numbers_twice(splits, tmp_path):
    Path(splits[0]["test"]).unlink()
    Path(splits[1]["test"]).unlink()
    first, second = fit(splits, tmp_path / "a.json"), fit(splits, tmp_path / "b.json")
    assert first == second
    assert first["train"] == {"n": 42, "positives": 14, "majority": 0}
    assert first["colour_histogram"]["threshold_rule"]["split"] == "valid"


def test_the_colour_baseline_learns_colour(splits, tmp_path):
    fit(splits, tmp_path / "w.json")
    scores = scored_baselines(splits, tmp_path / "w.json", tmp_path / "s.json")
    assert scores["colour_histogram"]["test"]["roc_auc"] > 0.7
    assert scores["colour_histogram"]["valid"]["n"] == 40


def test_its_threshold_is_kept_from_valid(splits, tmp_path):
    rule = fit(splits, tmp_path / "w.json")["colour_histogram"]["threshold_rule"]
    scores = scored_baselines(splits, tmp_path / "w.json", tmp_path / "s.json")["colour_histogram"]
    assert scores["valid"]["f_beta"] == pytest.approx(rule["value_on_valid"])
    assert scores["valid"]["threshold"] == scores["test"]["threshold"]


def test_constant_answers_score_what_they_must(splits, tmp_path):
    fit(splits, tmp_path / "w.json")
    scores = scored_baselines(splits, tmp_path / "w.json", tmp_path / "s.json")
    assert scores["always_tumour"]["valid"]["f_beta"] == pytest.approx(5 / 6)
    assert scores["train_majority"]["valid"]["f_beta"] == 0.0
    assert scores["train_majority"]["test"]["accuracy"] == pytest.approx(2 / 3)
    for name in ("always_tumour", "train_majority"):
        for split, labels in LABELS.items():
            of = scores[name][split]
            assert (of["roc_auc"], of["pr_auc"]) == (0.5, pytest.approx(labels.mean()))
            assert of["brier"] is of["log_loss"] is of["threshold"] is None
            assert (of["n"], of["positives"]) == (len(labels), labels.sum())
            assert of["estimates"]["brier"]["note"] == "a constant answer states no probability"
            assert of["estimates"]["ece"].get("null_high") is None


def test_every_baseline_has_intervals(splits, tmp_path):
    fit(splits, tmp_path / "w.json")
    scores = scored_baselines(splits, tmp_path / "w.json", tmp_path / "s.json")
    for name in ("always_tumour", "train_majority", "colour_histogram"):
        for split in LABELS:
            of = scores[name][split]
            for metric, estimate in of["estimates"].items():
                assert estimate["value"] == of[metric]
            accuracy = of["estimates"]["accuracy"]
            assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    f_beta = scores["always_tumour"]["test"]["estimates"]["f_beta"]
    assert f_beta["low"] < f_beta["value"] < f_beta["high"]


def test_damaged_baseline_weights_are_refused(splits, tmp_path):
    document = fit(splits, tmp_path / "w.json")
    document["colour_histogram"]["coefficients"].pop()
    write_json(tmp_path / "w.json", document)
    with pytest.raises(InputError, match=r"w\.json: .*48"):
        scored_baselines(splits, tmp_path / "w.json", tmp_path / "s.json")


def test_a_store_that_does_not_match_its_table_is_refused(splits, tmp_path):
    np.save(splits[0]["valid"], np.load(splits[0]["valid"])[:-1])
    with pytest.raises(InputError, match="39 patches for the 40 rows"):
        fit(splits, tmp_path / "w.json")
