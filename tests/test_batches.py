"""Batches are functions of seed, epoch and step, hold the store's pixels, and do not depend on who gathers them.

The store that lies on a GPU is tried only where there is one.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pcam.batches
from pcam.batches import Batch, Batches, LabelledPatches, read_split
from pcam.determinism import ALL_ON, Controls
from pcam.files import InputError, write_csv
from pcam.preprocess import Preprocessing, augment_d4, normalise

CPU = torch.device("cpu")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: the resident store is not tried"))]  # fmt: skip


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> LabelledPatches:
    """A store of 29 patches on disk and its table."""
    folder, rng = tmp_path_factory.mktemp("split"), np.random.default_rng(0)
    np.save(folder / "x.npy", rng.integers(0, 256, (29, 96, 96, 3), dtype=np.uint8))
    labels = rng.integers(0, 2, 29)
    write_csv(folder / "x.csv", ("row", "label"), [(100 + 3 * i, label) for i, label in enumerate(labels)])
    return read_split(str(folder / "x.npy"), str(folder / "x.csv"))


@pytest.fixture(autouse=True)
def several_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch of 7 batches of 4 is gathered in 4 stretches."""
    monkeypatch.setattr(pcam.batches, "STRETCH", 8)


def batches(
    split: LabelledPatches,
    *,
    device: torch.device = CPU,
    seed: int = 0,
    workers: int = 0,
    batch_size: int = 4,
    augment: bool = True,
    controls: Controls = ALL_ON,
) -> Batches:
    return Batches(
        split, device, seed=seed, batch_size=batch_size, augment=augment, workers=workers, controls=controls
    )  # fmt: skip


def content(found: Iterable[Batch]) -> list[tuple[bytes, ...]]:
    """All that batches hold, as bytes that can be compared."""
    return [
        (batch.chosen.tobytes(), *(part.cpu().numpy().tobytes() for part in tensors if part is not None))
        for batch in found
        for tensors in [(batch.patches, batch.labels, batch.symmetries)]
    ]


def places(found: Iterable[Batch]) -> list[list[int]]:
    return [batch.chosen.tolist() for batch in found]


def symmetries(found: Iterable[Batch]) -> list[list[int]]:
    return [batch.symmetries.tolist() for batch in found if batch.symmetries is not None]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_same_whatever_the_number_of_workers(split: LabelledPatches, workers: int) -> None:
    for epoch in range(3):
        alone, ahead = batches(split), batches(split, workers=workers)
        assert content(alone.of_epoch(epoch)) == content(ahead.of_epoch(epoch))


@pytest.mark.parametrize("stretch", [1, 12, 256])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_however_many_are_gathered_at_a_time(
    split: LabelledPatches, monkeypatch: pytest.MonkeyPatch, stretch: int, workers: int
) -> None:
    expected = content(batches(split).of_epoch(0, 1))
    monkeypatch.setattr(pcam.batches, "STRETCH", stretch)
    assert content(batches(split, workers=workers).of_epoch(0, 1)) == expected


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_epoch_resumed_at_a_step_goes_on_with_the_batches_that_were_left(
    split: LabelledPatches, workers: int
) -> None:
    whole = content(batches(split, workers=workers).of_epoch(2))
    for step in range(len(whole) + 1):
        assert content(batches(split, workers=workers).of_epoch(2, step)) == whole[step:]


@pytest.mark.parametrize("workers", [1, 3])
def test_an_epoch_that_is_given_up_leaves_the_next_one_as_it_is(split: LabelledPatches, workers: int) -> None:
    given_up = batches(split, workers=workers)
    epoch = given_up.of_epoch(0)
    next(epoch)
    epoch.close()
    assert content(given_up.of_epoch(1)) == content(batches(split).of_epoch(1))


def test_batches_kept_for_later_are_not_written_over(split: LabelledPatches) -> None:
    kept = list(batches(split, workers=1).of_epoch(0))
    assert content(kept) == [content([batch])[0] for batch in batches(split, workers=1).of_epoch(0)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_holds_the_pixels_and_labels_of_the_rows_it_names(
    split: LabelledPatches, workers: int, device: torch.device
) -> None:
    found = list(batches(split, workers=workers, device=device).of_epoch(0))
    assert [len(batch.chosen) for batch in found] == [4] * 7
    for batch in found:
        assert batch.patches.dtype == torch.uint8 and batch.patches.device.type == device.type
        assert np.array_equal(batch.patches.cpu().numpy(), split.patches[batch.chosen])
        assert batch.labels.dtype == torch.float32
        assert batch.labels.tolist() == split.labels[batch.chosen].tolist()


def test_an_epoch_visits_patches_at_most_once_and_leaves_fewer_than_a_batch(split: LabelledPatches) -> None:
    for epoch in range(5):
        seen = batches(split).order(epoch).ravel().tolist()
        assert seen == np.concatenate(places(batches(split).of_epoch(epoch))).tolist()
        assert len(set(seen)) == len(seen) == 28


def test_no_patch_is_left_out_of_every_epoch(split: LabelledPatches) -> None:
    found = batches(split)
    left = [set(range(29)) - set(found.order(epoch).ravel().tolist()) for epoch in range(8)]
    assert all(left) and not set.intersection(*left)


def test_order_and_symmetries_change_with_seed_and_epoch_and_with_nothing_else(split: LabelledPatches) -> None:
    one = batches(split)
    for what in (places, symmetries):
        first = what(one.of_epoch(0))
        what(one.of_epoch(3))  # what was asked for in between changes nothing
        assert what(one.of_epoch(0)) == first
        assert what(batches(split).of_epoch(0)) == first
        assert what(one.of_epoch(1)) != first
        assert what(batches(split, seed=1).of_epoch(0)) != first


def test_symmetries_of_the_steps_differ_and_all_eight_occur(split: LabelledPatches) -> None:
    found = batches(split)
    drawn = [step for epoch in range(10) for step in symmetries(found.of_epoch(epoch))]
    assert {index for step in drawn for index in step} == set(range(8))
    assert len(set(map(tuple, drawn))) > len(drawn) // 2


def test_augmentation_changes_neither_order_nor_pixels_of_a_batch(split: LabelledPatches) -> None:
    plain, augmented = (list(batches(split, augment=augment).of_epoch(0)) for augment in (False, True))
    assert all(batch.symmetries is None for batch in plain)
    without = [replace(batch, symmetries=None) for batch in augmented]
    assert content(plain) == content(without)


def test_a_store_shorter_than_a_batch_makes_one_batch_of_all(split: LabelledPatches) -> None:
    short = LabelledPatches(split.patches[:3], split.labels[:3], split.rows[:3])
    found = batches(short, batch_size=64)
    assert (found.size, found.per_epoch) == (3, 1)
    assert [sorted(chosen) for chosen in places(found.of_epoch(0))] == [[0, 1, 2]]
    assert len({tuple(places(found.of_epoch(epoch))[0]) for epoch in range(20)}) > 1


@pytest.mark.parametrize("control", ["sampler_generator", "augmentation_generator", "worker_seeding"])
def test_a_control_that_is_off_frees_its_own_draws_and_nothing_else(split: LabelledPatches, control: str) -> None:
    off = replace(ALL_ON, **{control: False})
    once, again = (list(batches(split, workers=2, controls=off).of_epoch(0)) for _ in range(2))
    on = list(batches(split, workers=2).of_epoch(0))
    if control == "sampler_generator":
        assert places(once) != places(again)
        assert symmetries(once) == symmetries(again) == symmetries(on)
    else:
        assert symmetries(once) != symmetries(again)
        assert places(once) == places(again) == places(on)


@pytest.mark.parametrize("control", ["global_seeds", "deterministic_kernels", "fixed_autotuner"])
def test_the_other_controls_do_not_touch_batches(split: LabelledPatches, control: str) -> None:
    off = replace(ALL_ON, **{control: False})
    assert content(batches(split, controls=off).of_epoch(0)) == content(batches(split).of_epoch(0))


def test_an_error_of_a_worker_reaches_the_one_who_asks(split: LabelledPatches, monkeypatch: pytest.MonkeyPatch) -> None:
    found = batches(split, workers=2)
    monkeypatch.setattr(found, "_store", np.empty((0, 96, 96, 3), np.uint8))
    with pytest.raises((IndexError, ValueError)):
        list(found.of_epoch(0))


def test_a_table_that_does_not_fit_its_store_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((3, 96, 96, 3), np.uint8))
    write_csv(tmp_path / "x.csv", ("row", "label"), [(0, 1), (1, 0)])
    with pytest.raises(InputError, match=r"3 patches for the 2 rows of .*rebuild"):
        read_split(str(tmp_path / "x.npy"), str(tmp_path / "x.csv"))


def test_batches_read_the_store_through_the_memory_map(split: LabelledPatches) -> None:
    assert isinstance(split.patches, np.memmap) and not split.patches.flags.writeable
    assert np.shares_memory(batches(split)._store, split.patches)
    assert split.rows.tolist() == [100 + 3 * i for i in range(29)]


@pytest.mark.parametrize("index", range(8))
def test_each_symmetry_is_made_of_the_turns_its_bits_name(index: int) -> None:
    pixels = torch.randint(0, 256, (3, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(index))
    wanted = pixels.transpose(1, 2) if index & 1 else pixels
    wanted = wanted.flip(1) if index & 2 else wanted
    wanted = wanted.flip(2) if index & 4 else wanted
    assert torch.equal(augment_d4(pixels, torch.full((3,), index)), wanted)


def test_augmented_patches_and_normalised_ones_lie_as_convolutions_want_them(split: LabelledPatches) -> None:
    batch = next(iter(batches(split).of_epoch(0)))
    assert batch.symmetries is not None
    turned = augment_d4(batch.patches, batch.symmetries)
    assert turned.is_contiguous()
    ready = normalise(turned, Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))
    assert ready.is_contiguous(memory_format=torch.channels_last)
