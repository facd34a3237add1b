"""Where the bytes of the files go: every layout is described right, the sum is the file, and the repair is measured."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from audit_storage import audit_storage

from pcam import storage
from pcam.facts import FILE_SPLITS, pcam_filename
from pcam.files import InputError, read_csv, read_json
from pcam.hdf5 import FILTERS, write_labels, write_patches

PROVENANCE = {"rule": "test"}
ROWS = 20
UINT8 = ROWS * 27_648


def tissue(n: int, seed: int) -> np.ndarray:
    """Patches that gzip packs to about two thirds: smooth colour with grain."""
    rng = np.random.default_rng(seed)
    base = rng.integers(90, 160, (n, 6, 6, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return (base + rng.integers(0, 48, (n, 96, 96, 3))).astype(np.uint8)


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.x = {split: tissue(ROWS, seed) for seed, split in enumerate(FILE_SPLITS)}
        for split in FILE_SPLITS:
            write_patches(self.file(split), self.x[split])
            write_labels(self.file(split, "y.h5"), np.arange(ROWS) % 2, ROWS)

    def file(self, split: str, part: str = "x.h5") -> str:
        return str(self.path / pcam_filename(split, part))

    def pack(self, split: str = "train", **options: Any) -> None:
        with h5py.File(self.file(split), "w") as handle:
            handle.create_dataset("x", data=self.x[split], **options)

    def audit(self, processes: int = 1) -> dict[tuple[str, str], dict]:
        """Files of storage.json by split and key."""
        paths = ({split: self.file(split, part) for split in FILE_SPLITS} for part in ("x.h5", "y.h5"))
        out = str(self.path / "storage.json"), str(self.path / "rows.csv")
        audit_storage(*paths, *out, rows_listed=5, processes=processes, provenance=PROVENANCE)
        return {(file["split"], file["key"]): file for file in read_json(out[0])["files"]}

    def train(self) -> dict:
        """What is told of train's x, whose sum is checked."""
        told = self.audit()["train", "x"]
        assert told["bytes_on_disk"] == Path(self.file("train")).stat().st_size
        assert told["bytes_on_disk"] == told["bytes_data"] + told["bytes_other"] + told["bytes_structure"]
        assert told["bytes_structure"] > 0
        if told["factors"]:
            assert np.prod(list(told["factors"].values())) == pytest.approx(told["factor"])
            assert told["factor"] == told["bytes_on_disk"] / told["bytes_as_uint8"]
        return told


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# ---- layouts


def test_bare_uint8_is_what_is_expected(folder: Folder) -> None:
    told = folder.train()
    assert told["bytes_data"] == told["bytes_expected"] == told["bytes_as_uint8"] == UINT8
    assert (told["dtype"], told["layout"], told["chunks"], told["filters"]) == ("uint8", "contiguous", None, [])
    assert told["saving_as_uint8"] == 0
    assert told["cause"].startswith(
        "1 byte a value, 1.00 × from contiguous layout, no compression, 1.00 × from HDF5 structure"
    )


@pytest.mark.parametrize(("dtype", "width"), [("float16", 2), ("float32", 4), ("float64", 8), (">f4", 4)])
def test_a_float_dtype_is_the_factor(folder: Folder, dtype: str, width: int) -> None:
    folder.pack(dtype=dtype)
    told = folder.train()
    assert told["bytes_data"] == told["bytes_expected"] == width * UINT8
    assert told["dtype"] == f"float{8 * width}" and told["factors"]["dtype"] == width
    assert told["cause"].startswith(
        f"{width} × from float{8 * width} where uint8 serves, 1.00 × from contiguous layout"
    )
    assert told["saving_as_uint8"] == (width - 1) * UINT8


def test_chunks_reach_beyond_the_last_row(folder: Folder) -> None:
    folder.pack(chunks=(8, 96, 96, 3))
    told = folder.train()
    assert (told["layout"], told["chunks"], told["chunks_written"], told["chunks_possible"]) == (
        *("chunked", [8, 96, 96, 3], 3, 3),
    )
    assert told["factors"]["layout"] == 24 / 20 and told["bytes_data"] == 24 * 27_648
    assert "1.20 × from chunks of 8×96×96×3, no compression" in told["cause"]


@pytest.mark.parametrize(
    ("options", "filters", "compression"),
    [
        ({"compression": "gzip", "compression_opts": 6}, ["gzip level 6"], "gzip"),
        (
            {"compression": "gzip", "shuffle": True, "fletcher32": True},
            ["shuffle", "gzip level 4", "fletcher32"],
            "gzip",
        ),
        ({"compression": "lzf"}, ["lzf"], "lzf"),
        ({"compression": "szip"}, ["szip"], "szip"),
        ({"scaleoffset": 0}, ["scaleoffset"], "scaleoffset"),
    ],
    ids=["gzip", "shuffled gzip", "lzf", "szip", "scaleoffset"],
)
def test_compression_is_named_with_its_filters(
    folder: Folder, options: dict[str, Any], filters: list[str], compression: str
) -> None:
    if compression == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
        pytest.skip("this HDF5 has no szip")
    folder.pack(chunks=(4, 96, 96, 3), **options)
    told = folder.train()
    assert (told["filters"], told["compression"]) == (filters, compression)
    assert told["factors"]["filters"] == told["bytes_data"] / UINT8 <= 1  # lzf keeps what it cannot pack
    assert f"{told['factors']['filters']:.2f} × from {' and '.join(filters)}" in told["cause"]


def test_a_checksum_is_no_compression(folder: Folder) -> None:
    folder.pack(chunks=(4, 96, 96, 3), fletcher32=True, shuffle=True)
    told = folder.train()
    assert told["compression"] is None and told["bytes_data"] == UINT8 + 5 * 4  # four bytes a chunk
    assert "1.00 × from shuffle and fletcher32, which is no compression" in told["cause"]


def test_chunks_that_were_never_written_are_counted(folder: Folder) -> None:
    with h5py.File(folder.file("train"), "w") as handle:
        dataset = handle.create_dataset("x", (ROWS, 96, 96, 3), np.uint8, chunks=(4, 96, 96, 3), fillvalue=9)
        dataset[:4] = folder.x["train"][:4]
    told = folder.train()
    assert (told["chunks_written"], told["chunks_possible"], told["fill_value"]) == (1, 5, "9")
    assert told["bytes_data"] == 4 * 27_648 and told["factors"]["layout"] == 0.2
    assert "of which 4 of 5 were never written and read as 9" in told["cause"]


def test_a_dataset_without_a_value_is_said_to_have_none(folder: Folder) -> None:
    with h5py.File(folder.file("train"), "w") as handle:
        handle.create_dataset("x", (ROWS, 96, 96, 3), np.float32, fillvalue=np.nan)
    told = folder.train()
    assert told["bytes_data"] == 0 and told["factors"] is None
    assert told["cause"] == "no value was ever written: every row reads as the fill value nan"


def test_a_compact_dataset_lies_in_its_header(folder: Folder) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    patches = np.ascontiguousarray(folder.x["train"][:2])
    with h5py.File(folder.file("train"), "w") as handle:
        space = h5py.h5s.create_simple(patches.shape)
        h5py.h5d.create(handle.id, b"x", h5py.h5t.NATIVE_UINT8, space, plist).write(space, space, patches)
    write_labels(folder.file("train", "y.h5"), np.array([0, 1]), 2)
    told = folder.train()
    assert told["layout"] == "compact" and told["bytes_data"] == 2 * 27_648


def test_values_in_an_external_file_are_not_this_files_bytes(folder: Folder) -> None:
    folder.pack(external=[(str(folder.path / "pixels.raw"), 0, h5py.h5f.UNLIMITED)])
    told = folder.train()
    assert told["layout"] == "external" and told["bytes_data"] == 0
    assert told["elsewhere"] == [str(folder.path / "pixels.raw")]
    assert told["saving_as_uint8"] is None and told["bytes_gzip_estimate"] is not None
    assert told["cause"].startswith("external: the values lie in ")


def test_a_virtual_dataset_tells_which_of_its_files_is_not_there(folder: Folder) -> None:
    (folder.path / "half.h5").write_bytes(Path(folder.file("train")).read_bytes())
    layout = h5py.VirtualLayout((2 * ROWS, 96, 96, 3), np.uint8)
    layout[:ROWS] = h5py.VirtualSource("half.h5", "x", (ROWS, 96, 96, 3))
    layout[ROWS:] = h5py.VirtualSource("gone.h5", "x", (ROWS, 96, 96, 3))
    with h5py.File(folder.file("train"), "w") as handle:
        handle.create_virtual_dataset("x", layout, fillvalue=7)
    write_labels(folder.file("train", "y.h5"), np.arange(2 * ROWS) % 2, 2 * ROWS)
    told = folder.train()
    assert (told["layout"], told["elsewhere"], told["absent"]) == ("virtual", ["gone.h5", "half.h5"], ["gone.h5"])
    assert told["cause"].endswith("; gone.h5 is not there, and its rows read as 7")


def test_a_link_into_another_file_is_followed_and_told(folder: Folder) -> None:
    other = Path(folder.file("train")).rename(folder.path / "other.h5")
    with h5py.File(folder.file("train"), "w") as handle:
        handle["x"] = h5py.ExternalLink("other.h5", "x")
    told = folder.train()
    assert told["bytes_data"] == 0 and [Path(name).name for name in told["elsewhere"]] == [other.name]


def test_other_datasets_in_the_file_are_accounted_apart(folder: Folder) -> None:
    with h5py.File(folder.file("train"), "r+") as handle:
        handle["extra/mask"] = np.zeros(5000, np.int16)
        handle["again"] = handle["extra/mask"]  # a second name of the same data
        handle["x again"] = handle["x"]
    told = folder.train()
    assert (told["bytes_data"], told["bytes_other"]) == (UINT8, 10_000)
    assert told["cause"].endswith("HDF5 structure and 10,000 bytes of other datasets")


def test_labels_are_accounted_too(folder: Folder) -> None:
    with h5py.File(folder.file("train", "y.h5"), "w") as handle:
        handle["y"] = (np.arange(ROWS) % 2).reshape(-1, 1, 1, 1)
    told = folder.audit()["train", "y"]
    assert (told["dtype"], told["bytes_data"], told["bytes_as_uint8"]) == ("int64", 8 * ROWS, ROWS)
    assert told["cause"].startswith("8 × from int64 where uint8 serves, 1.00 × from contiguous layout, no compression")


@pytest.mark.parametrize("code", [32015, 4242])
def test_a_filter_that_is_not_installed_is_one_line(folder: Folder, code: int) -> None:
    if h5py.h5z.filter_avail(code):
        pytest.skip("installed here")
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((4, 96, 96, 3))
    plist.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (3,))
    with h5py.File(folder.file("train"), "w") as handle:
        space = h5py.h5s.create_simple((ROWS, 96, 96, 3))
        dataset = h5py.h5d.create(handle.id, b"x", h5py.h5t.NATIVE_UINT8, space, plist)
        for start in range(0, ROWS, 4):
            dataset.write_direct_chunk((start, 0, 0, 0), b"packed elsewhere", 0)
    with pytest.raises(InputError, match=rf"train_x\.h5: x is packed with HDF5 filter .*{code}, .*h5repack") as caught:
        folder.audit()
    assert "\n" not in str(caught.value) and ("zstd" in str(caught.value)) == (code == 32015)
    assert not (folder.path / "storage.json").exists()


def test_filters_are_numbered_as_hdf5_does() -> None:
    h5z = h5py.h5z
    known = (h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_SZIP, h5z.FILTER_LZF)
    assert [FILTERS[code] for code in known] == ["gzip", "shuffle", "fletcher32", "szip", "lzf"]


# ---- what converts, and what it saves


def test_patches_that_uint8_holds_and_fractions_are_counted(folder: Folder) -> None:
    train = folder.x["train"].astype(np.float32)
    train[0, 0, 0, 0] = np.nan
    train[1, 0, 0, 0] = 300
    train[2, 0, 0, 0] = 7.5
    folder.x["train"] = train
    folder.pack()
    told = folder.train()
    found = read_json(folder.path / "storage.json")["findings"]
    assert [(f["n"], f["lossless"]) for f in found[:2]] == [(10, 8), (10, 9)]
    assert all(f["kind"] == "float_storage" and f["n"] == 0 for f in found[2:])
    assert read_csv(folder.path / "rows.csv") == [{"split": "train", "row": "2", "kind": "fractional"}]
    assert told["cause"].startswith("4 × from float32 where uint8 serves for 17 of 20 patches, ")
    assert told["gzip_patches_measured"] == 17


def test_what_gzip_saves_is_exact_when_every_patch_is_measured(folder: Folder) -> None:
    before = folder.train()
    assert before["gzip_patches_measured"] == ROWS and before["bytes_gzip_interval"] is None
    folder.pack(chunks=(storage.GZIP_ROWS, 96, 96, 3), compression="gzip", compression_opts=storage.GZIP_LEVEL)
    with h5py.File(folder.file("train")) as handle:
        # The last chunk of a real file is filled up with zeros, which pack to next to nothing.
        assert handle["x"].id.get_storage_size() == pytest.approx(before["bytes_gzip_estimate"], rel=0.01)
    assert before["saving_gzip_estimate"] == UINT8 - before["bytes_gzip_estimate"]


def test_what_gzip_saves_is_estimated_on_a_sample_of_a_larger_file(folder: Folder) -> None:
    n = 700
    folder.x["train"] = tissue(n, 5)
    folder.x["train"][::9] = 0
    write_labels(folder.file("train", "y.h5"), np.arange(n) % 2, n)
    folder.pack(dtype=np.float32)
    told = folder.train()
    assert told["gzip_patches_measured"] == 256 and told["gzip_setting"] == "level 4, chunks of 8 patches"
    folder.pack(chunks=(8, 96, 96, 3), compression="gzip", compression_opts=4)
    with h5py.File(folder.file("train")) as handle:
        real = handle["x"].id.get_storage_size()
    low, high = told["bytes_gzip_interval"]
    assert low < real < high and told["bytes_gzip_estimate"] == pytest.approx(real, rel=0.03)


@pytest.mark.parametrize("n", [1, 8, 255, 256, 257, 2000, 262_144])
def test_measured_chunks_are_distinct_and_reach_from_end_to_end(n: int) -> None:
    starts = storage.gzip_starts(n)
    assert starts[0] == 0 and n - 16 < starts[-1] < n and len(starts) == min(32, -(-n // 8))
    assert all(b - a >= 8 for a, b in pairwise(starts))


def test_storage_does_not_depend_on_processes(folder: Folder) -> None:
    folder.x["train"] = folder.x["train"].repeat(60, axis=0).astype(np.float32)
    folder.x["train"][1100, 3, 3, 0] += 0.5
    write_labels(folder.file("train", "y.h5"), np.arange(60 * ROWS) % 2, 60 * ROWS)
    folder.pack()
    one = folder.audit()
    rows = read_csv(folder.path / "rows.csv")
    assert rows == [{"split": "train", "row": "1100", "kind": "fractional"}]
    assert folder.audit(processes=2) == one and read_csv(folder.path / "rows.csv") == rows
