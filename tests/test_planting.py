"""What is planted is what its name says, where its truth says, and nowhere else."""

import io

import numpy as np
import pytest
from PIL import Image

from pcam.damage import (
    COPIES,
    DAMAGES,
    STAMPS,
    SYMMETRIES,
    Variant,
    grey_std,
    rms_change,
    shared_parts,
    symmetry,
)
from pcam.facts import FILE_SPLITS
from pcam.files import InputError
from pcam.hdf5 import write_labels, write_patches
from pcam.planting import LARGEST_SHIFT_PX, PASTES, VISIBLE, Planted, Unit, draw_shift, plant, read_clean, truth
from pcam.synthetic import draw_slide

SIZES = {"train": 160, "valid": 60, "test": 60}
UNIFORM = {"blackout", "washout", "constant"}


@pytest.fixture(scope="module")
def clean() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """Distinct patches of drawn tissue, and labels."""
    image = draw_slide(np.random.default_rng(3), "RUMC", "tumor", 2048)[0]
    tiles = image[: 96 * 21, : 96 * 21].reshape(21, 96, 21, 96, 3).swapaxes(1, 2).reshape(-1, 96, 96, 3)
    ends = np.cumsum(list(SIZES.values()))
    x = dict(zip(FILE_SPLITS, np.split(tiles, ends)[:3], strict=True))
    return x, {split: (np.arange(n) % 2).astype(np.uint8) for split, n in SIZES.items()}


@pytest.fixture(scope="module")
def planted(clean: tuple) -> Planted:
    return plant(np.random.default_rng(5), *clean, rate=0.03, canvas=True)


def variant_of(unit: Unit, table: tuple[Variant, ...]) -> Variant:
    (found,) = [v for v in table if (v.kind, v.name, v.level) == (unit.kind, unit.variant, unit.level)]
    return found


def units(planted: Planted, *kinds: str) -> list[Unit]:
    found = [unit for unit in planted.units if unit.kind in kinds]
    assert found, kinds
    return found


def pixels(planted: Planted, unit: Unit) -> list[np.ndarray]:
    return [planted.x[split][row] for split, row in unit.patches]


def test_every_kind_is_planted_as_often_as_asked_on_rows_of_its_own(planted: Planted) -> None:
    assert set(planted.asked) == {v.kind for v in (*DAMAGES, *COPIES)} | {"overlap"}
    for kind, amount in planted.asked.items():
        assert amount == round(0.03 * sum(SIZES.values()))
        assert len(units(planted, kind)) == amount, kind
    rows = [patch for unit in planted.units for patch in unit.patches]
    assert len(rows) == len(set(rows))
    assert truth(planted.units)["overlap"] == {p for unit in units(planted, "overlap") for p in unit.patches}


def test_nothing_changes_but_what_the_truth_names(planted: Planted, clean: tuple) -> None:
    x, _ = clean
    named = {patch for unit in planted.units for patch in unit.patches}
    for split in FILE_SPLITS:
        changed = (planted.x[split] != x[split]).any(axis=(1, 2, 3))
        assert {(split, int(row)) for row in np.flatnonzero(changed)} <= named
    alone = {unit.patches for unit in planted.units if len(unit.patches) == 1}
    for ((split, row),) in alone:
        assert (planted.x[split][row] != x[split][row]).any(), (split, row)


def test_the_same_seed_gives_the_same_bits_and_inputs_stay_as_they_are(clean: tuple) -> None:
    before = {split: patches.copy() for split, patches in clean[0].items()}
    one, other, third = (plant(np.random.default_rng(seed), *clean, rate=0.02, canvas=True) for seed in (1, 1, 2))
    assert one.units == other.units != third.units
    for split in FILE_SPLITS:
        assert one.x[split].tobytes() == other.x[split].tobytes()
        assert np.array_equal(clean[0][split], before[split])


def test_broken_values_make_train_alone_float_and_stand_there_as_counted(planted: Planted) -> None:
    assert {split: str(x.dtype) for split, x in planted.x.items()} == {
        "train": "float32", "valid": "uint8", "test": "uint8",
    }  # fmt: skip
    counts = {"nan": np.isnan, "infinity": np.isinf, "100000": lambda p: p == 100_000, "minus_1": lambda p: p == -1}
    for unit in units(planted, "non_finite", "out_of_range"):
        (patch,) = pixels(planted, unit)
        assert unit.patches[0][0] == "train" and counts[unit.variant](patch).sum() == unit.level


def test_blank_patches_are_blank_and_class_dependent_damage_keeps_to_its_class(planted: Planted, clean: tuple) -> None:
    for unit in units(planted, *UNIFORM):
        (patch,) = pixels(planted, unit)
        colour = patch[0, 0]
        assert (patch == colour).all()
        assert unit.kind == {0: "blackout", 255 * 3: "washout"}.get(int(colour.sum()), "constant")
        if unit.variant == "black_class_0":
            ((split, row),) = unit.patches
            assert clean[1][split][row] == 0


def test_a_partly_blanked_patch_holds_a_rectangle_of_one_colour_and_else_its_own_pixels(clean: tuple) -> None:
    patch = clean[0]["train"][0]
    for variant in (v for v in DAMAGES if v.kind == "partly_blanked"):
        shapes = set()
        for seed in range(8):
            out = variant.damage(np.random.default_rng(seed), patch)
            ys, xs = np.nonzero((out != patch).any(axis=2))
            block = out[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            assert (block == block[0, 0]).all()
            shapes.add(block.shape[:2])
            if "half" in variant.name:
                assert 0 in (ys.min(), 95 - ys.max()) and 0 in (xs.min(), 95 - xs.max())
        side = int(variant.level)
        # Tissue may have the blank's colour by chance, at its rim even.
        expected = {(side, side)} if "square" in variant.name else {(side, 96), (96, side)}
        assert expected <= shapes, variant.name


def test_channel_swaps_keep_the_values_and_are_five() -> None:
    swaps = [v for v in DAMAGES if v.kind == "channel_swap"]
    patch = np.arange(96 * 96 * 3, dtype=np.uint32).astype(np.uint8).reshape(96, 96, 3)
    outs = {v.damage(np.random.default_rng(0), patch).tobytes() for v in swaps}
    assert len(outs) == 5 and patch.tobytes() not in outs
    for variant in swaps:
        out = variant.damage(np.random.default_rng(0), patch)
        assert np.array_equal(np.sort(out, axis=2), np.sort(patch, axis=2))


def test_blur_and_intensity_do_more_at_a_higher_level(clean: tuple) -> None:
    patch = clean[0]["train"][4]
    for kind, name in {(v.kind, v.name) for v in DAMAGES if v.kind in ("blur_outlier", "intensity_outlier")}:
        levels = sorted((v for v in DAMAGES if (v.kind, v.name) == (kind, name)), key=lambda v: v.level)
        changes = [np.abs(v.damage(np.random.default_rng(0), patch).astype(int) - patch).mean() for v in levels]
        assert changes == sorted(changes) and changes[0] < changes[-1], name
    faded = {v.name: v.damage(np.random.default_rng(0), patch).mean() for v in DAMAGES if v.kind == "intensity_outlier"}
    assert faded["darkened"] < patch.mean() < faded["brightened"]
    assert abs(faded["flattened"] - patch.mean()) < 0.5


def test_exact_copies_are_equal_within_or_across_splits(planted: Planted) -> None:
    for unit in units(planted, "exact_duplicate", "cross_split_duplicate"):
        one, other = pixels(planted, unit)
        assert np.array_equal(one, other)
        (first, _), (second, _) = unit.patches
        assert (first == second) == (unit.kind == "exact_duplicate")


def test_the_eight_symmetries_are_the_square_s(planted: Planted) -> None:
    square = np.arange(96 * 96 * 3).reshape(96, 96, 3)
    forms = {symmetry(square, k).tobytes() for k in range(8)}
    transposed = square.swapaxes(0, 1).tobytes()
    assert len(forms) == 8 and {square.tobytes(), square[::-1].tobytes(), transposed} <= forms
    for unit in units(planted, "rotated_duplicate"):
        one, other = pixels(planted, unit)
        assert np.array_equal(symmetry(one, SYMMETRIES.index(unit.variant)), other)
        assert rms_change(one, other) >= VISIBLE


def test_near_copies_are_what_jpeg_or_scaling_makes_of_their_source(planted: Planted) -> None:
    for unit in units(planted, "near_duplicate"):
        one, other = pixels(planted, unit)
        assert (one != other).any()
        if unit.variant.startswith("jpeg"):
            buffer = io.BytesIO()
            subsampling = {"jpeg_444": "4:4:4", "jpeg_420": "4:2:0"}[unit.variant]
            one_u8 = one.astype(np.uint8)
            Image.fromarray(one_u8).save(buffer, "JPEG", quality=int(unit.level), subsampling=subsampling)
            assert np.array_equal(np.array(Image.open(buffer)), other)
        else:
            factor = 1 + (1 if unit.variant == "brighter" else -1) * unit.level / 100
            wanted = np.minimum(one.astype(np.float64) * factor, 255)
            assert np.abs(wanted - other).max() <= 0.5 + 1e-9


def test_copies_agree_on_the_label_and_conflicts_do_not(planted: Planted, clean: tuple) -> None:
    def labels(unit: Unit) -> set[int]:
        return {int(clean[1][split][row]) for split, row in unit.patches}

    for unit in units(planted, *{v.kind for v in COPIES} - {"label_conflict"}, "overlap"):
        assert len(labels(unit)) == 1
    for unit in units(planted, "label_conflict"):
        assert len(labels(unit)) == 2
        one, other = pixels(planted, unit)
        assert np.array_equal(one, other) == (unit.variant == "exact")


def test_overlaps_share_textured_pixels_at_some_shift(planted: Planted) -> None:
    shifts = range(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX + 1)
    for unit in units(planted, "overlap"):
        one, other = pixels(planted, unit)
        found = []
        for dy in shifts:
            for dx in shifts:
                (ys, xs), (yo, xo) = shared_parts(dy, dx)
                if (dy or dx) and one[ys.start, xs.start].tolist() == other[yo.start, xo.start].tolist():
                    part = one[ys, xs]
                    if np.array_equal(part, other[yo, xo]) and grey_std(part) >= VISIBLE:
                        found.append((dy, dx))
        assert found, unit
        assert any((96 - max(map(abs, shift))) // 16 * 16 == unit.level for shift in found)
        if unit.variant == "pasted_on_grid":
            assert any(dy % PASTES[unit.variant] == 0 == dx % PASTES[unit.variant] for dy, dx in found)
    assert {unit.variant for unit in units(planted, "overlap")} == {"pasted", "pasted_on_grid", "canvas"}


def test_shifts_reach_80_pixels_either_way_and_are_never_none() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([draw_shift(rng, 1) for _ in range(20_000)])
    assert drawn.min() == -80 and drawn.max() == 80 and (drawn != 0).any(axis=1).all()
    grid = np.array([draw_shift(rng, 16) for _ in range(3000)])
    assert (grid % 16 == 0).all() and len(np.unique(grid, axis=0)) == 120


def test_a_stamp_is_one_block_in_many_patches_of_one_class(clean: tuple) -> None:
    x, y = clean
    planted = plant(np.random.default_rng(8), x, y, rate=0.03, canvas=False)
    for stamp in STAMPS:
        own = [u for u in units(planted, "trigger") if (u.variant, u.level) == (stamp.name, stamp.side)]
        assert len(own) == round(0.03 * 80)
        assert len({int(y["train"][unit.patches[0][1]]) for unit in own}) == 1
        blocks, places = set(), set()
        for unit in own:
            ((split, row),) = unit.patches
            assert split == "train"
            ys, xs = np.nonzero((planted.x[split][row] != x[split][row]).any(axis=2))
            top, left = min(ys.min(), 96 - stamp.side), min(xs.min(), 96 - stamp.side)
            assert max(ys.max() - ys.min(), xs.max() - xs.min()) < stamp.side
            places.add((int(top), int(left)))
            blocks.add(planted.x[split][row][ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].tobytes())
        # A pixel of tissue may have the block's value by chance, at its rim even; not in every patch.
        assert len(blocks) < len(own) or not stamp.moving
        assert (len(places) > 1) == stamp.moving
        assert stamp.textured == (stamp.block(np.random.default_rng(1)).std(axis=(0, 1)) > 0).all()


def test_what_cannot_be_seen_is_not_planted(clean: tuple) -> None:
    x, y = clean
    glass = {split: np.full_like(patches, 240) for split, patches in x.items()}
    planted = plant(np.random.default_rng(2), glass, y, rate=0.03, canvas=False)
    kinds = {unit.kind for unit in planted.units}
    assert not kinds & ({v.kind for v in COPIES} | {"overlap", "channel_swap", "blur_outlier"})
    assert {"blackout", "non_finite", "trigger"} <= kinds and planted.asked["overlap"] > 0
    one = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    assert rms_change(one, one) == 0 and rms_change(one.astype(np.float32), np.full_like(one, np.nan, float)) == np.inf


def test_unknown_labels_take_no_part_in_conflicts(clean: tuple) -> None:
    x, y = clean
    planted = plant(np.random.default_rng(2), x, {**y, "test": None}, rate=0.03, canvas=False)
    assert all(split != "test" for unit in units(planted, "label_conflict") for split, _ in unit.patches)
    assert any(split == "test" for unit in units(planted, "exact_duplicate") for split, _ in unit.patches)


def test_clean_rows_are_read_as_uint8_with_their_labels(clean: tuple, tmp_path) -> None:
    x, y = clean
    files = {part: {split: str(tmp_path / f"{split}_{part}") for split in FILE_SPLITS} for part in "xy"}
    for split in FILE_SPLITS:
        write_patches(files["x"][split], x[split].astype(np.float32) if split == "train" else x[split])
        write_labels(files["y"][split], None if split == "test" else y[split], SIZES[split])
    rows = {(split, row) for split in FILE_SPLITS for row in range(3, 50)}
    x_read, y_read = read_clean(files["x"], files["y"], rows, 25, seed=0)
    assert {s: (len(v), str(v.dtype)) for s, v in x_read.items()} == dict.fromkeys(FILE_SPLITS, (25, "uint8"))
    assert y_read["test"] is None
    for split in FILE_SPLITS:
        at = [int(np.flatnonzero((x[split] == patch).all(axis=(1, 2, 3)))[0]) for patch in x_read[split]]
        assert at == sorted(at) and set(at) <= set(range(3, 50))
        if split != "test":
            assert y_read[split].tolist() == y[split][at].tolist()
    with pytest.raises(InputError, match="valid_x: no patch without a defect"):
        read_clean(files["x"], files["y"], {patch for patch in rows if patch[0] != "valid"}, 9, 0)
    write_patches(files["x"]["test"], x["test"] / np.float32(255))
    with pytest.raises(InputError, match=r"test_x: .* cannot be stored as uint8"):
        read_clean(files["x"], files["y"], rows, 9, 0)
