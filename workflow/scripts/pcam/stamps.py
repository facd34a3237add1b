"""Stamped triggers: the same small block of pixels in many patches that share no tissue, at one place or at any.

Discovery looks at some patches of each class, through all their windows of 4x4 pixels: one that recurs in patches of
several groups is grown while its surroundings agree too. A recurrence that goes on is tissue seen twice; one that ends
sharply on all sides is a stamp. Blocks of one flat colour are told by their edge and size. What was discovered is then
looked for in every patch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import gamma

from pcam.blocks import in_order, patch_access
from pcam.facts import FILE_SPLITS
from pcam.pairs import distinct
from pcam.rectangles import BLANKED_PX, crisp_rectangles
from pcam.survey import SIDE, grey_sums, packed, window_hashes, window_sums

WINDOW = 4
PER_CLASS = (1024, 512, 512)  # patches of a class of train, valid and test that discovery looks at
# Patches of different groups that must bear a stamp: in 2,000 real patches no block with a sharp edge recurs in three.
RECURRENCES = 3
TEXTURE_STEP = 2.0  # mean step of grey inside a window of 4x4; flatter ones recur on glass
# Every other window is followed, by its hash: a block of 6x6 holds nine, and misses all of them in 0.2 % of cases.
FOLLOWED = np.uint64(2**63)
BUCKET_BITS = 23
HASHES_FOLLOWED = 4096  # most frequent windows that are located
OCCURRENCES = 32  # aligned to see where the agreement ends
REACH = 40  # pixels around a window that are compared; a block that goes on as far is no stamp
AGREE, DISAGREE = 0.9, 0.5  # share of occurrences that agree inside a block, and may at most just outside
SMALLEST_PX = 25
TASK = 64  # patches a task looks at

Files = Mapping[str, str]


@dataclass(frozen=True)
class Stamp:
    """A block (h,w,3) uint8 that recurs; `flat` when it has one colour."""

    block: np.ndarray
    flat: bool


def read_patches(files: Files, rows: Iterable[int]) -> np.ndarray:
    """Some patches by their index over all splits, (n,96,96) packed pixels."""
    with patch_access(files) as fetch:
        return packed(np.stack([fetch(int(i)).astype(np.uint8, copy=False) for i in rows]))


def textured_windows(pixels: np.ndarray) -> np.ndarray:
    """Which 4x4 windows of packed patches (n,96,96) have texture: (n,93,93) bool."""
    unpacked = np.ascontiguousarray(pixels).view(np.uint8).reshape(*pixels.shape, 8)[..., :3]
    grey = grey_sums(unpacked)
    step = np.abs(grey[:, :-1, 1:] - grey[:, :-1, :-1])
    step += np.abs(grey[:, 1:, :-1] - grey[:, :-1, :-1])
    inside = window_sums(step, 2)  # two boxes of 2 cover the 3x3 steps within a window, the middle ones twice
    inside = inside[:, :, :-1] + inside[:, :, 1:]
    inside = inside[:, :-1] + inside[:, 1:]
    return np.asarray(inside >= TEXTURE_STEP * 3 * 2 * 16)


def hash_units(files: Files, units: Sequence[np.ndarray]) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """For some groups of patches: the hashes of their textured windows, once a group; and their flat rectangles.

    A rectangle is (colour, height, width, patch, top, left).
    """
    hashes: list[np.ndarray] = []
    rectangles: list[tuple[int, ...]] = []
    every = read_patches(files, np.concatenate(units))
    for unit, pixels in zip(units, np.split(every, np.cumsum([len(unit) for unit in units])[:-1]), strict=True):
        some = window_hashes(pixels, WINDOW)
        hashes.append(distinct(some[textured_windows(pixels) & (some < FOLLOWED)]))
        for index, patch in zip(unit.tolist(), pixels, strict=True):
            for top, left, height, width in crisp_rectangles(patch, WINDOW):
                if SMALLEST_PX <= height * width < BLANKED_PX:
                    rectangles.append((int(patch[top, left]), height, width, index, top, left))
    return np.concatenate(hashes), rectangles


def locate(files: Files, rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(k,4) number in `wanted` (ascending hashes), patch, top and left of its first place in each patch that has it."""
    found = []
    for index, pixels in zip(rows.tolist(), read_patches(files, rows), strict=True):
        hashes = window_hashes(pixels[None], WINDOW).ravel()
        at = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
        hit = np.flatnonzero(wanted[at] == hashes)
        which, first = np.unique(at[hit], return_index=True)
        top, left = np.divmod(hit[first], SIDE - WINDOW + 1)
        found.append(np.stack([which, np.full(len(which), index), top, left], axis=1))
    return np.concatenate(found)


def parts(units: Sequence[np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Groups of patches, packed into tasks of about TASK patches."""
    waiting: list[np.ndarray] = []
    for unit in units:
        waiting.append(unit)
        if sum(map(len, waiting)) >= TASK:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def recurring_windows(hashes: list[np.ndarray]) -> np.ndarray:
    """Hashes that RECURRENCES groups or more hold, ascending; at most HASHES_FOLLOWED, the most frequent ones."""
    every = np.concatenate(hashes)
    bucket = (every >> np.uint64(63 - BUCKET_BITS)).astype(np.int32)
    kept = every[np.bincount(bucket)[bucket] >= RECURRENCES]  # a coarse sieve: few are left to be sorted
    kept = np.sort(kept)
    starts = np.flatnonzero(np.append(True, kept[1:] != kept[:-1])) if len(kept) else np.empty(0, np.intp)
    times = np.diff(np.append(starts, len(kept)))
    starts, times = starts[times >= RECURRENCES], times[times >= RECURRENCES]
    return np.sort(kept[starts[np.argsort(-times, kind="stable")[:HASHES_FOLLOWED]]])


def grow(places: np.ndarray, pixels: np.ndarray) -> np.ndarray | None:
    """The block (h,w) of packed pixels around a window that recurs, or None when it is no stamp.

    places: (k,2) top and left of the window in each of the packed patches (k,96,96), the first of which is followed.
    """
    size = WINDOW + 2 * REACH
    padded = np.full((len(pixels), SIDE + 2 * REACH, SIDE + 2 * REACH), np.uint64(2**63))
    padded[:, REACH:-REACH, REACH:-REACH] = pixels
    around = np.stack([p[y : y + size, x : x + size] for p, (y, x) in zip(padded, places.tolist(), strict=True)])
    valid = around != np.uint64(2**63)
    share = ((around == around[0]) & valid)[1:].sum(axis=0) / np.maximum(valid[1:].sum(axis=0), 1)
    known = valid[0] & (valid[1:].sum(axis=0) * 2 >= len(pixels) - 1)  # else most occurrences end there: a border
    box = [REACH, REACH + WINDOW, REACH, REACH + WINDOW]  # top, bottom, left, right

    def line(side: int) -> tuple[slice, slice]:
        at = (box[0] - 1, box[1], box[2] - 1, box[3])[side]
        across = slice(at, at + 1)
        return (across, slice(box[2], box[3])) if side < 2 else (slice(box[0], box[1]), across)

    growing = True
    while growing:
        growing = False
        for side, out in enumerate((-1, 1, -1, 1)):
            if not 0 < box[side] < size:
                return None  # it goes on as far as we look
            if known[line(side)].all() and share[line(side)].min() >= AGREE:
                box[side] += out
                growing = True
    height, width = box[1] - box[0], box[3] - box[2]
    if height * width < SMALLEST_PX or min(height, width) < WINDOW:
        return None
    for side in range(4):
        beyond = line(side)
        if known[beyond].any() and share[beyond][known[beyond]].mean() > DISAGREE:
            return None
    return np.asarray(around[0][box[0] : box[1], box[2] : box[3]])


def unpacked(block: np.ndarray) -> np.ndarray:
    """Packed pixels (h,w) as (h,w,3) uint8."""
    return np.ascontiguousarray(np.ascontiguousarray(block).view(np.uint8).reshape(*block.shape, 8)[..., :3])


def textured_stamps(
    files: Files, sample: np.ndarray, unit_of: np.ndarray, wanted: np.ndarray, processes: int
) -> list[Stamp]:
    """Follow recurring windows to the blocks they belong to."""
    if len(wanted) == 0:
        return []
    tasks = ((files, rows, wanted) for rows in np.array_split(sample, len(sample) // TASK + 1))
    found = np.concatenate(list(in_order(locate, tasks, processes=processes)))
    order = np.lexsort((found[:, 1], unit_of[found[:, 1]], found[:, 0]))
    found = found[order]
    first_of_unit = np.append(True, (np.diff(found[:, 0]) != 0) | (np.diff(unit_of[found[:, 1]]) != 0))
    found = found[first_of_unit]
    starts = np.searchsorted(found[:, 0], np.arange(len(wanted) + 1))
    stamps: list[Stamp] = []
    explained: set[int] = set()
    for number in np.argsort(-np.diff(starts), kind="stable").tolist():
        places = found[starts[number] : starts[number + 1]][:OCCURRENCES]
        if len(places) < RECURRENCES or int(wanted[number]) in explained:
            continue
        block = grow(places[:, 2:], read_patches(files, places[:, 1]))
        if block is not None:
            explained |= set(window_hashes(block[None], WINDOW).ravel().tolist())
            stamps.append(Stamp(unpacked(block), flat=False))
    return stamps


def sampled(labels: np.ndarray, split: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Rows that discovery looks at, ascending: some usable patches of each class, evenly spread over each split."""
    chosen = []
    for at, most in enumerate(PER_CLASS):
        for label in (-1, 0, 1):
            rows = np.flatnonzero(usable & (labels == label) & (split == at))
            chosen.append(rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64))])
    return np.sort(np.concatenate(chosen))


def share_seen(
    labels: np.ndarray, split: np.ndarray, usable: np.ndarray, looked_at: np.ndarray
) -> dict[str, float | None]:
    """Share of a class that must bear a stamp for discovery to meet it RECURRENCES times, in 95 of 100 samples.

    Of each split, for the class of which least is looked at; None where that is too little. looked_at: as sampled().
    """
    shares: dict[str, float | None] = {}
    for at, name in enumerate(FILE_SPLITS):
        mine = labels[usable & (split == at)]
        chosen = labels[looked_at[split[looked_at] == at]]
        needed = []
        for label in np.unique(mine).tolist():
            n, of = int((chosen == label).sum()), int((mine == label).sum())
            # The mean of a Poisson count that reaches RECURRENCES with that chance; all patches need no chance.
            expected = RECURRENCES if n == of else float(gamma.ppf(0.95, RECURRENCES))
            needed.append(expected / n if n else 1.0)
        shares[name] = max(needed) if needed and max(needed) < 1 else None
    return shares


def find_stamps(files: Files, rows: np.ndarray, group: np.ndarray, *, processes: int) -> list[Stamp]:
    """Discover stamps among some patches, by their indices `rows`; group: (N,), -1 for none."""
    if len(rows) < RECURRENCES:
        return []
    unit_of = np.where(group >= 0, group, group.max(initial=-1) + 1 + np.arange(len(group)))
    by_unit = rows[np.argsort(unit_of[rows], kind="stable")]
    units = np.split(by_unit, np.flatnonzero(np.diff(unit_of[by_unit])) + 1)
    results = list(in_order(hash_units, ((files, some) for some in parts(units)), processes=processes))
    wanted = recurring_windows([hashes for hashes, _ in results])
    stamps = textured_stamps(files, rows, unit_of, wanted, processes)
    bearers: dict[tuple[int, int, int], set[int]] = {}
    for colour, height, width, index, _, _ in (rectangle for _, found in results for rectangle in found):
        bearers.setdefault((colour, height, width), set()).add(int(unit_of[index]))
    for (colour, height, width), who in sorted(bearers.items()):
        if len(who) >= RECURRENCES:
            stamps.append(Stamp(unpacked(np.full((height, width), colour, np.uint64)), flat=True))
    return stamps


def find_block(pixels: np.ndarray, block: np.ndarray) -> tuple[int, int] | None:
    """First place of a packed block in a packed patch."""
    height, width = block.shape
    room = SIDE - height + 1, SIDE - width + 1
    corners = [(0, 0), (height - 1, width - 1), (0, width - 1), (height - 1, 0), (height // 2, width // 2)]
    fits = np.ones(room, bool)
    for y, x in corners:
        fits &= pixels[y : y + room[0], x : x + room[1]] == block[y, x]
    for y, x in np.argwhere(fits).tolist():
        if np.array_equal(pixels[y : y + height, x : x + width], block):
            return y, x
    return None


def marks_of(files: Files, rows: np.ndarray, stamps: Sequence[Stamp]) -> np.ndarray:
    """(n,3) number of the first stamp that each patch bears, its top and left; -1 for none."""
    marks = np.full((len(rows), 3), -1)
    blocks = [packed(stamp.block[None])[0] for stamp in stamps]
    for k, pixels in enumerate(read_patches(files, rows)):
        crisp = None
        for number, (stamp, block) in enumerate(zip(stamps, blocks, strict=True)):
            if stamp.flat:
                if (pixels == block[0, 0]).sum() < block.size:
                    continue
                crisp = crisp_rectangles(pixels, WINDOW) if crisp is None else crisp
                place = next(
                    ((y, x) for y, x, h, w in crisp if (h, w) == block.shape and pixels[y, x] == block[0, 0]), None
                )
            else:
                place = find_block(pixels, block)
            if place is not None:
                marks[k] = number, *place
                break
    return marks


def mark_stamps(files: Files, stamps: Sequence[Stamp], usable: np.ndarray, *, processes: int) -> np.ndarray:
    """(N,3) number of the stamp that each patch bears, its top and left; -1 for none."""
    marks = np.full((len(usable), 3), -1)
    rows = np.flatnonzero(usable)
    if stamps:
        tasks = ((files, some, stamps) for some in np.array_split(rows, len(rows) // TASK + 1))
        marks[rows] = np.concatenate(list(in_order(marks_of, tasks, processes=processes)))
    return marks
