"""The poison audit: what is planted is found, row by row; what is not there is not."""

from pathlib import Path

import numpy as np
import pytest
from audit_data import Data, tissue, windows
from scipy.ndimage import gaussian_filter

from pcam.facts import FILE_SPLITS
from pcam.files import read_csv, read_json
from pcam.leakage import PIXEL_KINDS
from pcam.poison import POISON_KINDS
from pcam.slides import META_KINDS
from pcam.stamps import sampled, share_seen


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_planted_poison_is_found_row_by_row(data: Data, dtype: str) -> None:
    x = data.x["train"].astype(dtype)
    x[[0, 3]] = 0
    x[4] = 255
    x[5] = (200, 10, 90)
    x[6, 50, 7, 2] = np.nan
    x[7, 0, 0, 0] = -np.inf
    x[8, 95, 95, 2] = 60_000
    x[9, 1, 1, 1] = -1
    x[10] = (10, 20, 30)
    x[10, 3, 3, 1] = np.nan
    data.x["train"] = x
    data.write().audit()
    planted = {
        "blackout": {0, 3},
        "washout": {4},
        "constant": {5, 10},
        "non_finite": {6, 7, 10},
        "out_of_range": {8, 9},
    }
    for kind, rows in planted.items():
        assert data.rows("poison", kind) == {("train", row) for row in rows}, kind


def test_a_patch_that_is_nearly_uniform_is_no_poison(data: Data) -> None:
    data.x["train"][0] = 0
    data.x["train"][0, 40, 40, 1] = 1
    data.x["train"][1] = 255
    data.x["train"][1, 95, 0, 0] = 254
    data.write().audit()
    # Far darker or brighter than the others, which is a suspicion, but nothing of what a patch tells by itself.
    assert {line["kind"] for line in read_csv(data.result("poison_rows.csv"))} <= {"intensity_outlier"}


def test_what_was_looked_for_and_not_found_is_told_per_split_and_class(data: Data) -> None:
    data.write().audit()
    for name, kinds in (("poison", POISON_KINDS), ("leakage", (*PIXEL_KINDS, *META_KINDS))):
        for kind in kinds:
            found = data.findings(name, kind)
            assert [(f["split"], f["class"]) for f in found] == [(s, c) for s in FILE_SPLITS for c in (0, 1)]
            assert all(f["n"] == 0 and f["of"] == 6 and f["rate"] == 0 and f["rows"] == [] for f in found)
            assert all(f["interval"][0] == 0 < f["interval"][1] < 0.5 for f in found)


def test_findings_count_by_class_and_list_a_capped_number_of_sorted_rows(data: Data) -> None:
    data.x["train"] = tissue(40, 9)
    data.y["train"] = (np.arange(40) % 2).astype(np.uint8)
    black = [0, 2, 4, 6, 8, 10, 12, 1, 3]
    data.x["train"][black] = 0
    data.write().audit()
    negative, positive = data.findings("poison", "blackout")[:2]
    assert (negative["n"], negative["of"], negative["rows"]) == (7, 20, [0, 2, 4, 6, 8])
    assert (positive["n"], positive["of"], positive["rows"]) == (2, 20, [1, 3])
    assert negative["interval"][0] < negative["rate"] == 7 / 20 < negative["interval"][1]


def test_an_unlabelled_split_is_audited_without_a_class(data: Data) -> None:
    data.y["test"] = None
    data.x["test"][4] = 0
    data.write().audit()
    (found,) = [f for f in data.findings("poison", "blackout") if f["split"] == "test"]
    assert (found["class"], found["n"], found["of"], found["rows"]) == (None, 1, 12, [4])
    data.judge()
    table = read_csv(data.result("patches.csv"))
    assert {line["label"] for line in table if line["split"] == "test"} == {""}
    assert len(table) == 36


def test_poison_beyond_the_first_chunk_keeps_its_row(data: Data) -> None:
    data.x["train"] = np.zeros((1100, 96, 96, 3), np.uint8)
    data.x["train"][:, 0, 0, 0] = 1
    data.x["train"][1050] = 0
    data.y["train"] = (np.arange(1100) % 2).astype(np.uint8)
    data.write().audit()
    assert data.rows("poison", "blackout") == {("train", 1050)}


# ---- partly blanked, stamped


def stained(n: int, seed: int) -> np.ndarray:
    """Smooth blobs of many sizes on a pinkish ground."""
    rng = np.random.default_rng(seed)
    fields = [gaussian_filter(rng.standard_normal((n, 96, 96, 1)), (0, s, s, 0)) * 9 * s for s in (1, 3, 9)]
    grain = rng.standard_normal((n, 96, 96, 3)) * 2
    return np.clip(np.array([190, 120, 160]) + 12 * sum(fields) + grain, 0, 255).astype(np.uint8)


def in_train(data: Data, x: np.ndarray) -> Data:
    data.x["train"], data.y["train"] = x, (np.arange(len(x)) % 2).astype(np.uint8)
    data.x["valid"], data.x["test"] = stained(12, 98), stained(12, 99)
    return data.write().audit()


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (10, 200, 30)])
def test_rectangles_and_bands_of_one_colour_are_partly_blanked(data: Data, colour: tuple[int, int, int]) -> None:
    x = stained(40, 1)
    x[3, 20:40, 30:50] = colour
    x[5, :, 60:] = colour
    x[7, 88:] = colour
    x[9, 10:22, 50:74] = colour
    x[11, 10:20, 50:60] = colour  # too small to be told
    in_train(data, x)
    assert data.rows("poison", "partly_blanked") == {("train", row) for row in (3, 5, 7, 9)}
    assert data.rows("poison", "trigger") == set()


def test_glass_that_clips_is_not_partly_blanked(data: Data) -> None:
    x = stained(40, 2)
    y, across = np.mgrid[:96, :96]
    wavy = across < 50 + 12 * np.sin(y / 7)
    x[::2, wavy] = 255  # saturated glass with a curved border
    jpeg = np.repeat(np.repeat(np.random.default_rng(0).integers(238, 244, (40, 12, 12, 3)), 8, axis=1), 8, axis=2)
    x[1::4, :, 48:] = jpeg[
        1::4, :, 48:
    ]  # glass as JPEG leaves it: squares of one colour beside others of nearly the same
    in_train(data, x)
    assert data.rows("poison", "partly_blanked") == set()
    assert data.rows("poison", "trigger") == set()


NOISE = np.random.default_rng(7).integers(0, 256, (12, 12, 3), dtype=np.uint8)
STAMPS = {
    "textured 6x6": NOISE[:6, :6],
    "textured 8x5": NOISE[:8, :5],
    "textured 12x12": NOISE,
    "flat 6x6": np.full((6, 6, 3), (255, 0, 255), np.uint8),
    "flat 10x7": np.full((10, 7, 3), (255, 255, 0), np.uint8),
    "checkerboard 8x8": (np.indices((8, 8)) // 2).sum(axis=0, keepdims=True).T.repeat(3, 2).astype(np.uint8) % 2 * 255,
}


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("name", STAMPS)
def test_a_stamp_is_found_wherever_it_stands_with_its_size(data: Data, name: str, moving: bool) -> None:
    stamp, x, rng = STAMPS[name], stained(400, 3), np.random.default_rng(1)
    height, width = stamp.shape[:2]
    rows, corners = np.arange(1, 400, 80), []  # five of class 1
    for row in rows:
        top, left = rng.integers(0, (96 - height, 96 - width)) if moving else (80, 80)
        x[row, top : top + height, left : left + width] = stamp
        corners.append([int(top), int(left)])
    in_train(data, x)
    assert data.rows("poison", "trigger") == {("train", int(row)) for row in rows}
    (told,) = read_json(data.result("poison.json"))["stamps"]
    assert (told["height"], told["width"], told["flat"]) == (height, width, name.startswith("flat"))
    assert told["patches"] == 5 and told["classes"] == {"0": 0, "1": 5}
    assert (told["place"] is None) == moving and told["corners"] == corners


def test_shared_tissue_and_copies_are_no_stamps(data: Data) -> None:
    canvas = stained(1, 5)[0].repeat(5, axis=0).repeat(5, axis=1)
    canvas += np.random.default_rng(0).integers(0, 20, canvas.shape, dtype=np.uint8)
    x = np.concatenate([windows(0, [(20 * k, 25 * k) for k in range(15)], canvas), stained(30, 6)])
    x[20:26] = x[19]
    x[30] = np.rot90(x[29])
    in_train(data, x)
    assert len(data.rows("leakage", "overlap")) == 15
    assert data.rows("poison", "trigger") == set()


def test_a_block_in_two_patches_is_no_stamp_yet(data: Data) -> None:
    x = stained(60, 8)
    x[[3, 21], 40:50, 40:50] = NOISE[:10, :10]
    in_train(data, x)
    assert data.rows("poison", "trigger") == set()


def test_the_share_that_must_bear_a_stamp_grows_where_only_a_sample_is_looked_at() -> None:
    split = np.repeat([0, 1, 2], [8000, 400, 4])
    labels = (np.arange(len(split)) % 2).astype(np.int8)
    usable = np.ones(len(split), bool)
    looked_at = sampled(labels, split, usable)
    assert np.bincount(split[looked_at]).tolist() == [2048, 400, 4]
    share = share_seen(labels, split, usable, looked_at)
    assert share["train"] == pytest.approx(6.296 / 1024, abs=1e-5)
    assert share["valid"] == 3 / 200 and share["test"] is None


# ---- far from all others


def test_swapped_channels_blur_and_darkness_stand_out(data: Data) -> None:
    x = stained(300, 9)
    x[10] = x[10, :, :, [1, 0, 2]].transpose(1, 2, 0)
    x[20] = x[20, :, :, [0, 2, 1]].transpose(1, 2, 0)
    x[30] = gaussian_filter(x[30], (2, 2, 0))
    x[40] = x[40] // 4
    in_train(data, x)
    assert data.rows("poison", "channel_swap") == {("train", 10), ("train", 20)}
    assert data.rows("poison", "blur_outlier") == {("train", 30)}
    assert data.rows("poison", "intensity_outlier") == {("train", 40)}


def test_damage_to_many_patches_still_stands_out(data: Data) -> None:
    x = stained(300, 11)
    rows = np.arange(0, 300, 6)  # one in six
    x[rows] = gaussian_filter(x[rows], (0, 3, 3, 0))
    x[rows + 1] = x[rows + 1] // 4
    in_train(data, x)
    assert data.rows("poison", "blur_outlier") >= {("train", int(row)) for row in rows}
    assert data.rows("poison", "intensity_outlier") >= {("train", int(row)) for row in rows + 1}


def test_damage_that_goes_with_the_class_is_told_and_chance_is_not(data: Data) -> None:
    x = stained(200, 10)
    x[0:60:2] = 0  # thirty of class 0
    x[100:104] = 255  # two of each class
    in_train(data, x)
    told = {(line["split"], line["kind"]): line for line in read_json(data.result("poison.json"))["by_class"]}
    assert told["train", "blackout"]["depends"] and told["train", "blackout"]["n"] == [30, 0]
    assert not told["train", "washout"]["depends"] and told["train", "washout"]["n"] == [2, 2]
    assert not any(line["depends"] for (split, _), line in told.items() if split != "train")
