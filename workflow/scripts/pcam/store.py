"""Patches on disk as uint8 that can be memory-mapped: .npy files, rows in the order of a split's table."""

from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from pcam.facts import PATCH_SHAPE
from pcam.files import InputError, atomic_path
from pcam.hdf5 import CHUNK, PatchReader, convert_lossless


def write_store(path: str | Path, source: str | Path, rows: np.ndarray) -> None:
    """Write the named rows (ascending) of an x file as uint8 (n,96,96,3), atomically and in bounded memory.

    Raises: InputError when a row cannot be converted without loss.
    """
    if np.any(np.diff(rows) <= 0):
        raise ValueError("rows must ascend")
    with atomic_path(path) as temporary:
        out = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(rows), *PATCH_SHAPE))
        with PatchReader(source) as patches:
            if len(rows) and rows[-1] >= len(patches):
                raise InputError(f"{source}: {len(patches)} patches, but row {rows[-1]} is asked for")
            for start in range(0, len(patches), CHUNK):
                first, last = np.searchsorted(rows, [start, start + CHUNK])
                if first == last:
                    continue
                chosen = patches.read(start, min(start + CHUNK, len(patches)))[rows[first:last] - start]
                try:
                    out[first:last] = convert_lossless(chosen)
                except ValueError as error:
                    raise InputError(
                        f"{source}: rows {rows[first]} to {rows[last - 1]} do not convert to uint8 ({error}); drop them"
                    ) from None
        out.flush()
        del out


def open_store(path: str | Path) -> np.ndarray:
    """uint8 (N,96,96,3), memory-mapped read-only.

    Raises: InputError when the file is missing or is no store.
    """
    try:
        store = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # numpy parses the head as Python, and raises whatever damaged text leads it into
        told = " ".join(str(error).split())[:160]
        raise InputError(f"{path}: not a patch store ({told}); rebuild it") from None
    if not isinstance(store, np.ndarray):  # an archive of arrays under this name
        raise InputError(f"{path}: holds several arrays, not uint8 (N, 96, 96, 3); rebuild it")
    if store.dtype != np.uint8 or store.shape[1:] != PATCH_SHAPE:
        raise InputError(f"{path}: holds {store.dtype} {store.shape}, not uint8 (N, 96, 96, 3); rebuild it")
    return store


def channel_statistics(store: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel in 0..1 units, summed exactly in integers, chunk by chunk."""
    total = np.zeros(3, np.int64)
    squares = np.zeros(3, np.int64)
    for start in range(0, len(store), CHUNK):
        counts = [np.bincount(store[start : start + CHUNK, :, :, c].ravel(), minlength=256) for c in range(3)]
        levels = np.arange(256, dtype=np.int64)
        total += [int((count * levels).sum()) for count in counts]
        squares += [int((count * levels**2).sum()) for count in counts]
    pixels = len(store) * PATCH_SHAPE[0] * PATCH_SHAPE[1]
    mean = total / pixels / 255
    std = np.sqrt(squares / pixels / 255**2 - mean**2)
    return [float(m) for m in mean], [float(s) for s in std]
