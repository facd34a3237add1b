"""A checkpoint loads strictly and safely; inference.py gives a CSV row a patch, or one clear line."""

import csv
import io
import json
import pickle
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from inference import classify, main
from pcam.checkpoint import load_checkpoint, predict_logits, save_checkpoint
from pcam.drift import fit
from pcam.files import InputError, write_json
from pcam.guard import STATISTICS, read_guard, watched_values
from pcam.hdf5 import write_patches
from pcam.intervals import Groups
from pcam.model import Architecture, build_model
from pcam.predictor import Predictor
from pcam.preprocess import normalise
from pcam.sidecar import probabilities
from pcam.watch import Watch

ARCHITECTURE = Architecture(model="resnet", width=4, depth=1, hidden=8, dropout=0.0, tta=False)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    document = {
        "architecture": ARCHITECTURE,
        "preprocessing": {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.2, 0.2]},
        "threshold": 0.5,
        "digests": {},
        "data_source": "test",
    }
    save_checkpoint(tmp_path / "weights.pt", tmp_path / "weights.json", build_model(ARCHITECTURE), document)
    return tmp_path / "weights.pt"


def pixels(n: int, height: int = 96, width: int = 96) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def infer(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What the program does, in this process: torch is loaded once."""
    command, out, err = ["inference.py", *map(str, arguments)], io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", command), redirect_stdout(out), redirect_stderr(err):
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "inference.py", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def rows(done: subprocess.CompletedProcess[str]) -> list[dict[str, str]]:
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(done.stdout.splitlines()))


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode != 0
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr


def test_image_folder_and_hdf5_give_the_same_answer_for_the_same_pixels(tmp_path: Path, weights: Path) -> None:
    patches = pixels(3)
    folder = tmp_path / "images"
    folder.mkdir()
    for index, one in enumerate(patches):
        Image.fromarray(one).save(folder / f"{index}.png")
    write_patches(tmp_path / "x.h5", patches.astype(np.float32))
    answers = rows(program(weights, folder, tmp_path / "x.h5", folder / "1.png"))
    by_source = [[a["probability"] for a in answers[:3]], [a["probability"] for a in answers[3:6]]]
    assert by_source[0] == by_source[1] and answers[6]["probability"] == by_source[0][1]
    assert [a["row"] for a in answers] == ["", "", "", "0", "1", "2", ""]
    model, preprocessing, _ = load_checkpoint(weights)
    with torch.inference_mode():
        expected = torch.sigmoid(model(normalise(torch.from_numpy(patches), preprocessing))).tolist()
    # The program takes a GPU where there is one, which sums in another order.
    assert [float(p) for p in by_source[0]] == pytest.approx(expected, abs=1e-5)


def test_decisions_follow_the_threshold_in_the_sidecar(tmp_path: Path, weights: Path) -> None:
    write_patches(tmp_path / "x.h5", pixels(6))
    probabilities = sorted(float(a["probability"]) for a in rows(infer(weights, tmp_path / "x.h5")))
    sidecar = json.loads(weights.with_suffix(".json").read_text())
    sidecar["threshold"] = (probabilities[2] + probabilities[3]) / 2
    weights.with_suffix(".json").write_text(json.dumps(sidecar))
    answers = rows(infer(weights, tmp_path / "x.h5"))
    assert sum(int(a["decision"]) for a in answers) == 3
    assert all(int(a["decision"]) == (float(a["probability"]) > sidecar["threshold"]) for a in answers)
    sidecar["threshold"] = None
    weights.with_suffix(".json").write_text(json.dumps(sidecar))
    refused(infer(weights, tmp_path / "x.h5"), "no threshold was chosen")


def test_the_temperature_in_the_sidecar_divides_the_logit_and_keeps_its_sign(tmp_path: Path, weights: Path) -> None:
    write_patches(tmp_path / "x.h5", pixels(6))
    plain = [float(a["probability"]) for a in rows(infer(weights, tmp_path / "x.h5"))]
    sidecar = weights.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "temperature": 4.0}))
    tempered = [float(a["probability"]) for a in rows(infer(weights, tmp_path / "x.h5"))]
    logits = np.log(np.array(plain) / (1 - np.array(plain)))
    assert tempered == pytest.approx(1 / (1 + np.exp(-logits / 4)), abs=1e-5)
    assert any(abs(a - b) > 1e-4 for a, b in zip(plain, tempered, strict=True))


def test_without_a_guard_a_note_says_so_and_refusing_is_impossible(tmp_path: Path, weights: Path) -> None:
    write_patches(tmp_path / "x.h5", pixels(2))
    done = infer(weights, tmp_path / "x.h5")
    assert rows(done) and done.stderr.startswith("note: no guard.json beside") and done.stderr.count("\n") == 1
    assert infer(weights, tmp_path / "x.h5", "--guard", "off").stderr == ""
    refused(infer(weights, tmp_path / "x.h5", "--guard", "refuse"), "guard.json: no such file")


@pytest.fixture
def guarded(tmp_path: Path, weights: Path) -> Path:
    """The checkpoint with a guard of 64 patches of noise; x.h5 holds ten like them, dark.h5 the same in dark."""
    patches = pixels(64)
    model, preprocessing, sidecar = load_checkpoint(weights)
    answers = probabilities(predict_logits(model, normalise(torch.from_numpy(patches), preprocessing)).numpy(), sidecar)
    labels = (answers > np.median(answers)).astype(int)
    guard = fit(
        watched_values(patches, answers), labels, Groups(np.arange(64), "slide"), false_alarm_rate=0.001, seed=0
    )
    bound = {"weights": sidecar["digests"]["weights"], "preprocessing": sidecar["preprocessing"], "temperature": None}
    write_json(tmp_path / "guard.json", {**guard.as_document(), **bound})
    sound = np.random.default_rng(2).integers(0, 256, (10, 96, 96, 3), dtype=np.uint8)
    write_patches(tmp_path / "x.h5", sound)
    write_patches(tmp_path / "dark.h5", sound // 2)
    return weights


def test_the_guard_is_silent_on_sound_patches_and_warns_of_others(tmp_path: Path, guarded: Path) -> None:
    for mode in ("warn", "refuse"):
        done = infer(guarded, tmp_path / "x.h5", "--guard", mode)
        assert len(rows(done)) == 10 and done.stderr == ""
    done = infer(guarded, tmp_path / "dark.h5")
    assert len(rows(done)) == 10  # answered all the same
    warning, note = done.stderr.splitlines()
    assert warning.startswith("warning: ") and "validation patches: mean distance" in warning
    assert note.startswith("note: 10 of 10 patches") and f"{tmp_path / 'dark.h5'} (row 0)" in note
    assert infer(guarded, tmp_path / "dark.h5", "--guard", "off").stderr == ""


def test_refusing_prints_no_row_and_ends_with_three(tmp_path: Path, guarded: Path) -> None:
    done = infer(guarded, tmp_path / "x.h5", tmp_path / "dark.h5", "--guard", "refuse")
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("refused: ") and done.stderr.count("\n") == 1


def test_answers_that_are_held_back_hold_no_pixels(tmp_path: Path, guarded: Path) -> None:
    predictor = Predictor(guarded)
    watch = Watch(read_guard(tmp_path / "guard.json", predictor.sidecar))
    held = list(classify(predictor, [str(tmp_path / "x.h5")], watch))
    assert len(held) == 10 and watch.findings()[0] is None
    assert {type(value) for answer in held for value in answer} == {str, int, float}


def watched(done: subprocess.CompletedProcess[str]) -> tuple[dict[str, str], str]:
    """Of the table of --watch the last word of each statistic's line, and the conclusion."""
    _, *lines, conclusion = [
        line.removeprefix("watch: ") for line in done.stderr.splitlines() if line.startswith("watch: ")
    ]
    return {line.split()[0]: line.split()[-1] for line in lines}, conclusion


def test_watching_tells_each_statistic_and_leaves_answers_and_exit_code_as_they_are(
    tmp_path: Path, guarded: Path
) -> None:
    plain, done = infer(guarded, tmp_path / "x.h5"), infer(guarded, tmp_path / "x.h5", "--watch")
    assert done.returncode == 0 and done.stdout == plain.stdout
    table, conclusion = watched(done)
    assert table == dict.fromkeys(STATISTICS, "no") and conclusion.startswith("no alarm: no difference")
    done = infer(guarded, tmp_path / "dark.h5", "--watch")
    table, conclusion = watched(done)
    assert done.returncode == 0 and table["brightness"] == "ALARM" and conclusion.startswith("ALARM: ")
    assert "warning: " not in done.stderr  # told already
    done = infer(guarded, tmp_path / "dark.h5", "--watch", "--guard", "refuse")
    assert done.returncode == 3 and done.stdout == "" and watched(done)[0] == table


def test_answers_unlike_those_of_validation_raise_the_alarm_and_refuse_nothing(tmp_path: Path, guarded: Path) -> None:
    def plant(share: float) -> None:
        """Claim that validation's mean probability was `share` above what it was: the patches stay as they are."""
        document = json.loads((tmp_path / "guard.json").read_text())
        for name in ("median", "low", "high", "mean"):
            document[name][-1] += share
        document["classes"] = [value + share for value in document["classes"]]
        write_json(tmp_path / "guard.json", document)

    plant(0.4)
    done = infer(guarded, tmp_path / "x.h5", "--watch", "--guard", "refuse")
    table, conclusion = watched(done)
    assert len(rows(done)) == 10
    assert [name for name, last in table.items() if last == "ALARM"] == ["tumour_probability"]
    assert conclusion.startswith("ALARM: the pixels raise none, so another share of tumour is one explanation")
    assert infer(guarded, tmp_path / "x.h5").stderr == ""  # without --watch the answers are not judged


def test_watching_needs_a_guard(tmp_path: Path, weights: Path) -> None:
    write_patches(tmp_path / "x.h5", pixels(2))
    refused(infer(weights, tmp_path / "x.h5", "--watch"), "guard.json: no such file")
    done = infer(weights, tmp_path / "x.h5", "--watch", "--guard", "off")
    assert done.returncode == 2 and "--watch needs the guard" in done.stderr


def test_what_is_watched_does_not_grow_with_the_patches(tmp_path: Path, guarded: Path) -> None:
    write_patches(tmp_path / "many.h5", pixels(200))

    def held(name: str) -> int:
        predictor = Predictor(guarded)
        watch = Watch(read_guard(tmp_path / "guard.json", predictor.sidecar))
        list(classify(predictor, [str(tmp_path / name)], watch))
        assert watch.tally is not None
        return len(pickle.dumps(watch.tally))

    assert held("many.h5") == pytest.approx(held("x.h5"), abs=50)


def test_a_guard_of_other_weights_or_statistics_is_an_error(tmp_path: Path, guarded: Path) -> None:
    document = json.loads((tmp_path / "guard.json").read_text())
    write_json(tmp_path / "guard.json", {**document, "weights": "0"})
    refused(infer(guarded, tmp_path / "x.h5"), "belongs to other weights")
    write_json(tmp_path / "guard.json", document)
    sidecar = json.loads(guarded.with_suffix(".json").read_text())
    guarded.with_suffix(".json").write_text(json.dumps({**sidecar, "preprocessing": {"mean": [0] * 3, "std": [1] * 3}}))
    refused(infer(guarded, tmp_path / "x.h5"), "restore the sidecar")


def test_a_larger_image_is_read_tile_by_tile(tmp_path: Path, weights: Path) -> None:
    Image.fromarray(pixels(1, 200, 300)[0]).save(tmp_path / "tile.png")
    answers = rows(infer(weights, tmp_path / "tile.png"))
    assert [(int(a["x"]), int(a["y"])) for a in answers] == [(x, y) for y in (0, 96, 104) for x in (0, 96, 192, 204)]
    Image.fromarray(pixels(1, 190, 192)[0]).save(tmp_path / "tile.png")
    answers = rows(infer(weights, tmp_path / "tile.png"))
    assert [(a["x"], a["y"]) for a in answers] == [("0", "0"), ("96", "0"), ("0", "94"), ("96", "94")]


def test_bad_inputs_get_one_clear_line(tmp_path: Path, weights: Path) -> None:
    Image.fromarray(pixels(1, 95, 200)[0]).save(tmp_path / "small.png")
    refused(infer(weights, tmp_path / "small.png"), "200 x 95 pixels; a patch needs at least 96 x 96")
    (tmp_path / "page.png").write_text("<html>")
    refused(infer(weights, tmp_path / "page.png"), "page.png: not a readable image")
    refused(infer(weights, tmp_path / "nowhere"), "no such file or folder")
    (tmp_path / "empty").mkdir()
    refused(infer(weights, tmp_path / "empty"), "holds no image")
    with h5py.File(tmp_path / "other.h5", "w") as handle:
        handle["y"] = np.zeros(3)
    refused(infer(weights, tmp_path / "other.h5"), "no dataset 'x'")
    damaged = pixels(2).astype(np.float32)
    damaged[1, 0, 0, 0] = np.nan
    write_patches(tmp_path / "nan.h5", damaged)
    refused(infer(weights, tmp_path / "nan.h5"), "row 1: a value lies outside 0..255 or is not finite")


class Runs:
    """A pickle that would run code when loaded carelessly."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


@pytest.mark.parametrize(
    "damage", ["truncated", "pickle", "foreign", "list", "swapped", "no sidecar", "sidecar key", "other model"]
)
def test_a_corrupt_or_foreign_checkpoint_is_refused_in_one_line(weights: Path, damage: str) -> None:
    sidecar = weights.with_suffix(".json")
    document = json.loads(sidecar.read_text())
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:2000])
        case "pickle":
            weights.write_bytes(pickle.dumps(Runs()))
        case "foreign":
            weights.write_bytes(b"\x00" * 100)
        case "list":
            torch.save([1, 2], weights)
        case "swapped":
            torch.save({"layer": torch.zeros(3)}, weights)
        case "no sidecar":
            sidecar.unlink()
        case "sidecar key":
            del document["threshold"]
            sidecar.write_text(json.dumps(document))
        case "other model":
            document["architecture"]["width"] = 8
            sidecar.write_text(json.dumps(document))
    with pytest.raises(InputError) as error:
        load_checkpoint(weights)
    assert "\n" not in str(error.value) and str(weights.parent) in str(error.value)


def test_inference_imports_only_its_closure() -> None:
    code = "import sys; sys.argv=['x']; import inference; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "torch",
        "onnxruntime",
        "sklearn",
        "snakemake",
        "mlflow",
        "optuna",
        "matplotlib",
        "scipy",
        "pandas",
        "jinja2",
        "pcam.settings",
    }
