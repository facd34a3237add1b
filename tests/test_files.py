"""Files are written whole or not at all; bad ones are named in one line."""

import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest
from import_directory import import_directory

from pcam.acquisition import decompress, files_at_hand
from pcam.facts import FILE_SPLITS, hospital_of, pcam_filename
from pcam.files import InputError, atomic_path, read_csv, read_json, write_csv, write_json
from pcam.hdf5 import PatchReader, check_pair, read_labels, write_labels, write_patches
from pcam.store import channel_statistics, open_store, write_store

RNG = np.random.default_rng(0)


def pixels(n: int) -> np.ndarray:
    return RNG.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_json(target, {"a": 1})
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(target) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_floats_survive_a_csv_bit_for_bit(tmp_path: Path) -> None:
    values = RNG.normal(size=100).tolist()
    write_csv(tmp_path / "v.csv", ("v",), [[v] for v in values])
    assert [float(line["v"]) for line in read_csv(tmp_path / "v.csv")] == values


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "begins with b'<html"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\x89HDF\r\n\x1a\n", "cut short"),
    ],
)
def test_what_is_no_hdf5_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error, PatchReader(path):
        pass
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_hdf5_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    write_patches(path, pixels(20))
    path.write_bytes(path.read_bytes()[: 10 * 96 * 96 * 3])
    with pytest.raises(InputError, match="cut short or damaged"), PatchReader(path):
        pass


@pytest.mark.parametrize(
    ("key", "array", "said"),
    [
        ("images", np.zeros((2, 96, 96, 3), np.uint8), "no dataset 'x'; it holds images"),
        ("x", np.zeros((2, 3, 96, 96), np.uint8), r"shape \(2, 3, 96, 96\)"),
        ("x", np.zeros((2, 96, 96, 3), np.int32), "dtype int32"),
        ("x", np.zeros((0, 96, 96, 3), np.uint8), "no patch"),
    ],
)
def test_a_wrong_key_shape_or_dtype_is_named(tmp_path: Path, key: str, array: np.ndarray, said: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as handle:
        handle[key] = array
    with pytest.raises(InputError, match=said), PatchReader(tmp_path / "x.h5"):
        pass


def test_labels_other_than_0_and_1_are_named_with_their_row(tmp_path: Path) -> None:
    write_labels(tmp_path / "y.h5", np.array([0, 1, 2]), 3)
    with pytest.raises(InputError, match="label 2 in row 2"):
        read_labels(tmp_path / "y.h5")


def test_unlabelled_is_said_not_guessed(tmp_path: Path) -> None:
    write_labels(tmp_path / "y.h5", None, 3)
    assert read_labels(tmp_path / "y.h5") is None


def test_pairs_of_different_length_or_one_class_are_refused(tmp_path: Path) -> None:
    write_patches(tmp_path / "x.h5", pixels(3))
    write_labels(tmp_path / "y.h5", np.array([0, 1]), 2)
    with pytest.raises(InputError, match="2 labels for the 3 patches"):
        check_pair(tmp_path / "x.h5", tmp_path / "y.h5")
    write_labels(tmp_path / "y.h5", np.array([1, 1, 1]), 3)
    with pytest.raises(InputError, match="every label is 1"):
        check_pair(tmp_path / "x.h5", tmp_path / "y.h5")


def test_store_holds_the_rows_asked_for_as_uint8(tmp_path: Path) -> None:
    source = pixels(50)
    write_patches(tmp_path / "x.h5", source.astype(np.float32))
    rows = np.array([0, 7, 8, 49])
    write_store(tmp_path / "s.npy", tmp_path / "x.h5", rows)
    assert np.array_equal(open_store(tmp_path / "s.npy"), source[rows])
    write_store(tmp_path / "empty.npy", tmp_path / "x.h5", np.array([], np.int64))
    assert open_store(tmp_path / "empty.npy").shape == (0, 96, 96, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 256.0, 0.5])
def test_what_would_lose_something_is_not_converted(tmp_path: Path, value: float) -> None:
    source = pixels(3).astype(np.float32)
    source[1, 5, 5, 0] = value
    write_patches(tmp_path / "x.h5", source)
    with pytest.raises(InputError, match="do not convert"):
        write_store(tmp_path / "s.npy", tmp_path / "x.h5", np.array([0, 1, 2]))
    assert not (tmp_path / "s.npy").exists()


def test_channel_statistics_equal_numpys(tmp_path: Path) -> None:
    store = pixels(30)
    mean, std = channel_statistics(store)
    assert np.allclose(mean, (store / 255).mean((0, 1, 2))) and np.allclose(std, (store / 255).std((0, 1, 2)))


@pytest.mark.parametrize("damage", ["truncated", "html"])
def test_a_damaged_gzip_file_leaves_nothing_behind(tmp_path: Path, damage: str) -> None:
    source, target = tmp_path / "x.h5.gz", tmp_path / "out" / "x.h5"
    whole = gzip.compress(RNG.bytes(50_000))
    source.write_bytes(whole[:20_000] if damage == "truncated" else b"<html>quota exceeded</html>")
    with pytest.raises(InputError, match="not a whole gzip file"):
        decompress(source, target)
    assert list(target.parent.iterdir()) == []


def course_folder(folder: Path, *, test_labels: bool = False) -> Path:
    folder.mkdir()
    for split in FILE_SPLITS:
        write_patches(folder / pcam_filename(split, "x.h5"), pixels(4))
        if split != "test" or test_labels:
            write_labels(folder / pcam_filename(split, "y.h5"), np.array([0, 1, 0, 1]), 4)
    return folder


def test_a_directory_behind_links_gzipped_and_without_test_labels_is_brought_into_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = course_folder(tmp_path / "real")
    at_hand = tmp_path / "links"
    at_hand.mkdir()
    for path in real.iterdir():
        if path.name == pcam_filename("valid", "x.h5"):
            (at_hand / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        else:
            (at_hand / path.name).symlink_to(path)
    targets = {
        f"{split}_{part}": str(tmp_path / "out" / pcam_filename(split, f"{part}.{'csv' if part == 'meta' else 'h5'}"))
        for split in FILE_SPLITS
        for part in ("x", "y", "meta")
    }
    import_directory(files_at_hand(at_hand), targets)
    name = pcam_filename("train", "x.h5")
    assert f"{name}: {real / name}\n" in capsys.readouterr().out
    assert read_labels(targets["test_y"]) is None
    assert read_labels(targets["train_y"]).tolist() == [0, 1, 0, 1]
    for split in FILE_SPLITS:
        with PatchReader(targets[f"{split}_x"]) as out, PatchReader(real / pcam_filename(split, "x.h5")) as source:
            assert np.array_equal(out.read(0, 4), source.read(0, 4))
        assert read_csv(targets[f"{split}_meta"], ("wsi",)) == []


def test_a_labels_file_that_holds_no_labels_is_refused(tmp_path: Path) -> None:
    folder = course_folder(tmp_path / "d")
    write_labels(folder / pcam_filename("test", "y.h5"), None, 4)
    targets = {
        f"{split}_{part}": str(tmp_path / "out" / pcam_filename(split, f"{part}.h5"))
        for split in FILE_SPLITS
        for part in ("x", "y", "meta")
    }
    with pytest.raises(InputError, match="says it holds no labels"):
        import_directory(files_at_hand(folder), targets)


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        files_at_hand(tmp_path / "nowhere")
    folder = course_folder(tmp_path / "d")
    (folder / pcam_filename("valid", "y.h5")).unlink()
    with pytest.raises(InputError, match=r"valid_y\.h5: no such file"):
        files_at_hand(folder)


@pytest.mark.parametrize(
    ("slide", "hospital"),
    [
        ("camelyon16_train_tumor_070", "RUMC"),
        ("camelyon16_train_tumor_071", "UMCU"),
        ("camelyon16_train_normal_100", "RUMC"),
        ("camelyon16_train_normal_101", "UMCU"),
        ("camelyon16_test_001", ""),
        ("", ""),
    ],
)
def test_hospital_follows_from_the_slide_number(slide: str, hospital: str) -> None:
    assert hospital_of(slide) == hospital
