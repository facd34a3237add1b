"""What every audit uses: the form of a finding, and a first look at patches of any dtype.

Audits witness: which finding matters, and what is done about it, policy decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam.facts import CLASSES, FILE_SPLITS, PATCH_SHAPE
from pcam.hdf5 import check_pair
from pcam.metrics import wilson_interval


def check_splits(x_files: Mapping[str, str], y_files: Mapping[str, str]) -> dict[str, tuple[int, np.ndarray | None]]:
    """Number of patches and labels (None when unlabelled) of each split. Raises: InputError as check_pair does."""
    return {split: check_pair(x_files[split], y_files[split]) for split in FILE_SPLITS}


def findings(
    kind: str,
    split: str,
    rows: np.ndarray,
    labels: np.ndarray | None,
    n: int,
    rows_listed: int,
    extra: Mapping[str, np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """What was looked for in one split, a finding per class (one of class None when labels are unknown), also for none.

    `extra` names subsets of the rows whose number per class is told under that name.
    """
    found = []
    for label in CLASSES if labels is not None else (None,):
        in_class = np.ones(n, bool) if labels is None else labels == label
        mine, of = np.sort(rows[in_class[rows]]), int(in_class.sum())
        found.append(
            {
                "kind": kind,
                "split": split,
                "class": label,
                "n": len(mine),
                "of": of,
                "rate": len(mine) / of if of else None,
                "interval": list(wilson_interval(len(mine), of)),
                "rows": mine[:rows_listed].tolist(),
                **{name: int(in_class[chosen].sum()) for name, chosen in (extra or {}).items()},
            }
        )
    return found


@dataclass(frozen=True)
class Look:
    """What a chunk of patches shows; one entry a patch.

    finite: every value is a finite number.  low, high: extremes of the finite values, NaN where there is none.
    uniform: all finite pixels have one colour, so the patch carries no tissue.
    """

    finite: np.ndarray
    low: np.ndarray
    high: np.ndarray
    uniform: np.ndarray


def look(patches: np.ndarray) -> Look:
    """Extremes and uniformity of patches (N,96,96,3) of any dtype, in one pass."""
    flat = patches.reshape(len(patches), -1)
    with np.errstate(invalid="ignore"):  # a NaN passes through min and max, which is what tells it
        low, high = flat.min(axis=1).astype(np.float64), flat.max(axis=1).astype(np.float64)
    finite = np.isfinite(low) & np.isfinite(high)
    uniform = finite & (patches[:, 0, 0] == patches[:, -1, -1]).all(axis=1)
    for i in np.flatnonzero(uniform):
        uniform[i] = bool((patches[i] == patches[i, 0, 0]).all())
    for i in np.flatnonzero(~finite):
        channels = [values[np.isfinite(values)] for values in flat[i].reshape(-1, PATCH_SHAPE[2]).T]
        kept = np.concatenate(channels)
        low[i], high[i] = (kept.min(), kept.max()) if len(kept) else (np.nan, np.nan)
        uniform[i] = all(len(values) == 0 or values.min() == values.max() for values in channels)
    return Look(finite, low, high, uniform)


def as_uint8(patches: np.ndarray, seen: Look) -> tuple[np.ndarray, np.ndarray]:
    """Patches as uint8, and for which of them nothing is lost by that (the others hold arbitrary values)."""
    if patches.dtype == np.uint8:
        return patches, np.ones(len(patches), bool)
    with np.errstate(invalid="ignore"):
        small = patches.astype(np.uint8)
    inside = seen.finite & (seen.low >= 0) & (seen.high <= 255)
    return small, inside & (small == patches).reshape(len(patches), -1).all(axis=1)
