"""Watch what goes into a model and what comes out: are patches at hand like those that its threshold was chosen on?

Eight properties of a patch are compared with what validation patches show, and so is the champion's answer. A
property's distance is 0 at their median and 1 at their 1 % quantile on the same side, so it has no unit; an answer's
distance is its probability less the mean of validation. A set of patches is called foreign when the mean distance of
one statistic passes its limit; the limits (rule watch_drift) allow for chance, also for whole slides, and hold for all
statistics together.

Not covered: what leaves both the properties and the mean answer as they are, such as a model that mistakes as many
patches for tumour as it misses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcam.files import InputError, read_json
from pcam.readings import Reading, Verdict

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
PROBABILITY = "tumour_probability"
STATISTICS = (*PROPERTIES, PROBABILITY)
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


def watched_values(patches: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Statistics float64 (N,9), in the order of STATISTICS, of uint8 patches (N,96,96,3) and their answers (N,)."""
    return np.column_stack([measure_patches(patches), probabilities])


def reference_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, low and high quantile (P,) of statistics (N,P); of the last, the answer, its mean and 1 to each side."""
    low, median, high = np.quantile(values.astype(np.float64), (QUANTILE, 0.5, 1 - QUANTILE), axis=0)
    median[-1] = values[:, -1].mean()
    low[-1], high[-1] = median[-1] - 1, median[-1] + 1
    return median, low, high


def distances_from(values: np.ndarray, median: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Signed distances float64 (N,P)."""
    off = values - median
    width = np.where(off >= 0, high - median, median - low)
    return np.asarray(off / np.maximum(width, 1e-3 * np.abs(median) + 1e-6))


@dataclass(frozen=True)
class Tally:
    """What a check must know of n patches, in memory that does not grow with their number; tallies add up.

    values, distances (P,): sums of the statistics and of their capped distances. outside (P,): patches beyond
    distance 1. strange: patches further away in any property than validation patches ever are; first_strange: the
    place of the first.
    """

    n: int
    values: np.ndarray
    distances: np.ndarray
    outside: np.ndarray
    strange: int
    first_strange: int | None

    def __add__(self, later: "Tally") -> "Tally":
        first = self.first_strange
        if first is None and later.first_strange is not None:
            first = self.n + later.first_strange
        return Tally(
            n=self.n + later.n,
            values=self.values + later.values,
            distances=self.distances + later.distances,
            outside=self.outside + later.outside,
            strange=self.strange + later.strange,
            first_strange=first,
        )


ARRAYS = ("mean", "median", "low", "high", "sizes", "least", "most", "far", "classes")


@dataclass(frozen=True)
class Guard:
    """A reference and its limits.

    mean, median, low, high (P,): of each statistic. sizes (S,): numbers of patches, ascending, that the limits least
    and most (S,P) of a set's mean distance hold for. far (P,): distance beyond which a single patch is strange.
    classes (2,): mean probability of validation patches without and with tumour; prior: share of the latter.
    """

    mean: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sizes: np.ndarray
    least: np.ndarray
    most: np.ndarray
    far: np.ndarray
    classes: np.ndarray
    prior: float
    false_alarm_rate: float
    holds_for: str

    def tally(self, values: np.ndarray) -> Tally:
        """What `verdict` needs of statistics (n,P)."""
        distances = distances_from(values, self.median, self.low, self.high)
        strange = np.flatnonzero((np.abs(distances) > self.far).any(axis=1))
        return Tally(
            n=len(values),
            values=values.sum(axis=0),
            distances=np.clip(distances, -CAP, CAP).sum(axis=0),
            outside=(np.abs(distances) > 1).sum(axis=0),
            strange=len(strange),
            first_strange=int(strange[0]) if len(strange) else None,
        )

    def verdict(self, tally: Tally) -> Verdict:
        """The verdict on one set of n >= 1 patches.

        The limits are those of the next smaller size, which are the wider ones.
        """
        line = int(np.searchsorted(self.sizes, tally.n, side="right")) - 1
        columns = (self.mean, *(sums / tally.n for sums in (tally.values, tally.distances)), self.least[line])
        readings = zip(STATISTICS, *columns, self.most[line], tally.outside / tally.n, strict=True)
        share, (without, with_tumour) = None, self.classes
        if with_tumour > without:
            share = float(np.clip((tally.values[-1] / tally.n - without) / (with_tumour - without), 0, 1))
        return Verdict(
            n=tally.n,
            readings=tuple(Reading(name, *map(float, numbers)) for name, *numbers in readings),
            strange=tally.strange,
            first_strange=tally.first_strange,
            share=share,
            prior=self.prior,
            false_alarm_rate=self.false_alarm_rate,
            holds_for=self.holds_for,
        )

    def check(self, values: np.ndarray) -> Verdict:
        """The verdict on statistics (n,P) of one set, n >= 1."""
        return self.verdict(self.tally(values))

    def as_document(self) -> dict[str, Any]:
        """The same as numbers that JSON holds."""
        numbers = {name: value.tolist() if name in ARRAYS else value for name, value in vars(self).items()}
        return {"statistics": list(STATISTICS), **numbers}


def _check(guard: Guard) -> None:
    """Raises: ValueError unless `Guard.verdict` can work with it."""
    if guard.sizes.ndim != 1 or not len(guard.sizes):
        raise ValueError("sizes is no list of numbers")
    limits = (len(guard.sizes), len(STATISTICS))
    shapes = {"sizes": guard.sizes.shape, "least": limits, "most": limits, "classes": (2,)}
    for name in ARRAYS:
        array = getattr(guard, name)
        if array.shape != shapes.get(name, (len(STATISTICS),)):
            raise ValueError(f"{name} of another shape")
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} holds a value that is not finite")
    if guard.sizes[0] != 1 or not np.all(np.diff(guard.sizes) > 0):
        raise ValueError("sizes do not ascend from 1")
    if not np.all(guard.most > guard.least):
        raise ValueError("a limit most is not above least")
    if not np.all((guard.low <= guard.median) & (guard.median <= guard.high)):
        raise ValueError("low, median and high do not ascend")
    if not all(0 <= share <= 1 for share in (*guard.classes, guard.prior, guard.false_alarm_rate)):
        raise ValueError("classes, prior or false_alarm_rate lie outside 0 to 1")


def read_guard(path: str | Path, sidecar: Mapping[str, Any]) -> Guard:
    """The guard of the checkpoint with this sidecar.

    Raises: InputError when the file is missing or damaged, belongs to other weights, or the checkpoint normalises
    otherwise than when the guard was made.
    """
    document = read_json(path)
    try:
        if document["statistics"] != list(STATISTICS):
            raise ValueError("other statistics")
        guard = Guard(
            **{name: np.array(document[name], np.float64) for name in ARRAYS},
            prior=float(document["prior"]),
            false_alarm_rate=float(document["false_alarm_rate"]),
            holds_for=document["holds_for"],
        )
        weights, preprocessing, temperature = (document[key] for key in ("weights", "preprocessing", "temperature"))
        _check(guard)
        if not isinstance(preprocessing, Mapping) or not isinstance(document["holds_for"], str):
            raise ValueError("preprocessing holds no mean and std, or holds_for no text")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: not a guard of this version ({error}); make it again (rule watch_drift)") from None
    if weights != sidecar["digests"].get("weights"):
        raise InputError(f"{path}: belongs to other weights; make it again (rule watch_drift) or pass --guard off")
    if preprocessing != sidecar["preprocessing"]:
        raise InputError(
            f"{path}: was made for mean and std {[*preprocessing.values()]!s:.160}, the checkpoint's sidecar says "
            f"{[*sidecar['preprocessing'].values()]}; restore the sidecar"
        )
    if temperature != sidecar.get("temperature"):
        raise InputError(
            f"{path}: was made for temperature {temperature!s:.80}, the checkpoint's sidecar says "
            f"{sidecar.get('temperature')}; restore the sidecar"
        )
    return guard
