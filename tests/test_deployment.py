"""Each deployment issue is measured on the champion as it is used, and what catches it is tried, not promised."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from measure_deployment import measure_deployment
from plot_deployment import plot_deployment
from watch_drift import watch_drift

from pcam.checkpoint import load_checkpoint, save_checkpoint
from pcam.deployment import (
    AS_IT_IS,
    ISSUES,
    Bench,
    Step,
    changed_patches,
    logits_at,
    stain_scaled,
    statistics_of,
    stratified,
)
from pcam.files import InputError, read_csv, read_json, write_csv
from pcam.guard import read_guard
from pcam.intervals import Groups
from pcam.metrics import f_beta, roc_auc
from pcam.model import Architecture, build_model
from pcam.preprocess import Preprocessing, normalise
from pcam.settings import EvaluationSettings, from_mapping
from pcam.sidecar import probabilities
from pcam.training import predict

CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
RULES = from_mapping(EvaluationSettings, {**CONFIG["evaluation"], "resamples": 50})
CPU, N = torch.device("cpu"), 60
OWN = Preprocessing((0.6, 0.4, 0.55), (0.2, 0.2, 0.15))


def tissue(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pink patches with blue dots, uint8 (n,96,96,3), and labels: the dots of label 1 are more."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    patches = np.empty((n, 96, 96, 3))
    for patch, label in zip(patches, labels, strict=True):
        dots = np.repeat(np.repeat(rng.random((24, 24)) < (0.35 if label else 0.2), 4, axis=0), 4, axis=1)
        patch[:] = np.where(dots[..., None], (90, 60, 140), (215, 140, 190)) + rng.normal(0, 12, (96, 96, 3))
    return np.clip(np.rint(patches), 0, 255).astype(np.uint8), labels


def champion(folder: Path) -> None:
    """A small MLP that tells the two labels apart, with predictions, guard, stores and tables."""
    torch.manual_seed(0)
    architecture = Architecture(model="mlp", width=4, depth=1, hidden=32, dropout=0.0, tta=False)
    model = build_model(architecture)
    patches, labels = tissue(80, 5)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    for _ in range(25):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(normalise(torch.from_numpy(patches), OWN)), torch.from_numpy(labels).float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    document = {
        "architecture": architecture,
        "preprocessing": {"mean": list(OWN.mean), "std": list(OWN.std)},
        "threshold": 0.4,
        "temperature": 1.5,
        "digests": {},
        "data_source": "test",
    }
    save_checkpoint(folder / "weights.pt", folder / "weights.json", model, document)
    for split, n, seed in (("valid", 200, 1), ("test", 90, 2)):
        patches, labels = tissue(n, seed)
        np.save(folder / f"{split}.npy", patches)
        rows = [(row, label, "", "") for row, label in enumerate(labels)]
        write_csv(folder / f"{split}.csv", ("row", "label", "slide", "group"), rows)
    model, preprocessing, sidecar = load_checkpoint(folder / "weights.pt")
    for split, name in (("valid", "predict-valid"), ("test", "predict")):
        logits = predict(model, np.load(folder / f"{split}.npy"), preprocessing, CPU)
        labels = np.arange(len(logits)) % 2
        columns = (range(len(logits)), labels.tolist(), logits.tolist(), probabilities(logits, sidecar).tolist())
        write_csv(folder / f"{name}.csv", ("row", "label", "logit", "probability"), zip(*columns, strict=True))
    paths = [str(folder / name) for name in ("weights.pt", "predict-valid.csv", "valid.npy", "valid.csv", "guard.json")]
    watch_drift(*paths, false_alarm_rate=0.01, seed=0, provenance={})


def measure(folder: Path, out: str = "deployment.json") -> dict[str, Any]:
    names = ("weights.pt", "guard.json", "predict.csv", "test.npy", "test.csv", out)
    paths = [str(folder / name) for name in names]
    measure_deployment(*paths, patches=N, beta=2.0, rules=RULES, threads=1, provenance={"rule": "a_test"})
    return read_json(folder / out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("deployment")
    champion(made)
    return made


@pytest.fixture(scope="module")
def measured(folder: Path) -> dict[str, Any]:
    return measure(folder)


def points(measured: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(issue["name"], point["label"]): point for issue in measured["issues"] for point in issue["points"]}


# ---- what is done to patches


def test_every_issue_has_one_undisturbed_step_and_ascends() -> None:
    for issue in ISSUES:
        strengths = [step.strength for step in issue.steps]
        assert strengths == sorted(set(strengths)) and strengths.count(0) == 1
        (sound,) = (step for step in issue.steps if step.strength == 0)
        assert sound == Step(0, sound.label)


def test_scaling_a_stain_by_one_changes_nothing_and_by_zero_takes_its_colour_away() -> None:
    patches = tissue(4, 0)[0]
    same = changed_patches(patches, stain_scaled("eosin", 1.0), 0)
    assert np.abs(same.astype(int) - patches).max() <= 1
    without = changed_patches(patches, stain_scaled("haematoxylin", 0.0), 0)
    assert np.all(without[..., 0].mean(axis=(1, 2)) > patches[..., 0].mean(axis=(1, 2)))
    assert without[..., 0].mean() > 230  # eosin alone hardly absorbs red


def test_the_scale_of_one_is_what_dividing_by_255_and_not_saying_so_does() -> None:
    patches = tissue(3, 0)[0]
    wrong = normalise(torch.from_numpy(patches), statistics_of(Step(1, "", unit_scale=True), OWN))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (OWN.mean, OWN.std))
    expected = (torch.from_numpy(patches / np.float32(255)).permute(0, 3, 1, 2) - 255 * mean) / (255 * std)
    assert torch.allclose(wrong, expected, atol=1e-4)


# ---- what is measured


def test_the_undisturbed_point_is_what_the_champion_predicted(folder: Path, measured: dict[str, Any]) -> None:
    table = read_csv(folder / "predict.csv")
    labels = np.array([int(line["label"]) for line in table])
    chosen = stratified(labels, N, RULES.seed)
    stored = np.array([float(table[i]["probability"]) for i in chosen])
    sound = measured["baseline"]
    assert (measured["n"], measured["positives"], measured["threshold"]) == (N, N // 2, 0.4)
    assert sound["roc_auc"]["value"] == pytest.approx(roc_auc(labels[chosen], stored))
    assert sound["f_beta"]["value"] == pytest.approx(f_beta(labels[chosen], (stored >= 0.4).astype(int), 2.0))
    assert sound["largest_difference_from_predictions"] < 1e-5
    for issue in measured["issues"]:
        (point,) = (p for p in issue["points"] if p["strength"] == 0)
        assert point["flipped"] == 0 and point["largest_logit_change"] == 0 and point["guard"]["check"] is None
        assert point["roc_auc"] == sound["roc_auc"] and not point["guard"]["warns"]


def test_every_point_has_intervals_and_shares_that_fit(measured: dict[str, Any]) -> None:
    for point in points(measured).values():
        if point["status"] == "not run: no GPU":
            assert not torch.cuda.is_available() and "roc_auc" not in point
            continue
        low, high = point["flipped_interval"]
        assert low <= point["flipped"] <= high and point["flipped"] * N == pytest.approx(round(point["flipped"] * N))
        assert point["roc_auc"]["kind"] and point["roc_auc"]["n"] == N


@pytest.mark.parametrize(
    ("issue", "label"),
    [(name, f"{sign}50 %") for name in ("haematoxylin", "eosin", "brightness") for sign in "+-"]
    + [("blur", "2"), ("JPEG", "quality 30"), ("normalisation", "BGR")],
)
def test_a_strong_change_of_the_pixels_is_caught_by_the_guard(measured: dict[str, Any], issue: str, label: str) -> None:
    guard = points(measured)[issue, label]["guard"]
    assert guard["warns"] and guard["check"] == f"warning: {guard['property']}"


def test_wrong_statistics_lower_the_metric_and_are_refused_though_the_pixels_are_sound(
    measured: dict[str, Any],
) -> None:
    found = points(measured)
    sound, wrong = measured["baseline"], found["normalisation", "scale 0..1"]
    assert sound["roc_auc"]["value"] > 0.9 and wrong["roc_auc"]["value"] < sound["roc_auc"]["low"]
    assert wrong["flipped"] > 0.2
    assert wrong["guard"]["check"].startswith("pixels refused")
    other = found["normalisation", "ImageNet's"]
    assert other["largest_logit_change"] > 0 and other["guard"]["check"].startswith("checkpoint refused")
    assert not wrong["guard"]["warns"] and not other["guard"]["warns"]  # pixels alone do not tell


def test_a_lower_precision_changes_logits_a_little_and_nothing_pretends_to_catch_it(measured: dict[str, Any]) -> None:
    found = points(measured)
    for label in ("bfloat16", "float16"):
        point = found["precision", label]
        assert 0 < point["largest_logit_change"] < 1 and point["guard"]["check"] is None
    coarse, fine = (found["precision", label]["largest_logit_change"] for label in ("bfloat16", "float16"))
    assert fine < coarse


def test_it_gives_the_same_bits_again(folder: Path, measured: dict[str, Any]) -> None:
    assert measure(folder, "again.json") == measured


def test_a_logit_beyond_the_precision_is_told_and_not_scored(folder: Path) -> None:
    model, preprocessing, sidecar = load_checkpoint(folder / "weights.pt")
    with torch.no_grad():
        list(model.parameters())[-1].fill_(1e6)  # float16 ends at 65,504
    patches, labels = np.load(folder / "test.npy")[:8], np.arange(8) % 2
    guard, groups = read_guard(folder / "guard.json", sidecar), Groups(np.arange(8), "leak group")
    logits = logits_at(model, patches, preprocessing, CPU)
    bench = Bench(model, preprocessing, sidecar, "", guard, CPU, patches, labels, groups, logits, beta=2.0, rules=RULES)
    assert bench.measure(Step(1, "float16", precision=torch.float16)) == {
        "strength": 1,
        "label": "float16",
        "status": "failed: a logit is not finite",
    }


def test_stratified_places_keep_the_share_of_each_class_and_the_seed_decides() -> None:
    labels = np.array([0] * 90 + [1] * 30)
    chosen = stratified(labels, 40, 0)
    assert len(chosen) == 40 and labels[chosen].sum() == 10 and np.all(np.diff(chosen) > 0)
    assert np.array_equal(chosen, stratified(labels, 40, 0)) and not np.array_equal(chosen, stratified(labels, 40, 1))
    assert stratified(labels, 1000, 0).tolist() == list(range(120))


def test_a_small_draw_still_holds_each_class_that_there_is() -> None:
    rare = np.array([0] * 95 + [1] * 5)
    assert rare[stratified(rare, 8, 0)].sum() == 1 and (1 - rare)[stratified(1 - rare, 8, 0)].sum() == 7
    assert len(stratified(rare, 8, 0)) == 8
    assert len(stratified(np.zeros(20, int), 8, 0)) == 8


def test_a_guard_that_warns_of_the_untouched_patches_catches_nothing(folder: Path) -> None:
    model, preprocessing, sidecar = load_checkpoint(folder / "weights.pt")
    sound, labels = np.load(folder / "test.npy")[:N], np.arange(N) % 2
    guard, groups = read_guard(folder / "guard.json", sidecar), Groups(np.arange(N), "leak group")

    def checks(patches: np.ndarray) -> tuple[dict[str, Any], ...]:
        logits = logits_at(model, patches, preprocessing, CPU)
        bench = Bench(
            model, preprocessing, sidecar, "", guard, CPU, patches, labels, groups, logits, beta=2.0, rules=RULES
        )  # fmt: skip
        darker = Step(1, "darker", change=lambda rng, patch: patch // 2)
        steps = (AS_IT_IS, darker, Step(1, "bfloat16", precision=torch.bfloat16), Step(1, "scale", unit_scale=True))
        return tuple(bench.measure(step)["guard"] for step in steps)

    untouched, darker, precision, scale = checks(sound)
    assert darker["check"] and {told["note"] for told in (untouched, darker, precision, scale)} == {None}
    untouched, darker, precision, scale = checks(sound // 2)
    assert untouched["warns"] and darker["warns"] and precision["warns"]
    assert untouched["check"] is darker["check"] is precision["check"] is None
    assert untouched["note"] == darker["note"] == "the guard already warns of the untouched patches"
    assert scale["check"].startswith("pixels refused")  # this check does not hang on the guard's verdict


def test_answers_that_change_behind_sound_pixels_are_caught_by_the_watch_unless_they_were_odd_before(
    folder: Path,
) -> None:
    model, preprocessing, sidecar = load_checkpoint(folder / "weights.pt")
    patches, labels = np.load(folder / "test.npy")[:N], np.arange(N) % 2
    guard, groups = read_guard(folder / "guard.json", sidecar), Groups(np.arange(N), "leak group")
    sound = logits_at(model, patches, preprocessing, CPU)
    with torch.no_grad():
        list(model.parameters())[-1].add_(5)  # every patch now looks like tumour
    step = Step(1, "bfloat16", precision=torch.bfloat16)
    told = []
    for logits in (sound, logits_at(model, patches, preprocessing, CPU)):
        bench = Bench(
            model, preprocessing, sidecar, "", guard, CPU, patches, labels, groups, logits, beta=2.0, rules=RULES
        )  # fmt: skip
        told.append(bench.measure(step)["guard"])
    assert all(not verdict["warns"] and verdict["answers"]["warns"] for verdict in told)
    assert (told[0]["check"], told[0]["note"]) == ("--watch: tumour_probability", None)
    assert told[1]["check"] is None
    assert told[1]["note"] == "the watch already raises an alarm about the answers to the untouched patches"


# ---- what does not belong together


@pytest.mark.parametrize(
    ("damage", "said"),
    [("logit", "differs by"), ("row", "its rows are not those of"), ("guard", "belongs to other weights")],
)
def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, folder: Path, damage: str, said: str) -> None:
    for path in folder.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table = read_csv(tmp_path / "predict.csv")
    if damage == "guard":
        document = json.loads((tmp_path / "guard.json").read_text())
        (tmp_path / "guard.json").write_text(json.dumps({**document, "weights": "0"}))
    else:
        for line in table:
            line[damage] = str(float(line["logit"]) + 0.5) if damage == "logit" else str(int(line["row"]) + 1)
        write_csv(tmp_path / "predict.csv", list(table[0]), [list(line.values()) for line in table])
    with pytest.raises(InputError, match=said) as error:
        measure(tmp_path)
    assert "\n" not in str(error.value)


# ---- the picture


def test_the_caption_tells_the_worst_step_and_what_slips_through(tmp_path: Path, measured: dict[str, Any]) -> None:
    document = json.loads(json.dumps(measured))
    blur = next(issue for issue in document["issues"] if issue["name"] == "blur")
    blur["points"][1].update(flipped=0.9, guard={**blur["points"][1]["guard"], "check": None})
    (tmp_path / "d.json").write_text(json.dumps(document))
    plot_deployment(str(tmp_path / "d.json"), str(tmp_path / "d.png"), str(tmp_path / "d.txt"), label="A TEST")
    told = (tmp_path / "d.txt").read_text()
    assert (tmp_path / "d.png").stat().st_size > 20_000
    assert "Blur: most decisions change at 0.5, 90.0 %; not caught." in told and "blur 0.5 (90.0 %)" in told
    assert told.endswith("Data: A TEST.\n") and f"On {N} test patches" in told
    if not torch.cuda.is_available():
        assert "Device: not run: no GPU." in told


def test_the_caption_tells_an_undefined_metric_and_a_false_alarm(tmp_path: Path, measured: dict[str, Any]) -> None:
    document = json.loads(json.dumps(measured))
    document["baseline"]["guard"]["note"] = "the guard already warns of the untouched patches"
    for point in [document["baseline"], *points(document).values()]:
        if point["status"] == "measured":
            point["roc_auc"].update(value=None, low=None, high=None)
    (tmp_path / "d.json").write_text(json.dumps(document))
    plot_deployment(str(tmp_path / "d.json"), str(tmp_path / "d.png"), str(tmp_path / "d.txt"), label="A TEST")
    told = (tmp_path / "d.txt").read_text()
    assert "ROC-AUC not defined: one class only." in told
    assert "The guard already warns of the untouched patches, so no warning of it counts as a catch." in told


def test_a_step_differs_in_what_it_names_alone() -> None:
    plain = Step(1, "")
    assert statistics_of(plain, OWN) == OWN
    assert statistics_of(replace(plain, statistics=Preprocessing((0, 0, 0), (1, 1, 1))), OWN).std == (1, 1, 1)
