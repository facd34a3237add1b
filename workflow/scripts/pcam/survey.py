"""One streaming pass over all patches: what the audits of leakage and poison need to know of each of them.

A survey is a folder: patches.npz with an entry a patch (the splits one after the other, in the order of FILE_SPLITS)
and anchors-*.bin. An anchor is a textured window of 8x8 pixels that its own content selects: one window in 16, by its
hash, wherever it stands. So two patches that show the same tissue select the same windows, at any offset between them,
and an index of anchors finds them without comparing patches. The idea is that of content-defined chunking (Manber 1994,
"Finding similar files in a large file system"). The hash is a polynomial in two directions, built by doubling.
"""

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from pcam.audits import as_uint8, look
from pcam.blocks import map_blocks
from pcam.facts import FILE_SPLITS, PATCH_SHAPE
from pcam.files import InputError, atomic_folder
from pcam.hdf5 import PatchReader

SIDE = PATCH_SHAPE[0]
CELL_PX = 12  # side of the cells whose sums describe a patch coarsely
CELLS = SIDE // CELL_PX
WINDOW_PX = 8  # side of an anchor's window
PLACES = SIDE - WINDOW_PX + 1  # windows along one side of a patch
# Share of windows that become anchors. The smallest overlap asked for, 16x16 pixels, holds 81 windows: 1 in 16 leaves
# it without an anchor in (15/16)^81 = 0.5 % of cases, and a shift of 80 pixels along one axis alone practically never.
ANCHOR_SHARE = 16
BUCKET_BITS = 6
BUCKETS = 1 << BUCKET_BITS  # files of anchors, by hash: each process sorts one at a time in memory
PLACE_BITS = 13  # 89 * 89 places of a window
# Mean step of grey (0..255) between neighbouring pixels that a window needs to tell one place from another: glass
# repeats. See tests/test_leakage.py for what stands on either side.
TEXTURE_STEP = 2.0
TOGETHER = 8  # patches in the processor's cache at a time
BLOCK = 512  # patches a task reads

# Odd constants of well-mixing hashes (golden ratio, xxHash, MurmurHash3-like); any would serve, all is verified later.
_X, _Y, _MIX = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93
_WORD = 2**64


@dataclass(frozen=True)
class Patches:
    """What the survey keeps of each patch, N of them.

    finite, lossless, uniform: (N,) bool, every value finite; uint8 holds the values; one colour all over.
    low, high: (N,) float64, extremes of the finite values, NaN where there is none.
    digest: (N,2) uint64, 128 bits of sha256 of the content (uint8, or float32 where uint8 cannot hold it).
    invariant: (N,) uint64, equal for patches whose pixels are the same in another order.
    cells: (N,8,8,3) uint16, sum of each channel in each cell of 12x12 pixels.
    detail: (N,2) float32, along rows, in grey levels: mean curvature (second difference), mean step over 4 pixels.
    flat: (N,) uint16, windows of 8x8 pixels of one grey, which those of one colour are among.
    """

    finite: np.ndarray
    lossless: np.ndarray
    uniform: np.ndarray
    low: np.ndarray
    high: np.ndarray
    digest: np.ndarray
    invariant: np.ndarray
    cells: np.ndarray
    detail: np.ndarray
    flat: np.ndarray


@dataclass(frozen=True)
class Survey:
    """A survey at hand: its folder, the number of patches of each split, and what it keeps of them."""

    folder: Path
    sizes: tuple[int, ...]
    patches: Patches

    def __len__(self) -> int:
        return sum(self.sizes)

    @property
    def split(self) -> np.ndarray:
        """(N,) 0, 1, 2 for train, valid, test."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    @property
    def row(self) -> np.ndarray:
        """(N,) row of each patch in its file."""
        return np.concatenate([np.arange(size) for size in self.sizes])

    @property
    def patch_bits(self) -> int:
        return len(self).bit_length()


def read_anchors(folder: str | Path, bucket: int) -> np.ndarray:
    """One bucket's anchors, uint64, unsorted: hash, patch, place (row-major among 89x89), from high bits to low."""
    return np.fromfile(Path(folder) / f"anchors-{bucket:02d}.bin", np.uint64)


def packed(small: np.ndarray) -> np.ndarray:
    """Patches (n,96,96,3) uint8 as one uint64 a pixel, (n,96,96)."""
    pixels = small[..., 0].astype(np.uint64)
    pixels |= small[..., 1].astype(np.uint64) << np.uint64(8)
    pixels |= small[..., 2].astype(np.uint64) << np.uint64(16)
    return pixels


def grey_sums(small: np.ndarray) -> np.ndarray:
    """Sum of the three channels, (n,96,96) int16."""
    grey = small[..., 0].astype(np.int16)
    grey += small[..., 1]
    grey += small[..., 2]
    return grey


def window_hashes(pixels: np.ndarray, side: int) -> np.ndarray:
    """Hash of each side x side window, side a power of two: (n,h,w) uint64 gives (n,h-side+1,w-side+1)."""
    out, step = pixels, 1
    while step < side:
        out = out[:, :, :-step] * np.uint64(pow(_X, step, _WORD)) + out[:, :, step:]
        step *= 2
    step = 1
    while step < side:
        out = out[:, :-step] * np.uint64(pow(_Y, step, _WORD)) + out[:, step:]
        step *= 2
    return np.asarray(out * np.uint64(_MIX))


def window_sums(values: np.ndarray, side: int) -> np.ndarray:
    """Sum of each side x side window, side a power of two; in the dtype of `values`."""
    out, step = values, 1
    while step < side:
        out, step = out[:, :, :-step] + out[:, :, step:], 2 * step
    step = 1
    while step < side:
        out, step = out[:, :-step] + out[:, step:], 2 * step
    return np.asarray(out)


def flat_windows(pixels: np.ndarray, side: int) -> np.ndarray:
    """Which side x side windows have one value, side at least 2: (n,h,w) gives (n,h-side+1,w-side+1) bool."""
    across, down = pixels[:, :, 1:] == pixels[:, :, :-1], pixels[:, 1:] == pixels[:, :-1]
    out = across[:, :-1] & across[:, 1:] & down[:, :, :-1]
    width = 1  # of the window of 2x2 squares seen so far; the last step overlaps where side - 1 is no power of two
    while width < side - 1:
        step = min(width, side - 1 - width)
        out = out[:, :, :-step] & out[:, :, step:]
        out, width = out[:, :-step] & out[:, step:], width + step
    return np.asarray(out)


def order_free(pixels: np.ndarray) -> np.ndarray:
    """A hash of each patch's pixels whatever their order: (n,96,96) uint64 gives (n,)."""
    mixed = pixels * np.uint64(_X)
    mixed ^= mixed >> np.uint64(31)
    mixed *= np.uint64(_MIX)
    mixed ^= mixed >> np.uint64(29)
    return np.asarray(mixed.sum(axis=(1, 2), dtype=np.uint64))


def cell_sums(small: np.ndarray) -> np.ndarray:
    """Sum of each channel over cells of 12x12 pixels, (n,8,8,3) uint16: at most 144 * 255 = 36,720."""
    rows = small.reshape(len(small), CELLS, CELL_PX, -1).sum(axis=2, dtype=np.uint16)
    return np.asarray(rows.reshape(len(small), CELLS, CELLS, CELL_PX, 3).sum(axis=3, dtype=np.uint16))


def select_anchors(pixels: np.ndarray, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Anchors of some patches: (k,) uint64 hashes and (k,) flat indices into (n,89,89)."""
    hashes = window_hashes(pixels, WINDOW_PX).ravel()
    at = np.flatnonzero(hashes < np.uint64(_WORD // ANCHOR_SHARE))
    step = np.abs(grey[:, :-1, 1:] - grey[:, :-1, :-1])
    step += np.abs(grey[:, 1:, :-1] - grey[:, :-1, :-1])
    np.minimum(step, 511, out=step)  # 64 of them fit int16
    # The 7x7 steps that lie within a window, those of its middle counted twice: two boxes of 4 a direction.
    inside = window_sums(step, 4)
    inside = inside[:, :, :-3] + inside[:, :, 3:]
    inside = inside[:, :-3] + inside[:, 3:]
    textured = inside.ravel()[at] >= TEXTURE_STEP * 3 * 2 * 64
    return hashes[at[textured]], at[textured]


def survey_block(path: str, start: int, stop: int) -> dict[str, np.ndarray]:
    """Survey rows start..stop-1 of one x file: the fields of Patches, and its anchors (hash, patch, place)."""
    with PatchReader(path) as reader:
        stored = reader.read(start, stop)
    seen = look(stored)
    small, lossless = as_uint8(stored, seen)
    parts: list[tuple[np.ndarray, ...]] = []
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity, which is what it is worth here
        contents = (small[i] if fits else stored[i].astype(np.float32) for i, fits in enumerate(lossless))
        digests = [hashlib.sha256(content).digest()[:16] for content in contents]
    for first in range(0, len(small), TOGETHER):
        some = small[first : first + TOGETHER]
        pixels, grey = packed(some), grey_sums(some)
        hashes, at = select_anchors(pixels, grey)
        patch, place = np.divmod(at, PLACES * PLACES)
        fits = lossless[first : first + TOGETHER][patch]
        curved = np.abs(2 * grey[:, :, 1:-1] - grey[:, :, :-2] - grey[:, :, 2:])
        detail = [np.abs(values).mean(axis=(1, 2)) / 3 for values in (curved, grey[:, :, 4:] - grey[:, :, :-4])]
        parts.append(
            (
                order_free(pixels),
                cell_sums(some),
                np.stack(detail, axis=1).astype(np.float32),
                flat_windows(grey, WINDOW_PX).sum(axis=(1, 2)).astype(np.uint16),
                hashes[fits],
                (patch[fits] + first).astype(np.uint32),
                place[fits].astype(np.uint16),
            )
        )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    names = ("invariant", "cells", "detail", "flat", "hash", "patch", "place")
    return {
        "finite": seen.finite,
        "lossless": lossless,
        "uniform": seen.uniform,
        "low": seen.low,
        "high": seen.high,
        "digest": np.frombuffer(b"".join(digests), np.uint64).reshape(-1, 2),
        **dict(zip(names, columns, strict=True)),
    }


def survey_splits(
    x_files: Mapping[str, str], folder: str | Path, *, processes: int, rows: range | None = None
) -> Survey:
    """Survey all splits into `folder`, which appears when all is written. The result does not depend on `processes`.

    rows: patches of all splits to survey, one after the other, at least one of them; None, all. The anchors of a
    part name its patches by their place in the whole: rule gather_survey joins the parts.

    Raises: InputError when a file is missing or damaged.
    """
    kept: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Patches)}
    sizes = dict.fromkeys(FILE_SPLITS, 0)
    patch_bits = count_patches(x_files).bit_length()
    first = rows.start if rows else 0
    with atomic_folder(folder) as work:
        with_buckets = [(work / f"anchors-{bucket:02d}.bin").open("wb") for bucket in range(BUCKETS)]
        for split, _, found in map_blocks(
            survey_block, {s: x_files[s] for s in FILE_SPLITS}, processes=processes, block=BLOCK, rows=rows
        ):
            before = np.uint64(first + sum(sizes.values()))
            # An anchor's hash lies below 2**60: the next BUCKET_BITS choose the bucket, those after them the rest.
            bucket = (found["hash"] >> np.uint64(60 - BUCKET_BITS)).astype(np.uint8)
            rest = found["hash"] << np.uint64(4 + BUCKET_BITS) >> np.uint64(PLACE_BITS + patch_bits)
            key = (rest << np.uint64(patch_bits)) | (found["patch"].astype(np.uint64) + before)
            key = (key << np.uint64(PLACE_BITS)) | found["place"].astype(np.uint64)
            ends = np.cumsum(np.bincount(bucket, minlength=BUCKETS))
            by_bucket = np.split(key[np.argsort(bucket, kind="stable")], ends[:-1])
            for handle, some in zip(with_buckets, by_bucket, strict=True):
                some.tofile(handle)
            for name, column in kept.items():
                column.append(found[name])
            sizes[split] += len(found["finite"])
        for handle in with_buckets:
            handle.close()
        patches = write_patches(work, sizes.values(), kept)
    return Survey(Path(folder), tuple(sizes.values()), patches)


def write_patches(folder: Path, sizes: Iterable[int], parts: dict[str, list[np.ndarray]]) -> Patches:
    """patches.npz in `folder`: the patches of each split, and each field of Patches from its parts in order."""
    # Each field's parts are let go once it is whole: at 10⁸ patches they are what takes the room.
    arrays = {name: np.concatenate(parts.pop(name)) for name in tuple(parts)}
    np.savez(folder / "patches.npz", allow_pickle=False, sizes=np.array(list(sizes)), **arrays)
    return Patches(**arrays)


def count_patches(x_files: Mapping[str, str]) -> int:
    """Patches of all splits together."""
    total = 0
    for path in x_files.values():
        with PatchReader(path) as reader:
            total += len(reader)
    return total


def open_survey(folder: str | Path) -> Survey:
    """A survey that was written before. Raises: InputError when it is missing or damaged."""
    path = Path(folder) / "patches.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        sizes = tuple(arrays.pop("sizes").tolist())
        return Survey(Path(folder), sizes, Patches(**arrays))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a survey ({error}); rebuild it with rule survey_patches") from None
