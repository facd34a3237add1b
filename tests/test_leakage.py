"""The leakage audit: the same picture in any form, the same tissue at any offset, the same place; and nothing else."""

import io
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
from audit_data import Data, tissue, windows
from PIL import Image
from scipy.ndimage import gaussian_filter

from pcam.duplicates import symmetries
from pcam.files import InputError, read_csv, read_json
from pcam.overlaps import bucket_pairs, find_overlaps
from pcam.survey import BUCKETS, PLACE_BITS, open_survey, read_anchors, survey_splits


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def test_duplicates_are_found_within_and_across_splits_whatever_their_dtype(data: Data) -> None:
    train = data.x["train"].astype(np.float32)
    train[7] = train[2]
    train[9] = data.x["test"][3]
    train[11] = data.x["valid"][0]
    data.x["train"] = train
    data.x["valid"][5] = data.x["valid"][0]
    data.write().audit()
    assert data.rows("leakage", "exact_duplicate") == {("train", 2), ("train", 7), ("valid", 0), ("valid", 5)}
    assert data.rows("leakage", "cross_split_duplicate") == {
        *(("train", 9), ("test", 3), ("train", 11), ("valid", 0), ("valid", 5))
    }
    assert data.rows("leakage", "overlap") == set()
    pairs = read_json(data.result("leakage.json"))["pairs"]["exact_duplicate"]
    assert {name: n for name, n in pairs.items() if n} == {
        **{"train-train": 1, "train-valid": 2, "train-test": 1, "valid-valid": 1}
    }


def test_one_differing_value_is_no_duplicate(data: Data) -> None:
    data.x["train"][7] = data.x["train"][2]
    data.x["train"][7, 95, 95, 2] ^= 1
    data.write().audit()
    assert data.rows("leakage", "exact_duplicate") == set()


def test_patches_that_uint8_cannot_hold_are_compared_as_they_are(data: Data) -> None:
    train = data.x["train"].astype(np.float32)
    train[3] += 0.25
    train[4] = train[3]
    train[5] = train[3] - 0.25  # the same after rounding, not the same
    train[6, 0, 0, 0] = np.nan
    train[7] = train[6]
    data.x["train"] = train
    data.write().audit()
    assert data.rows("leakage", "exact_duplicate") == {("train", row) for row in (3, 4, 6, 7)}


def test_a_label_conflict_needs_both_labels_on_the_same_tissue(data: Data) -> None:
    data.x["train"][1] = data.x["train"][0]  # labels 0 and 1
    data.x["train"][4] = data.x["train"][2]  # labels 0 and 0
    data.x["valid"][3] = data.x["test"][6]  # labels 1 and 0, across splits
    data.x["train"][[8, 9]] = 0  # blank patches have no tissue to disagree on
    data.write().audit()
    assert data.rows("leakage", "label_conflict") == {("train", 0), ("train", 1), ("valid", 3), ("test", 6)}
    table = read_csv(data.result("leakage_rows.csv"))
    partners = [line["partner_splits"] for line in table if line["kind"] == "label_conflict"]
    assert partners == ["train", "train", "test", "valid"]


def test_blank_duplicates_are_counted_apart_and_form_no_group(data: Data) -> None:
    data.x["train"][[0, 1, 2]] = 0
    data.x["test"][5] = 0
    data.x["train"][7] = data.x["train"][6]
    data.write().audit()
    negative, positive = data.findings("leakage", "exact_duplicate")[:2]
    assert (negative["n"], negative["of_which_blank"]) == (3, 2)
    assert (positive["n"], positive["of_which_blank"]) == (2, 1)
    table = read_csv(data.result("leakage_rows.csv"))
    assert {(line["split"], line["row"]): line["group"] for line in table} == {
        **{("train", "0"): "", ("train", "1"): "", ("train", "2"): "", ("test", "5"): ""},
        **{("train", "6"): "0", ("train", "7"): "0"},
    }
    assert len({line["content"] for line in table}) == 2


def placed(data: Data, x: np.ndarray) -> Data:
    """All patches in train."""
    data.x["train"], data.y["train"] = x, (np.arange(len(x)) % 2).astype(np.uint8)
    return data.write().audit()


def overlaps(data: Data) -> np.ndarray:
    """(k,4) a, b, dy, dx over all splits, as the library finds them."""
    survey = survey_splits(data.paths("x.h5"), data.folder / "again", processes=1)
    return find_overlaps(survey, survey.patches.lossless, data.paths("x.h5"), processes=1)


def test_every_shift_up_to_80_pixels_is_recalled_and_no_other(data: Data) -> None:
    rng = np.random.default_rng(3)
    shifts = [*((0, 80), (80, 0), (-80, -17), (1, 0), (0, -1), (-5, 7)), *rng.integers(-72, 73, (60, 2)).tolist()]
    pairs = [windows(seed, [(150, 150), (150 + dy, 150 + dx)]) for seed, (dy, dx) in enumerate(shifts)]
    placed(data, np.concatenate(pairs))
    assert overlaps(data).tolist() == [[2 * k, 2 * k + 1, dy, dx] for k, (dy, dx) in enumerate(shifts)]


def test_the_smallest_overlap_is_nearly_always_recalled(data: Data) -> None:
    pairs = [windows(seed, [(100, 100), (180, 20)]) for seed in range(200)]  # 16 x 16 pixels in common
    placed(data, np.concatenate(pairs))
    found = overlaps(data)
    assert set(map(tuple, found.tolist())) <= {(2 * k, 2 * k + 1, 80, -80) for k in range(200)}
    assert len(found) >= 0.97 * 200  # (15/16)^81 = 0.5 % are expected to be missed


def test_all_pairs_of_a_crowd_are_found_and_no_other(data: Data) -> None:
    places = [(16 * y, 16 * x) for y in range(0, 19, 2) for x in range(1, 18, 3)] + [(8, 8), (41, 23)]
    placed(data, windows(2, places))
    expected = [
        [i, j, b[0] - a[0], b[1] - a[1]]
        for i, a in enumerate(places)
        for j, b in enumerate(places[i + 1 :], i + 1)
        if all(abs(q - p) <= 80 for p, q in zip(a, b, strict=True))
    ]
    assert overlaps(data).tolist() == expected


def test_overlaps_across_files_are_found_with_their_groups_and_partners(data: Data) -> None:
    data.x["train"][:4] = windows(1, [(0, 0), (16, 32), (96, 112), (272, 272)])  # the first two, then the chain 1-2
    data.x["valid"][2] = windows(1, [(176, 192)])[0]  # shares one block with train 2
    data.x["test"][8] = windows(1, [(272, 185)])[0]  # 87 pixels from train 3: farther than is looked for
    data.x["train"] = data.x["train"].astype(np.float32)
    data.x["train"][6] = data.x["train"][1]  # a copy shares what its twin shares
    data.write().audit()
    rows = {("train", 0), ("train", 1), ("train", 2), ("train", 6), ("valid", 2)}
    assert data.rows("leakage", "overlap") == rows
    lines = [line for line in read_csv(data.result("leakage_rows.csv")) if line["kind"] == "overlap"]
    assert {line["group"] for line in lines} == {"0"}
    assert {(line["split"], int(line["row"])): line["partner_splits"] for line in lines} == {
        **{("train", 0): "train", ("train", 1): "train", ("train", 6): "train"},
        **{("train", 2): "train;valid", ("valid", 2): "train"},
    }
    told = read_json(data.result("leakage.json"))
    assert {name: n for name, n in told["pairs"]["overlap"].items() if n} == {"train-train": 4, "train-valid": 1}
    assert told["group_sizes"] == {"5": 1}
    assert told["examples"][0]["kind"] == "exact_duplicate"
    assert {"kind": "overlap", "a": ["train", 0], "b": ["train", 1], "shift_px": [16, 32]} in told["examples"]
    assert told["clusters"][0]["splits"] == {"train": 4, "valid": 1}


def test_textureless_windows_never_decide(data: Data) -> None:
    x = tissue(20, 8)
    glass = np.full((96, 16, 3), 243, np.uint8)
    glass[::2] -= 2  # faint stripes that repeat
    x[:, :, :16] = x[:, :, 80:] = glass  # at a shift of 80 pixels to the side, glass meets glass, pixel for pixel
    data.x["train"] = x
    data.y["train"] = (np.arange(20) % 2).astype(np.uint8)
    data.write().audit()
    assert data.rows("leakage", "overlap") == set()


def test_one_shared_block_is_not_enough_when_the_rest_of_the_window_differs(data: Data) -> None:
    data.x["train"][1, :16, :16] = data.x["train"][0, 32:48, 32:48]
    data.write().audit()
    assert data.rows("leakage", "overlap") == set()


def test_poisoned_patches_take_no_part_in_overlaps(data: Data) -> None:
    train = data.x["train"].astype(np.float32)
    train[:3] = windows(1, [(0, 0), (16, 16), (32, 32)])
    train[0, 2, 2, 0] = np.nan  # outside what the next one shares
    train[2, 90, 90, 0] = 100_000
    data.x["train"] = train
    data.write().audit()
    assert data.rows("leakage", "overlap") == set()


def test_a_window_that_repeats_thousands_of_times_stays_linear() -> None:
    patch_bits = (4000).bit_length()
    keys = (np.uint64(7) << np.uint64(patch_bits)) | np.arange(4000, dtype=np.uint64)
    keys = (keys << np.uint64(PLACE_BITS)) | np.random.default_rng(0).integers(0, 89 * 89, 4000).astype(np.uint64)
    split = (np.arange(4000) >= 3900).astype(np.uint8)
    assert 0 < len(bucket_pairs(keys, np.ones(4000, bool), split, patch_bits)) < 3 * 4000
    few = bucket_pairs(keys[:30], np.ones(4000, bool), split, patch_bits)
    assert len(few) > 300  # all near pairs of a small group


def test_the_survey_does_not_depend_on_processes_or_dtype(data: Data) -> None:
    data.x["train"] = windows(1, [(k, 3 * k) for k in range(100)])
    data.y["train"] = (np.arange(100) % 2).astype(np.uint8)
    data.write()
    one, two = (survey_splits(data.paths("x.h5"), data.folder / f"s{n}", processes=n) for n in (1, 2))
    data.x["train"] = data.x["train"].astype(np.float32)
    wide = survey_splits(data.write().paths("x.h5"), data.folder / "s3", processes=2)
    for other in (two, wide, open_survey(data.folder / "s1")):
        assert other.sizes == one.sizes == (100, 12, 12)
        for field in fields(one.patches):
            assert np.array_equal(getattr(one.patches, field.name), getattr(other.patches, field.name)), field.name
        for bucket in range(BUCKETS):
            mine, theirs = (read_anchors(survey.folder, bucket) for survey in (one, other))
            assert np.array_equal(mine, theirs)
    assert np.array_equal(find_overlaps(one, one.patches.lossless, data.paths("x.h5"), processes=1), overlaps(data))


def test_a_damaged_survey_is_named(tmp_path: Path) -> None:
    (tmp_path / "patches.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(InputError, match="not a survey"):
        open_survey(tmp_path)


# ---- the same picture in another form


def stained(n: int, seed: int) -> np.ndarray:
    """Smooth blobs of many sizes on a pale ground: pictures that JPEG treats as it treats tissue."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((n, 96, 96, 3)), (0, s, s, 0)) * 9 * s for s in (1, 3, 9)]
    return np.clip(150 + 14 * sum(fields), 0, 255).astype(np.uint8)


def test_all_seven_turned_and_mirrored_forms_are_found_and_reordered_pixels_are_not(data: Data) -> None:
    x = stained(20, 1)
    x[7:14] = symmetries(x[0])[1:]
    x[15] = x[14, ::-1, ::-1].transpose(1, 0, 2)
    x[17] = np.random.default_rng(0).permutation(x[16].reshape(-1, 3)).reshape(96, 96, 3)  # the same pixels, shuffled
    placed(data, x)
    assert data.rows("leakage", "rotated_duplicate") == {("train", row) for row in (0, *range(7, 16))}
    told = read_json(data.result("leakage.json"))
    assert told["pairs"]["rotated_duplicate"]["train-train"] == 28 + 1
    assert {group["size"] for group in told["clusters"]} == {8, 2}


@pytest.mark.parametrize("change", ["jpeg 60", "jpeg 90", "brighter", "darker", "less contrast"])
def test_another_encoding_or_brightness_is_a_near_duplicate_and_a_look_alike_is_not(data: Data, change: str) -> None:
    x = stained(40, 2)
    for k in range(10):
        if change.startswith("jpeg"):
            packed = io.BytesIO()
            Image.fromarray(x[k]).save(packed, "JPEG", quality=int(change.split()[1]))
            x[20 + k] = np.asarray(Image.open(packed))
        else:
            gain, offset = {"brighter": (1.1, 0), "darker": (0.9, 0), "less contrast": (0.9, 12)}[change]
            x[20 + k] = np.clip(np.rint(x[k] * gain + offset), 0, 255)
    coarse = gaussian_filter(x[30].astype(float), (6, 6, 0))
    x[31] = np.clip(coarse + (stained(1, 5)[0] - gaussian_filter(stained(1, 5)[0].astype(float), (6, 6, 0))), 0, 255)
    placed(data, x)
    near = {("train", row) for row in (*range(10), *range(20, 30))}
    assert data.rows("leakage", "near_duplicate") == near
    assert data.rows("leakage", "exact_duplicate") == set()
    labels_differ = {(split, row) for split, row in near if (row % 2) != ((row + 20) % 2)}
    assert data.rows("leakage", "label_conflict") == labels_differ == set()


def test_a_label_conflict_is_seen_through_a_turn_and_an_encoding(data: Data) -> None:
    x = stained(12, 4)
    x[1] = np.rot90(x[0])  # labels 0 and 1
    x[5] = np.rint(x[2] * 0.92)  # labels 0 and 1
    x[8] = x[6, ::-1]  # labels 0 and 0
    data.x["train"] = x
    data.write().audit()
    assert data.rows("leakage", "label_conflict") == {("train", row) for row in (0, 1, 2, 5)}
    mix = read_json(data.result("leakage.json"))["class_mix"]["rotated_duplicate"]
    assert mix == {"both_0": 1, "both_1": 0, "mixed": 1, "unknown": 0}


def test_blanked_patches_of_one_outline_are_no_near_duplicates(data: Data) -> None:
    x = stained(30, 6)
    x[:, :40] = 0
    placed(data, x)
    assert data.rows("leakage", "near_duplicate") == set()


# ---- what the slides tell


def test_a_slide_in_two_splits_and_squares_that_overlap_are_told(data: Data) -> None:
    data.meta["train"] = [("a", 200 * k, 0) for k in range(6)] + [("b", 200 * k, 0) for k in range(6)]
    data.meta["valid"] = [("c", 95, 95 * k) for k in range(12)]  # neighbours 95 apart share a pixel
    data.meta["test"] = [("a", 150, 95)] + [("d", 96 * k, 0) for k in range(11)]  # 96 apart share none
    data.write().audit()
    of_a = {*(("train", row) for row in range(6)), ("test", 0)}
    assert data.rows("leakage", "slide_overlap") == of_a
    across = {("train", 1), ("test", 0)}  # at 200 and 150 down, 95 aside
    assert data.rows("leakage", "coordinate_overlap") == across | {("valid", row) for row in range(12)}
    lines = read_csv(data.result("leakage_rows.csv"))
    assert {line["partner_splits"] for line in lines if line["kind"] == "slide_overlap"} == {"train", "test"}
    told = read_json(data.result("leakage.json"))["coordinates"]
    assert (told["pairs"], told["pairs_comparable"], told["pairs_confirmed"]) == (12, 12, 0)


def test_the_unit_of_the_coordinates_is_measured_on_the_pixels(data: Data) -> None:
    places = [(16 * k, 32 * (k % 3)) for k in range(12)]
    data.x["train"] = windows(4, places)
    data.meta["train"] = [("a", 4 * y, 4 * x) for y, x in places]  # coordinates at four times the magnification
    data.write().audit()
    told = read_json(data.result("leakage.json"))["coordinates"]
    assert told["unit_per_px"] == 4.0 and told["unit_measured_on"] >= 10
    assert told["pairs"] == told["pairs_confirmed"] > 40


def test_a_meta_csv_of_another_length_is_named(data: Data) -> None:
    data.meta["valid"] = [("a", 0, 0)] * 11
    with pytest.raises(InputError, match=r"valid_meta\.csv: 11 rows for 12 patches"):
        data.write().audit()


# ---- no member of a crowd loses sight of a split


def partners(data: Data, kind: str) -> dict[tuple[str, int], str]:
    lines = read_csv(data.result("leakage_rows.csv"))
    return {(line["split"], int(line["row"])): line["partner_splits"] for line in lines if line["kind"] == kind}


def test_each_turned_form_names_every_split_that_holds_another(data: Data) -> None:
    data.x = {split: stained(12, seed) for seed, split in enumerate(data.x)}
    forms = symmetries(stained(1, 50)[0])
    data.x["train"][[0, 3]] = forms[:2]
    data.x["valid"][2], data.x["test"][4] = forms[2], forms[7]
    data.write().audit()
    assert partners(data, "rotated_duplicate") == {
        ("train", 0): "train;valid;test",
        ("train", 3): "train;valid;test",
        ("valid", 2): "train;test",
        ("test", 4): "train;valid",
    }


def test_each_of_many_near_duplicates_names_the_split_of_the_far_one(data: Data) -> None:
    data.x = {split: stained(30, seed) for seed, split in enumerate(data.x)}
    data.y = {split: (np.arange(30) % 2).astype(np.uint8) for split in data.x}
    for k in range(20):
        packed = io.BytesIO()
        Image.fromarray(data.x["train"][0]).save(packed, "JPEG", quality=60 + k)
        data.x["train"][k + 1] = np.asarray(Image.open(packed))
    data.x["test"][7] = np.clip(np.rint(data.x["train"][0] * 1.08), 0, 255)
    data.write().audit()
    found = partners(data, "near_duplicate")
    assert {key for key, splits in found.items() if "test" in splits} == {("train", row) for row in range(21)}
    assert found["test", 7] == "train"


def test_each_of_a_dense_crowd_of_overlaps_names_the_split_of_the_one(data: Data) -> None:
    places = [(4 * (k // 8), 4 * (k % 8)) for k in range(60)]
    data.x["train"] = windows(3, places)
    data.y["train"] = (np.arange(60) % 2).astype(np.uint8)
    data.x["test"][5] = windows(3, [(17, 18)])[0]
    data.write().audit()
    found = partners(data, "overlap")
    assert {key for key, splits in found.items() if "test" in splits} == {("train", row) for row in range(60)}


def test_patches_behind_an_external_link_are_read_from_the_right_file(data: Data) -> None:
    data.x["train"][:2] = windows(1, [(0, 0), (10, 20)])
    data.write()
    real = data.folder / "elsewhere.h5"
    Path(data.path("train", "x.h5")).rename(real)
    with h5py.File(data.path("train", "x.h5"), "w") as handle:
        handle["y"] = np.zeros(4_000_000)
        handle["x"] = h5py.ExternalLink(str(real), "x")
    data.audit()
    assert data.rows("leakage", "overlap") == {("train", 0), ("train", 1)}


def test_constant_coordinates_are_named(data: Data) -> None:
    n = 300
    data.x["train"], data.y["train"] = stained(n, 3), (np.arange(n) % 2).astype(np.uint8)
    data.meta["train"] = [("a", 0, 0)] * n
    with pytest.raises(
        InputError, match="300 patches of slide a stand at coord_y 0, coord_x 0; leave both columns out"
    ):
        data.write().audit()
