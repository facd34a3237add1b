"""Detectors of defects in patches. They witness: which finding matters, and what is done about it, policy decides."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from pcam.facts import CLASSES, FILE_SPLITS, GRID_PX, PATCH_SHAPE
from pcam.hdf5 import check_pair
from pcam.metrics import wilson_interval

POISON_KINDS = ("non_finite", "out_of_range", "blackout", "washout", "constant")
LEAKAGE_KINDS = ("label_conflict", "exact_duplicate", "cross_split_duplicate", "overlap")

SIDE = PATCH_SHAPE[0] // GRID_PX  # blocks along one side of a patch
BLOCKS = SIDE * SIDE
WORDS = GRID_PX * PATCH_SHAPE[2] // 8  # 64-bit words in one pixel row of a block
# A block needs this standard deviation of grey (0..255) to tell one place from another: glass repeats. On 2,000 real
# patches every threshold from 0.5 to 10 gives the same 77 pairs, and none at all 81.
TEXTURE_STD = 3.0
# One block of tissue stands at most at 36 places of a patch, so among distinct patches a larger group of equal blocks
# is no overlap but a pattern that repeats: there only neighbours are compared, which keeps the work linear.
PAIRWISE_LIMIT = BLOCKS
# Any odd numbers serve: equal blocks hash equally under all of them, and unequal ones are told apart on the pixels.
_MULTIPLIERS = np.random.default_rng(16).integers(2**63, size=(GRID_PX, 1, WORDS), dtype=np.uint64) | np.uint64(1)


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


def poison_masks(seen: Look) -> dict[str, np.ndarray]:
    """Which patches show which kind of poison; a patch may show several."""
    black, white = ((seen.low == value) & (seen.high == value) for value in (0, 255))
    return {
        "non_finite": ~seen.finite,
        "out_of_range": (seen.low < 0) | (seen.high > 255),
        "blackout": black & seen.finite,
        "washout": white & seen.finite,
        "constant": seen.uniform & ~black & ~white & ~np.isnan(seen.low),
    }


def as_uint8(patches: np.ndarray, seen: Look) -> tuple[np.ndarray, np.ndarray]:
    """Patches as uint8, and for which of them nothing is lost by that (the others hold arbitrary values)."""
    if patches.dtype == np.uint8:
        return patches, np.ones(len(patches), bool)
    with np.errstate(invalid="ignore"):
        small = patches.astype(np.uint8)
    inside = seen.finite & (seen.low >= 0) & (seen.high <= 255)
    return small, inside & (small == patches).reshape(len(patches), -1).all(axis=1)


def contents(patches: np.ndarray, small: np.ndarray, lossless: np.ndarray) -> Iterator[bytes]:
    """What two patches share exactly when they are pixel-identical, whatever dtype each is stored in, as bytes."""
    for i, as_small in enumerate(lossless):
        with np.errstate(over="ignore"):
            yield small[i].tobytes() if as_small else patches[i].astype(np.float32).tobytes()


def content_digest(data: bytes) -> bytes:
    """128 bits that name a content."""
    return hashlib.blake2b(data, digest_size=16).digest()


def first_of_content(digests: Sequence[bytes]) -> np.ndarray:
    """For each patch the index of the first patch of the same digest."""
    # S16 ignores trailing zero bytes; among digests of one length that changes no comparison.
    _, first, inverse = np.unique(np.array(digests, dtype="S16"), return_index=True, return_inverse=True)
    return np.asarray(first[inverse])


def block_hashes(small: np.ndarray) -> np.ndarray:
    """64-bit hashes (N,36) of the 16x16 blocks of uint8 patches (N,96,96,3), row by row."""
    words = np.ascontiguousarray(small).reshape(len(small), PATCH_SHAPE[0], -1).view(np.uint64)
    words = words ^ (words >> np.uint64(29))  # else a change in the top byte alone would reach only eight bits
    products = words.reshape(-1, SIDE, GRID_PX, SIDE, WORDS) * _MULTIPLIERS
    return np.asarray(products.sum(axis=(2, 4), dtype=np.uint64).reshape(-1, BLOCKS))


def block_texture(small: np.ndarray) -> np.ndarray:
    """Standard deviation of grey (0..255) in each of the 36 blocks of uint8 patches: (N,36)."""
    grey = small[..., 0].astype(np.int32) + small[..., 1] + small[..., 2]  # three times the grey level
    blocks = grey.reshape(-1, SIDE, GRID_PX, SIDE, GRID_PX)
    total = blocks.sum(axis=(2, 4), dtype=np.int64)
    squares = np.einsum("nrycx,nrycx->nrc", blocks, blocks).astype(np.int64)
    pixels = GRID_PX * GRID_PX
    return np.asarray(np.sqrt(pixels * squares - total**2) / (3 * pixels)).reshape(-1, BLOCKS)


def overlap_candidates(hashes: np.ndarray, usable: np.ndarray, limit: int = PAIRWISE_LIMIT) -> np.ndarray:
    """Pairs (a, b, dy, dx), a < b, of patches that share a usable block with b lying (dy, dx) blocks from a.

    hashes and usable are (N,36). All pairs of a group of equal blocks up to `limit`, neighbours alone beyond it.
    """
    n = len(hashes)
    at = np.flatnonzero(usable)
    at = at[np.argsort(hashes.ravel()[at], kind="stable")]
    keys = hashes.ravel()[at]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, np.intp)
    sizes = np.diff(np.append(starts, len(keys)))
    size_at = np.repeat(sizes, sizes)
    codes = np.empty(0, np.int64)
    for step in range(1, min(int(sizes.max(initial=0)), limit + 1)):
        equal = keys[step:] == keys[:-step]
        i = np.flatnonzero(equal if step == 1 else equal & (size_at[step:] <= limit))
        a, b = at[i], at[i + step]
        dy, dx = a % BLOCKS // SIDE - b % BLOCKS // SIDE, a % SIDE - b % SIDE
        apart = (a // BLOCKS != b // BLOCKS) & ((dy != 0) | (dx != 0))
        code = ((a // BLOCKS * n + b // BLOCKS) * 11 + dy + 5) * 11 + dx + 5
        codes = np.union1d(codes, code[apart])
    pair, dx = np.divmod(codes, 11)
    pair, dy = np.divmod(pair, 11)
    return np.stack([pair // max(n, 1), pair % max(n, 1), dy - 5, dx - 5], axis=1)


def shared_slices(dy: int, dx: int, unit: int = 1) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where two patches show the same place, in a and in b, when b lies (dy, dx) blocks from a."""

    def along(shift: int) -> tuple[slice, slice]:
        low, length = max(shift, 0), SIDE - abs(shift)
        return slice(low * unit, (low + length) * unit), slice((low - shift) * unit, (low - shift + length) * unit)

    (rows_a, rows_b), (columns_a, columns_b) = along(dy), along(dx)
    return (rows_a, columns_a), (rows_b, columns_b)


def hashes_agree(hashes: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Which pairs have equal hashes in every block they would share: all that are worth reading pixels for."""
    grid = hashes.reshape(-1, SIDE, SIDE)
    agree = np.zeros(len(pairs), bool)
    for dy, dx in np.unique(pairs[:, 2:], axis=0):
        which = np.flatnonzero((pairs[:, 2] == dy) & (pairs[:, 3] == dx))
        in_a, in_b = shared_slices(int(dy), int(dx))
        for part in np.array_split(which, len(which) // 65_536 + 1):
            agree[part] = (grid[pairs[part, 0]][:, *in_a] == grid[pairs[part, 1]][:, *in_b]).all(axis=(1, 2))
    return agree


def reading_order(pairs: np.ndarray, n: int) -> np.ndarray:
    """Order of pairs in which a small cache of patches serves: neighbours in the graph of pairs stand together."""
    edges = sparse.coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(n, n)).tocsr()
    rank = np.empty(n, np.int64)
    rank[csgraph.reverse_cuthill_mckee(edges + edges.T, symmetric_mode=True)] = np.arange(n)
    first, second = np.sort(rank[pairs[:, :2]], axis=1).T
    return np.asarray(np.lexsort((second, first)))


def find_overlaps(hashes: np.ndarray, usable: np.ndarray, fetch: Callable[[int], np.ndarray]) -> np.ndarray:
    """Pairs (a, b, dy, dx) of patches that show the same place: every pixel of what they share is equal.

    `usable` marks the textured blocks that may suggest a pair; `fetch` gives one patch as uint8 (96,96,3).
    """
    pairs = overlap_candidates(hashes, usable)
    pairs = pairs[hashes_agree(hashes, pairs)]
    same = np.zeros(len(pairs), bool)
    for k in reading_order(pairs, len(hashes)) if len(pairs) else ():
        a, b, dy, dx = pairs[k].tolist()
        in_a, in_b = shared_slices(dy, dx, GRID_PX)
        same[k] = np.array_equal(fetch(a)[in_a], fetch(b)[in_b])
    return np.asarray(pairs[same])


@dataclass(frozen=True)
class Leaks:
    """Leakage by patch, over all splits together.

    flags: kind to mask.  partners: kind to a bit a split (1 train, 2 valid, 4 test) where the patch has a partner.
    group: number of the connected component over pixel identity and overlap, -1 for none; blank patches have none.
    pairs: kind to (3,3) counts of pairs of non-blank patches, earlier split first.
    """

    flags: dict[str, np.ndarray]
    partners: dict[str, np.ndarray]
    group: np.ndarray
    pairs: dict[str, np.ndarray]


def unordered(counts: np.ndarray) -> np.ndarray:
    """Symmetric counts of ordered pairs as counts of pairs: the diagonal halved, the upper triangle kept."""
    return np.asarray(np.triu(counts, 1) + np.diag(np.diag(counts) // 2))


def find_leaks(
    split: np.ndarray, labels: np.ndarray, blank: np.ndarray, first: np.ndarray, overlaps: np.ndarray
) -> Leaks:
    """Leakage from pixel identity (`first`: index of the first identical patch) and overlaps between those first ones.

    split: 0, 1, 2 for train, valid, test.  labels: 0, 1, or -1 when unknown.
    """
    n = len(split)
    count = np.zeros((n, len(FILE_SPLITS)), np.int64)
    np.add.at(count, (first, split), 1)
    bits = (count > 0) @ np.array([1, 2, 4])
    own_bit, own_count, members = 1 << split, count[first, split], count.sum(axis=1)[first]
    others = (bits[first] & ~own_bit) | np.where(own_count > 1, own_bit, 0)

    overlaps = np.unique(overlaps[:, :2], axis=0)  # a pattern that repeats may match at several shifts
    both = np.zeros((n, 2), bool)
    both[first[labels >= 0], labels[labels >= 0]] = True
    near = np.zeros(n, np.int64)
    for one, other in ((0, 1), (1, 0)):
        np.bitwise_or.at(near, overlaps[:, one], bits[overlaps[:, other]])

    flags = {
        "label_conflict": (both[:, 0] & both[:, 1])[first] & ~blank,
        "exact_duplicate": own_count > 1,
        "cross_split_duplicate": members > own_count,
        "overlap": near[first] > 0,
    }
    partners = {
        "label_conflict": others,
        "exact_duplicate": own_bit,
        "cross_split_duplicate": bits[first] & ~own_bit,
        "overlap": near[first],
    }
    linked = np.flatnonzero((first != np.arange(n)) & ~blank)
    ends = np.concatenate([np.stack([first[linked], linked]), overlaps.T], axis=1)
    _, component = csgraph.connected_components(sparse.coo_array((np.ones(ends.shape[1]), tuple(ends)), shape=(n, n)))
    grouped = np.zeros(n, bool)
    grouped[ends.ravel()] = True
    group = np.full(n, -1)
    _, start, inverse = np.unique(component[grouped], return_index=True, return_inverse=True)
    group[grouped] = np.argsort(np.argsort(start))[inverse]  # numbered by first member
    textured = count[(first == np.arange(n)) & ~blank]
    twins = textured.T @ textured - np.diag(textured.sum(axis=0))
    met = count[overlaps[:, 0]].T @ count[overlaps[:, 1]]
    return Leaks(flags, partners, group, {"exact_duplicate": unordered(twins), "overlap": unordered(met + met.T)})
