"""What a cheap model sees of a patch: shares of its pixels by colour, by local shape and by size of the grains.

Everything up to the last division is integer arithmetic, so the bits depend on the patch alone: not on the blocking,
the number of processes or the machine. Measured by planting flips (pcam.labels): the whole patch ranks them as well as
whole and centre together, and red as well as red and green, on the sample and on 2,000 real patches alike.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from pcam.facts import PATCH_SHAPE
from pcam.files import InputError

COLOURS, COLOUR_BINS = ("red", "green", "blue"), 16
SCALES = 3  # each half as fine as the one before; red alone, which haematoxylin absorbs and eosin hardly does
GRADIENT_EDGES = (4, 16, 64, 150, 300, 600, 1000, 2000, 4000, 8000)  # squared central difference, grey levels
CURVATURE_EDGES = (-6400, -1600, -400, -100, -25, 25, 100, 400, 1600, 6400)  # 16 x determinant of the Hessian
SIFTED_SCALES, SIEVES_PX = 2, (3, 5, 7, 9, 11)  # sides of the squares of openings and closings, in pixels of the scale
SIFTED_EDGES = (1, 3, 6, 11, 20)  # grey levels that a sieve takes away
_BLOCK = 16  # patches worked on together: their intermediate images stay in the cache


def _kinds() -> list[tuple[str, int]]:
    """(name, number of bins) of each histogram, in the order of the columns."""
    kinds = [(colour, COLOUR_BINS) for colour in COLOURS]
    for scale in range(SCALES):
        kinds.append((f"gradient at {1 << scale} px", len(GRADIENT_EDGES) + 1))
        kinds.append((f"curvature at {1 << scale} px", len(CURVATURE_EDGES) + 1))
        for sieve in ("opening", "closing") if scale < SIFTED_SCALES else ():
            kinds += [(f"{sieve} of {size << scale} px", len(SIFTED_EDGES) + 1) for size in SIEVES_PX]
    return kinds


KINDS = tuple(_kinds())
FEATURES = sum(bins for _, bins in KINDS)


def _bins(edges: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Bin of every integer from low to high."""
    return np.searchsorted(edges, np.arange(low, high + 1), side="right").astype(np.uint8)


_GRADIENT_BIN = _bins(GRADIENT_EDGES, 0, GRADIENT_EDGES[-1])
_CURVATURE_BIN = _bins(CURVATURE_EDGES, CURVATURE_EDGES[0] - 1, CURVATURE_EDGES[-1])
_SIFTED_BIN = _bins(SIFTED_EDGES, 0, 255)


def _shares(levels: np.ndarray, bins: int) -> np.ndarray:
    """Square roots of the shares of pixels in each bin (n,bins): rare and common bins then have noise alike."""
    flat = levels.reshape(len(levels), -1)
    places = flat + bins * np.arange(len(flat))[:, None]
    counts = np.bincount(places.ravel(), minlength=bins * len(flat)).reshape(len(flat), bins)
    return np.sqrt(counts / flat.shape[1])


def _smooth(image: np.ndarray) -> np.ndarray:
    """uint8 images (n,h,w) under the 5 x 5 binomial filter, rounded to uint8."""
    wide = np.pad(image, ((0, 0), (2, 2), (2, 2)), "edge").astype(np.uint16)
    down = wide[:, :-4] + 4 * (wide[:, 1:-3] + wide[:, 3:-1]) + 6 * wide[:, 2:-2] + wide[:, 4:]
    both = down[..., :-4] + 4 * (down[..., 1:-3] + down[..., 3:-1]) + 6 * down[..., 2:-2] + down[..., 4:]
    return ((both + np.uint16(128)) >> 8).astype(np.uint8)  # at most 255 x 256 + 128, which uint16 holds


def _extreme(image: np.ndarray, size: int, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Running minimum or maximum over squares of odd side `size`, in as few steps as doubling allows."""
    image = np.pad(image, ((0, 0), (size // 2, size // 2), (size // 2, size // 2)), "edge")
    for axis in (1, 2):
        covered = 1
        while covered < size:
            step = min(covered, size - covered)
            near, far = (image[:, :-step], image[:, step:]) if axis == 1 else (image[..., :-step], image[..., step:])
            image = combine(near, far)
            covered += step
    return image


def _texture(image: np.ndarray) -> Iterator[np.ndarray]:
    """Bin of every pixel of uint8 images (n,h,w) by steepness, then by curvature."""
    grey = image.astype(np.int32)
    up, middle, down = grey[:, :-2], grey[:, 1:-1], grey[:, 2:]
    left, centre, right = middle[..., :-2], middle[..., 1:-1], middle[..., 2:]
    steepness = (right - left) ** 2 + (down[..., 1:-1] - up[..., 1:-1]) ** 2
    yield _GRADIENT_BIN[np.minimum(steepness, GRADIENT_EDGES[-1])]
    across, along = right + left - 2 * centre, down[..., 1:-1] + up[..., 1:-1] - 2 * centre
    mixed = down[..., 2:] + up[..., :-2] - down[..., :-2] - up[..., 2:]
    lowest = CURVATURE_EDGES[0] - 1
    yield _CURVATURE_BIN[np.clip(16 * across * along - mixed**2, lowest, CURVATURE_EDGES[-1]) - lowest]


def _sifted(image: np.ndarray) -> Iterator[np.ndarray]:
    """Bin of what each larger opening, then closing, takes away: bright and dark grains (nuclei) by their size."""
    for first, second in ((np.minimum, np.maximum), (np.maximum, np.minimum)):
        before = image
        for size in SIEVES_PX:
            after = _extreme(_extreme(image, size, first), size, second)
            yield _SIFTED_BIN[np.maximum(before, after) - np.minimum(before, after)]
            before = after


def _levels(block: np.ndarray) -> Iterator[np.ndarray]:
    """Bin of every pixel for each of KINDS."""
    for channel in range(PATCH_SHAPE[2]):
        yield block[..., channel] // (256 // COLOUR_BINS)
    image = np.ascontiguousarray(block[..., 0])
    for scale in range(SCALES):
        image = _smooth(image)
        yield from _texture(image)
        if scale < SIFTED_SCALES:
            yield from _sifted(image)
        image = np.ascontiguousarray(image[:, ::2, ::2])


def cheap_features(patches: np.ndarray) -> np.ndarray:
    """float32 (N,FEATURES) in 0..1 of uint8 patches (N,96,96,3): square roots of shares, histogram after histogram."""
    out = np.empty((len(patches), FEATURES), np.float32)
    for start in range(0, len(patches), _BLOCK):
        block = patches[start : start + _BLOCK]
        parts = [_shares(levels, bins) for levels, (_, bins) in zip(_levels(block), KINDS, strict=True)]
        out[start : start + len(block)] = np.concatenate(parts, axis=1)
    return out


def summaries(features: np.ndarray) -> np.ndarray:
    """Mean bin of each histogram, float64 (N,len(KINDS)): one number per named property, for people to read."""
    ends = np.cumsum([0, *(bins for _, bins in KINDS)])
    shares = features.astype(np.float64) ** 2
    return np.stack([shares[:, a:b] @ np.arange(b - a) for a, b in pairwise(ends.tolist())], axis=1)


def open_features(path: str | Path, n: int | None = None) -> np.ndarray:
    """float32 (N,FEATURES), memory-mapped read-only, one row for each patch of an x file.

    Raises: InputError when the file is missing, no features of this pipeline, or not of `n` patches.
    """
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a file of features ({error}); rebuild it") from None
    if features.dtype != np.float32 or features.shape[1:] != (FEATURES,):
        raise InputError(f"{path}: holds {features.dtype} {features.shape}, not float32 (N, {FEATURES}); rebuild it")
    if n is not None and len(features) != n:
        raise InputError(f"{path}: features of {len(features)} patches where {n} are expected; rebuild it")
    return features
