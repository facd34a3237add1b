"""inference.py as a stranger uses it: all kinds of input and output, hostile files, the ONNX graph without torch."""

import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT
from export_onnx import export_onnx, onnx_bytes
from PIL import Image, TiffImagePlugin
from test_inference import Runs, guarded, infer, pixels, program, refused, rows, weights

import inference
from pcam import provenance
from pcam.checkpoint import load_checkpoint, save_checkpoint
from pcam.files import InputError, read_json, write_json
from pcam.hdf5 import write_patches
from pcam.model import Architecture, build_model
from pcam.outputs import COLOURS, draw_map
from pcam.predictor import Predictor

__all__ = ["guarded", "weights"]  # fixtures

# The program where no package is installed but these.
ALONE = f"""
import importlib.abc, runpy, sys
ALLOWED = {{"numpy", "PIL", "h5py", "onnxruntime", "flatbuffers", "google", "packaging", "pcam"}}
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED | set(sys.stdlib_module_names):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.modules["torch"] = None
runpy.run_path({str(ROOT / "inference.py")!r}, run_name="__main__")
"""


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def numbers(done: subprocess.CompletedProcess[str]) -> list[float]:
    return [float(row["probability"]) for row in rows(done)]


@pytest.fixture
def exported(tmp_path: Path, weights: Path) -> Path:
    """weights.onnx and onnx.json beside weights.pt; x.h5 holds the five patches of x.npy."""
    np.save(tmp_path / "x.npy", pixels(5))
    write_patches(tmp_path / "x.h5", pixels(5))
    graph = tmp_path / "weights.onnx"
    export_onnx(
        str(weights), str(tmp_path / "x.npy"), str(graph), str(tmp_path / "onnx.json"), threads=1, provenance={}
    )
    return graph


@pytest.mark.parametrize("model", ["resnet", "resnet50", "mlp"])
def test_every_model_exports_to_the_same_bytes_twice_and_answers_as_torch_does(tmp_path: Path, model: str) -> None:
    torch.manual_seed(1)
    architecture = Architecture(model=model, width=4, depth=1, hidden=8, dropout=0.1, tta=True)
    document = {
        "architecture": architecture, "preprocessing": {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.2]},
        "threshold": 0.5, "temperature": 2.0, "digests": {}, "data_source": "test",
    }  # fmt: skip
    path = tmp_path / "weights.pt"
    save_checkpoint(path, tmp_path / "weights.json", build_model(architecture), document)
    np.save(tmp_path / "x.npy", pixels(6))
    graph, record_path = tmp_path / "weights.onnx", tmp_path / "onnx.json"
    export_onnx(str(path), str(tmp_path / "x.npy"), str(graph), str(record_path), threads=1, provenance={"rule": "x"})
    loaded, preprocessing, sidecar = load_checkpoint(path)
    assert onnx_bytes(loaded, preprocessing) == graph.read_bytes()
    record = read_json(record_path)
    assert record["sha256"] == hashlib.sha256(graph.read_bytes()).hexdigest()
    assert record["weights"] == sidecar["digests"]["weights"] and record["provenance"] == {"rule": "x"}
    assert record["patches"] == 6 and 0 <= record["largest_logit_difference"] <= record["tolerance"]
    for tta in (False, True):
        by_torch, by_onnx = (Predictor(p, tta=tta).probabilities(pixels(6)) for p in (path, graph))
        assert by_onnx == pytest.approx(by_torch, abs=1e-5)
        assert np.ptp(by_torch) > 0  # the patches are told apart, or nothing was compared


def test_an_export_that_answers_otherwise_is_refused(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", pixels(3))
    model, preprocessing, _ = load_checkpoint(weights)
    with torch.no_grad():
        model.head.bias += 0.01
    wrong = onnx_bytes(model, preprocessing)
    monkeypatch.setattr("export_onnx.onnx_bytes", lambda *_: wrong)
    out = tmp_path / "weights.onnx"
    with pytest.raises(InputError, match=r"its logits differ by 0\.01 from those"):
        export_onnx(str(weights), str(tmp_path / "x.npy"), str(out), str(tmp_path / "r.json"), threads=1, provenance={})
    assert not out.exists()


def test_an_export_writes_nothing_without_a_threshold_and_names_no_gpu(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", pixels(3))
    described = provenance.describe("export_onnx", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    out = [tmp_path / name for name in ("weights.onnx", "onnx.json")]
    export_onnx(str(weights), str(tmp_path / "x.npy"), *map(str, out), threads=1, provenance=described)
    assert read_json(out[1])["provenance"]["device"] == provenance.cpu_name()
    for path in out:
        path.unlink()
    write_json(tmp_path / "weights.json", read_json(tmp_path / "weights.json") | {"threshold": None})
    with pytest.raises(InputError, match="no threshold was chosen"):
        export_onnx(str(weights), str(tmp_path / "x.npy"), *map(str, out), threads=1, provenance=described)
    assert not any(path.exists() for path in out)


def test_a_network_on_torch_computes_without_tf32(weights: Path) -> None:
    for place in (torch.backends.cudnn, torch.backends.cuda.matmul):
        place.allow_tf32 = True
    Predictor(weights)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("kind", ["link", "link of a link", "external", "virtual"])
def test_an_hdf5_file_that_shows_another_files_values_is_refused(tmp_path: Path, weights: Path, kind: str) -> None:
    write_patches(tmp_path / "secret.h5", pixels(2))
    with h5py.File(tmp_path / "x.h5", "w") as handle:
        match kind:
            case "link":
                handle["x"] = h5py.ExternalLink("secret.h5", "x")
            case "link of a link":
                handle["there"] = h5py.ExternalLink("secret.h5", "/")
                handle["x"] = h5py.SoftLink("/there/x")
            case "external":
                size = pixels(2).nbytes
                handle.create_dataset("x", (2, 96, 96, 3), np.uint8, external=[(str(tmp_path / "secret.h5"), 0, size)])
            case "virtual":
                layout = h5py.VirtualLayout((2, 96, 96, 3), np.uint8)
                layout[:] = h5py.VirtualSource("secret.h5", "x", (2, 96, 96, 3))
                handle.create_virtual_dataset("x", layout)
    refused(infer(weights, tmp_path / "x.h5"), "x.h5: x lies in another file")


def test_the_benchmark_ends_with_one_above_its_limit() -> None:
    code = (
        "import bench_inference as b; print(b.exit_code({'a': 1.0, 'b': b.LIMIT}), b.exit_code({'a': 1.0, 'b': 1.2}))"
    )
    code += "; print(b.exit_code({'a': float('nan')}), b.torch.get_num_threads())"
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT / "bench")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, env=environment
    )
    assert done.stdout.split() == ["0", "1", "1", "1"]


def test_without_torch_the_graph_answers_and_takes_the_place_of_weights_pt(tmp_path: Path, exported: Path) -> None:
    expected = numbers(infer(tmp_path / "weights.pt", tmp_path / "x.h5"))
    done = alone(exported, tmp_path / "x.h5", "--guard", "off")
    assert numbers(done) == pytest.approx(expected, abs=1e-5) and done.stderr == ""
    done = alone(tmp_path / "weights.pt", tmp_path / "x.h5", "--guard", "off")
    assert numbers(done) == pytest.approx(expected, abs=1e-5)
    assert "weights.onnx answers" in done.stderr and "not installed" in done.stderr
    exported.unlink()
    refused(alone(tmp_path / "weights.pt", tmp_path / "x.h5"), "torch is not installed, and")


def test_a_graph_that_does_not_belong_to_its_sidecar_is_refused(tmp_path: Path, exported: Path) -> None:
    asked = (exported, tmp_path / "x.h5", "--guard", "off")
    content, record = exported.read_bytes(), read_json(tmp_path / "onnx.json")
    assert rows(infer(*asked))
    exported.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    refused(infer(*asked), "digest differs from the one in")
    exported.write_bytes(content)
    write_json(tmp_path / "onnx.json", {**record, "weights": "0"})
    refused(infer(*asked), "belongs to other weights")
    write_json(tmp_path / "onnx.json", record)
    sidecar = read_json(tmp_path / "weights.json")
    write_json(tmp_path / "weights.json", sidecar | {"preprocessing": {"mean": [0.0] * 3, "std": [1.0] * 3}})
    refused(infer(*asked), "onnx.json: preprocessing is {'mean': [0.7, 0.5, 0.6]")
    write_json(tmp_path / "weights.json", sidecar | {"architecture": sidecar["architecture"] | {"tta": True}})
    refused(infer(*asked), "onnx.json: averaged_over_symmetries is False, not True as")
    write_json(tmp_path / "weights.json", sidecar)
    exported.write_bytes(b"no graph")
    write_json(tmp_path / "onnx.json", {**record, "sha256": hashlib.sha256(b"no graph").hexdigest()})
    refused(infer(*asked), "onnxruntime cannot load it")
    (tmp_path / "onnx.json").unlink()
    refused(infer(*asked), "onnx.json: no such file")
    refused(infer(exported, tmp_path / "x.h5", "--device", "cuda"), "onnxruntime computes on the CPU")


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path: Path, weights: Path) -> None:
    weights.write_bytes(pickle.dumps(Runs()))
    refused(infer(weights, tmp_path / "x.h5"), "refused, because a pickle can run code")
    torch.save({"layer": Runs()}, weights)
    refused(program(weights, tmp_path / "x.h5"), "refused, because a pickle can run code")


def test_a_sidecar_that_states_nonsense_is_refused(tmp_path: Path, weights: Path) -> None:
    path = weights.with_suffix(".json")
    document = json.loads(path.read_text())
    for change, said in (
        ({"threshold": "high"}, 'threshold is "high", not a number from 0 to 1'),
        ({"threshold": True}, "threshold is true, not a number"),
        ({"threshold": 5}, "threshold is 5, not a number from 0 to 1"),
        ({"threshold": -0.1}, "threshold is -0.1, not a number from 0 to 1"),
        ({"threshold": 10**400}, "0..., not a number from 0 to 1"),
        ({"architecture": {"tta": "false"}}, "tta is 'false', not true or false"),
        ({"temperature": 0}, "temperature is 0, not a number above 0"),
        ({"digests": []}, "digests is [], not a JSON object"),
        ({"architecture": {}}, "architecture has no key 'tta'"),
    ):
        path.write_text(json.dumps(document | change))
        refused(infer(weights, tmp_path / "x.h5"), said)
    path.write_text(json.dumps(document | {"threshold": float(np.nextafter(1, 2))}))  # of a champion that calls none
    write_patches(tmp_path / "x.h5", pixels(2))
    assert [row["decision"] for row in rows(infer(weights, tmp_path / "x.h5"))] == ["0", "0"]
    for text in ("[" * 200_000, '{"threshold": ' + "1" * 5_000 + "}"):
        path.write_text(text)
        refused(infer(weights, tmp_path / "x.h5"), "weights.json: not a JSON file")
    path.unlink()
    path.mkdir()
    refused(infer(weights, tmp_path / "x.h5"), "weights.json: not a JSON file")


def test_folder_pattern_list_and_packed_file_give_the_same_answers(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for index, one in enumerate(pixels(3)):
        Image.fromarray(one).save(folder / f"{index}.png")
    Image.fromarray(pixels(1)[0]).save(folder / "deep" / "0.tiff")
    write_patches(tmp_path / "x.h5", pixels(3))
    (tmp_path / "x.h5.gz").write_bytes(gzip.compress((tmp_path / "x.h5").read_bytes()))
    expected = numbers(infer(weights, folder))
    assert len(expected) == 3
    assert numbers(infer(weights, folder / "*.png")) == expected
    assert numbers(infer(weights, folder / "**" / "*.*")) == [*expected, expected[0]]
    packed = rows(infer(weights, tmp_path / "x.h5.gz"))
    assert [float(row["probability"]) for row in packed] == expected and [row["row"] for row in packed] == [
        "0",
        "1",
        "2",
    ]
    assert {row["source"] for row in packed} == {str(tmp_path / "x.h5.gz")}
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{folder / '2.png'}\n\n{tmp_path / 'x.h5'}\n"))
    assert numbers(infer(weights, "-")) == [expected[2], *expected]
    refused(infer(weights, folder / "*.jpg"), "no file fits this pattern")
    monkeypatch.setattr(sys, "stdin", io.StringIO("-\n"))
    refused(infer(weights, "-"), "stdin: a line is -")


def test_answers_stream_whatever_the_number_of_inputs(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(pixels(1)[0]).save(tmp_path / "a.png")
    read: list[int] = []

    def endless() -> Iterator[str]:
        while True:
            read.append(1)
            yield f"{tmp_path / 'a.png'}\n"

    monkeypatch.setattr(sys, "stdin", endless())
    answers = inference.classify(Predictor(weights, batch=4), ["-"])
    assert len([next(answers) for _ in range(5)]) == 5
    answers.close()
    assert len(read) <= 3 * 4  # two batches were asked for, and one is read ahead


def test_windows_at_a_stride_are_the_patches_there_and_make_a_map(tmp_path: Path, weights: Path) -> None:
    image = pixels(1, 160, 200)[0]
    Image.fromarray(image).save(tmp_path / "tile.tif")
    Image.fromarray(image[:96, :96]).save(tmp_path / "patch.png")
    write_patches(tmp_path / "cut.h5", np.stack([image[:96, :96], image[32:128, 96:192], image[64:160, 32:128]]))
    done = infer(weights, tmp_path / "tile.tif", tmp_path / "patch.png", "--stride", 32, "--map", tmp_path / "maps")
    answers = {(int(row["x"]), int(row["y"])): float(row["probability"]) for row in rows(done)[:-1]}
    assert [*answers] == [(x, y) for y in (0, 32, 64) for x in (0, 32, 64, 96, 104)]
    expected = numbers(infer(weights, tmp_path / "cut.h5"))
    assert [answers[at] for at in ((0, 0), (96, 32), (32, 64))] == pytest.approx(expected, abs=1e-5)
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["tile.tif.probability.npy", "tile.tif.probability.png"]  # a patch needs no map
    grid = np.load(tmp_path / "maps" / names[0])
    assert grid.dtype == np.float32 and grid.shape == (3, 5)
    assert grid.ravel() == pytest.approx(list(answers.values()), abs=1e-6)
    picture = np.asarray(Image.open(tmp_path / "maps" / names[1]))
    assert picture.shape == image.shape
    colourless = picture[..., 0] == picture[..., 2]
    assert colourless[:32].all() and colourless[:, :32].all()  # no window has its centre there
    assert colourless[128:].all() and colourless[:, 168:].all()
    assert colourless[32:128, 32:168].mean() < 0.1


def test_the_last_cells_of_a_map_lie_flush_with_the_image() -> None:
    grid = np.array([[0.0, 0.5, 1.0]])
    picture = draw_map(np.zeros((96, 250, 3), np.uint8), grid, 96)
    row = (picture[48] / 0.55).round().astype(int)
    at = {tuple(colour): np.flatnonzero((np.abs(row - colour) <= 2).all(axis=1)) for colour in COLOURS[::2]}
    assert [(found[0], found[-1] + 1) for found in at.values()] == [(0, 96), (96, 154), (154, 250)]


def test_two_images_of_one_name_get_a_map_each(tmp_path: Path, weights: Path) -> None:
    for folder, width in (("a", 200), ("b", 300)):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels(1, 96, width)[0]).save(tmp_path / folder / "t.png")
    done = infer(weights, tmp_path / "a", tmp_path / "b", "--map", tmp_path / "maps", "--guard", "off")
    assert len(rows(done)) == 3 + 4
    assert done.stderr == f"note: the map of {tmp_path / 'b' / 't.png'} is t.png-2.probability.npy and .png\n"
    shapes = [np.load(tmp_path / "maps" / f"{name}.probability.npy").shape for name in ("t.png", "t.png-2")]
    assert shapes == [(1, 3), (1, 4)]


def test_an_image_whose_name_is_no_utf_8_gets_its_map(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels(1, 96, 192)[0]).save(tmp_path / "t.png")
    name = os.fsdecode(b"t\xff.png")
    (tmp_path / "t.png").rename(tmp_path / "in" / name)
    done = infer(weights, tmp_path / "in", "--map", tmp_path / "maps", "--guard", "off")
    assert [Path(row["source"]).name for row in rows(done)] == ["t\\xff.png"] * 2
    assert np.load(tmp_path / "maps" / f"{name}.probability.npy").shape == (1, 2)
    listed = io.BytesIO(os.fsencode(tmp_path / "in" / name) + b"\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(listed, encoding="utf-8"))
    assert rows(infer(weights, "-")) == rows(done)


def test_maps_do_not_lie_among_the_images(tmp_path: Path, weights: Path) -> None:
    Image.fromarray(pixels(1, 96, 192)[0]).save(tmp_path / "t.png")
    (tmp_path / "link").symlink_to(tmp_path)
    asked = (weights, tmp_path / "t.png", "--map", tmp_path / "link", "--guard", "off")
    refused(infer(*asked), "t.png: lies in the folder of maps")
    assert not list(tmp_path.glob("*.probability.*"))


def test_a_place_that_cannot_be_written_is_told_before_anything_is_computed(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_patches(tmp_path / "x.h5", pixels(2))
    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "probabilities", lambda *_: pytest.fail("a batch was computed"))
        asked = (weights, tmp_path / "x.h5", "--guard", "off")
        refused(infer(*asked, "-o", tmp_path), f"{tmp_path}: is a folder; name a file in it")
        refused(infer(*asked, "-o", tmp_path / "x.h5" / "answers.csv"), "File exists")
        refused(infer(*asked, "-o", "/proc/none/answers.csv"), "/proc/none")
        refused(infer(*asked, "--map", tmp_path / "x.h5"), "x.h5: cannot be the folder of maps")
    with patch("pcam.outputs.Answer._asdict", side_effect=OSError(errno.ENOSPC, "No space left on device")):
        refused(infer(*asked, "-o", tmp_path / "a.jsonl"), f"{tmp_path / 'a.jsonl'}: No space left on device; write")
    assert not (tmp_path / "a.jsonl").exists()


def test_a_full_disk_behind_stdout_is_told_in_one_line(tmp_path: Path, weights: Path) -> None:
    write_patches(tmp_path / "x.h5", pixels(2))
    command = [sys.executable, str(ROOT / "inference.py"), str(weights), str(tmp_path / "x.h5"), "--guard", "off"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (
        done.returncode == 1 and done.stderr.startswith("error: stdout: No space left") and done.stderr.count("\n") == 1
    )


def test_a_file_of_answers_appears_whole_or_not_at_all(tmp_path: Path, guarded: Path) -> None:
    out = tmp_path / "answers.jsonl"
    assert infer(guarded, tmp_path / "x.h5", "-o", out).stdout == ""
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["row"] for line in lines] == [*range(10)] and set(lines[0]) == set(inference.Answer._fields)
    assert [line["probability"] for line in lines] == numbers(infer(guarded, tmp_path / "x.h5"))
    assert infer(guarded, tmp_path / "x.h5", "--format", "jsonl").stdout == out.read_text()
    before = out.read_bytes()
    assert infer(guarded, tmp_path / "x.h5", tmp_path / "none.png", "-o", out).returncode == 1
    assert infer(guarded, tmp_path / "dark.h5", "-o", out, "--guard", "refuse").returncode == 3
    assert out.read_bytes() == before and not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_averaging_over_symmetries_is_the_models_own_choice_or_the_flags(tmp_path: Path, weights: Path) -> None:
    write_patches(tmp_path / "x.h5", pixels(4))
    plain = infer(weights, tmp_path / "x.h5", "--guard", "off")
    averaged = infer(weights, tmp_path / "x.h5", "--guard", "off", "--tta")
    assert averaged.stderr == "note: the threshold was chosen with --no-tta\n" and plain.stderr == ""
    views = [np.rot90(side, turns, (1, 2)) for side in (pixels(4), pixels(4)[:, ::-1]) for turns in range(4)]
    logits = np.mean([np.log(1 / (1 / inference.predict_patches(view, weights) - 1)) for view in views], axis=0)
    assert numbers(averaged) == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)
    assert numbers(averaged) != numbers(plain)


def test_the_function_takes_arrays_alone(tmp_path: Path, weights: Path) -> None:
    np.save(tmp_path / "x.npy", pixels(5))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    by_two = inference.predict_patches(stored, weights, batch=2)
    assert by_two.dtype == np.float64 and by_two == pytest.approx(
        inference.predict_patches(pixels(5), weights), abs=1e-6
    )
    assert inference.predict_patches(stored[:0], weights).shape == (0,)
    for wrong in (pixels(2).astype(np.float32), pixels(2)[:, :95], pixels(1)[0]):
        with pytest.raises(InputError, match=r"not uint8 \(N, 96, 96, 3\)"):
            inference.predict_patches(wrong, weights)


def test_the_example_in_the_readme_runs(tmp_path: Path, weights: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example = next(text for text in examples if "predict_patches" in text)
    assert "results/champion/weights.pt" in example
    names: dict[str, object] = {}
    sample = "data/sample/camelyonpatch_level_2_split_test_x.h5"
    assert sample in example
    write_patches(tmp_path / "x.h5", pixels(3))
    places = {"results/champion/weights.pt": str(weights), sample: str(tmp_path / "x.h5")}
    for place, here in places.items():
        example = example.replace(place, here)
    exec(example, names)
    assert np.shape(names["probabilities"]) == (2,)  # type: ignore[arg-type]


def test_the_path_behind_a_link_is_told(tmp_path: Path, weights: Path) -> None:
    Image.fromarray(pixels(1)[0]).save(tmp_path / "a.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    done = infer(weights, tmp_path / "link.png", "--guard", "off")
    assert len(rows(done)) == 1 and done.stderr == f"note: {tmp_path / 'link.png'} is {tmp_path / 'a.png'}\n"


def test_wrong_options_end_with_two_and_missing_weights_say_what_to_do(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = (["--stride", 0], ["--stride", 97], ["--batch", 0], ["--map", "maps", "--guard", "refuse"])
    for wrong in ([weights], *([weights, "x", *option] for option in options)):
        done = infer(*wrong)
        assert done.returncode == 2 and "error:" in done.stderr
    monkeypatch.setattr(inference, "DEFAULT", tmp_path / "champion" / "weights.pt")
    refused(infer(tmp_path / "x.h5"), "no such file; name the weights first, or")
    (tmp_path / "champion").mkdir()
    for name in ("weights.pt", "weights.json"):
        (tmp_path / "champion" / name).write_bytes((tmp_path / name).read_bytes())
    write_patches(tmp_path / "x.h5", pixels(2))
    assert len(rows(infer(tmp_path / "x.h5"))) == 2


def png_of(width: int, height: int, depth: int = 8, content: bytes = bytes(1000)) -> bytes:
    """A PNG that says it has this size, whatever its content."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


def test_hostile_and_damaged_files_get_one_line_each(tmp_path: Path, weights: Path) -> None:
    good = io.BytesIO()
    Image.fromarray(pixels(1)[0]).save(good, "PNG")
    write_patches(tmp_path / "x.h5", pixels(2))
    hdf5 = (tmp_path / "x.h5").read_bytes()
    with h5py.File(tmp_path / "chunks.h5", "w") as handle:
        handle.create_dataset("x", (1 << 20, 96, 96, 3), np.uint8, chunks=(1 << 16, 96, 96, 3), compression="gzip")
    for name, content, said in (
        ("bomb.png", png_of(100_000, 100_000), "says it has more than 100,000,000 pixels"),
        ("large.png", png_of(12_000, 12_000), "says it has 12,000 x 12,000 pixels"),
        ("empty.png", b"", "not a readable image"),
        ("cut.png", good.getvalue()[: len(good.getvalue()) // 2], "cut.png: cannot be read"),
        ("two\nlines.png", b"", "two\\nlines.png: not a readable image"),
        ("script.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n", "not a readable image"),
        ("bomb.h5.gz", gzip.compress(hdf5 + bytes(50 << 20)), "unpacks to more than the"),
        ("cut.h5.gz", gzip.compress(hdf5)[:-5000], "cannot be unpacked"),
        ("text.h5.gz", gzip.compress(b"x" * 200), "no HDF5 file is packed in it"),
        ("plain.h5.gz", hdf5, "cannot be unpacked"),
        ("huge.h5.gz", gzip.compress(hdf5[:40] + struct.pack("<Q", 1 << 60) + hdf5[48:]), "set TMPDIR"),
        ("chunks.h5", None, "unpack to more than 1 GiB each"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        refused(infer(weights, tmp_path / name), said)
    with h5py.File(tmp_path / "ring.h5", "w") as handle:
        handle["x"] = h5py.SoftLink("/x")
    refused(infer(weights, tmp_path / "ring.h5"), "ring.h5: x cannot be opened (")
    refused(infer(weights, "a" * 300), "cannot be")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    refused(infer(weights, tmp_path / "loop.png"), "loop.png: cannot be ")
    with patch("os.scandir", side_effect=PermissionError(errno.EACCES, "Permission denied")):
        refused(infer(weights, tmp_path), f"{tmp_path}: cannot be looked up (Permission denied)")
    os.mkfifo(tmp_path / "pipe.png")
    refused(infer(weights, tmp_path / "pipe.png"), "neither file nor folder")


def test_images_whose_pixels_are_not_plain_eight_bit_colours_are_refused(tmp_path: Path, weights: Path) -> None:
    Image.fromarray(np.zeros((96, 96), np.uint16)).save(tmp_path / "sixteen.png")
    refused(infer(weights, tmp_path / "sixteen.png"), "save it as 8-bit RGB")
    Image.new("RGBA", (96, 96), (200, 100, 150, 254)).save(tmp_path / "clear.png")
    refused(infer(weights, tmp_path / "clear.png"), "has transparent pixels")
    deep = png_of(96, 96, depth=16, content=bytes(96 * (1 + 96 * 6)))
    (tmp_path / "deep.png").write_bytes(deep)
    assert Image.open(tmp_path / "deep.png").mode == "RGB"  # so the mode alone tells nothing
    refused(infer(weights, tmp_path / "deep.png"), "deep.png: 16 bits a colour")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    values = bytes(96 * 96 * 6)
    for tag, value in {
        256: 96,
        257: 96,
        258: (16,) * 3,
        259: 1,
        262: 2,
        273: 0,
        277: 3,
        278: 96,
        279: len(values),
    }.items():
        tags[tag] = value
    with (tmp_path / "deep.tif").open("wb") as handle:
        tags.save(handle)
        handle.write(values)
    with Image.open(tmp_path / "deep.tif") as image:
        assert image.mode == "RGB" and not np.asarray(image).any()
    refused(infer(weights, tmp_path / "deep.tif"), "deep.tif: 16 bits a colour")
    colours = Image.fromarray(pixels(1)[0]).quantize(16)
    colours.save(tmp_path / "palette.png")
    assert len(rows(infer(weights, tmp_path / "palette.png"))) == 1
    colours.save(tmp_path / "hole.png", transparency=0)
    refused(infer(weights, tmp_path / "hole.png"), "has transparent pixels")
    pages = [Image.new("RGB", (96, 96)), Image.new("RGB", (96, 96), "white")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    refused(infer(weights, tmp_path / "pages.tif"), "holds 2 images")
