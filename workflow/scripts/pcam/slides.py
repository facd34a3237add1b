"""What the meta CSVs tell of leakage: slides that stand in two splits, patches whose coordinates overlap."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from pcam.facts import FILE_SPLITS
from pcam.files import InputError, read_csv
from pcam.survey import SIDE

META_KINDS = ("slide_overlap", "coordinate_overlap")
MOST_AT_ONE_PLACE = 200  # patches of a slide with equal coordinates; more are no coordinates, such as zeros
ENOUGH_PAIRS = 10  # verified overlaps needed to measure the unit of the coordinates


@dataclass(frozen=True)
class Places:
    """Where patches were cut. slide: (N,) number of the slide, -1 unknown.  at: (N,2) float64 y, x, NaN unknown."""

    slide: np.ndarray
    at: np.ndarray
    names: list[str]


def read_places(meta_files: Mapping[str, str], sizes: Mapping[str, int]) -> Places:
    """Slides and coordinates of all patches, as far as the meta CSVs tell; a CSV without rows tells nothing.

    Raises: InputError when a CSV has another number of rows than its split has patches, a coordinate is no number, or
    very many patches of a slide stand at one place.
    """
    names: dict[str, int] = {}
    slides, places = [], []
    for split in FILE_SPLITS:
        path = Path(meta_files[split])
        rows = read_csv(path, ("wsi",))
        if len(rows) not in (0, sizes[split]):
            raise InputError(
                f"{path}: {len(rows)} rows for {sizes[split]} patches; take the CSV that belongs to this x file"
            )
        slides.append(np.full(sizes[split], -1))
        places.append(np.full((sizes[split], 2), np.nan))
        for i, row in enumerate(rows):
            if row["wsi"]:
                slides[-1][i] = names.setdefault(row["wsi"], len(names))
            for k, column in enumerate(("coord_y", "coord_x")):
                try:
                    places[-1][i, k] = float(row.get(column) or "nan")
                except ValueError:
                    raise InputError(f"{path}: {column} {row[column]!r} in row {i} is no number") from None
    found = Places(np.concatenate(slides), np.concatenate(places), list(names))
    known = (found.slide >= 0) & np.isfinite(found.at).all(axis=1)
    where, times = np.unique(np.column_stack([found.slide, found.at])[known], axis=0, return_counts=True)
    if times.max(initial=0) > MOST_AT_ONE_PLACE:
        slide, y, x = where[times.argmax()].tolist()
        raise InputError(
            f"{', '.join(meta_files.values())}: {times.max():,} patches of slide {found.names[int(slide)]} stand at "
            f"coord_y {y:g}, coord_x {x:g}; leave both columns out when coordinates are unknown"
        )
    return found


def known_splits(known: np.ndarray, split: np.ndarray) -> list[str]:
    """Splits of which something is known (N,) of every patch."""
    return [name for at, name in enumerate(FILE_SPLITS) if known[split == at].all()]


def pixel_unit(places: Places, overlaps: np.ndarray) -> tuple[float, int]:
    """Units of the coordinates in one pixel, measured on verified overlaps, and on how many; 1 where that is too few.

    overlaps: (k,4) a, b, dy, dx. The CSVs do not say at which magnification their coordinates count.
    """
    a, b, shift = overlaps[:, 0], overlaps[:, 1], overlaps[:, 2:]
    known = (places.slide[a] >= 0) & (places.slide[a] == places.slide[b])
    apart = places.at[b[known]] - places.at[a[known]]
    moved = (shift[known] != 0) & np.isfinite(apart)
    ratios = apart[moved] / shift[known][moved]
    return (
        (float(np.median(ratios)), int(moved.any(axis=1).sum()))
        if moved.any(axis=1).sum() >= ENOUGH_PAIRS
        else (1.0, 0)
    )


def coordinate_pairs(places: Places, unit: float) -> np.ndarray:
    """(k,2) pairs a < b of one slide whose squares of 96 pixels overlap; `unit`: coordinates in one pixel."""
    found = [np.empty((0, 2), np.int64)]
    known = np.flatnonzero((places.slide >= 0) & np.isfinite(places.at).all(axis=1))
    known = known[np.argsort(places.slide[known], kind="stable")]
    for members in np.split(known, np.flatnonzero(np.diff(places.slide[known])) + 1):
        if len(members) > 1:
            tree = cKDTree(places.at[members])
            near = tree.query_pairs(np.nextafter(SIDE * abs(unit), 0), p=np.inf, output_type="ndarray")
            found.append(np.sort(members[near], axis=1))
    pairs = np.concatenate(found)
    return np.asarray(pairs[np.lexsort(pairs.T[::-1])])


def meta_leakage(
    places: Places, split: np.ndarray, pairs: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Flags and partners (bits 1, 2, 4 for train, valid, test) of META_KINDS; pairs as coordinate_pairs gives them."""
    own = 1 << split
    seen = np.zeros(len(places.names) + 1, np.int64)  # the last for patches of unknown slide
    np.bitwise_or.at(seen, places.slide, own)
    elsewhere = np.where(places.slide >= 0, seen[places.slide] & ~own, 0)
    near = np.zeros(len(split), np.int64)
    for one, other in ((0, 1), (1, 0)):
        np.bitwise_or.at(near, pairs[:, one], own[pairs[:, other]])
    return (
        {"slide_overlap": elsewhere > 0, "coordinate_overlap": near > 0},
        {"slide_overlap": elsewhere, "coordinate_overlap": near},
    )


def confirmed_share(
    pairs: np.ndarray, overlaps: np.ndarray, content: np.ndarray, comparable: np.ndarray
) -> tuple[int, int]:
    """Of the pairs that the coordinates give, how many can be compared by pixels, and how many of these the pixels
    confirm: as identical, or as overlaps. content: (N,) first of the same pixels; comparable: (N,) bool."""
    n = len(content)
    pairs = pairs[comparable[pairs].all(axis=1)]
    told = np.sort(content[pairs], axis=1)
    same = told[:, 0] == told[:, 1]
    codes = told[:, 0] * n + told[:, 1]
    proven = np.sort(overlaps[:, :2], axis=1)
    return len(pairs), int((same | np.isin(codes, proven[:, 0] * n + proven[:, 1])).sum())
