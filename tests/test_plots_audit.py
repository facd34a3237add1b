"""The audits' pictures show what the evidence lists, where it stands, and their captions state the finding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_data import Data
from matplotlib.image import imread
from plot_leakage import chosen_pairs, heading_of_pairs, plot_leakage
from plot_patches import plot_patches
from plot_poison import plot_poison
from plot_shift import plot_shift

from pcam.damage import shared_parts
from pcam.figures import drawing, outline, show_patch
from pcam.files import read_json, write_csv, write_json

LABEL = "SYNTHETIC SAMPLE"
YELLOW = (0.941, 0.894, 0.259)  # of an outline


def caption_of(path: Path) -> str:
    text = path.read_text()
    assert text.endswith(f"Data: {LABEL}.\n")
    return text


def empty_poison(**changed: Any) -> dict[str, Any]:
    return {"findings": [], "stamps": [], "by_class": [], **changed}


def labels_of(verdict: str, suspects: list[dict[str, Any]]) -> dict[str, Any]:
    return {"splits": {"train": {"verdict": verdict}}, "most_suspicious": suspects}


def test_leaks_are_drawn_from_what_the_audit_writes(tmp_path: Path) -> None:
    data = Data(tmp_path)
    data.x["test"][4] = data.x["train"][7]
    (in_train, in_valid) = shared_parts(32, 16)
    data.x["valid"][2][in_valid] = data.x["train"][3][in_train]
    data.write().audit().judge()
    paths = [data.result(name) for name in ("leakage.json", "patches.csv", "leakage.png", "leakage.txt")]
    plot_leakage(data.paths("x.h5"), *paths, label=LABEL)
    told = caption_of(Path(paths[3]))
    assert "2 pairs of patches share pixels, 2 of them across splits (exact duplicate 1, overlap 1)" in told
    assert "the largest group holds 2 patches" in told
    picture = imread(paths[2])[..., :3]
    assert np.isclose(picture, YELLOW, atol=0.02).all(axis=2).sum() > 100  # the shared tissue is framed


def test_no_leak_is_a_picture_that_says_so(tmp_path: Path) -> None:
    data = Data(tmp_path).write().audit()
    data.judge()
    paths = [data.result(name) for name in ("leakage.json", "patches.csv", "leakage.png", "leakage.txt")]
    plot_leakage(data.paths("x.h5"), *paths, label=LABEL)
    assert caption_of(Path(paths[3])).startswith("No two patches share pixels.")


def test_pairs_across_splits_come_first_and_are_counted_apart() -> None:
    def pair(one: str, other: str) -> dict[str, Any]:
        return {"kind": "overlap", "a": [one, 1], "b": [other, 2]}

    listed = [pair("train", "train")] * 5 + [pair("train", "valid"), pair("train", "test")]
    chosen = chosen_pairs(listed)["overlap"]
    assert [p["b"][0] for p in chosen] == ["test", "valid", "train", "train"]
    heading = heading_of_pairs("overlap", {"train-train": 1200, "train-test": 2})
    assert heading == "overlap: 1,202 pairs, 2 across splits; framed: the tissue that the two share"
    assert "framed" not in heading_of_pairs("exact_duplicate", {"train-train": 1})


def test_stamps_and_suspects_are_drawn_and_the_caption_says_how_many(tmp_path: Path) -> None:
    data = Data(tmp_path)
    block = np.random.default_rng(1).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    for row in range(3):
        data.x["train"][row][10 * row : 10 * row + 6, 40:46] = block
    data.write()
    stamp = {
        "height": 6, "width": 6, "flat": False, "pixels": block.tolist(), "patches": 3, "places": 3, "place": None,
        "classes": {"0": 2, "1": 1}, "rows": [["train", 0], ["train", 1], ["train", 2]],
        "corners": [[0, 40], [10, 40], [20, 40]],
    }  # fmt: skip
    suspect = {"split": "valid", "row": 5, "label": 1, "score": 0.97}
    names = [str(tmp_path / name) for name in ("poison.json", "labels.json", "poison.png", "poison.txt")]
    write_json(names[0], empty_poison(stamps=[stamp]))
    write_json(names[1], labels_of("flips", [suspect]))
    plot_poison(data.paths("x.h5"), *names, label=LABEL)
    told = caption_of(Path(names[3]))
    assert "1 stamped block in 3 patches; each enlarged on the left" in told
    assert "flips are claimed in train" in told
    assert np.isclose(imread(names[2])[..., :3], YELLOW, atol=0.02).all(axis=2).sum() > 30


def test_no_stamp_and_no_suspect_is_a_picture_that_says_so(tmp_path: Path) -> None:
    data = Data(tmp_path).write()
    names = [str(tmp_path / name) for name in ("poison.json", "labels.json", "poison.png", "poison.txt")]
    write_json(names[0], empty_poison())
    write_json(names[1], labels_of("cannot tell", []))
    plot_poison(data.paths("x.h5"), *names, label=LABEL)
    assert caption_of(Path(names[3])).startswith(
        "No stamped block recurs in the patches. Flipped labels: flips are claimed in no"
    )


def test_patches_show_poison_alone_and_leave_leaks_to_their_own_picture(tmp_path: Path) -> None:
    data = Data(tmp_path).write()
    rows = [(split, row, row % 2, 1, "overlap" if row else "blackout;overlap") for split in data.x for row in range(12)]
    table, png, caption = (str(tmp_path / name) for name in ("patches.csv", "p.png", "p.txt"))
    write_csv(table, ("split", "row", "label", "keep", "defects"), rows)
    plot_patches(data.paths("x.h5"), table, png, caption, label=LABEL)
    assert "3 of 36 patches carry a finding beside leaks and doubted labels (blackout 3)." in caption_of(Path(caption))


def shift_of(two_sample: dict[str, Any] | None, found: bool | None) -> dict[str, Any]:
    prior = {"n": 40, "tumours": 10, "share": 0.25, "interval": [0.14, 0.4]}
    pair = ["train", "valid"]
    return {
        "findings": [
            {"kind": "prior_shift", "splits": pair, "found": True},
            {"kind": "covariate_shift", "splits": pair, "found": found},
        ],
        "prior": {"splits": {"train": prior, "valid": prior, "test": None}},
        "pairs": [{"splits": pair, "two_sample": two_sample, "reason": "fewer than two units on a side"}],
    }


@pytest.mark.parametrize(
    ("found", "words"),
    [(True, "texture: train and valid."), (False, "texture: none shown."), (None, "cannot tell: train")],
)
def test_the_shift_caption_follows_the_tests(tmp_path: Path, found: bool | None, words: str) -> None:
    test = {"roc_auc": 0.6, "p": 0.2, "null": [0.4, 0.5, 0.6], "null_quantile_95": 0.58}
    source, png, caption = (str(tmp_path / name) for name in ("shift.json", "s.png", "s.txt"))
    write_json(source, shift_of(None if found is None else test, found))
    plot_shift(source, png, caption, label=LABEL)
    assert "Shift in share of tumour: train and valid." in caption_of(Path(caption))
    assert words in caption_of(Path(caption))
    assert read_json(source)["findings"]


def test_an_outline_lies_on_the_pixels_it_names(tmp_path: Path) -> None:
    with drawing(tmp_path / "a.png", LABEL, 3, 3) as figure:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
        show_patch(axes, np.zeros((96, 96, 3), np.uint8), "")
        outline(axes, 24, 48, 24, 24)
    picture = imread(tmp_path / "a.png")[..., :3]
    rows, columns = np.nonzero(np.isclose(picture, YELLOW, atol=0.02).all(axis=2))
    height, width = picture.shape[:2]
    top, left = 0.1 * height + 0.8 * height * 24 / 96, 0.1 * width + 0.8 * width * 48 / 96
    assert rows.min() == pytest.approx(top, abs=4)
    assert columns.min() == pytest.approx(left, abs=4)
    assert rows.max() - rows.min() == pytest.approx(0.8 * height / 4, abs=6)
