"""Patches that are damaged or made up: no picture at all, partly blanked, stamped, or far from all others."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from pcam.blocks import in_order, patch_access
from pcam.facts import FILE_SPLITS
from pcam.rectangles import BLANKED_PX, crisp_rectangles
from pcam.stamps import Stamp, find_stamps, mark_stamps, sampled, share_seen
from pcam.survey import CELL_PX, WINDOW_PX, Patches, Survey, packed

# Kinds that each patch tells by itself, beyond doubt; kinds told by other patches, which are suspicions.
EXACT_KINDS = ("non_finite", "out_of_range", "blackout", "washout", "constant", "partly_blanked")
OUTLIER_KINDS = ("channel_swap", "blur_outlier", "intensity_outlier")
POISON_KINDS = (*EXACT_KINDS, "trigger", *OUTLIER_KINDS)

# What makes an outlier, set on plantings into the embedded sample and into 2,000 real patches; score_audit measures
# what that finds. Log odds of another order of channels; multiples of the distance from the median to the quartile,
# which damage to less than a quarter of all patches leaves in place; and the least distance that matters where all
# patches are alike: a factor of sharpness, grey levels.
SWAP_ODDS = 6.0
BLUR_BEYOND, DARK_BEYOND, LIGHT_BEYOND = 7.0, 5.0, 6.0
BLUR_FACTOR, INTENSITY_STEP = 1.5, 20.0
CONTRAST = 2.0  # mean step of grey over 4 pixels below which blur cannot be told
SIGNIFICANT = 0.01  # level, after adjustment, at which damage is called dependent on the class
CANDIDATES = 64  # patches a task looks at
CHUNK = 8192  # patches whose cells are floats at a time: 13 MB
PAIRS = ((0, 1), (0, 2), (1, 2))  # of channels


@dataclass(frozen=True)
class Poison:
    """Poison by patch, over all splits together.

    flags: kind to mask.  stamps: those found.  marks: (N,3) number of the stamp a patch bears, its top and left; -1.
    stamp_share_seen: split to the share of a class that must bear a stamp for discovery to meet it.
    """

    flags: dict[str, np.ndarray]
    stamps: list[Stamp]
    marks: np.ndarray
    stamp_share_seen: dict[str, float | None]


def value_masks(patches: Patches) -> dict[str, np.ndarray]:
    """The kinds that extremes and uniformity tell; a patch may show several."""
    black, white = ((patches.low == value) & (patches.high == value) for value in (0, 255))
    return {
        "non_finite": ~patches.finite,
        "out_of_range": (patches.low < 0) | (patches.high > 255),
        "blackout": black & patches.finite,
        "washout": white & patches.finite,
        "constant": patches.uniform & ~black & ~white & ~np.isnan(patches.low),
    }


def blanked_among(x_files: Mapping[str, str], rows: np.ndarray) -> np.ndarray:
    """Which of some patches hold a blanked rectangle. Work for a process of its own."""
    with patch_access(x_files) as fetch:
        return np.array([has_blank(fetch(int(i)).astype(np.uint8, copy=False)) for i in rows], bool)


def has_blank(patch: np.ndarray) -> bool:
    """Whether a patch (96,96,3) uint8 holds a crisp rectangle of one colour of BLANKED_PX pixels or more."""
    return any(h * w >= BLANKED_PX for _, _, h, w in crisp_rectangles(packed(patch[None])[0], WINDOW_PX))


def partly_blanked(survey: Survey, x_files: Mapping[str, str], *, processes: int) -> np.ndarray:
    """(N,) patches that hold a blanked rectangle but are not of one colour."""
    patches = survey.patches
    windows = (BLANKED_PX // WINDOW_PX) - WINDOW_PX + 1  # of 8x8 in the narrowest such rectangle
    at = np.flatnonzero((patches.flat >= windows) & patches.lossless & ~patches.uniform)
    out = np.zeros(len(survey), bool)
    tasks = [(dict(x_files), part) for part in np.array_split(at, len(at) // CANDIDATES + 1)]
    out[at] = np.concatenate(list(in_order(blanked_among, tasks, processes=processes)))
    return out


def beyond(values: np.ndarray, side: int, factor: float) -> np.ndarray:
    """Which values lie `factor` times as far from the median as the quartile on that side (-1 or 1)."""
    middle = float(np.median(values))
    quartile = float(np.quantile(values, 0.25 if side < 0 else 0.75))
    return np.asarray((values - middle) * side > factor * abs(quartile - middle))


def colours(cells: np.ndarray) -> np.ndarray:
    """(n,9) of cells (n,h,w,3): mean, log spread and correlations of optical density over the cells of a patch."""
    parts = []
    for start in range(0, len(cells), CHUNK):  # floats take eight times the room of the cells
        some = cells[start : start + CHUNK]
        density = -np.log((some / CELL_PX**2 + 1) / 256).reshape(len(some), -1, 3)
        mean = density.mean(axis=1)
        apart = density - mean[:, None]
        covariance = np.einsum("npi,npj->nij", apart, apart) / density.shape[1]
        spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 1e-6))
        cross = [covariance[:, i, j] / (spread[:, i] * spread[:, j]) for i, j in PAIRS]
        parts.append(np.concatenate([mean, np.log(spread), np.stack(cross, axis=1)], axis=1))
    return np.concatenate(parts)


def reordered(colour: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """What colours() gives for the same cells with their channels in another order."""
    pairs = [PAIRS.index((min(order[i], order[j]), max(order[i], order[j]))) for i, j in PAIRS]
    return colour[:, [*order, *(3 + channel for channel in order), *(6 + pair for pair in pairs)]]


def swap_odds(colour: np.ndarray) -> np.ndarray:
    """(n,) log odds that some other order of the channels fits patches (n,9) better than the one they have.

    A Gaussian is fitted to the colours of all, without the quarter that lies farthest from it.
    """
    kept = np.ones(len(colour), bool)
    for _ in range(5):
        centre, inverse = colour[kept].mean(axis=0), np.linalg.pinv(np.cov(colour[kept].T))
        distance = np.einsum("ni,ij,nj->n", colour - centre, inverse, colour - centre)
        kept = distance <= np.quantile(distance, 0.75)
    best = np.full(len(colour), np.inf)
    for order in permutations(range(3)):
        if order != (0, 1, 2):
            other = reordered(colour, order) - centre
            best = np.minimum(best, np.einsum("ni,ij,nj->n", other, inverse, other))
    return np.asarray((distance - best) / 2)


def swapped_channels(cells: np.ndarray) -> np.ndarray:
    """Which patches, by their cells (n,8,8,3), look like the others only with their channels in another order.

    Each quarter must say so as well: a stamp or a strange part makes one of them odd, and not all.
    """
    half = cells.shape[1] // 2
    odd = swap_odds(colours(cells)) >= SWAP_ODDS
    for rows in (slice(None, half), slice(half, None)):
        for columns in (slice(None, half), slice(half, None)):
            odd &= swap_odds(colours(cells[:, rows, columns])) > 0
    return np.asarray(odd)


def outliers(patches: Patches, usable: np.ndarray) -> dict[str, np.ndarray]:
    """Suspicions by comparison with all usable patches: swapped channels, blur, intensity."""
    at = np.flatnonzero(usable)
    flags = {kind: np.zeros(len(usable), bool) for kind in OUTLIER_KINDS}
    if len(at) < 30:  # too few to say what is usual
        return flags
    curvature, step = patches.detail[at].T.astype(np.float64)
    tells = step >= CONTRAST
    sharpness = np.log((curvature[tells] + 0.05) / (step[tells] + 0.05))
    weaker = sharpness < np.median(sharpness) - np.log(BLUR_FACTOR)
    flags["blur_outlier"][at[tells]] = beyond(sharpness, -1, BLUR_BEYOND) & weaker
    grey = patches.cells[at].sum(axis=3, dtype=np.uint32).reshape(len(at), -1) / (3 * CELL_PX**2)
    # A darkened patch has no light place left, a brightened one no dark place; a mean would tell how much is glass.
    for extreme, side, factor in ((grey.max(axis=1), -1, DARK_BEYOND), (grey.min(axis=1), 1, LIGHT_BEYOND)):
        far = (extreme - np.median(extreme)) * side > INTENSITY_STEP
        flags["intensity_outlier"][at] |= far & beyond(extreme, side, factor)
    flags["channel_swap"][at] = swapped_channels(patches.cells[at])
    return flags


def find_poison(
    survey: Survey, labels: np.ndarray, group: np.ndarray, x_files: Mapping[str, str], *, processes: int
) -> Poison:
    """Search every kind. labels: (N,) 0, 1, or -1 when unknown; group: (N,) as Leakage has it, -1 for none."""
    files = {split: x_files[split] for split in FILE_SPLITS}
    flags = value_masks(survey.patches)
    flags["partly_blanked"] = partly_blanked(survey, files, processes=processes)
    usable = survey.patches.lossless & ~survey.patches.uniform
    looked_at = sampled(labels, survey.split, usable)
    share = share_seen(labels, survey.split, usable, looked_at)
    stamps = find_stamps(files, looked_at, group, processes=processes)
    marks = mark_stamps(files, stamps, usable, processes=processes)
    flags["trigger"] = marks[:, 0] >= 0
    flags |= outliers(survey.patches, usable & ~flags["partly_blanked"])
    return Poison({kind: flags[kind] for kind in POISON_KINDS}, stamps, marks, share)


def damage_by_class(flags: Mapping[str, np.ndarray], labels: np.ndarray, split: np.ndarray) -> list[dict[str, Any]]:
    """Whether damage goes with the class: a line for each split and kind found there that both classes could show.

    Fisher's exact test of each kind against the class, adjusted by Holm's rule for all lines. Outliers are left out:
    blur and colour go with the slide, and slides with the class, without anybody's doing. flags: kind to mask (N,).
    labels: (N,) 0, 1, -1 when unknown.  split: (N,) 0, 1, 2.
    """
    lines: list[dict[str, Any]] = []
    for at, name in enumerate(FILE_SPLITS):
        counts = np.array([((labels == label) & (split == at)).sum() for label in (0, 1)])
        for kind in (*EXACT_KINDS, "trigger"):
            hit = np.array([(flags[kind] & (labels == label) & (split == at)).sum() for label in (0, 1)])
            if counts.all() and hit.sum():
                p = float(fisher_exact([hit, counts - hit]).pvalue)
                lines.append({"split": name, "kind": kind, "n": hit.tolist(), "of": counts.tolist(), "p": p})
    floor = 0.0
    for rank, line in enumerate(sorted(lines, key=lambda line: line["p"])):
        floor = line["p_holm"] = max(floor, min(1.0, line["p"] * (len(lines) - rank)))
        line |= {"level": SIGNIFICANT, "depends": line["p_holm"] < SIGNIFICANT}
    return lines
