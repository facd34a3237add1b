"""The same picture twice: pixel for pixel, turned or mirrored, re-encoded as JPEG, or with its brightness changed.

Each search is an index over what the survey keeps, and each find that is not pixel identity is verified on the pixels.
"""

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
from scipy.fft import dctn
from scipy.ndimage import minimum_filter, uniform_filter

from pcam.blocks import in_order, patch_access
from pcam.pairs import distinct, equal_pairs
from pcam.survey import CELL_PX, CELLS, Patches

Fetch = Callable[[int], np.ndarray]  # one patch as uint8 (96,96,3), by its index over all splits

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, what JPEG keeps best
# Frequencies of the 8x8 cells, lowest first, without the mean. In the first twenty no pair of 2,000 distinct real
# patches is nearer than 0.25, while a JPEG of quality 60 moves a patch by 0.034 and +10 % brightness, which clips, by
# 0.153 (the 99th percentiles).
FREQUENCIES = sorted(
    ((i, j) for i in range(CELLS) for j in range(CELLS) if i + j), key=lambda at: (at[0] ** 2 + at[1] ** 2, at)
)
COMPARED = 20
NEAR = 0.2
# Candidates are patches of which the signs of 16 frequencies agree, for one of these choices at least. JPEG at quality
# 60 or +10 % brightness leaves one choice in ten untouched for 99 of 100 real patches; of unrelated patches one pair in
# 65,536 agrees by chance, so the search grows linearly up to millions of patches.
TABLES, SIGNS = 10, 16
CHOICES = np.stack([np.random.default_rng([8, t]).permutation(len(FREQUENCIES))[:SIGNS] for t in range(TABLES)])
CROWD = 40  # patches of equal signs that are all compared with one another
TASK = 256  # pairs a task compares
CHUNK = 8192  # patches whose cells are floats at a time
COARSE_STD = 3.0  # standard deviation of grey over the cells that a patch needs to be told from others
# Correlation of the detail (luma less its mean over 13x13 pixels) of two pictures of the same tissue. On real patches
# a JPEG of quality 60 keeps at least 0.71 of it and different tissue at most 0.13.
SAME_DETAIL = 0.6
DETAIL_PX = 13
DETAIL_STD = 2.0
ENOUGH_PIXELS = 900  # a tenth of the patch
# Brightening clips most of a pale patch. What is left must agree better, as it does: a change of brightness keeps 0.96.
FEW_PIXELS, SAME_DETAIL_OF_FEW = 200, 0.9
DARK, LIGHT = 4, 252  # beyond these, values are clipped or blanked and say nothing


def first_of_content(digest: np.ndarray) -> np.ndarray:
    """(N,2) digests give for each patch the index of the first patch of the same content."""
    names = np.ascontiguousarray(digest).view("V16")[:, 0]
    _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
    return np.asarray(first[inverse])


def symmetries(patch: np.ndarray) -> list[np.ndarray]:
    """The eight turned and mirrored forms of a patch (96,96,3), itself first."""
    return [np.rot90(side, turns) for side in (patch, patch[:, ::-1]) for turns in range(4)]


def rotated_pairs(patches: Patches, usable: np.ndarray, fetch: Fetch) -> np.ndarray:
    """(k,2) all pairs a < b of distinct usable contents of which one is the other turned or mirrored.

    Patches whose pixels are the same in whatever order are candidates; their pixels decide.
    """
    at = np.flatnonzero(usable)
    at = at[np.argsort(patches.invariant[at], kind="stable")]
    keys = patches.invariant[at]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(at) else np.empty(0, np.intp)
    ends = np.append(starts[1:], len(at))
    pairs = []
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        same: dict[bytes, list[int]] = {}
        for i in at[start:end].tolist():
            same.setdefault(min(turned.tobytes() for turned in symmetries(fetch(i))), []).append(i)
        pairs += [pair for group in same.values() for pair in combinations(sorted(group), 2)]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def coarse_picture(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cells (N,8,8,3) as (N,20) low frequencies of unit energy, (N,TABLES) keys of signs, (N,) deviation in greys.

    Neither brightness nor contrast changes the first two.
    """
    lows, keys, stds = [], [], []
    for start in range(0, len(cells), CHUNK):  # floats take four times the room of the cells
        # Whole numbers summed: the same bits everywhere.
        luma = np.round(cells[start : start + CHUNK] @ (LUMA * 1000)) / (1000 * CELL_PX**2)
        waves = dctn(luma, axes=(1, 2), norm="ortho")
        waves[:, 0, 0] = 0
        energy = np.sqrt(np.square(waves).sum(axis=(1, 2)))
        ordered = np.stack([waves[:, i, j] for i, j in FREQUENCIES], axis=1)
        lows.append(ordered[:, :COMPARED] / np.maximum(energy, 1e-9)[:, None])
        signs = (ordered > 0).astype(np.uint32)
        keys.append((signs[:, CHOICES] << np.arange(SIGNS, dtype=np.uint32)).sum(axis=2, dtype=np.uint32))
        stds.append(energy / CELLS)
    return np.concatenate(lows), np.concatenate(keys), np.concatenate(stds)


def detail(patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luma less its local mean, and which pixels can be compared: neither clipped nor near what is blanked."""
    luma = (patch @ LUMA).astype(np.float32)
    lit = minimum_filter(luma >= DARK, DETAIL_PX, mode="nearest")
    return luma - uniform_filter(luma, DETAIL_PX, mode="nearest"), lit & (luma < LIGHT)


def same_detail(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two patches (96,96,3) uint8 show the same detail in the same place, whatever their brightness."""
    (fine_a, fit_a), (fine_b, fit_b) = detail(a), detail(b)
    both = fit_a & fit_b
    if both.sum() < FEW_PIXELS:
        return False
    one, other = fine_a[both].astype(np.float64), fine_b[both].astype(np.float64)
    if min(one.std(), other.std()) < DETAIL_STD:
        return False
    needed = SAME_DETAIL if both.sum() >= ENOUGH_PIXELS else SAME_DETAIL_OF_FEW
    return bool(np.corrcoef(one, other)[0, 1] >= needed)


def details_agree(files: Mapping[str, str], pairs: np.ndarray) -> np.ndarray:
    """Which pairs (k,2) show the same detail. Work for a process of its own."""
    with patch_access(files) as fetch:
        return np.array([same_detail(fetch(a), fetch(b)) for a, b in pairs.tolist()], bool)


def near_candidates(low: np.ndarray, keys: np.ndarray, split: np.ndarray) -> np.ndarray:
    """(k,2) pairs i < j of patches whose coarse pictures are near, of those that a key brings together."""
    found = [np.empty(0, np.int64)]
    n = len(low)
    for table in range(keys.shape[1]):
        order = np.argsort(keys[:, table], kind="stable")
        for i, j in equal_pairs(keys[order, table], split[order], CROWD):
            for some in np.array_split(np.arange(len(i)), len(i) // (1 << 18) + 1):
                a, b = order[i[some]], order[j[some]]
                near = np.square(low[a] - low[b]).sum(axis=1) <= NEAR**2
                found.append(np.minimum(a, b)[near] * n + np.maximum(a, b)[near])
    return np.stack(np.divmod(distinct(np.concatenate(found)), max(n, 1)), axis=1)


def near_pairs(
    patches: Patches, usable: np.ndarray, split: np.ndarray, files: Mapping[str, str], *, processes: int
) -> np.ndarray:
    """(k,2) pairs a < b of distinct usable contents that are one picture re-encoded or of another brightness.

    split: (N,) 0, 1, 2. Where very many pictures look alike not all pairs are listed: take the sets they form.
    """
    low, keys, std = coarse_picture(patches.cells)
    at = np.flatnonzero(usable & (std >= COARSE_STD))
    pairs = at[near_candidates(low[at], keys[at], split[at])]
    if len(pairs) == 0:
        return pairs
    tasks = ((files, some) for some in np.array_split(pairs, len(pairs) // TASK + 1))
    return np.asarray(pairs[np.concatenate(list(in_order(details_agree, tasks, processes=processes)))])
