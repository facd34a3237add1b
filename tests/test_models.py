"""Models are built by name, average over the square when asked to, come back from a checkpoint, heed their settings."""

import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from training_files import SETTINGS

from pcam.batches import Batch, LabelledPatches
from pcam.checkpoint import load_checkpoint, save_checkpoint, tensors_digest
from pcam.determinism import fix_device, seed_everything
from pcam.model import MODELS, Architecture, build_model, layer_of
from pcam.preprocess import Preprocessing
from pcam.settings import TrainSettings
from pcam.training import Learner, Trained, architecture_of, train

PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def architecture(model: str, **changes: object) -> Architecture:
    return architecture_of(replace(SETTINGS, model=model, **changes))


def model_of(name: str, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(architecture(name, **changes))


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, 96, 96, generator=torch.Generator().manual_seed(1))


def symmetric_forms(x: torch.Tensor) -> list[torch.Tensor]:
    """All eight, told by flips and a transposition, not by turns as the model does it."""
    return [
        form.flip(axes) for form in (x, x.transpose(2, 3)) for axes in ((), (2,), (3,), (2, 3))
    ]  # fmt: skip


def patches(n: int, seed: int = 0) -> LabelledPatches:
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.uint8)
    pixels = rng.integers(0, 200, (n, 96, 96, 3), dtype=np.uint8)
    pixels[labels == 1, 32:64, 32:64] += 50
    return LabelledPatches(pixels, labels, np.arange(n))


def changed(**changes: object) -> TrainSettings:
    return replace(SETTINGS, **{"dropout": 0.0, "epochs": 2, **changes})


def run(**changes: object) -> Trained:
    return train(changed(**changes), 0, patches(32), patches(8, 1), PLAIN, resume=None, report=print)


def digest(trained: Trained) -> str:
    return tensors_digest(trained.model.state_dict())


def losses(trained: Trained) -> list[float]:
    return [row[2] for row in trained.steps]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n", [1, 5])
def test_every_model_gives_one_logit_a_patch(name: str, n: int) -> None:
    model = model_of(name).eval()
    for tta in (False, True):
        model.tta = tta
        with torch.inference_mode():
            logits = model(images(n))
        assert logits.shape == (n,) and logits.dtype == torch.float32 and torch.isfinite(logits).all()


def test_a_name_that_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no model is named 'vgg'; known are resnet, resnet50, mlp"):
        build_model({**architecture("mlp"), "model": "vgg"})


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        (
            "resnet50",
            {"width": 64},
            23_510_081,
        ),  # 25.56 M with the 1000 classes of ImageNet, of which 2.05 M are the head
        ("mlp", {"hidden": 128}, 3_547_393),
    ],
)
def test_models_are_as_large_as_they_are_said_to_be(name: str, changes: dict[str, int], count: int) -> None:
    assert parameters(model_of(name, **changes)) == count


def test_the_config_tells_how_large_its_resnet_is() -> None:
    text = (ROOT / "config" / "config.yaml").read_text()
    width, thousands = map(int, re.search(r"(\d+) gives (\d+) thousand parameters", text).groups())
    settings = yaml.safe_load(text)["train"]
    count = parameters(model_of("resnet", width=width, depth=settings["depth"]))
    assert round(count / 1000) == thousands


@pytest.mark.parametrize("name", MODELS)
def test_more_width_and_depth_are_more_parameters(name: str) -> None:
    plain = parameters(model_of(name, width=8, hidden=8))
    assert parameters(model_of(name, width=16, hidden=16)) > 1.5 * plain
    deeper = parameters(model_of(name, width=8, hidden=8, depth=2))
    assert deeper > 1.5 * plain if name == "resnet" else deeper == plain


@pytest.mark.parametrize("name", MODELS)
def test_predictions_do_not_depend_on_how_a_patch_is_turned_when_they_are_averaged(name: str) -> None:
    x = images()
    model = model_of(name).eval()
    with torch.inference_mode():
        model.tta = True
        averaged = [model(form) for form in symmetric_forms(x)]
        model.tta = False
        single = [model(form) for form in symmetric_forms(x)]
    for logits in averaged:
        assert torch.allclose(logits, averaged[0], atol=1e-5)
    assert not torch.allclose(single[0], single[1], atol=1e-4)
    assert torch.allclose(averaged[0], torch.stack(single).mean(0), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_training_never_averages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name, tta=True)
    assert model.tta
    calls, whole = [], type(model).logits
    monkeypatch.setattr(type(model), "logits", lambda self, x: calls.append(len(x)) or whole(self, x))
    model.train()(images())
    assert calls == [3]
    model.eval()(images())
    assert calls == [3] * 9


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_belongs_to_a_layer_of_its_own_name(name: str) -> None:
    model = model_of(name, depth=2)
    layers = {parameter: layer_of(parameter) for parameter, _ in model.named_parameters()}
    assert all(parameter.startswith(f"{layer}.") for parameter, layer in layers.items())
    assert len(layers) > len(set(layers.values())) >= 3
    modules = dict(model.named_modules())
    assert all(layer in modules for layer in layers.values())


@pytest.mark.parametrize("name", ["resnet", "mlp"])
def test_norms_of_the_layers_add_up_to_the_norm_of_the_step(name: str) -> None:
    trained = run(model=name)
    assert set(trained.layers) == {layer_of(parameter) for parameter, _ in trained.model.named_parameters()}
    for step, norms in zip(trained.steps, zip(*trained.layers.values(), strict=True), strict=True):
        assert np.sqrt(np.square(norms).sum()) == pytest.approx(step[4], rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tta", [False, True])
def test_a_model_comes_back_from_its_checkpoint_and_predicts_the_same(tmp_path: Path, name: str, tta: bool) -> None:
    model = model_of(name, tta=tta).eval()
    document = {"architecture": architecture(name, tta=tta), "preprocessing": asdict(PLAIN), "threshold": None,
                "digests": {}, "data_source": "test"}  # fmt: skip
    save_checkpoint(tmp_path / "weights.pt", tmp_path / "weights.json", model, document)
    loaded, preprocessing, told = load_checkpoint(tmp_path / "weights.pt")
    assert loaded.tta is tta and told["architecture"]["tta"] is tta and preprocessing == PLAIN
    with torch.inference_mode():
        assert torch.equal(loaded(images()), model(images()))


def test_test_time_averaging_is_a_setting_of_the_result_and_not_of_the_training() -> None:
    with_it, without = run(tta=True), run(tta=False)
    assert with_it.model.tta and not without.model.tta
    assert digest(with_it) == digest(without) and with_it.history == without.history


def test_averaging_the_weights_changes_what_is_kept_and_no_step() -> None:
    last, averaged = run(ema=0.0), run(ema=0.8)
    assert (last.steps, last.layers) == (averaged.steps, averaged.layers)
    assert digest(last) != digest(averaged)


def batch(n: int = 8) -> Batch:
    drawn = patches(n)
    labels = torch.from_numpy(drawn.labels.astype(np.float32))
    device = fix_device(1)
    return Batch(np.arange(n), torch.from_numpy(drawn.patches).to(device), labels.to(device), None)


def test_averaged_weights_follow_the_weights_at_the_pace_of_the_setting() -> None:
    seed_everything(0)
    learner = Learner(changed(ema=0.9), PLAIN, fix_device(1))
    wanted = {name: value.double() for name, value in learner.model.state_dict().items() if value.is_floating_point()}
    for _ in range(4):
        learner.step(batch(), 1e-2)
        now = learner.model.state_dict()
        wanted = {name: 0.9 * value + 0.1 * now[name].double() for name, value in wanted.items()}
    kept, now = learner.average.state_dict(), learner.model.state_dict()
    for name, value in wanted.items():
        assert torch.allclose(kept[name].double(), value, rtol=1e-4, atol=1e-6), name
    assert any(not torch.allclose(kept[name], now[name], rtol=1e-3) for name in wanted)


def test_smoothed_labels_move_the_loss_of_a_step_in_proportion() -> None:
    """The loss is linear in the labels, and the first step of every training starts from the same weights."""
    first = [losses(run(label_smoothing=smoothing, epochs=1))[0] for smoothing in (0.0, 0.1, 0.2)]
    assert first[1] != first[0]
    assert first[2] - first[0] == pytest.approx(2 * (first[1] - first[0]), rel=1e-4)


def test_a_model_that_knows_is_punished_for_it_when_labels_are_smoothed() -> None:
    """Smoothing by s makes the least loss, that of the probability 1 - s/2, its entropy."""
    seed_everything(0)
    settings = changed(model="mlp", hidden=64, label_smoothing=0.2, weight_decay=0.0)
    learner = Learner(settings, PLAIN, fix_device(1))
    found = [float(learner.step(batch(), 1e-3)[0]) for _ in range(150)]
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    assert found[0] > 0.5 and min(found) == pytest.approx(entropy, abs=5e-3) and min(found) >= entropy - 1e-6


@pytest.mark.parametrize("name", ["resnet", "mlp"])
def test_bfloat16_trains_differs_from_float32_and_repeats_bit_for_bit(name: str) -> None:
    half, again, full = (run(model=name, precision=p) for p in ("bfloat16", "bfloat16", "float32"))
    assert digest(half) == digest(again) and half.steps == again.steps
    assert digest(half) != digest(full)
    assert losses(half)[0] == pytest.approx(losses(full)[0], rel=0.01)  # of the same weights
    assert all(value.dtype == torch.float32 for value in half.model.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_model_learns_a_batch_by_heart(name: str, precision: str) -> None:
    seed_everything(0)
    learner = Learner(changed(model=name, hidden=64, precision=precision), PLAIN, fix_device(1))
    learner.model.train()
    found = [float(learner.step(batch(), 1e-3)[0]) for _ in range(30)]
    assert found[-1] < 0.5 * found[0]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_trains_alike_repeats_and_keeps_plain_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled, again, plain = run(compile=True), run(compile=True), run(compile=False)
    assert digest(compiled) == digest(again)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-3)
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    assert list(tmp_path.rglob("*.so"))  # that something was compiled
