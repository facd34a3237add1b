"""What can be said of a patch without a model: light, stain, focus, compression, tissue, nuclei, folds."""

from pathlib import Path

import numpy as np

from pcam.files import InputError
from pcam.guard import PROPERTIES, measure_patches

# In the guard's words and by its code, so that a property has one value.
_SHARED = ("brightness", "contrast", "saturation", "sharpness", "block_edges")
ATTRIBUTES = (*_SHARED, "tissue_fraction", "haematoxylin", "eosin", "nuclear_density", "fold_fraction")
UNITS = {
    "brightness": "mean grey value, 0..255",
    "contrast": "standard deviation of green, grey values",
    "saturation": "mean difference between the strongest and the weakest channel, grey values",
    "sharpness": "log ratio of differences over 1 px to those over 4 px",
    "block_edges": "log ratio of fine detail across JPEG's grid of 8 px to that inside it",
    "tissue_fraction": "share of pixels whose HSV saturation exceeds 0.07",
    "haematoxylin": "mean optical density of haematoxylin",
    "eosin": "mean optical density of eosin",
    "nuclear_density": "nuclei per mm²",
    "fold_fraction": "share of the area that is saturated and dark without a gap, as folds are",
}
# What a patch of lower and of higher value is, for sentences.
WORDS = {
    "brightness": ("darker", "brighter"),
    "contrast": ("poorer in contrast", "richer in contrast"),
    "saturation": ("paler", "more saturated"),
    "sharpness": ("more blurred", "sharper"),
    "block_edges": ("less blocky", "more blocky"),
    "tissue_fraction": ("emptier", "fuller of tissue"),
    "haematoxylin": ("weaker in haematoxylin", "stronger in haematoxylin"),
    "eosin": ("weaker in eosin", "stronger in eosin"),
    "nuclear_density": ("poorer in nuclei", "richer in nuclei"),
    "fold_fraction": ("less folded", "more folded"),
}
# Optical density in red, green and blue of haematoxylin and eosin, of unit length: Ruifrok and Johnston 2001.
STAINS = {"haematoxylin": (0.65, 0.70, 0.29), "eosin": (0.07, 0.99, 0.11)}
TISSUE_PERCENT = 7  # HSV saturation above which a pixel is tissue: Veeling et al. 2018 chose PCam's patches by it
PIXEL_UM = 0.972  # PCam's 10x pixels
NUCLEUS_DENSITY = 0.06  # haematoxylin by which the middle of a nucleus exceeds what surrounds it
# A fold is saturated and dark (Bautista and Yagi 2009) without a gap: every place of a square of 12 pixels, wider than
# a nucleus, has an HSV saturation of at least the value less 0.12. Densest lymphocytes come near it.
FOLD_PX, FOLD_EXCESS = 12, -0.12
_BLOCK = 64  # patches worked on together: their intermediate images stay in the cache
_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)  # optical density of a level


def stain_rows() -> np.ndarray:
    """float64 (3,3): unit optical densities of haematoxylin, eosin and what neither explains, one a row."""
    rows = np.array([STAINS["haematoxylin"], STAINS["eosin"]])
    rows = np.vstack([rows, np.cross(*rows)])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


_UNMIX = np.linalg.inv(stain_rows())[:, :2].astype(np.float32)  # densities in red, green, blue to the two stains


def _binomial(image: np.ndarray) -> np.ndarray:
    """Images (n,h,w) under the 3 x 3 binomial filter, a deviation of 0.7 px."""
    wide = np.pad(image, ((0, 0), (1, 1), (1, 1)), "edge")
    down = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
    return (down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]) / 16


def _neighbours_most(image: np.ndarray) -> np.ndarray:
    """Greatest value in the square of 3 x 3 around each place of images (n,h,w)."""
    wide = np.pad(image, ((0, 0), (1, 1), (1, 1)), "constant", constant_values=-np.inf)
    down = np.maximum(np.maximum(wide[:, :-2], wide[:, 1:-1]), wide[:, 2:])
    return np.maximum(np.maximum(down[..., :-2], down[..., 1:-1]), down[..., 2:])


def _quads(image: np.ndarray) -> np.ndarray:
    """Sums over squares of 2 x 2 pixels of images (...,h,w)."""
    down = image[..., ::2, :] + image[..., 1::2, :]
    return np.asarray(down[..., ::2] + down[..., 1::2])


def _coloured(most: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Where HSV saturation is that of tissue, by the greatest channel and how far it exceeds the least."""
    return np.asarray(spread.astype(np.uint32) * 100 > most.astype(np.uint32) * TISSUE_PERCENT)


def nucleus_places(haematoxylin: np.ndarray) -> np.ndarray:
    """bool (n,48,48): middles of nuclei in haematoxylin (n,48,48), a value for each 2 x 2 pixels.

    A nucleus is a peak of the difference between two degrees of smoothing: a blob of the size of a nucleus that holds
    more haematoxylin than its surroundings.
    """
    fine = _binomial(_binomial(haematoxylin))
    coarse = fine
    for _ in range(6):
        coarse = _binomial(coarse)
    blob = fine - coarse
    return (blob >= NUCLEUS_DENSITY) & (blob == _neighbours_most(blob))


def _own(patches: np.ndarray) -> np.ndarray:
    """The five attributes (n,5) that the guard has not, of few patches (n,96,96,3)."""
    planes = np.ascontiguousarray(patches.transpose(3, 0, 1, 2))
    density = _DENSITY.take(planes)
    red, green, blue = density.mean(axis=(2, 3))[..., None] * _UNMIX[:, None]
    stains = red + green + blue  # no matrix product: its bits would depend on the number of patches
    red, green, blue = _quads(density) * (_UNMIX[:, 0] / 4).reshape(3, 1, 1, 1)
    haematoxylin = red + green + blue
    tissue = _coloured(planes.max(axis=0), np.ptp(planes, axis=0))
    smooth = _quads(planes.astype(np.uint16))
    most = smooth.max(axis=0)
    spread = most - smooth.min(axis=0)
    excess = spread / np.maximum(most, 1).astype(np.float32) - most / np.float32(4 * 255)
    excess[~_coloured(most, spread)] = -1  # black is dark, but no tissue
    side = FOLD_PX // 2
    squares = excess.reshape(len(patches), patches.shape[1] // FOLD_PX, side, -1)
    squares = squares.min(axis=2).reshape(*squares.shape[:2], -1, side)
    folded = squares.min(axis=3) > FOLD_EXCESS
    area_mm2 = (patches.shape[1] * PIXEL_UM / 1000) ** 2
    return np.stack(
        [
            tissue.mean(axis=(1, 2)),
            stains[:, 0],
            stains[:, 1],
            nucleus_places(haematoxylin).sum(axis=(1, 2)) / area_mm2,
            folded.mean(axis=(1, 2)),
        ],
        axis=1,
    )


def measure_attributes(patches: np.ndarray) -> np.ndarray:
    """float32 (N,len(ATTRIBUTES)) of uint8 patches (N,96,96,3), in the order of ATTRIBUTES and the units of UNITS."""
    out = np.empty((len(patches), len(ATTRIBUTES)), np.float32)
    shared = [PROPERTIES.index(name) for name in _SHARED]
    for start in range(0, len(patches), _BLOCK):
        block = np.asarray(patches[start : start + _BLOCK])
        out[start : start + len(block), : len(shared)] = measure_patches(block)[:, shared]
        out[start : start + len(block), len(shared) :] = _own(block)
    return out


def open_attributes(path: str | Path, n: int | None = None) -> np.ndarray:
    """float32 (N,len(ATTRIBUTES)), memory-mapped read-only, one row for each patch of a store.

    Raises: InputError when the file is missing, holds no attributes of this version, or not of `n` patches.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a file of attributes ({error}); rebuild it") from None
    if found.dtype != np.float32 or found.shape[1:] != (len(ATTRIBUTES),):
        raise InputError(f"{path}: holds {found.dtype} {found.shape}, not float32 (N, {len(ATTRIBUTES)}); rebuild it")
    if n is not None and len(found) != n:
        raise InputError(f"{path}: attributes of {len(found)} patches where {n} are expected; rebuild it")
    return found
