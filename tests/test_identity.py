"""Identity by content: a file is named by what it holds, and another split's content under its name stops the run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from audit_checksums import audit_checksums
from gate_audit import gate_audit

from pcam import identity, policy
from pcam.facts import COURSE_LABEL_COUNTS, FILE_SPLITS, LABEL_COUNTS, MD5_H5, pcam_filename
from pcam.files import InputError, file_digest, read_json, write_csv, write_json
from pcam.hdf5 import write_labels, write_patches
from pcam.identity import KNOWN, Tables, file_digests, patch_digests

PROVENANCE = {"rule": "test"}
# A publication in small: valid and test have one shape, and counts of labels that differ.
COUNTS = {
    **{("published", "train"): (12, 12), ("published", "valid"): (7, 9), ("published", "test"): (9, 7)},
    ("course", "train"): (12, 2),
}


def labels_of(negative: int, positive: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat(np.array([0, 1], np.uint8), (negative, positive)))


class Folder:
    """Three splits on disk; `x` and `y` hold what is published unless a test changes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rng = np.random.default_rng(3)
        self.y: dict[str, np.ndarray | None] = {split: labels_of(*COUNTS["published", split]) for split in FILE_SPLITS}
        self.x = {s: rng.integers(0, 256, (sum(COUNTS["published", s]), 96, 96, 3), np.uint8) for s in FILE_SPLITS}

    def file(self, split: str, part: str) -> str:
        return str(self.path / pcam_filename(split, part))

    def files(self, part: str) -> dict[str, str]:
        return {split: self.file(split, part) for split in FILE_SPLITS}

    def write(self) -> "Folder":
        for split in FILE_SPLITS:
            write_patches(self.file(split, "x.h5"), self.x[split])
            write_labels(self.file(split, "y.h5"), self.y[split], len(self.x[split]))
            write_csv(self.file(split, "meta.csv"), ("", "wsi"), [])
        return self

    def repack(self, split: str, **options: Any) -> None:
        with h5py.File(self.file(split, "x.h5"), "w") as handle:
            handle.create_dataset("x", data=self.x[split], **options)

    def swap(self, *parts: str) -> None:
        for part in parts:
            valid, test, third = Path(self.file("valid", part)), Path(self.file("test", part)), self.path / "third"
            valid.rename(third)
            test.rename(valid)
            third.rename(test)

    def tables(self) -> Tables:
        """What is known once these files are the published ones."""
        names = [pcam_filename(split, part) for split in FILE_SPLITS for part in ("x.h5", "y.h5")]
        return Tables({file_digest(self.path / name, "md5"): name for name in names}, COUNTS, {})

    def audit(self, known: Tables, reference: str | None = None, processes: int = 1) -> dict[tuple[str, str], dict]:
        """Files of checksums.json by split and key."""
        paths = self.files("x.h5"), self.files("y.h5"), self.files("meta.csv"), reference
        out = str(self.path / "checksums.json")
        audit_checksums(*paths, out, processes=processes, provenance=PROVENANCE, known=known)
        return {(file["split"], file["key"]): file for file in read_json(out)["files"]}

    def verdicts(self, waive: dict[str, str] | None = None) -> dict[str, Any]:
        return policy.judge_files(read_json(self.path / "checksums.json")["findings"], waive or {})

    def reference(self) -> str:
        """checksums.json of a run on the published files, kept."""
        self.audit(self.tables())
        return str((self.path / "checksums.json").rename(self.path / "reference.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path).write()


UNKNOWN = Tables({}, COUNTS, {})  # no file matches by md5: all of them were packed anew
SAME = {(split, key): pcam_filename(split, f"{key}.h5") for split in FILE_SPLITS for key in ("x", "y")}


def names(files: dict[tuple[str, str], dict]) -> dict[tuple[str, str], str | None]:
    return {place: file["published_as"] for place, file in files.items()}


def ways(files: dict[tuple[str, str], dict], key: str) -> list[str | None]:
    return [files[split, key]["confidence"] for split in FILE_SPLITS]


# ---- digests


def test_digests_of_one_read_are_those_of_the_file(folder: Folder) -> None:
    path = folder.file("train", "x.h5")
    assert file_digests(path) == (file_digest(path, "md5"), file_digest(path))


REPACKED: dict[str, dict[str, Any]] = {
    "gzip": {"chunks": (5, 96, 96, 3), "compression": "gzip", "shuffle": True},
    "lzf": {"chunks": (3, 32, 32, 1), "compression": "lzf", "fletcher32": True},
    **{dtype: {"dtype": dtype} for dtype in ("float16", "float32", "float64", ">f4")},
}


@pytest.mark.parametrize("options", REPACKED.values(), ids=REPACKED.keys())
def test_a_copy_in_another_layout_or_dtype_has_the_same_pixel_digest(folder: Folder, options: dict[str, Any]) -> None:
    before = folder.audit(UNKNOWN)["valid", "x"]
    folder.repack("valid", **options)
    after = folder.audit(UNKNOWN)["valid", "x"]
    assert after["content_digest"] == before["content_digest"]
    assert after["md5"] != before["md5"] and after["sha256"] != before["sha256"]


def test_one_changed_value_and_two_exchanged_rows_change_the_pixel_digest(folder: Folder) -> None:
    before = folder.audit(UNKNOWN)["test", "x"]["content_digest"]
    folder.x["test"][5, 95, 95, 2] ^= 1
    changed = folder.write().audit(UNKNOWN)["test", "x"]["content_digest"]
    folder.x["test"][5, 95, 95, 2] ^= 1
    folder.x["test"][[0, 1]] = folder.x["test"][[1, 0]]
    exchanged = folder.write().audit(UNKNOWN)["test", "x"]["content_digest"]
    assert len({before, changed, exchanged}) == 3


def test_values_that_uint8_cannot_hold_are_hashed_as_float32_whatever_their_dtype() -> None:
    whole = np.random.default_rng(1).integers(0, 256, (7, 96, 96, 3)).astype(np.float64)
    odd = whole.copy()
    for i, value in enumerate((np.nan, np.inf, -1, 256, 0.5, 1e5)):
        odd[i, 3, 4, 1] = value
    digests = patch_digests(odd.astype(np.float32))
    assert patch_digests(odd) == digests and len(digests) == 7 * 32
    parts, clean = ([d[i : i + 32] for i in range(0, 7 * 32, 32)] for d in (digests, patch_digests(whole)))
    assert [a == b for a, b in zip(parts, clean, strict=True)] == [False] * 6 + [True]


def test_equal_values_with_other_bits_have_equal_digests() -> None:
    patches = np.full((2, 96, 96, 3), 0.5, np.float32)
    patches[:, 0, 0, 0], patches[:, 0, 0, 1] = np.nan, 0
    patches[1, 0, 0, 0] = np.array([0xFFC00123], np.uint32).view(np.float32)[0]
    patches[1, 0, 0, 1] = -0.0
    assert np.isnan(patches[1, 0, 0, 0])
    digests = patch_digests(patches)
    assert digests[:32] == digests[32:]
    minus = np.zeros((2, 96, 96, 3), np.float32)
    minus[1] = -0.0
    assert patch_digests(minus) == patch_digests(np.zeros((2, 96, 96, 3), np.uint8))


def test_results_do_not_depend_on_processes_or_blocks(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    one = folder.audit(UNKNOWN)
    monkeypatch.setattr(identity, "BLOCK", 7)
    assert folder.audit(UNKNOWN, processes=1) == folder.audit(UNKNOWN, processes=3) == one


def test_damage_that_only_reading_shows_is_one_line_from_a_process_too(folder: Folder) -> None:
    folder.repack("valid", chunks=(4, 96, 96, 3), fletcher32=True)
    with h5py.File(folder.file("valid", "x.h5")) as handle:
        at = handle["x"].id.get_chunk_info(2).byte_offset
    with Path(folder.file("valid", "x.h5")).open("r+b") as handle:
        handle.seek(at + 9)
        handle.write(b"damage")
    for processes in (1, 2):
        with pytest.raises(InputError, match=r"valid_x\.h5: rows 0 to 15 cannot be read"):
            folder.audit(UNKNOWN, processes=processes)
    assert not (folder.path / "checksums.json").exists()


# ---- names


def test_published_files_are_named_by_md5(folder: Folder) -> None:
    files = folder.audit(folder.tables())
    assert names(files) == SAME and set(ways(files, "x") + ways(files, "y")) == {"by md5"}
    assert files["train", "x"]["meaning"] == "the published file of this split, by md5"
    assert files["train", "x"]["labels"] == [12, 12] and files["train", "x"]["patches"] == 24
    verdicts = folder.verdicts()
    assert {kind: verdict["verdict"] for kind, verdict in verdicts.items()} == dict.fromkeys(verdicts, "pass")
    assert verdicts["published_file"]["reason"] == "6 of 6 files are published PCam files by their content: 6 by md5"


def test_made_up_data_are_no_published_file(folder: Folder) -> None:
    files = folder.audit(KNOWN)
    assert len(files) == 6  # a meta file without rows is not identified
    assert all(file["meaning"] == "not a published file" and file["published_as"] is None for file in files.values())
    assert folder.verdicts()["published_file"]["reason"] == "0 of 6 files are published PCam files by their content"
    write_csv(folder.file("train", "meta.csv"), ("", "wsi"), [(0, "slide")])
    assert folder.audit(KNOWN)["train", "meta"]["content_digest"] is None


def test_the_published_tables_tell_splits_apart() -> None:
    assert len(set(KNOWN.counts.values())) == 4 and sum(LABEL_COUNTS["valid"]) == sum(LABEL_COUNTS["test"]) == 32_768
    assert sum(LABEL_COUNTS["train"]) == 262_144 and sum(COURSE_LABEL_COUNTS["train"]) == 157_286
    assert set(KNOWN.md5) > set(MD5_H5.values()) and set(KNOWN.md5.values()) == set(identity.SPLIT_OF)


def test_repacked_copies_are_named_by_the_reference(folder: Folder) -> None:
    reference = folder.reference()
    folder.repack("train", chunks=(5, 96, 96, 3), compression="gzip")
    folder.repack("valid", dtype=np.float32)
    folder.y["test"] = None  # not handed out: its pixels name it all the same
    write_labels(folder.file("test", "y.h5"), None, 16)
    with h5py.File(folder.file("valid", "y.h5"), "w") as handle:
        handle.create_dataset("y", data=folder.y["valid"].reshape(-1, 1, 1, 1).astype(np.int64))
    files = folder.audit(replace(UNKNOWN, counts={}), reference)
    assert names(files) == {**SAME, ("test", "y"): None}
    assert ways(files, "x") == ["by pixel digest of the reference"] * 3
    assert ways(files, "y") == ["by label digest of the reference"] * 2 + [None]


def test_without_a_reference_label_counts_name_the_pair(folder: Folder) -> None:
    files = folder.audit(UNKNOWN)
    assert names(files) == SAME and set(ways(files, "x") + ways(files, "y")) == {"by label counts"}
    assert files["test", "x"]["meaning"] == "the published file of this split, by label counts"
    assert folder.verdicts()["swapped_split"]["verdict"] == "pass"


def test_pixels_that_the_reference_does_not_know_are_told_beside_the_label_counts(folder: Folder) -> None:
    reference = folder.reference()
    folder.x["valid"][3] = 0
    file = folder.write().audit(UNKNOWN, reference)["valid", "x"]
    assert file["published_as"] == SAME["valid", "x"] and file["confidence"] == "by label counts"
    assert file["meaning"].endswith("(its pixel digest is not that of the reference, so its content was changed)")


def test_unlabelled_patches_are_named_by_shape_as_far_as_it_goes(folder: Folder) -> None:
    folder.y["test"] = folder.y["train"] = None
    files = folder.write().audit(UNKNOWN)
    assert ways(files, "x") == ["by shape only: train", "by label counts", "by shape only: valid or test"]
    assert (files["test", "x"]["content_of"], files["test", "x"]["published_as"]) == (["valid", "test"], None)
    assert files["test", "x"]["meaning"] == "the published valid or test file, which shape alone does not tell"
    assert files["test", "y"]["confidence"] is None
    assert folder.verdicts()["swapped_split"]["verdict"] == "pass"


def test_the_courses_train_file_is_named_by_its_label_counts(folder: Folder) -> None:
    folder.x["train"], folder.y["train"] = folder.x["train"][:14].astype(np.float32), labels_of(12, 2)
    files = folder.write().audit(UNKNOWN)
    file = files["train", "x"]
    assert (file["source"], file["content_of"], file["published_as"]) == ("course", ["train"], None)
    assert file["meaning"] == "the course's file of this split, by label counts"
    assert folder.verdicts()["published_file"]["n"] == 4


def test_a_published_shape_with_other_label_counts_is_said(folder: Folder) -> None:
    folder.y["valid"] = labels_of(8, 8)
    file = folder.write().audit(UNKNOWN)["valid", "x"]
    assert file["published_as"] is None
    assert file["meaning"] == (
        "not a published file (16 patches as published valid and published test, but 8/8 labels)"
    )


# ---- swaps


def repack_all(folder: Folder) -> None:
    for split in FILE_SPLITS:
        folder.repack(split, dtype=np.float32, chunks=(2, 96, 96, 3), compression="gzip")


def swap_by_md5(folder: Folder) -> tuple[Tables, str | None]:
    tables = folder.tables()
    folder.swap("x.h5", "y.h5")
    return tables, None


def swap_by_reference(folder: Folder) -> tuple[Tables, str | None]:
    reference = folder.reference()
    repack_all(folder)
    folder.swap("x.h5", "y.h5")
    return replace(UNKNOWN, counts={}), reference


def swap_by_label_counts(folder: Folder) -> tuple[Tables, str | None]:
    repack_all(folder)
    folder.swap("x.h5", "y.h5")
    return UNKNOWN, None


@pytest.mark.parametrize(
    ("swap", "confidence"),
    [
        (swap_by_md5, "by md5"),
        (swap_by_reference, "by pixel digest of the reference"),
        (swap_by_label_counts, "by label counts"),
    ],
)
def test_valid_and_test_exchanged_stop_the_run(
    folder: Folder, swap: Callable[[Folder], tuple[Tables, str | None]], confidence: str
) -> None:
    files = folder.audit(*swap(folder))
    assert files["valid", "x"]["published_as"] == SAME["test", "x"]
    assert files["test", "y"]["published_as"] == SAME["valid", "y"]
    assert files["valid", "x"]["meaning"] == f"the published test file under the name of valid, {confidence}"
    assert files["train", "x"]["published_as"] == SAME["train", "x"]
    verdicts = folder.verdicts()
    swapped = verdicts["swapped_split"]
    assert (swapped["verdict"], swapped["n"]) == ("fail", 4)
    assert swapped["reason"].count("under the name of") == 4 and swapped["reason"].count("README") == 1
    write_json(folder.path / "verdicts.json", verdicts)
    with pytest.raises(InputError, match=r"swapped_split: .*published names.*audit\.waive\.swapped_split"):
        gate_audit(str(folder.path / "verdicts.json"), str(folder.path / "gate.json"), provenance=PROVENANCE)
    waived = folder.verdicts({"swapped_split": "on purpose"})["swapped_split"]
    assert waived["verdict"] == "waived" and "on purpose" in waived["reason"]


def test_pixels_exchanged_under_unknown_labels_are_found_by_the_reference_alone(folder: Folder) -> None:
    reference = folder.reference()
    folder.swap("x.h5")
    write_labels(folder.file("test", "y.h5"), None, 16)
    write_labels(folder.file("valid", "y.h5"), labels_of(8, 8), 16)
    folder.audit(UNKNOWN)
    assert folder.verdicts()["swapped_split"]["verdict"] == "pass"
    folder.audit(UNKNOWN, reference)
    assert folder.verdicts()["swapped_split"]["n"] == 2


def test_labels_of_test_beside_pixels_of_valid_are_a_swap(folder: Folder) -> None:
    tables = folder.tables()
    folder.swap("y.h5")
    files = folder.audit(tables)
    assert files["valid", "x"]["published_as"] == SAME["valid", "x"]
    assert files["valid", "y"]["published_as"] == SAME["test", "y"]
    assert folder.verdicts()["swapped_split"]["n"] == 2


def test_train_under_the_name_of_valid_is_a_swap_by_shape_alone(folder: Folder) -> None:
    folder.x["valid"], folder.y["valid"] = folder.x["train"][::-1].copy(), None
    folder.write().audit(UNKNOWN)
    verdict = folder.verdicts()["swapped_split"]
    assert verdict["verdict"] == "fail" and "README" not in verdict["reason"]
    assert "train file under the name of valid, by shape only: train" in verdict["reason"]


def test_one_content_under_two_splits_names_stops_the_run(folder: Folder) -> None:
    folder.x["test"] = folder.x["valid"].astype(np.float32)
    folder.write().audit(KNOWN)
    same = folder.verdicts()["same_content"]
    assert (same["verdict"], same["n"]) == ("fail", 2)
    assert f"{SAME['test', 'x']} holds the pixels of {SAME['valid', 'x']}" in same["reason"]
    assert folder.verdicts({"same_content": "a test"})["same_content"]["verdict"] == "waived"
    write_json(folder.path / "verdicts.json", folder.verdicts())
    with pytest.raises(InputError, match=r"same_content: .*audit\.waive\.same_content"):
        gate_audit(str(folder.path / "verdicts.json"), str(folder.path / "gate.json"), provenance=PROVENANCE)


# ---- references that are none


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no such file"),
        ("<html>", "not a JSON file"),
        ("{}", "holds no list of files"),
        ('{"files": [1]}', "holds no list of files"),
        ('{"files": [{"confidence": "by label counts", "content_digest": "0"}]}', "names no file by md5"),
    ],
)
def test_a_reference_that_is_none_is_one_line(folder: Folder, content: str | None, told: str) -> None:
    path = folder.path / "reference.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=told) as caught:
        folder.audit(UNKNOWN, str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
