"""Where the bytes of an HDF5 dataset go, why there are as many, and what the same rows take as uint8."""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pcam.audits import as_uint8, look
from pcam.facts import PATCH_BYTES
from pcam.hdf5 import PatchReader, filters_of
from pcam.metrics import t_interval

LAYOUTS = {
    h5py.h5d.COMPACT: "compact",
    h5py.h5d.CONTIGUOUS: "contiguous",
    h5py.h5d.CHUNKED: "chunked",
    h5py.h5d.VIRTUAL: "virtual",
}
NOT_COMPRESSING = ("shuffle", "fletcher32")
# What gzip would save is measured on this many chunks of this many patches, spread evenly over the file: 0.15 s a file.
GZIP_CHUNKS, GZIP_ROWS, GZIP_LEVEL = 32, 8, 4


def files_elsewhere(dataset: h5py.Dataset, path: str) -> list[str]:
    """Other files that hold the values: behind a link, of an external or of a virtual dataset."""
    names = {name for name, _, _ in dataset.external or ()}
    if dataset.is_virtual:
        names |= {source.file_name for source in dataset.virtual_sources()} - {"."}
    if not os.path.samefile(dataset.file.filename, path):
        names.add(dataset.file.filename)
    return sorted(names)


def other_bytes(handle: h5py.File, dataset: h5py.Dataset) -> int:
    """Bytes of the values of every other dataset in the file itself."""
    sizes: list[int] = []

    def add(_: str, item: Any) -> None:  # visits every object once, however many links lead to it
        if isinstance(item, h5py.Dataset) and item != dataset and not item.external:
            sizes.append(item.id.get_storage_size())

    handle.visititems(add)
    return sum(sizes)


def describe_dataset(path: str, key: str) -> dict[str, Any]:
    """How one dataset lies in its file. Sizes in bytes; bytes_data, _other and _structure add up to bytes_on_disk.

    bytes_expected: every value in its own dtype, bare.  bytes_as_uint8: one byte a value.  chunks_written and
    chunks_possible are None without chunks.  factors: they multiply to `factor`, bytes_on_disk / bytes_as_uint8; None
    when the file holds none of the values.  elsewhere: the files that hold them then; absent: those of a virtual
    dataset that are not there.
    """
    size = Path(path).stat().st_size
    with h5py.File(path, "r") as handle:
        dataset = handle[key]
        away, names = files_elsewhere(dataset, path), filters_of(dataset)
        data, other = 0 if away else int(dataset.id.get_storage_size()), other_bytes(handle, dataset)
        width, chunks = dataset.dtype.itemsize, dataset.chunks
        layout = LAYOUTS.get(dataset.id.get_create_plist().get_layout(), "other")
        written = dataset.id.get_num_chunks() if chunks else None
        possible = prod(ceil(n / c) for n, c in zip(dataset.shape, chunks, strict=True)) if chunks else None
        small = len(dataset) * (PATCH_BYTES if key == "x" else 1)
        # Before filters. A chunk is stored whole, also where it reaches beyond the last row, and only once written.
        bare = written * prod(chunks) * width if chunks else small * width
        places = (Path(path).resolve().parent, Path.cwd())
        absent = [
            name
            for name in away
            if dataset.is_virtual and "%" not in name and not any((place / name).exists() for place in places)
        ]  # a name with % stands for a series of files
        return {
            "key": key,
            "file": Path(path).name,
            "patches": len(dataset),
            "dtype": dataset.dtype.name,
            "layout": "external" if dataset.external else layout,
            "chunks": list(chunks) if chunks else None,
            "chunks_written": written,
            "chunks_possible": possible,
            "fill_value": str(dataset.fillvalue),
            "filters": names,
            "compression": " and ".join(name.partition(" ")[0] for name in names if name not in NOT_COMPRESSING)
            or None,
            "elsewhere": away,
            "absent": absent,
            "bytes_on_disk": size,
            "bytes_data": data,
            "bytes_other": other,
            "bytes_structure": size - data - other,
            "bytes_expected": small * width,
            "bytes_as_uint8": small,
            "factor": size / small,
            "factors": {
                "dtype": width,
                "layout": bare / (small * width),
                "filters": data / bare,
                "structure": size / data,
            }
            if data
            else None,
        }


def explain(told: Mapping[str, Any], lossless: int | None) -> str:
    """One sentence on where the size comes from. `lossless`: patches that uint8 holds; None for all of them."""
    if told["elsewhere"]:
        gone = f"; {', '.join(told['absent'])} is not there, and its rows read as {told['fill_value']}"
        held = f"{told['layout']}: the values lie in {', '.join(told['elsewhere'])}, this file holds their description"
        return held + (gone if told["absent"] else "")
    if not told["bytes_data"]:
        return f"no value was ever written: every row reads as the fill value {told['fill_value']}"
    factors, dtype, n = told["factors"], told["dtype"], told["patches"]
    served = "" if lossless in (None, n) else f" for {lossless:,} of {n:,} patches" if lossless else " for no patch"
    parts = [f"{factors['dtype']} × from {dtype} where uint8 serves{served}" if dtype != "uint8" else "1 byte a value"]
    layout = f"{told['layout']} layout"
    if told["chunks"]:
        layout = f"chunks of {'×'.join(map(str, told['chunks']))}"
        if missing := told["chunks_possible"] - told["chunks_written"]:
            layout += f", of which {missing:,} of {told['chunks_possible']:,} were never written and read as "
            layout += told["fill_value"]
    parts.append(f"{factors['layout']:.2f} × from {layout}")
    named = " and ".join(told["filters"])
    parts.append(f"{factors['filters']:.2f} × from {named}" if named else "no compression")
    if named and not told["compression"]:
        parts.append("which is no compression")
    rest = "HDF5 structure" + (f" and {told['bytes_other']:,} bytes of other datasets" if told["bytes_other"] else "")
    parts.append(f"{factors['structure']:.2f} × from {rest}")
    return ", ".join(parts)


@dataclass(frozen=True)
class Block:
    """What reading a block of rows shows.

    lossless, fractional: rows stored as float that uint8 holds, and rows in 0..255 that are not whole.
    gzipped: (patches, bytes) of each measured chunk.
    """

    lossless: np.ndarray
    fractional: np.ndarray
    gzipped: list[tuple[int, int]]


def gzip_starts(n: int) -> list[int]:
    """First rows of the chunks that are measured in a file of `n` patches: all of a small one, else whole ones."""
    if n <= GZIP_CHUNKS * GZIP_ROWS:
        return list(range(0, n, GZIP_ROWS))
    return [i * (n // GZIP_ROWS - 1) // (GZIP_CHUNKS - 1) * GZIP_ROWS for i in range(GZIP_CHUNKS)]


def measure_block(path: str, start: int, stop: int) -> Block:
    """Look at rows start..stop-1. Of a uint8 file, which loses nothing, only the measured chunks are read."""
    lossless = fractional = np.empty(0, np.intp)
    gzipped = []
    with PatchReader(path) as reader:
        if reader.dataset.dtype.kind == "f":
            patches = reader.read(start, stop)
            seen = look(patches)
            _, fits = as_uint8(patches, seen)
            inside = seen.finite & (seen.low >= 0) & (seen.high <= 255)
            lossless, fractional = start + np.flatnonzero(fits), start + np.flatnonzero(inside & ~fits)
        for first in gzip_starts(len(reader)):
            if start <= first < stop:
                patches = reader.read(first, min(first + GZIP_ROWS, len(reader)))
                small, fits = as_uint8(patches, look(patches))
                if fits.any():
                    gzipped.append((int(fits.sum()), len(zlib.compress(small[fits].tobytes(), GZIP_LEVEL))))
    return Block(lossless, fractional, gzipped)


def savings(told: Mapping[str, Any], gzipped: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """What the repair of an x file saves in bytes_data: exact as uint8, estimated as gzip-compressed uint8.

    The interval is Student's over the measured chunks, 95 %; a file of which every patch was measured has none.
    """
    n, measured, data = told["patches"], sum(rows for rows, _ in gzipped), told["bytes_data"]
    per_patch = [held / rows for rows, held in gzipped]
    estimate = interval = None
    if measured == n:
        estimate = sum(held for _, held in gzipped)
    elif gzipped:
        estimate = round(n * float(np.mean(per_patch)))
        ends = t_interval(per_patch)
        interval = None if ends is None else [round(n * end) for end in ends]
    here = not told["elsewhere"]
    return {
        "bytes_gzip_estimate": estimate,
        "bytes_gzip_interval": interval,
        "gzip_patches_measured": measured,
        "gzip_setting": f"level {GZIP_LEVEL}, chunks of {GZIP_ROWS} patches",
        "saving_as_uint8": data - told["bytes_as_uint8"] if here else None,
        "saving_gzip_estimate": data - estimate if here and estimate is not None else None,
    }
