"""Rectangles of exactly one colour inside a patch: what blanking and stamping leave, and tissue does not."""

import numpy as np
from scipy import ndimage

from pcam.survey import flat_windows

# Share of the pixels around a rectangle that must differ from it by 8 grey levels or more. Glass holds squares of one
# colour as well, 8x8 in JPEG blocks, but beyond their edge it goes on in nearly the same colour.
EDGE_SHARE, EDGE_STEP = 0.5, 3 * 8
# Smallest rectangle that is called blanked, a 32nd of the patch, both sides of 8 pixels or more; a stamp is smaller.
BLANKED_PX = 288


def channel_sums(pixels: np.ndarray) -> np.ndarray:
    """Sum of the channels of packed pixels, int64."""
    parts = [(pixels >> np.uint64(shift)) & np.uint64(255) for shift in (0, 8, 16)]
    return np.asarray(sum(parts)).astype(np.int64)


def edge_share(pixels: np.ndarray, top: int, left: int, bottom: int, right: int) -> float:
    """Share of the pixels around a rectangle, inside the patch, that differ from its colour; 0 for the whole patch."""
    up, before = max(top - 1, 0), max(left - 1, 0)
    around = pixels[up : bottom + 1, before : right + 1]
    outside = np.ones(around.shape, bool)
    outside[top - up : bottom - up, left - before : right - before] = False
    if not outside.any():
        return 0.0
    step = np.abs(channel_sums(around[outside]) - channel_sums(pixels[top : top + 1, left])[0])
    return float((step >= EDGE_STEP).mean())


def crisp_rectangles(pixels: np.ndarray, side: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the rectangles of one colour, of sides >= side, with an edge: packed (96,96).

    A rectangle shows as a rectangle of one-colour windows, which a stray pixel of its colour beside it does not change.
    """
    flat = flat_windows(pixels[None], side)[0]
    if not flat.any():
        return []
    marked, _ = ndimage.label(flat)
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(marked), 1):
        if not (marked[rows, columns] == number).all():
            continue
        top, left, bottom, right = rows.start, columns.start, rows.stop + side - 1, columns.stop + side - 1
        if edge_share(pixels, top, left, bottom, right) >= EDGE_SHARE:
            found.append((top, left, bottom - top, right - left))
    return found
