"""Patches that share tissue: pixel-exact, at any offset up to 80 pixels in each direction, found through anchors."""

from collections.abc import Mapping

import numpy as np

from pcam.blocks import in_order, patch_access
from pcam.pairs import distinct, equal_pairs
from pcam.survey import BUCKETS, PLACE_BITS, PLACES, SIDE, Survey, read_anchors

LARGEST_SHIFT_PX = 80
# On PCam's 16-pixel grid 36 distinct patches at most show one place. A larger group of equal windows is a pattern that
# repeats, such as a stamp, or tissue cut more densely than that: see equal_pairs.
PAIRWISE_LIMIT = 40
SHIFTS = 2 * LARGEST_SHIFT_PX + 1
RAW_LIMIT = 1 << 22  # codes of pairs gathered before doubles are thrown away: 32 MB
TASK = 4096  # pairs a task compares
STRIP = 4096  # first patches whose pairs are compared together: 113 MB of uint8, 453 MB of float32


def encode(a: np.ndarray, b: np.ndarray, dy: np.ndarray, dx: np.ndarray, n: int) -> np.ndarray:
    """One int64 a pair; 2**63 holds the pairs of 18 million patches."""
    return np.asarray(((a * n + b) * SHIFTS + dy + LARGEST_SHIFT_PX) * SHIFTS + dx + LARGEST_SHIFT_PX)


def decode(codes: np.ndarray, n: int) -> np.ndarray:
    """(k,4) int64: a, b, dy, dx."""
    rest, dx = np.divmod(codes, SHIFTS)
    pair, dy = np.divmod(rest, SHIFTS)
    a, b = np.divmod(pair, max(n, 1))
    return np.stack([a, b, dy - LARGEST_SHIFT_PX, dx - LARGEST_SHIFT_PX], axis=1)


def bucket_pairs(keys: np.ndarray, usable: np.ndarray, split: np.ndarray, patch_bits: int) -> np.ndarray:
    """Codes of the pairs that one bucket's anchors suggest, distinct and ascending.

    keys: (m,) uint64 as read_anchors gives them.  usable: (N,) bool, patches that may take part.  split: (N,) 0, 1, 2.
    """
    n = len(usable)
    patch = (keys >> np.uint64(PLACE_BITS)).astype(np.int64) & ((1 << patch_bits) - 1)
    keys = np.sort(keys[usable[patch]])
    hashes = keys >> np.uint64(PLACE_BITS + patch_bits)
    patch = (keys >> np.uint64(PLACE_BITS)).astype(np.int64) & ((1 << patch_bits) - 1)
    y, x = np.divmod((keys & np.uint64((1 << PLACE_BITS) - 1)).astype(np.int64), PLACES)
    parts: list[np.ndarray] = []
    gathered = 0
    for i, j in equal_pairs(hashes, split[patch], PAIRWISE_LIMIT):
        a, b = patch[i], patch[j]
        dy, dx = y[i] - y[j], x[i] - x[j]
        near = (a != b) & (np.abs(dy) <= LARGEST_SHIFT_PX) & (np.abs(dx) <= LARGEST_SHIFT_PX) & ((dy != 0) | (dx != 0))
        parts.append(encode(a[near], b[near], dy[near], dx[near], n))
        gathered += len(parts[-1])
        if gathered > RAW_LIMIT:
            parts = [distinct(np.concatenate(parts))]
            gathered = len(parts[0])
    return distinct(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def search_bucket(folder: str, bucket: int, usable: np.ndarray, split: np.ndarray, patch_bits: int) -> np.ndarray:
    """bucket_pairs of one bucket of a survey, by its folder: work for a process of its own."""
    return bucket_pairs(read_anchors(folder, bucket), usable, split, patch_bits)


def overlap_candidates(survey: Survey, usable: np.ndarray, *, processes: int) -> np.ndarray:
    """(k,4) pairs a, b, dy, dx with a < b that share an anchor; b lies (dy, dx) pixels from a."""
    split = survey.split.astype(np.uint8)
    tasks = ((str(survey.folder), bucket, usable, split, survey.patch_bits) for bucket in range(BUCKETS))
    found = list(in_order(search_bucket, tasks, processes=processes))
    return decode(distinct(np.concatenate(found)), len(usable))


def shared_slices(dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where two patches show the same place, in a and in b, when b lies (dy, dx) pixels from a."""

    def along(shift: int) -> tuple[slice, slice]:
        low, length = max(shift, 0), SIDE - abs(shift)
        return slice(low, low + length), slice(low - shift, low - shift + length)

    (rows_a, rows_b), (columns_a, columns_b) = along(dy), along(dx)
    return (rows_a, columns_a), (rows_b, columns_b)


def reading_order(pairs: np.ndarray) -> np.ndarray:
    """Order of pairs (k,4) for files larger than memory: strips of first patches, which fit into memory together with
    little else, and in each the second patches as they lie in the file."""
    a, b = pairs[:, 0], pairs[:, 1]
    return np.asarray(np.lexsort((a, b, a // STRIP)))


def pairs_agree(files: Mapping[str, str], pairs: np.ndarray) -> np.ndarray:
    """Which pairs (k,4) are equal in every pixel they share. Work for a process of its own."""
    same = np.zeros(len(pairs), bool)
    with patch_access(files) as fetch:
        for k, (a, b, dy, dx) in enumerate(pairs.tolist()):
            in_a, in_b = shared_slices(dy, dx)
            same[k] = bool((fetch(a)[in_a] == fetch(b)[in_b]).all())
    return same


def find_overlaps(survey: Survey, usable: np.ndarray, files: Mapping[str, str], *, processes: int) -> np.ndarray:
    """(k,4) pairs a < b, dy, dx of usable patches, distinct in their pixels, that show the same place.

    Every pixel of what they share is equal.  usable: (N,) bool.
    """
    pairs = overlap_candidates(survey, usable, processes=processes)
    if len(pairs) == 0:
        return pairs
    pairs = pairs[reading_order(pairs)]
    tasks = ((files, some) for some in np.array_split(pairs, len(pairs) // TASK + 1))
    pairs = pairs[np.concatenate(list(in_order(pairs_agree, tasks, processes=processes)))]
    return np.asarray(pairs[np.lexsort(pairs.T[::-1])])
