"""Splits keep what the policy keeps; a test split not handed out is carved without tearing slides or groups."""

from pathlib import Path

import numpy as np
import pytest
from make_splits import Patch, carve_test, make_splits

from pcam.facts import META_COLUMNS
from pcam.files import InputError, read_csv, read_json, write_csv


def valid_patches(n: int, slides: int = 0, group_size: int = 0) -> list[Patch]:
    return [
        Patch(row, row % 2, f"slide_{row % slides}" if slides else "", f"g{row // group_size}" if group_size else "")
        for row in range(n)
    ]


@pytest.mark.parametrize(("slides", "group_size"), [(0, 0), (12, 0), (0, 5), (60, 4)])
def test_carving_is_stratified_disjoint_seeded_and_keeps_units_whole(slides: int, group_size: int) -> None:
    patches = valid_patches(240, slides, group_size)
    valid, test = carve_test(patches, 0.5, seed=7)
    assert sorted(p.row for p in valid + test) == list(range(240))
    assert len(test) == pytest.approx(120, abs=20)
    assert np.mean([p.label for p in test]) == pytest.approx(0.5, abs=0.1)
    for unit in (lambda p: p.slide, lambda p: p.group, lambda p: p.row):
        assert not ({unit(p) for p in valid} & {unit(p) for p in test}) - {""}
    assert carve_test(patches, 0.5, seed=7) == (valid, test)
    assert carve_test(patches, 0.5, seed=8) != (valid, test)


class Case:
    """The inputs of make_splits as files."""

    def __init__(self, folder: Path, rows: list[tuple[str, int, int | None, int]]) -> None:
        self.folder = folder
        write_csv(folder / "patches.csv", ("split", "row", "label", "keep", "defects"), [(*row, "") for row in rows])
        write_csv(folder / "leakage.csv", ("split", "row", "kind", "group"), [("train", 0, "overlap", 4)])
        for split in ("train", "valid", "test"):
            # Slides of train and test are known, those of valid are not.
            n = 0 if split == "valid" else sum(row[0] == split for row in rows)
            meta = [(row, 1, 1, True, True, "camelyon16_train_tumor_001") for row in range(n)]
            write_csv(folder / f"{split}_meta.csv", ("", *META_COLUMNS), meta)

    def make(self) -> None:
        make_splits(
            str(self.folder / "patches.csv"),
            str(self.folder / "leakage.csv"),
            {s: str(self.folder / f"{s}_meta.csv") for s in ("train", "valid", "test")},
            {s: str(self.folder / f"{s}.csv") for s in ("train", "valid", "test", "unlabelled")},
            str(self.folder / "splits.json"),
            test_fraction=0.5,
            split_seed=0,
            provenance={},
        )


def labelled(split: str, n: int) -> list[tuple[str, int, int | None, int]]:
    return [(split, row, row % 2, 1) for row in range(n)]


def test_dropped_rows_are_left_out_and_slide_and_group_are_named(tmp_path: Path) -> None:
    case = Case(tmp_path, [*labelled("train", 4), ("train", 4, 1, 0), *labelled("valid", 4), *labelled("test", 4)])
    case.make()
    train = read_csv(tmp_path / "train.csv")
    assert [line["row"] for line in train] == ["0", "1", "2", "3"]
    assert train[0] == {"row": "0", "label": "0", "slide": "camelyon16_train_tumor_001", "group": "4"}
    assert read_csv(tmp_path / "unlabelled.csv") == []
    assert read_json(tmp_path / "splits.json")["test"] == {
        "file": "test",
        "n": 4,
        "positives": 2,
        "slides": 1,
        "groups": 0,
    }


def test_without_test_labels_a_part_of_valid_is_test_and_the_rest_is_unlabelled(tmp_path: Path) -> None:
    unlabelled = [("test", row, None, 1) for row in range(6)]
    Case(tmp_path, [*labelled("train", 4), *labelled("valid", 40), *unlabelled]).make()
    summary = read_json(tmp_path / "splits.json")
    assert summary["test_carved_from_valid"] is True
    assert summary["test"]["file"] == "valid" and summary["test"]["n"] + summary["valid"]["n"] == 40
    assert [line["label"] for line in read_csv(tmp_path / "unlabelled.csv")] == [""] * 6
    rows = {s: {line["row"] for line in read_csv(tmp_path / f"{s}.csv")} for s in ("valid", "test")}
    assert not rows["valid"] & rows["test"]


def test_a_meta_csv_of_another_length_is_refused_because_its_slides_would_be_those_of_other_patches(
    tmp_path: Path,
) -> None:
    case = Case(tmp_path, [*labelled("train", 4), *labelled("valid", 4), *labelled("test", 4)])
    meta = tmp_path / "train_meta.csv"
    meta.write_text("".join(meta.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="3 rows for 4 patches"):
        case.make()


def test_a_split_left_with_one_class_is_refused(tmp_path: Path) -> None:
    rows = [*labelled("train", 4), ("valid", 0, 1, 1), *labelled("test", 4)]
    with pytest.raises(InputError, match="only label 1 left for split valid"):
        Case(tmp_path, rows).make()
    with pytest.raises(InputError, match="no patch left for split train"):
        Case(tmp_path, [*labelled("valid", 4), *labelled("test", 4)]).make()
