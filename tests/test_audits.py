"""The audit stage: what is planted is found, row by row; what is not there is not; policy and gate say what follows."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from apply_policy import apply_policy
from audit_checksums import PUBLISHED, audit_checksums, identify
from audit_leakage import audit_leakage
from audit_poison import audit_poison
from audit_storage import audit_storage
from conftest import ROOT
from gate_audit import gate_audit
from score_audit import score_audit

from pcam import audits, policy
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import InputError, file_digest, read_csv, read_json, write_csv, write_json
from pcam.hdf5 import write_labels, write_patches

DROP = {
    **{kind: "drop" for kind in (*audits.POISON_KINDS, *audits.LEAKAGE_KINDS)},
    "float_storage": "convert",
}
PROVENANCE = {"rule": "test"}


def tissue(n: int, seed: int) -> np.ndarray:
    """Independent textured patches."""
    return np.random.default_rng(seed).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


class Data:
    """Three splits on disk and the whole audit stage over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.x = {split: tissue(12, seed) for seed, split in enumerate(FILE_SPLITS)}
        self.y: dict[str, np.ndarray | None] = {split: np.arange(12, dtype=np.uint8) % 2 for split in FILE_SPLITS}

    def path(self, split: str, part: str) -> str:
        return str(self.folder / pcam_filename(split, part))

    def paths(self, part: str) -> dict[str, str]:
        return {split: self.path(split, part) for split in FILE_SPLITS}

    def write(self) -> "Data":
        for split in FILE_SPLITS:
            write_patches(self.path(split, "x.h5"), self.x[split])
            write_labels(self.path(split, "y.h5"), self.y[split], len(self.x[split]))
            write_csv(self.path(split, "meta.csv"), ("", "wsi"), [])
        return self

    def result(self, name: str) -> str:
        return str(self.folder / "results" / name)

    def audit(self) -> "Data":
        pair = self.paths("x.h5"), self.paths("y.h5")
        listed = {"rows_listed": 5, "provenance": PROVENANCE}
        audit_checksums(*pair, self.paths("meta.csv"), self.result("checksums.json"), provenance=PROVENANCE)
        audit_storage(*pair, self.result("storage.json"), self.result("storage_rows.csv"), **listed)
        audit_poison(*pair, self.result("poison.json"), self.result("poison_rows.csv"), **listed)
        audit_leakage(*pair, self.result("leakage.json"), self.result("leakage_rows.csv"), **listed)
        return self

    def judge(self, actions: dict | None = None, waive: dict | None = None) -> dict:
        apply_policy(
            self.paths("y.h5"),
            self.result("checksums.json"),
            self.result("storage.json"),
            [self.result(f"{name}_rows.csv") for name in ("poison", "storage", "leakage")],
            self.result("patches.csv"),
            self.result("verdicts.json"),
            policy=DROP if actions is None else actions,
            waive=waive or {},
            provenance=PROVENANCE,
        )
        return read_json(self.result("verdicts.json"))

    def rows(self, name: str, kind: str) -> set[tuple[str, int]]:
        table = read_csv(self.result(f"{name}_rows.csv"))
        return {(line["split"], int(line["row"])) for line in table if line["kind"] == kind}

    def findings(self, name: str, kind: str) -> list[dict]:
        return [found for found in read_json(self.result(f"{name}.json"))["findings"] if found["kind"] == kind]

    def dropped(self) -> set[tuple[str, int]]:
        table = read_csv(self.result("patches.csv"))
        return {(line["split"], int(line["row"])) for line in table if line["keep"] == "0"}

    def defects(self) -> dict[tuple[str, int], str]:
        table = read_csv(self.result("patches.csv"))
        return {(line["split"], int(line["row"])): line["defects"] for line in table if line["defects"]}


@pytest.fixture
def data(tmp_path: Path) -> Data:
    return Data(tmp_path)


def windows(seed: int, places: list[tuple[int, int]], canvas: np.ndarray | None = None) -> np.ndarray:
    """Patches cut from one textured canvas; places in pixels."""
    if canvas is None:
        canvas = np.random.default_rng(seed).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    return np.stack([canvas[top : top + 96, left : left + 96] for top, left in places])


# ---- poison


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
    assert read_csv(data.result("poison_rows.csv")) == []


def test_what_was_looked_for_and_not_found_is_told_per_split_and_class(data: Data) -> None:
    data.write().audit()
    for name, kinds in (("poison", audits.POISON_KINDS), ("leakage", audits.LEAKAGE_KINDS)):
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
    data.write()
    audit_poison(
        *(data.paths("x.h5"), data.paths("y.h5"), data.result("poison.json"), data.result("poison_rows.csv")),
        **{"rows_listed": 5, "provenance": PROVENANCE},
    )
    assert data.rows("poison", "blackout") == {("train", 1050)}


# ---- leakage


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


def test_equal_digests_of_unequal_pixels_are_not_reported(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    data.x["train"][7] = data.x["train"][0]
    data.write()
    monkeypatch.setattr(audits, "content_digest", lambda content: bytes(16))
    data.audit()
    assert data.rows("leakage", "exact_duplicate") == {("train", 0), ("train", 7)}


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


SHIFTS = [(16 * dy, 16 * dx) for dy in range(-5, 6) for dx in range(-5, 6) if (dy, dx) != (0, 0)]


def test_every_shift_on_the_grid_is_recalled() -> None:
    for top, left in SHIFTS:
        patches = windows(5, [(150, 150), (150 + top, 150 + left)])
        hashes, usable = audits.block_hashes(patches), audits.block_texture(patches) > audits.TEXTURE_STD
        found = audits.find_overlaps(hashes, usable, lambda i, patches=patches: patches[i])
        assert found.tolist() == [[0, 1, top // 16, left // 16]]


def test_all_pairs_of_a_crowd_are_found_and_no_other() -> None:
    places = [(16 * y, 16 * x) for y in range(0, 19, 2) for x in range(1, 18, 3)] + [(8, 8), (40, 24)]
    patches = windows(2, places)
    usable = np.ones((len(patches), 36), bool)
    found = audits.find_overlaps(audits.block_hashes(patches), usable, lambda i: patches[i])
    expected = [
        [i, j, (b[0] - a[0]) // 16, (b[1] - a[1]) // 16]
        for i, a in enumerate(places)
        for j, b in enumerate(places[i + 1 :], i + 1)
        if all(abs(q - p) < 96 and (q - p) % 16 == 0 for p, q in zip(a, b, strict=True))
    ]
    assert sorted(found.tolist()) == sorted(expected)


def test_overlaps_across_files_are_found_with_their_groups_and_partners(data: Data) -> None:
    data.x["train"][:4] = windows(1, [(0, 0), (16, 32), (96, 112), (272, 272)])  # the first two, then the chain 1-2
    data.x["valid"][2] = windows(1, [(176, 192)])[0]  # shares one block with train 2
    data.x["test"][8] = windows(1, [(272, 200)])[0]  # 72 pixels from train 3: off the grid
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
    assert told["examples"][0] == {"a": ["train", 0], "b": ["train", 1], "shift_px": [16, 32]}


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


def test_a_hash_that_lies_is_found_out_on_the_pixels() -> None:
    patches = tissue(3, 4)
    hashes = np.zeros((3, 36), np.uint64)
    assert len(audits.find_overlaps(hashes, np.ones((3, 36), bool), lambda i: patches[i])) == 0


def test_poisoned_patches_take_no_part_in_overlaps(data: Data) -> None:
    train = data.x["train"].astype(np.float32)
    train[:3] = windows(1, [(0, 0), (16, 16), (32, 32)])
    train[0, 2, 2, 0] = np.nan  # outside what the next one shares
    train[2, 90, 90, 0] = 100_000
    data.x["train"] = train
    data.write().audit()
    assert data.rows("leakage", "overlap") == set()


def test_a_block_that_repeats_thousands_of_times_stays_linear() -> None:
    hashes = np.arange(4000 * 36, dtype=np.uint64).reshape(4000, 36)
    rng = np.random.default_rng(0)
    hashes[np.arange(4000), rng.integers(0, 36, 4000)] = 7
    assert len(audits.overlap_candidates(hashes, np.ones((4000, 36), bool))) < 4000


def test_block_texture_is_the_standard_deviation_of_grey() -> None:
    patches = tissue(2, 6)
    grey = patches.astype(float).mean(axis=3)
    texture = audits.block_texture(patches).reshape(2, 6, 6)
    assert np.allclose(texture[1, 2, 3], grey[1, 32:48, 48:64].std())
    assert (audits.block_texture(np.full((1, 96, 96, 3), 255, np.uint8)) == 0).all()


# ---- storage and checksums


def test_storage_explains_the_size_and_counts_what_converts(data: Data) -> None:
    train = data.x["train"].astype(np.float32)
    train[0, 0, 0, 0] = np.nan
    train[1, 0, 0, 0] = 300
    train[2, 0, 0, 0] = 7.5
    data.x["train"] = train
    data.write().audit()
    negative, positive = data.findings("storage", "float_storage")[:2]
    assert (negative["n"], negative["lossless"], positive["n"], positive["lossless"]) == (6, 4, 6, 5)
    assert data.rows("storage", "fractional") == {("train", 2)}
    assert all(found["n"] == 0 for found in data.findings("storage", "float_storage")[2:])
    files = {(file["split"], file["key"]): file for file in read_json(data.result("storage.json"))["files"]}
    assert len(files) == 6
    wide = files["train", "x"]
    assert (wide["dtype"], wide["layout"], wide["chunks"], wide["compression"]) == ("float32", "contiguous", None, None)
    assert wide["bytes_on_disk"] == Path(data.path("train", "x.h5")).stat().st_size
    assert wide["bytes_as_uint8"] == 12 * 27_648 and 4 < wide["factor"] < 4.1
    assert wide["cause"] == "4 bytes a value where one serves, no compression"


def test_storage_names_chunks_and_compression(data: Data) -> None:
    data.write()
    with h5py.File(data.path("valid", "x.h5"), "w") as handle:
        handle.create_dataset("x", data=data.x["valid"], chunks=(4, 96, 96, 3), compression="gzip")
    data.audit()
    file = next(
        f for f in read_json(data.result("storage.json"))["files"] if f["file"] == pcam_filename("valid", "x.h5")
    )
    assert (file["layout"], file["chunks"], file["compression"]) == ("chunked", [4, 96, 96, 3], "gzip")


def test_digests_name_no_published_file_in_made_up_data(data: Data) -> None:
    data.write().audit()
    files = read_json(data.result("checksums.json"))["files"]
    assert len(files) == 6  # a meta file without rows is not identified
    assert all(file["meaning"] == "not a published file" and file["published_as"] is None for file in files)
    path = data.path("train", "x.h5")
    assert (files[0]["md5"], files[0]["sha256"]) == (file_digest(path, "md5"), file_digest(path))
    assert files[0]["bytes"] == Path(path).stat().st_size
    write_csv(data.path("train", "meta.csv"), ("", "wsi"), [(0, "slide")])
    assert len(read_json(data.audit().result("checksums.json"))["files"]) == 7


def test_valid_content_under_the_name_of_test_is_called_a_swap(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    data.write()
    for mine, published in (("test", "valid"), ("valid", "test"), ("train", "train")):
        monkeypatch.setitem(PUBLISHED, file_digest(data.path(mine, "x.h5"), "md5"), pcam_filename(published, "x.h5"))
    assert identify("test", data.path("test", "x.h5"))["meaning"] == "the published valid file under the name of test"
    data.audit()
    assert [found["files"] for found in data.findings("checksums", "swapped_split")] == [
        *([], [pcam_filename("valid", "x.h5")], [pcam_filename("test", "x.h5")])
    ]
    assert [found["n"] for found in data.findings("checksums", "published_file")] == [1, 1, 1]
    verdicts = data.judge()
    assert verdicts["swapped_split"]["verdict"] == "fail"
    with pytest.raises(InputError, match=r"swapped_split: .*published names.*audit\.waive\.swapped_split"):
        gate_audit(data.result("verdicts.json"), data.result("gate.json"), provenance=PROVENANCE)
    assert data.judge(waive={"swapped_split": "on purpose"})["swapped_split"]["verdict"] == "waived"


# ---- policy


def line(split: str, row: int, kind: str, partners: str = "", content: str = "") -> dict[str, str]:
    return {"split": split, "row": str(row), "kind": kind, "group": "", "partner_splits": partners, "content": content}


def gone(lines: list[dict[str, str]], **actions: str) -> set[tuple[str, int]]:
    _, dropped = policy.flagged_and_dropped(lines, {**DROP, **actions})
    return set().union(*dropped.values())


def test_poison_goes_from_train_and_valid_and_from_test_only_where_it_is_no_picture_at_all() -> None:
    for kind in audits.POISON_KINDS:
        lines = [line(split, 3, kind) for split in FILE_SPLITS]
        from_test = {("test", 3)} if kind in {"non_finite", "out_of_range"} else set()
        assert gone(lines) == {("train", 3), ("valid", 3)} | from_test
        assert gone(lines, **{kind: "keep"}) == set()


def test_of_exact_duplicates_the_first_of_each_set_and_split_stays() -> None:
    lines = [line("train", row, "exact_duplicate", "train", "0") for row in (9, 4, 11)]
    lines += [line("train", row, "exact_duplicate", "train", "1") for row in (2, 5)]
    lines += [line(split, row, "exact_duplicate", split, "0") for split in ("valid", "test") for row in (7, 8)]
    assert gone(lines) == {("train", 9), ("train", 11), ("train", 5), ("valid", 8)}


@pytest.mark.parametrize("kind", ["cross_split_duplicate", "overlap"])
def test_of_a_pair_across_splits_the_earlier_one_goes(kind: str) -> None:
    lines = [
        *(line("train", 0, kind, "valid"), line("valid", 0, kind, "train")),
        *(line("train", 1, kind, "test"), line("test", 1, kind, "train")),
        *(line("valid", 2, kind, "test"), line("test", 2, kind, "valid")),
        *(line("train", 3, kind, "train;valid"), line("valid", 3, kind, "train;valid")),
    ]
    assert gone(lines) == {("train", 0), ("train", 1), ("valid", 2), ("train", 3)}


def test_overlaps_within_one_split_stay() -> None:
    assert gone([line(split, row, "overlap", split) for split in FILE_SPLITS for row in (0, 1)]) == set()


def test_conflicting_labels_all_go_but_for_test() -> None:
    lines = [line(split, row, "label_conflict", "train") for split in FILE_SPLITS for row in (0, 1)]
    assert gone(lines) == {("train", 0), ("train", 1), ("valid", 0), ("valid", 1)}


def test_the_table_holds_every_patch_with_its_defects_in_fixed_order(data: Data) -> None:
    train = data.x["train"].astype(np.float32)
    train[[0, 2]] = 0
    train[4] = data.x["test"][5]
    train[5] = train[4]
    data.x["train"] = train
    data.write().audit()
    verdicts = data.judge()
    assert data.defects() == {
        ("train", 0): "blackout;exact_duplicate",
        ("train", 2): "blackout;exact_duplicate",
        ("train", 4): "label_conflict;exact_duplicate;cross_split_duplicate",
        ("train", 5): "label_conflict;exact_duplicate;cross_split_duplicate",
        ("test", 5): "label_conflict;cross_split_duplicate",
    }
    assert data.dropped() == {("train", 0), ("train", 2), ("train", 4), ("train", 5)}
    table = read_csv(data.result("patches.csv"))
    assert [(line["split"], int(line["row"])) for line in table] == [(s, i) for s in FILE_SPLITS for i in range(12)]
    assert [line["label"] for line in table[:2]] == ["0", "1"]
    assert {kind: v["verdict"] for kind, v in verdicts.items() if kind != "provenance"} == {
        **{kind: "pass" for kind in ("published_file", "swapped_split", "emptied_class", "overlap")},
        **{kind: "pass" for kind in ("non_finite", "out_of_range", "washout", "constant")},
        **{kind: "repaired" for kind in ("float_storage", "blackout", "label_conflict")},
        **{kind: "repaired" for kind in ("exact_duplicate", "cross_split_duplicate")},
    }
    assert (verdicts["blackout"]["n"], verdicts["blackout"]["dropped"]) == (2, 2)
    assert verdicts["blackout"]["reason"] == "2 of 36 patches (train 2); 2 dropped (train 2)"
    assert "2 dropped (train 2); 1 stay, flagged (test 1" in verdicts["label_conflict"]["reason"]
    duplicates = verdicts["exact_duplicate"]
    assert (duplicates["n"], duplicates["dropped"]) == (4, 2)
    assert duplicates["reason"].endswith("2 dropped (train 2); 2 dropped for another defect")
    gate_audit(data.result("verdicts.json"), data.result("gate.json"), provenance=PROVENANCE)
    gate = read_json(data.result("gate.json"))
    assert gate["open"] is True and gate["kinds"]["blackout"] == "repaired" and gate["provenance"] == PROVENANCE


def test_blank_patches_take_no_tissue_with_them(data: Data) -> None:
    data.x["train"][0] = 0
    data.x["test"][0] = 0
    data.write().audit()
    data.judge({**DROP, "blackout": "keep"}, {"blackout": "a test"})
    assert data.dropped() == {("train", 0)}


def test_keep_needs_a_waiver_and_an_absent_action_fails(data: Data) -> None:
    data.x["train"][0] = 255
    data.write().audit()
    assert data.judge({**DROP, "washout": "keep"})["washout"]["verdict"] == "fail"
    waived = data.judge({**DROP, "washout": "keep"}, {"washout": "glass is real", "overlap": "none there"})
    assert waived["washout"]["verdict"] == "waived" and "glass is real" in waived["washout"]["reason"]
    assert waived["overlap"]["verdict"] == "pass"
    assert data.dropped() == set()
    without = {kind: action for kind, action in DROP.items() if kind != "washout"}
    failed = data.judge(without, {"washout": "a reason alone is no action"})["washout"]
    assert failed["verdict"] == "fail" and "audit.policy has no entry" in failed["reason"]


@pytest.mark.parametrize(
    ("split", "value", "verdict"),
    [
        ("train", 0.5, "fail"),
        ("train", np.nan, "repaired"),
        ("valid", 1e5, "repaired"),
        ("test", np.nan, "repaired"),
        ("test", 0.5, "fail"),
    ],
)
def test_float_storage_is_repaired_only_when_every_kept_patch_fits_uint8(
    data: Data, split: str, value: float, verdict: str
) -> None:
    data.x[split] = data.x[split].astype(np.float32)
    data.x[split][3, 8, 8, 1] = value
    data.write().audit()
    assert data.judge()["float_storage"]["verdict"] == verdict
    assert data.judge({**DROP, "float_storage": "keep"})["float_storage"]["verdict"] == "fail"
    waived = data.judge({**DROP, "float_storage": "keep"}, {"float_storage": "a test"})
    assert waived["float_storage"]["verdict"] == "waived"


def test_a_policy_that_empties_a_class_fails(data: Data) -> None:
    data.x["train"][[1, 3, 5, 7, 9, 11]] = 0
    data.write().audit()
    verdict = data.judge()["emptied_class"]
    assert verdict["verdict"] == "fail" and "train class 1" in verdict["reason"]


def test_an_action_that_a_kind_does_not_have_is_refused(data: Data) -> None:
    data.write().audit()
    with pytest.raises(InputError, match=r"audit\.policy\.blackout is 'convert'; allowed are drop and keep"):
        data.judge({**DROP, "blackout": "convert"})


def test_the_gate_names_every_failed_kind_and_writes_nothing(data: Data) -> None:
    data.x["train"][0] = 255
    data.x["valid"][1] = 0
    data.write().audit()
    data.judge({**DROP, "washout": "keep", "blackout": "keep"})
    with pytest.raises(InputError) as caught:
        gate_audit(data.result("verdicts.json"), data.result("gate.json"), provenance=PROVENANCE)
    told = str(caught.value)
    assert "\n" not in told and "2 of " in told
    for kind in ("washout", "blackout"):
        assert f"audit.policy.{kind}: drop" in told and f"audit.waive.{kind}" in told
    assert not Path(data.result("gate.json")).exists()


# ---- score, and who may know the truth


def test_the_score_counts_what_was_missed_and_what_was_made_up(tmp_path: Path) -> None:
    planted, patches, score = tmp_path / "planted.csv", tmp_path / "patches.csv", str(tmp_path / "score.json")
    write_csv(planted, ("split", "row", "kind"), [("train", row, "blackout") for row in range(4)])
    found = [("train", row, 0, 0, "blackout;exact_duplicate" if row else "") for row in range(6)]
    write_csv(patches, ("split", "row", "label", "keep", "defects"), found)
    score_audit(str(planted), str(patches), score, provenance=PROVENANCE)
    kinds = read_json(score)["kinds"]
    blackout = kinds["blackout"]
    assert (blackout["planted"], blackout["found"], blackout["true_positives"]) == (4, 5, 3)
    assert (blackout["recall"], blackout["precision"]) == (0.75, 0.6)
    assert blackout["recall_interval"][0] < 0.75 < blackout["recall_interval"][1]
    assert kinds["exact_duplicate"]["recall"] is None and kinds["exact_duplicate"]["precision"] == 0
    assert kinds["washout"]["precision"] is None and "overlap" not in kinds


def test_no_audit_knows_the_truth_or_the_policy() -> None:
    scripts = ROOT / "workflow" / "scripts"
    sources = [*scripts.glob("audit_*.py"), scripts / "pcam" / "audits.py"]
    others = [scripts / "apply_policy.py", scripts / "gate_audit.py", scripts / "pcam" / "policy.py"]
    assert all("planted" not in path.read_text() for path in (*sources, *others))
    assert all(word not in path.read_text() for path in sources for word in ("settings", "waive", "import policy"))
    rules = (ROOT / "workflow" / "rules" / "audit.smk").read_text().split("\nrule ")
    audit_rules = [rule for rule in rules if rule.startswith("audit_")]
    assert len(audit_rules) == 4
    assert all(word not in rule for rule in audit_rules for word in ("planted", "policy", "waive"))


# ---- bad input


def spoil_truncated(data: Data) -> None:
    path = Path(data.path("valid", "x.h5"))
    path.write_bytes(path.read_bytes()[:100_000])


def spoil_html(data: Data) -> None:
    Path(data.path("train", "x.h5")).write_text("<!DOCTYPE html><html>quota exceeded</html>")


def spoil_key(data: Data) -> None:
    with h5py.File(data.path("train", "x.h5"), "w") as handle:
        handle["images"] = data.x["train"]


def spoil_shape(data: Data) -> None:
    write_patches(data.path("test", "x.h5"), data.x["test"][:, :64])


def spoil_dtype(data: Data) -> None:
    write_patches(data.path("test", "x.h5"), data.x["test"].astype(np.int32))


def spoil_labels(data: Data) -> None:
    write_labels(data.path("valid", "y.h5"), np.arange(12), 12)


def spoil_length(data: Data) -> None:
    write_labels(data.path("valid", "y.h5"), np.arange(11) % 2, 11)


def spoil_class(data: Data) -> None:
    write_labels(data.path("train", "y.h5"), np.zeros(12), 12)


def spoil_missing(data: Data) -> None:
    Path(data.path("test", "y.h5")).unlink()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_truncated, "valid_x.h5: not a readable HDF5 file"),
        (spoil_html, "train_x.h5: not a readable HDF5 file"),
        (spoil_key, "no dataset 'x'; it holds images"),
        (spoil_shape, "x has shape"),
        (spoil_dtype, "x has dtype int32"),
        (spoil_labels, "label 2 in row 2"),
        (spoil_length, "11 labels for the 12 patches"),
        (spoil_class, "every label is 0"),
        (spoil_missing, "test_y.h5: no such file"),
    ],
)
def test_a_bad_file_stops_each_audit_with_one_line_and_leaves_nothing(data: Data, spoil, told: str) -> None:
    data.write()
    spoil(data)
    pair = data.paths("x.h5"), data.paths("y.h5")
    listed = {"rows_listed": 5, "provenance": PROVENANCE}
    out = data.result("findings.json"), data.result("rows.csv")
    for audit in (audit_storage, audit_poison, audit_leakage):
        with pytest.raises(InputError) as caught:
            audit(*pair, *out, **listed)
        assert told in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError):
        audit_checksums(*pair, data.paths("meta.csv"), out[0], provenance=PROVENANCE)
    assert not Path(data.result("")).exists()


def test_a_verdict_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.json"
    path.write_text("{")
    with pytest.raises(InputError, match="not a JSON file"):
        gate_audit(str(path), str(tmp_path / "gate.json"), provenance=PROVENANCE)
    write_json(path, {"blackout": {"verdict": "unheard of", "reason": "?"}, "provenance": {}})
    with pytest.raises(InputError, match="blackout"):
        gate_audit(str(path), str(tmp_path / "gate.json"), provenance=PROVENANCE)
