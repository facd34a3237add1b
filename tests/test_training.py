"""Training repeats bit for bit, also after a kill; order and schedule are functions of their arguments."""

import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam import progress, training
from pcam.batches import LabelledPatches
from pcam.checkpoint import tensors_digest
from pcam.determinism import epoch_order
from pcam.files import InputError
from pcam.preprocess import Preprocessing, augment_d4, normalise
from pcam.schedules import learning_rate_at
from pcam.settings import TrainSettings
from pcam.sidecar import probabilities_of
from pcam.survival import ResumeState
from pcam.training import Trained, predict, train

SETTINGS = TrainSettings(
    model="resnet", width=4, depth=1, hidden=8, dropout=0.2, augment=True, tta=False, ema=0.9, label_smoothing=0.05,
    epochs=3, batch_size=8, learning_rate=3e-3, schedule="one_cycle", weight_decay=0.01, precision="float32",
    compile=False, workers=1, threads=1,
)  # fmt: skip
PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def patches(n: int, seed: int) -> LabelledPatches:
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.uint8)
    pixels = rng.integers(0, 200, (n, 96, 96, 3), dtype=np.uint8)
    pixels[labels == 1, 32:64, 32:64] += 50
    return LabelledPatches(pixels, labels, np.arange(n))


def run(
    path: Path,
    settings: TrainSettings = SETTINGS,
    seed: int = 0,
    key: str = "d",
    report: Callable[[str], None] = print,
    preprocessing: Preprocessing = PLAIN,
) -> Trained:
    resume = ResumeState(path / "resume.pt", key, report)
    return train(settings, seed, patches(24, 1), patches(8, 2), preprocessing, resume=resume, report=report)


def changed(**values: object) -> TrainSettings:
    return TrainSettings(**{**asdict(SETTINGS), **values})


@pytest.mark.parametrize("model", ["resnet", "mlp"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path, model: str) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    first, again = (run(folder, changed(model=model)) for folder in folders[:2])
    other = run(folders[2], changed(model=model), seed=1)
    assert same(first, again)
    assert tensors_digest(first.model.state_dict()) != tensors_digest(other.model.state_dict())


class Killed(Exception):
    pass


def kill_at(start: str) -> Callable[[str], None]:
    def report(line: str) -> None:
        if line.startswith(start):
            raise Killed

    return report


def same(a: Trained, b: Trained) -> bool:
    weights = tensors_digest(a.model.state_dict()) == tensors_digest(b.model.state_dict())
    return weights and (a.history, a.steps, a.layers) == (b.history, b.steps, b.layers)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed = run(tmp_path)
    ResumeState(tmp_path / "resume.pt", "d", print).remove()
    with pytest.raises(Killed):
        run(tmp_path, report=kill_at("epoch 2/"))
    lines: list[str] = []
    resumed = run(tmp_path, report=lines.append)
    assert lines[0] == "resumed after step 3 of 9"
    assert same(resumed, undisturbed)


def test_a_run_interrupted_within_an_epoch_goes_on_from_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = run(tmp_path)
    ResumeState(tmp_path / "resume.pt", "d", print).remove()
    monkeypatch.setattr(training, "SAVE_EVERY_S", -1.0)  # save after every step
    monkeypatch.setattr(progress, "REPORT_EVERY_S", -1.0)  # and report each
    with pytest.raises(Killed):
        run(tmp_path, report=kill_at("epoch 2/3 step 3/3"))
    lines: list[str] = []
    resumed = run(tmp_path, report=lines.append)
    assert lines[0] == "resumed after step 5 of 9"
    assert same(resumed, undisturbed)


def test_divergence_names_step_rate_and_rows(tmp_path: Path) -> None:
    broken = Preprocessing((0.5, 0.5, 0.5), (1e-30, 1e-30, 1e-30))
    with pytest.raises(
        InputError, match=r"diverged: .*epoch 1, step 0, with learning rate 0\.04 .*rows [\d, ]+"
    ) as error:
        run(tmp_path, changed(model="mlp", learning_rate=1.0), preprocessing=broken)
    assert "\n" not in str(error.value)


def test_too_few_patches_are_refused() -> None:
    with pytest.raises(InputError, match="1 patches after cleaning"):
        train(SETTINGS, 0, patches(1, 1), patches(8, 2), PLAIN, resume=None, report=print)


def test_a_row_a_step_and_a_row_an_epoch_are_recorded(tmp_path: Path) -> None:
    trained = run(tmp_path)
    assert [row[0] for row in trained.steps] == list(range(9))
    assert [row[0] for row in trained.history] == [1, 2, 3]
    assert all(row[4] > 0 for row in trained.steps)
    assert list(trained.layers) == ["stem", "stages.0", "stages.1", "stages.2", "head"]
    for step, (row, layers) in enumerate(zip(trained.steps, zip(*trained.layers.values(), strict=True), strict=True)):
        assert np.linalg.norm(layers) == pytest.approx(row[4]), step


def test_the_hardest_patch_of_a_batch_is_one_of_its_rows(tmp_path: Path) -> None:
    for step, *_, row, loss in run(tmp_path).steps:
        epoch, within = divmod(int(step), 3)
        assert row in epoch_order(0, epoch, 24)[within * 8 : within * 8 + 8]
        assert loss > 0


def test_progress_tells_speed_and_the_time_that_is_left(tmp_path: Path) -> None:
    lines: list[str] = []
    run(tmp_path, report=lines.append)
    assert len(lines) == 3
    form = r"epoch {}/3 loss [\d.]+ valid loss [\d.]+ ROC-AUC [\d.]+, [\d,]+ images/s, {}"
    for epoch, (line, rest) in enumerate(zip(lines, [r"\d+ min \d+ s left|done"] * 2 + ["done"], strict=True), 1):
        assert re.fullmatch(form.format(epoch, f"(?:{rest})"), line), line


def test_a_validation_split_of_one_class_has_no_roc_auc_and_trains_all_the_same() -> None:
    one_class = patches(8, 2)
    one_class.labels[:] = 0
    lines: list[str] = []
    train(SETTINGS, 0, patches(24, 1), one_class, PLAIN, resume=None, report=lines.append)
    assert "ROC-AUC nan" in lines[0]


def test_one_cycle_rises_to_the_set_rate_and_falls_to_almost_nothing() -> None:
    rates = [learning_rate_at(SETTINGS, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(SETTINGS.learning_rate / 25)
    assert max(rates) == pytest.approx(SETTINGS.learning_rate, rel=1e-6)
    assert rates.index(max(rates)) == 30
    assert rates[-1] == pytest.approx(SETTINGS.learning_rate / 1e4)
    assert {learning_rate_at(changed(schedule="constant"), step, 100) for step in range(100)} == {
        SETTINGS.learning_rate
    }


def test_every_schedule_stays_within_its_highest_rate_and_has_its_shape() -> None:
    rates = {name: [learning_rate_at(changed(schedule=name), step, 200) for step in range(200)]
             for name in ("one_cycle", "cosine", "step", "constant")}  # fmt: skip
    for name, values in rates.items():
        assert max(values) == pytest.approx(SETTINGS.learning_rate) and min(values) > 0, name
    cosine, step = rates["cosine"], rates["step"]
    assert cosine[:10] == sorted(cosine[:10]) and cosine[10:] == sorted(cosine[10:], reverse=True)
    assert cosine[-1] < 1e-3 * cosine[10]
    assert [step[at] / step[0] for at in (99, 100, 149, 150)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_epoch_order_is_a_permutation_of_its_arguments_alone() -> None:
    assert np.array_equal(epoch_order(3, 1, 50), epoch_order(3, 1, 50))
    assert sorted(epoch_order(3, 1, 50)) == list(range(50))
    assert not np.array_equal(epoch_order(3, 1, 50), epoch_order(3, 2, 50))


def test_the_eight_symmetries_are_distinct_keep_the_centre_and_include_the_identity() -> None:
    patch = torch.arange(96 * 96 * 3).remainder(251).to(torch.uint8).reshape(1, 96, 96, 3)
    images = augment_d4(patch.repeat(8, 1, 1, 1), torch.arange(8))
    assert torch.equal(images[0], patch[0])
    assert len({image.numpy().tobytes() for image in images}) == 8
    centre = sorted(patch[0, 32:64, 32:64].flatten().tolist())
    assert all(sorted(image[32:64, 32:64].flatten().tolist()) == centre for image in images)


def test_normalisation_gives_zero_mean_and_unit_variance_per_channel() -> None:
    pixels = torch.randint(0, 256, (16, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    scaled = pixels.double() / 255
    flat = scaled.reshape(-1, 3)
    out = normalise(pixels, Preprocessing(tuple(flat.mean(0).tolist()), tuple(flat.std(0, correction=0).tolist())))
    assert out.shape == (16, 3, 96, 96) and out.dtype == torch.float32
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(out.std((0, 2, 3)), torch.ones(3), atol=1e-3)


def test_predictions_do_not_depend_on_what_else_is_in_the_batch(tmp_path: Path) -> None:
    trained, split = run(tmp_path), patches(40, 5)
    device = next(trained.model.parameters()).device
    together = predict(trained.model, split.patches, PLAIN, device)
    alone = np.concatenate([predict(trained.model, split.patches[i : i + 1], PLAIN, device) for i in range(40)])
    assert np.allclose(together, alone, atol=1e-5)


def test_probabilities_are_stable_at_both_ends() -> None:
    assert probabilities_of(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]
