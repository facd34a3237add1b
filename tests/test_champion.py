"""Temperature and threshold of the champion come from valid; what is planted shows in its evaluation."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from choose_threshold import choose_threshold
from evaluate_champion import evaluate_champion
from measure_prior_shift import drawn_rates, measure_prior_shift, rates_under
from plot_evaluation import plot_evaluation
from predict_seed import predict_seed

from pcam.checkpoint import save_checkpoint
from pcam.determinism import fix_device
from pcam.files import InputError, read_json, write_csv, write_json
from pcam.metrics import score
from pcam.model import Architecture, build_model
from pcam.predictions import read_logits, read_predictions
from pcam.preprocess import Preprocessing
from pcam.settings import EvaluationSettings, ThresholdSettings
from pcam.sidecar import probabilities_of
from pcam.thresholds import choose
from pcam.training import predict

RULE = ThresholdSettings(rule="f_beta", beta=2.0, sensitivity=0.95, missed_cost=10.0)
RULES = EvaluationSettings(level=0.95, resamples=200, least_groups=30, ece_bins=10, seed=0, coverage_draws=10)
ARCHITECTURE = Architecture(model="resnet", width=4, depth=1, hidden=8, dropout=0.0, tta=False)
N = 60


def write_rows(path: Path, labels: np.ndarray, slides: int = 40) -> None:
    lines = [(100 + i, label, f"s{i * slides // len(labels)}", "") for i, label in enumerate(labels)]
    write_csv(path, ("row", "label", "slide", "group"), lines)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Folder with a candidate of random weights, a selection that chose it and a store of valid; its logits there."""
    folder = tmp_path_factory.mktemp("chosen")
    torch.manual_seed(0)
    document = {
        "architecture": ARCHITECTURE,
        "preprocessing": {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]},
        "temperature": None,
        "threshold": None,
        "digests": {"data": "d"},
        "data_source": "test",
        "provenance": {"rule": "train_seed"},
    }
    rng = np.random.default_rng(2)
    patches = rng.integers(0, 256, (N, 1, 1, 3)) // 2 + rng.integers(0, 128, (N, 96, 96, 3))
    np.save(folder / "valid.npy", patches.astype(np.uint8))
    device = fix_device(1)
    model = build_model(ARCHITECTURE).to(device)
    preprocessing = Preprocessing((0.7, 0.5, 0.6), (0.2, 0.2, 0.2))
    raw = predict(model, np.load(folder / "valid.npy"), preprocessing, device)
    with torch.no_grad():  # logits around 0, as a trained model has them
        model.head.weight *= 3 / float(np.std(raw))
        model.head.bias.copy_((model.head.bias - float(np.median(raw))) * 3 / float(np.std(raw)))
    save_checkpoint(folder / "candidate.pt", folder / "candidate.json", model, document)
    told = {"name": "tuned/seed-1", "variant": "tuned", "weights": str(folder / "candidate.pt")}
    write_json(folder / "selection.json", {"chosen": told})
    logits = predict(model, np.load(folder / "valid.npy"), preprocessing, device)
    write_rows(folder / "valid.csv", (logits + rng.normal(0, 3, N) > 0).astype(int))
    return folder, logits


def chosen_in(inputs: Path, out: Path, rows: Path | None = None, rule: ThresholdSettings = RULE) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    choose_threshold(
        *(str(inputs / name) for name in ("selection.json", "valid.npy")),
        str(rows or inputs / "valid.csv"),
        *(str(out / name) for name in ("weights.pt", "weights.json")),
        rule=rule,
        rules=RULES,
        threads=1,
        provenance={"rule": "choose_threshold"},
    )
    return read_json(out / "weights.json")


def test_the_sidecar_tells_what_was_chosen_and_predictions_follow_it(
    chosen: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    folder, logits = chosen
    sidecar = chosen_in(folder, tmp_path / "champion")
    told = sidecar["threshold_rule"]
    assert (sidecar["name"], sidecar["variant"]) == ("tuned/seed-1", "tuned")
    assert sidecar["trained_by"] == {"rule": "train_seed"} and sidecar["provenance"] == {"rule": "choose_threshold"}
    assert sidecar["digests"] == read_json(folder / "candidate.json")["digests"]
    assert {key: told[key] for key in ("rule", "beta", "target", "split", "n")} == {
        "rule": "f_beta", "beta": 2.0, "target": None, "split": "valid", "n": N}  # fmt: skip
    assert told["interval_kind"] == "test inversion" and told["interval_note"].startswith("too few slides (2")
    assert told["interval"][0] <= sidecar["threshold"] <= told["interval"][1]
    predict_seed(*(str(path) for path in (tmp_path / "champion" / "weights.pt", folder / "valid.npy",
                                          folder / "valid.csv", tmp_path / "valid.csv")), threads=1)  # fmt: skip
    predicted = read_predictions(tmp_path / "valid.csv")
    assert read_logits(tmp_path / "valid.csv") == pytest.approx(logits, abs=1e-5)
    assert sidecar["temperature"] != 1 and sidecar["temperature_note"] is None
    assert predicted.probabilities == pytest.approx(probabilities_of(logits, sidecar["temperature"]), abs=1e-5)
    values = score(predicted.labels, predicted.probabilities, sidecar["threshold"], 2.0)
    assert values["f_beta"] == pytest.approx(told["value_on_valid"])


def test_a_second_run_gives_the_same_bytes(chosen: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    for name in ("one", "two"):
        chosen_in(chosen[0], tmp_path / name)
    for file in ("weights.pt", "weights.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(("name", "target"), [("sensitivity", 0.95), ("cost", 10.0)])
def test_the_rule_of_the_config_counts(
    chosen: tuple[Path, np.ndarray], tmp_path: Path, name: str, target: float
) -> None:
    told = chosen_in(chosen[0], tmp_path, rule=replace(RULE, rule=name))["threshold_rule"]
    assert (told["rule"], told["target"]) == (name, target)
    assert told["value_on_valid"] >= 0.95 if name == "sensitivity" else told["value_on_valid"] <= 1


def test_where_the_scores_part_valid_there_is_no_temperature_and_the_sidecar_says_why(
    chosen: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, logits = chosen
    write_rows(tmp_path / "rows.csv", (logits > 0).astype(int))
    sidecar = chosen_in(folder, tmp_path, rows=tmp_path / "rows.csv")
    assert sidecar["temperature"] is None and "outside 0.1 to 10" in sidecar["temperature_note"]
    assert sidecar["temperature_note"] in capsys.readouterr().out
    assert sidecar["threshold_rule"]["value_on_valid"] == 1


def test_valid_of_one_class_and_a_store_of_other_patches_are_refused_in_one_line(
    chosen: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    write_rows(tmp_path / "ones.csv", np.ones(N, int))
    with pytest.raises(InputError, match=r"ones\.csv: .*both classes"):
        chosen_in(chosen[0], tmp_path / "out", rows=tmp_path / "ones.csv")
    write_rows(tmp_path / "few.csv", np.tile([0, 1], 5))
    with pytest.raises(InputError, match="60 patches for the 10 rows"):
        chosen_in(chosen[0], tmp_path / "out", rows=tmp_path / "few.csv")
    assert not list((tmp_path / "out").iterdir())


# --- what it is worth -------------------------------------------------------------------------------------------------


class Files:
    """Tables of a champion as the workflow leaves them: logits `overconfident` times too large, then tempered."""

    def __init__(self, folder: Path, *, skill: float = 2.0, overconfident: float = 4.0, n: int = 400) -> None:
        self.folder, rng = folder, np.random.default_rng(0)
        self.labels, self.logits = {}, {}
        for split, of_ten in (("valid", 5), ("test", 4)):
            labels = (np.arange(n) % 10 < of_ten).astype(int)
            # Normal scores of distance d and width sqrt(d) are honest logits where half the patches are tumour.
            self.labels[split] = labels
            honest = rng.normal(skill * (labels - 0.5), np.sqrt(skill), n)
            self.logits[split] = overconfident * honest
        write_rows(folder / "train.csv", (np.arange(100) < 20).astype(int))
        self.write(temperature=overconfident)

    def write(self, *, temperature: float | None = 1.0, threshold: float = 0.4) -> None:
        for split, labels in self.labels.items():
            told = probabilities_of(self.logits[split], temperature or 1.0)
            rows = np.arange(100, 100 + len(labels)).tolist()
            lines = zip(rows, labels.tolist(), self.logits[split].tolist(), told.tolist(), strict=True)
            write_csv(self.folder / f"predict-{split}.csv", ("row", "label", "logit", "probability"), lines)
            write_rows(self.folder / f"{split}.csv", labels)
        sidecar = {"name": "tuned/seed-1", "variant": "tuned", "temperature": temperature, "temperature_note": None}
        write_json(self.folder / "weights.json", {**sidecar, "threshold": threshold})

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def paths(self, kind: str, splits: tuple[str, ...] = ("valid", "test")) -> Mapping[str, str]:
        return {split: self.path(f"{kind}{split}.csv") for split in splits}

    def evaluate(self) -> dict[str, Any]:
        evaluate_champion(
            self.path("weights.json"), self.paths("predict-"), self.paths(""), self.path("evaluation.json"),
            beta=2.0, rules=RULES, provenance={},
        )  # fmt: skip
        return read_json(self.folder / "evaluation.json")

    def shift(self) -> dict[str, Any]:
        measure_prior_shift(
            self.path("weights.json"), self.paths("predict-"), self.paths("", ("train", "valid", "test")),
            self.path("prior.json"), rule=RULE, rules=RULES, provenance={},
        )  # fmt: skip
        return read_json(self.folder / "prior.json")

    def plot(self, name: str = "evaluation") -> str:
        seeds = {f"{v}/seed-{s}": self.path("predict-test.csv") for v in ("baseline", "mlp", "tuned") for s in (0, 1)}
        plot_evaluation(
            self.path("evaluation.json"), self.path("weights.json"), self.paths("predict-"), seeds,
            self.path(f"{name}.png"), self.path(f"{name}.txt"), bins=10, label="SYNTHETIC SAMPLE",
        )  # fmt: skip
        return (self.folder / f"{name}.txt").read_text()


def test_confusion_and_what_goes_wrong_in_a_thousand_are_counted_by_split(tmp_path: Path) -> None:
    files = Files(tmp_path)
    told = files.evaluate()
    for split, role in (("valid", "chosen here"), ("test", "carried over")):
        predicted = read_predictions(tmp_path / f"predict-{split}.csv")
        wrong = {(1, 0): 0, (0, 1): 0, (1, 1): 0, (0, 0): 0}
        for label, probability in zip(predicted.labels, predicted.probabilities, strict=True):
            wrong[int(label), int(probability >= 0.4)] += 1
        found, missed, alarms, cleared = wrong[1, 1], wrong[1, 0], wrong[0, 1], wrong[0, 0]
        counts = {"found": found, "missed": missed, "alarms": alarms, "cleared": cleared}
        assert told[split]["confusion"] == counts and told[split]["role"] == role
        for name, count in (("missed", missed), ("false_alarms", alarms)):
            estimate = told[split]["per_1000"][name]
            assert estimate["value"] == pytest.approx(1000 * count / 400)
            assert estimate["low"] < estimate["value"] < estimate["high"] and estimate["n"] == 400
            assert "by slide" in estimate["kind"] and estimate["groups"] == 40
        assert told[split]["metrics"]["f_beta"]["value"] == pytest.approx(
            score(predicted.labels, predicted.probabilities, 0.4, 2.0)["f_beta"]
        )


def test_a_planted_overconfidence_shows_before_the_temperature_and_not_after(tmp_path: Path) -> None:
    told = Files(tmp_path).evaluate()
    before, after = (told["calibration"]["valid"][when] for when in ("before", "after"))
    assert before["ece"] > before["null_high"] and after["ece"] < before["ece"] / 3
    assert after["log_loss"] < before["log_loss"] and after["brier"] < before["brier"]
    assert told["temperature"] == 4


@pytest.mark.parametrize(("threshold", "beats"), [(0.3, True), (0.99, False)])
def test_always_tumour_stands_beside_it(tmp_path: Path, threshold: float, beats: bool) -> None:
    files = Files(tmp_path)
    files.write(temperature=4.0, threshold=threshold)
    told = files.evaluate()
    share = float(np.mean(files.labels["test"]))
    assert told["always_tumour"]["test"] == pytest.approx(5 * share / (4 * share + 1))
    assert told["beats_always_tumour"]["test"] is beats
    caption = files.plot()
    assert ("is above" if beats else "is not above") in caption and caption.endswith("Data: SYNTHETIC SAMPLE.\n")


def test_a_split_of_one_class_is_undefined_and_never_zero(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.labels["test"][:] = 0
    files.write(temperature=4.0)
    told = files.evaluate()
    assert told["test"]["metrics"]["roc_auc"]["value"] is None and told["test"]["metrics"]["roc_auc"]["note"]
    assert told["beats_always_tumour"] == {"valid": False, "test": None} and told["always_tumour"]["test"] is None
    assert "A class is missing" in files.plot()
    of_test = files.shift()["priors"]["test"]
    assert of_test["prior"] == 0.0 and of_test["threshold"] is None and of_test["on_test"]["f_beta"] is None
    assert of_test["precision"]["value"] is None and of_test["precision"]["note"] == "one class only"


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    files = Files(tmp_path)
    write_rows(tmp_path / "test.csv", files.labels["test"][:-1])
    with pytest.raises(InputError, match=r"predict-test\.csv: its rows are not those of"):
        files.evaluate()
    files.write()
    write_json(tmp_path / "weights.json", {**read_json(tmp_path / "weights.json"), "threshold": None})
    with pytest.raises(InputError, match="threshold is null"):
        files.evaluate()


def test_results_and_picture_are_the_same_bytes_again(tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = Files(tmp_path / name)
        files.evaluate()
        files.shift()
        files.plot()
        names = ("evaluation.json", "prior.json", "evaluation.png", "evaluation.txt")
        contents.append([(tmp_path / name / file).read_bytes() for file in names])
    assert contents[0] == contents[1]


def test_a_prior_does_what_patches_of_that_prior_would_do(tmp_path: Path) -> None:
    """Every patch without tumour of valid taken so often that the share is that of train: the same by counting."""
    files = Files(tmp_path)
    labels = files.labels["valid"]
    told = files.shift()["priors"]
    assert {split: told[split]["prior"] for split in told} == {"train": 0.2, "valid": 0.5, "test": 0.4}
    predicted = read_predictions(tmp_path / "predict-valid.csv")
    often = np.where(labels == 1, 1, 4)
    counted = score(np.repeat(labels, often), np.repeat(predicted.probabilities, often), 0.4, 2.0)
    for metric in ("precision", "f_beta"):
        estimate = told["train"][metric]
        assert (estimate["kind"], estimate["groups"]) == ("Jeffreys draws of both rates, by slide", 40)
        assert estimate["value"] == pytest.approx(counted[metric])
        assert estimate["low"] < estimate["value"] < estimate["high"]
        assert estimate["value"] < told["valid"][metric]["value"]
    wanted = choose(np.repeat(labels, often), np.repeat(predicted.probabilities, often), RULE)
    assert told["train"]["threshold"] == pytest.approx(wanted) and wanted > told["valid"]["threshold"]
    test = read_predictions(tmp_path / "predict-test.csv")
    on_test = score(test.labels, test.probabilities, told["train"]["threshold"], 2.0)
    assert told["train"]["on_test"] == {name: on_test[name] for name in told["train"]["on_test"]}


def test_where_nothing_is_called_the_precision_is_undefined_under_every_prior(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write(temperature=4.0, threshold=1.0)
    for told in files.shift()["priors"].values():
        assert (told["precision"]["value"], told["precision"]["low"]) == (None, None)
        assert told["precision"]["note"] == "no patch was called tumour" and told["f_beta"]["value"] == 0


def test_the_interval_of_the_precision_under_a_prior_holds_it_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(1), float(rates_under(0.1, 0.9, 0.95, 2.0)["precision"])
    held, labels = 0, np.repeat([0, 1], 100)
    for draw in range(300):
        called = rng.random(200) < np.where(labels == 1, 0.9, 0.05)
        draws = drawn_rates(called, labels, None, replace(RULES, seed=draw, resamples=400))
        low, high = np.quantile(rates_under(0.1, *draws, 2.0)["precision"], [0.025, 0.975])
        held += low <= truth <= high
    assert 0.91 <= held / 300 <= 0.985
