"""Training repeats bit for bit, also after a kill; order and schedule are functions of their arguments."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from pcam.checkpoint import tensors_digest
from pcam.files import InputError
from pcam.preprocess import Preprocessing, augment_d4, normalise
from pcam.settings import TrainSettings
from pcam.training import (
    LabelledPatches,
    Trained,
    epoch_order,
    learning_rate_at,
    predict,
    probabilities_of,
    train,
)

SETTINGS = TrainSettings(
    model="resnet", width=4, hidden=8, dropout=0.2, augment=True, epochs=3, batch_size=8,
    learning_rate=3e-3, schedule="one_cycle", weight_decay=0.01, threads=1,
)  # fmt: skip
PLAIN = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def patches(n: int, seed: int) -> LabelledPatches:
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % 2).astype(np.uint8)
    pixels = rng.integers(0, 200, (n, 96, 96, 3), dtype=np.uint8)
    pixels[labels == 1, 32:64, 32:64] += 50
    return LabelledPatches(pixels, labels, np.arange(n))


def run(path: Path, settings: TrainSettings = SETTINGS, seed: int = 0, digest: str = "d") -> Trained:
    return train(
        settings,
        seed,
        patches(24, 1),
        patches(8, 2),
        PLAIN,
        resume_path=path / "resume.pt",
        digest=digest,
        report=print,
    )


def changed(**values: object) -> TrainSettings:
    return TrainSettings(**{**asdict(SETTINGS), **values})


@pytest.mark.parametrize("model", ["resnet", "mlp"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(tmp_path: Path, model: str) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    first, again = (run(folder, changed(model=model)) for folder in folders[:2])
    other = run(folders[2], changed(model=model), seed=1)
    assert tensors_digest(first.model.state_dict()) == tensors_digest(again.model.state_dict())
    assert first.history == again.history and first.steps == again.steps
    assert tensors_digest(first.model.state_dict()) != tensors_digest(other.model.state_dict())


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed = run(tmp_path)
    (tmp_path / "resume.pt").unlink()

    class Killed(Exception):
        pass

    def kill_in_epoch_2(line: str) -> None:
        if line.startswith("epoch 2/"):
            raise Killed

    with pytest.raises(Killed):
        train(SETTINGS, 0, patches(24, 1), patches(8, 2), PLAIN,
              resume_path=tmp_path / "resume.pt", digest="d", report=kill_in_epoch_2)  # fmt: skip
    lines: list[str] = []
    resumed = train(SETTINGS, 0, patches(24, 1), patches(8, 2), PLAIN,
                    resume_path=tmp_path / "resume.pt", digest="d", report=lines.append)  # fmt: skip
    assert lines[0] == "resumed after epoch 1 of 3"
    assert tensors_digest(resumed.model.state_dict()) == tensors_digest(undisturbed.model.state_dict())
    assert resumed.history == undisturbed.history and resumed.steps == undisturbed.steps


@pytest.mark.parametrize("damage", ["other digest", "truncated", "foreign"])
def test_a_resume_state_that_does_not_fit_is_not_used(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = run(tmp_path)
    state = tmp_path / "resume.pt"
    if damage == "truncated":
        state.write_bytes(state.read_bytes()[:1000])
    elif damage == "foreign":
        state.write_bytes(b"<html>not found</html>")
    again = run(tmp_path, digest="another" if damage == "other digest" else "d")
    assert "starting afresh" in capsys.readouterr().out
    assert tensors_digest(again.model.state_dict()) == tensors_digest(fresh.model.state_dict())


def test_divergence_names_step_rate_and_rows(tmp_path: Path) -> None:
    split = patches(24, 1)
    broken = Preprocessing((0.5, 0.5, 0.5), (1e-30, 1e-30, 1e-30))
    with pytest.raises(InputError, match=r"diverged: .*epoch 1, step 0 .*train rows [\d, ]+") as error:
        train(changed(model="mlp", learning_rate=1.0), 0, split, patches(8, 2), broken,
              resume_path=tmp_path / "r.pt", digest="d", report=print)  # fmt: skip
    assert "\n" not in str(error.value)


def test_too_few_patches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 patches after cleaning"):
        train(SETTINGS, 0, patches(1, 1), patches(8, 2), PLAIN, resume_path=tmp_path / "r.pt", digest="d", report=print)


def test_a_row_a_step_and_a_row_an_epoch_are_recorded(tmp_path: Path) -> None:
    trained = run(tmp_path)
    assert [row[0] for row in trained.steps] == list(range(9))
    assert [row[0] for row in trained.history] == [1, 2, 3]
    assert all(row[4] > 0 for row in trained.steps)


def test_one_cycle_rises_to_the_set_rate_and_falls_to_almost_nothing() -> None:
    rates = [learning_rate_at(SETTINGS, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(SETTINGS.learning_rate / 25)
    assert max(rates) == pytest.approx(SETTINGS.learning_rate, rel=1e-6)
    assert rates.index(max(rates)) == 30
    assert rates[-1] == pytest.approx(SETTINGS.learning_rate / 1e4)
    assert {learning_rate_at(changed(schedule="constant"), step, 100) for step in range(100)} == {
        SETTINGS.learning_rate
    }


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
    together = predict(trained.model, split.patches, PLAIN, torch.device("cpu"))
    alone = np.concatenate(
        [predict(trained.model, split.patches[i : i + 1], PLAIN, torch.device("cpu")) for i in range(40)]
    )
    assert np.allclose(together, alone, atol=1e-5)


def test_probabilities_are_stable_at_both_ends() -> None:
    assert probabilities_of(np.array([-1000.0, 0.0, 1000.0])).tolist() == [0.0, 0.5, 1.0]
