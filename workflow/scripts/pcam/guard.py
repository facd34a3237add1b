"""Watch what goes into a model: do the patches at hand look like those that its threshold was chosen on?

Eight properties of a patch are compared with what validation patches show. A property's distance is 0 at their median
and 1 at their 1 % quantile on the same side, so it has no unit. A set of patches is called foreign when the mean
distance of one property passes its limit; the limits (rule fit_guard) allow for chance, also for whole slides.

Not covered: anything that leaves these properties as they are, such as another organ in the same stain, and whatever
happens behind the pixels (normalisation, precision, device).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pcam.files import InputError, read_json

PROPERTIES = (
    "brightness",
    "contrast",
    "saturation",
    "red_absorption",
    "blue_absorption",
    "red_contrast",
    "sharpness",
    "block_edges",
)
QUANTILE = 0.01  # of the reference on each side: distance 1
CAP = 8.0  # of one patch in a mean, so that few strange patches do not speak for a set
_BLOCK = 64  # patches worked on together: their intermediate images stay in the cache
_DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)  # optical density of a level
_EPSILON = 0.02  # grey levels: a plain patch has ratio 1


def _fine_basis() -> np.ndarray:
    """float32 (8,4): the upper half of the cosines that JPEG describes eight pixels by, where it rounds most away."""
    places, waves = np.arange(8)[:, None], np.arange(4, 8)[None]
    return (np.cos(np.pi * (2 * places + 1) * waves / 16) / 2).astype(np.float32)


_FINE = _fine_basis()


def _fine_energy(grey: np.ndarray) -> np.ndarray:
    """Mean amplitude (n,) of fine detail in blocks of 8 x 8 pixels of grey images (n,h,w); h and w multiples of 8."""
    n, height, width = grey.shape
    across = np.matmul(grey.reshape(n, height, width // 8, 8), _FINE)
    down = np.matmul(across.reshape(n, height // 8, 8, -1).transpose(0, 1, 3, 2), _FINE)
    return np.asarray(np.abs(down).mean(axis=(1, 2, 3)))


def _log_ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.asarray(np.log((above + _EPSILON) / (below + _EPSILON)))


def measure_patches(patches: np.ndarray) -> np.ndarray:
    """Properties float32 (N,8) of uint8 patches (N,96,96,3), in the order of PROPERTIES.

    brightness: mean of all values, 0..255. contrast: standard deviation of green. saturation: mean over pixels of the
    widest difference between channels. red_absorption, blue_absorption: share of the optical density in that channel,
    which is the hue of the stain. red_contrast: log ratio of the standard deviations of red and blue, because nuclei
    stand out in red. sharpness: log ratio of differences over 1 pixel to those over 4. block_edges: log ratio of fine
    detail in blocks that straddle JPEG's grid of 8 pixels to that in blocks on it.
    """
    out = np.empty((len(patches), len(PROPERTIES)), np.float32)
    for start in range(0, len(patches), _BLOCK):
        planes = np.ascontiguousarray(patches[start : start + _BLOCK].transpose(3, 0, 1, 2))
        values = planes.astype(np.float32)
        green = values[1]
        density = _DENSITY[planes].mean(axis=(2, 3)) + 1e-4
        share = density / density.sum(axis=0)
        deviation = values.std(axis=(2, 3))
        near = np.abs(green[:, :, 1:] - green[:, :, :-1]).mean(axis=(1, 2))
        wide = np.abs(green[:, :, 4:] - green[:, :, :-4]).mean(axis=(1, 2))
        out[start : start + planes.shape[1]] = np.stack(
            [
                values.mean(axis=(0, 2, 3)),
                deviation[1],
                (planes.max(axis=0) - planes.min(axis=0)).mean(axis=(1, 2)),
                share[0],
                share[2],
                _log_ratio(deviation[0], deviation[2]),
                _log_ratio(near, wide),
                _log_ratio(_fine_energy(green[:, 4:-4, 4:-4]), _fine_energy(green)),
            ],
            axis=1,
        )
    return out


def reference_of(properties: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, low and high quantile (P,) of properties (N,P)."""
    low, median, high = np.quantile(properties.astype(np.float64), (QUANTILE, 0.5, 1 - QUANTILE), axis=0)
    return median, low, high


def distances_from(properties: np.ndarray, median: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Signed distances float64 (N,P)."""
    off = properties - median
    width = np.where(off >= 0, high - median, median - low)
    return np.asarray(off / np.maximum(width, 1e-3 * np.abs(median) + 1e-6))


@dataclass(frozen=True)
class Verdict:
    """What a check says of a set of n patches.

    worst: the property whose mean distance comes nearest to its limit, or lies furthest beyond; distance and limit are
    its own. share_outside: share of the patches outside the middle 98 % of the reference in that property.
    strange: places, in the set, of single patches further away in any property than validation patches ever are.
    """

    n: int
    warns: bool
    worst: str
    distance: float
    limit: float
    share_outside: float
    strange: tuple[int, ...]

    def sentence(self) -> str:
        """The finding on the worst property, in words."""
        side = "above" if self.distance > self.limit else "below"
        return (
            f"{self.worst} lies {side} that of validation patches: mean distance {self.distance:.2f}, chance allows "
            f"{self.limit:.2f}; {100 * self.share_outside:.0f} % of {self.n:,} patches outside their middle 98 %"
        )

    def as_document(self) -> dict[str, Any]:
        """Keys as the journal and the picture read them; `strange` is their number."""
        return {
            "warns": self.warns,
            "property": self.worst,
            "distance": self.distance,
            "limit": self.limit,
            "share_outside": self.share_outside,
            "strange": len(self.strange),
        }


@dataclass(frozen=True)
class Guard:
    """A reference and its limits.

    median, low, high (P,): of each property. sizes (S,): numbers of patches, ascending, that the limits least and most
    (S,P) of a set's mean distance hold for. far (P,): distance beyond which a single patch is strange.
    """

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sizes: np.ndarray
    least: np.ndarray
    most: np.ndarray
    far: np.ndarray

    def check(self, properties: np.ndarray) -> Verdict:
        """The verdict on the properties (n,P) of one set, n >= 1.

        The limits are those of the next smaller size, which are the wider ones.
        """
        distances = distances_from(properties, self.median, self.low, self.high)
        mean = np.clip(distances, -CAP, CAP).mean(axis=0)
        line = int(np.searchsorted(self.sizes, len(properties), side="right")) - 1
        limits = np.where(2 * mean >= self.least[line] + self.most[line], self.most[line], self.least[line])
        beyond = np.maximum(mean - self.most[line], self.least[line] - mean)
        worst = int(np.argmax(beyond / (self.most[line] - self.least[line])))
        strange = np.flatnonzero((np.abs(distances) > self.far).any(axis=1))
        return Verdict(
            n=len(properties),
            warns=bool((beyond > 0).any()),
            worst=PROPERTIES[worst],
            distance=float(mean[worst]),
            limit=float(limits[worst]),
            share_outside=float((np.abs(distances[:, worst]) > 1).mean()),
            strange=tuple(strange.tolist()),
        )

    def as_document(self) -> dict[str, Any]:
        """The same as numbers that JSON holds."""
        return {"properties": list(PROPERTIES), **{name: array.tolist() for name, array in vars(self).items()}}


def _check(guard: Guard) -> None:
    """Raises: ValueError unless `Guard.check` can work with it."""
    if guard.sizes.ndim != 1 or not len(guard.sizes):
        raise ValueError("sizes is no list of numbers")
    limits = (len(guard.sizes), len(PROPERTIES))
    shapes = {"sizes": guard.sizes.shape, "least": limits, "most": limits}
    for name, array in vars(guard).items():
        if array.shape != shapes.get(name, (len(PROPERTIES),)):
            raise ValueError(f"{name} of another shape")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} holds a value that is not finite")
    if guard.sizes[0] != 1 or not np.all(np.diff(guard.sizes) > 0):
        raise ValueError("sizes do not ascend from 1")
    if not np.all(guard.most > guard.least):
        raise ValueError("a limit most is not above least")


def read_guard(path: str | Path, sidecar: Mapping[str, Any]) -> Guard:
    """The guard of the checkpoint with this sidecar.

    Raises: InputError when the file is missing or damaged, belongs to other weights, or the checkpoint normalises
    otherwise than when the guard was made.
    """
    document = read_json(path)
    try:
        if document["properties"] != list(PROPERTIES):
            raise ValueError("other properties")
        guard = Guard(**{field.name: np.array(document[field.name], np.float64) for field in fields(Guard)})
        weights, preprocessing = document["weights"], document["preprocessing"]
        _check(guard)
        if not isinstance(preprocessing, Mapping):
            raise ValueError("preprocessing holds no mean and std")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a guard of this version ({error}); make it again (rule fit_guard)") from None
    if weights != sidecar["digests"].get("weights"):
        raise InputError(f"{path}: belongs to other weights; make it again (rule fit_guard) or pass --guard off")
    if preprocessing != sidecar["preprocessing"]:
        raise InputError(
            f"{path}: was made for mean and std {[*preprocessing.values()]}, the checkpoint's sidecar says "
            f"{[*sidecar['preprocessing'].values()]}; restore the sidecar"
        )
    return guard
