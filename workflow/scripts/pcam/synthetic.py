"""Cut an H&E-like stand-in for PatchCamelyon from a seed, with planted defects whose rows are known.

Each slide is one canvas of tissue (pcam.tissue); patches are cut from it on a 16-pixel grid, so some of them share
tissue, as in PCam. Valid and test hold faded sections, as train does not: a slice that a model may fail on.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam.facts import GRID_PX, META_COLUMNS, PATCH_BYTES, PATCH_SHAPE, hospital_of
from pcam.settings import SampleSettings
from pcam.tissue import draw_slide

Rng = np.random.Generator
Meta = list[dict[str, Any]]  # one line a patch, keys are PCam's columns
Slides = list[tuple[str, str, str]]  # hospital, kind (tumor or normal), name
PATCH_PX, PATCH_CELLS, CENTRE = 96, 6, slice(2, 4)  # a patch spans 6 grid cells; its centre 32 px are cells 2 and 3
POSITIONS_PER_PATCH = 16  # positions of a canvas for each patch asked: sets how many patches overlap
SIDE_PX = 448, 4096  # the upper limit bounds the memory of a canvas
MIN_TISSUE = 0.35  # share of tissue in a patch: purely white windows would repeat naturally
TUMOUR_SLIDES = 0.6  # share of tumour slides in a split
RING_SHARE = 0.25  # of a tumour slide's negatives, those with tumour outside the centre only
BLACKOUT_NEGATIVES = 0.92  # in the course's set blackouts look concentrated in class 0
BAD_VALUES = 69  # mean number of broken values in a non-finite or out-of-range patch, as in the course's set
BROKEN = {"blackout": 0.0, "washout": 255.0, "non_finite": np.nan, "out_of_range": 100_000.0}
WEAK_SLICE = "weak_slice"  # what planted.csv calls the patches of faded sections
FADED_DEPTH = 0.3  # of the haematoxylin of a faded section: nuclei stay visible
NUMBERS = {"normal": 160, "tumor": 110}  # Camelyon16's training slides of each kind; they tell the hospital


@dataclass(frozen=True)
class SampleSplit:
    """One split: x (N,96,96,3), float32 in 0..255 units with defects for train, else uint8; y (N,) uint8 of 0 and 1;
    meta, N rows with PCam's columns; planted, the truth as (row, kind)."""

    x: np.ndarray
    y: np.ndarray
    meta: Meta
    planted: list[tuple[int, str]]


def grid_cells(mask: np.ndarray) -> np.ndarray:
    """Share of True in the 6x6 grid cells of each possible patch, (rows, cols, 6, 6) float32; mask (side, side)."""
    n = mask.shape[0] // GRID_PX
    share = mask.reshape(n, GRID_PX, n, GRID_PX).mean((1, 3), dtype=np.float32)
    return np.lib.stride_tricks.sliding_window_view(share, (PATCH_CELLS, PATCH_CELLS))


def choose_positions(rng: Rng, tissue: np.ndarray, mask: np.ndarray, negatives: int, positives: int, wsi: str) -> Meta:
    """Distinct patches of one slide, top left corners in pixels of the canvas. Raises: ValueError if too few fit."""
    tumour = grid_cells(mask)
    usable = grid_cells(tissue).mean((2, 3)) >= MIN_TISSUE
    centre = np.asarray(tumour[:, :, CENTRE, CENTRE].any((2, 3)))  # PCam's rule: one tumour pixel in the centre 32x32
    anywhere = np.asarray(tumour.any((2, 3)))
    groups = centre, anywhere & ~centre, ~anywhere
    inside, ring, clear = (rng.permutation(np.flatnonzero(usable & group)) for group in groups)
    if positives > inside.size or negatives > ring.size + clear.size:
        raise ValueError(f"{wsi} lacks positions for {positives} tumour and {negatives} normal patches; add slides.")
    near = max(min(round(RING_SHARE * negatives), ring.size), negatives - clear.size)
    chosen = np.concatenate([inside[:positives], ring[:near], clear[: negatives - near]])
    found = (divmod(int(at), centre.shape[1]) for at in chosen)
    lines = ((i * GRID_PX, j * GRID_PX, bool(anywhere[i, j]), bool(centre[i, j]), wsi) for i, j in found)
    return [dict(zip(META_COLUMNS, line, strict=True)) for line in lines]


def plan_slides(rng: Rng, counts: dict[str, tuple[int, int]]) -> dict[str, Slides]:
    """(hospital, kind, name) of each set of slides; counts: how many hold tumour, which come first, and how many none.

    Raises: ValueError if names run out."""
    names = [f"camelyon16_train_{kind}_{k:03d}" for kind, last in NUMBERS.items() for k in rng.permutation(last) + 1]
    plan: dict[str, Slides] = {split: [] for split in counts}
    for split, (tumours, normals) in counts.items():
        for k in range(tumours + normals):
            kind, turn = ("tumor", k) if k < tumours else ("normal", k - tumours)
            hospital = "UMCU" if turn % 5 in (1, 3) else "RUMC"  # three of five from RUMC
            left = [name for name in names if kind in name and hospital_of(name) == hospital]
            if not left:
                raise ValueError(f"Camelyon16 has no more {kind} slides of {hospital} for {split}; ask for fewer.")
            names.remove(left[0])
            plan[split].append((hospital, kind, left[0]))
    return plan


def cut_split(seed: int, order: int, slides: Slides, faded: Slides, patches: int, positives: int) -> SampleSplit:
    """A clean uint8 split, rows in random order; each slide has a generator of its own: seed, split, slide.

    Each of the faded slides, of kind tumor, gives one tumour and one normal patch; `slides` give all others."""
    tumours = sum(kind == "tumor" for _, kind, _ in slides)
    rest, others = positives - len(faded), patches - positives - len(faded)
    x = np.empty((patches, *PATCH_SHAPE), np.uint8)
    meta: Meta = []
    for k, (hospital, kind, name) in enumerate([*slides, *faded]):
        ordinary = k < len(slides)
        # Shares differ by one at most, of all patches and of the tumours.
        negative = (others + len(slides) - 1 - k) // len(slides) if ordinary else 1
        positive = ((rest + tumours - 1 - k) // tumours if k < tumours else 0) if ordinary else 1
        rng = np.random.default_rng([seed, order, k if ordinary else k + 1])  # the number between mixes the rows
        cells = int(np.ceil(np.sqrt(POSITIONS_PER_PATCH * (negative + positive)))) + PATCH_CELLS - 1
        side = int(np.clip(cells * GRID_PX, *SIDE_PX))
        image, tissue, mask = draw_slide(rng, hospital, kind, side, 1.0 if ordinary else FADED_DEPTH)
        for line in choose_positions(rng, tissue, mask, negative, positive, name):
            x[len(meta)] = image[line["coord_y"] :, line["coord_x"] :][:PATCH_PX, :PATCH_PX]
            meta.append(line)
    mixed = np.random.default_rng([seed, order, len(slides)]).permutation(patches)
    y = np.array([line["center_tumor_patch"] for line in meta], np.uint8)
    pale = {name for _, _, name in faded}
    meta = [meta[i] for i in mixed]
    return SampleSplit(
        x[mixed], y[mixed], meta, [(i, WEAK_SLICE) for i, line in enumerate(meta) if line["wsi"] in pale]
    )


def take(free: list[int], count: int, y: np.ndarray, label: int | None = None) -> list[int]:
    """Remove and return the first free rows, of one label if given. Raises: ValueError when too few are left."""
    rows = [i for i in free if label is None or y[i] == label][:count]
    if len(rows) < count:
        raise ValueError(f"Too few clean training rows for the defects asked: {count} needed, {len(rows)} left.")
    for i in rows:
        free.remove(i)
    return rows


def plant_copies(rng: Rng, free: list[int], settings: SampleSettings, splits: dict[str, SampleSplit]) -> None:
    """Overwrite training rows with copies, in place; source and target have the same label, so no share of it moves.

    A copy within train takes over the position too, as PCam sampled with replacement; a copy from another split keeps
    its own slide, so that pixels alone betray it."""
    train = splits["train"]
    order = {}
    for name in ("valid", "test"):
        weak = {row for row, _ in splits[name].planted}  # a copy of one would show it to the training
        order[name] = [row for row in rng.permutation(splits[name].y.size).tolist() if row not in weak]
    crossing = [("valid", "test")[k % 2] for k in range(settings.cross_split_pairs)]
    for name in ["train"] * settings.duplicate_pairs + crossing:
        other, within = splits[name], name == "train"
        source = take(free, 1, train.y)[0] if within else order[name].pop()
        copy = take(free, 1, train.y, other.y[source])[0]
        train.x[copy] = other.x[source]
        train.meta[copy] |= {key: other.meta[source][key] for key in (META_COLUMNS if within else ["tumor_patch"])}
        for split, row in ((train, copy), (other, source)):
            split.planted.append((row, "exact_duplicate" if within else "cross_split_duplicate"))


def plant_defects(rng: Rng, free: list[int], amounts: dict[str, int], train: SampleSplit) -> None:
    """Break whole training patches (float32) in place, `amounts` rows of each kind."""
    black = min(round(BLACKOUT_NEGATIVES * amounts["blackout"]), sum(train.y[i] == 0 for i in free))
    rows = {"blackout": take(free, black, train.y, 0) + take(free, amounts["blackout"] - black, train.y)}
    for kind, value in BROKEN.items():
        rows.setdefault(kind, []).extend(take(free, amounts[kind] - len(rows[kind]), train.y))
        whole = kind in ("blackout", "washout")
        kinds = [kind, "exact_duplicate"] if whole and len(rows[kind]) > 1 else [kind]  # uniform patches are copies
        for i in rows[kind]:
            count = max(1, rng.poisson(BAD_VALUES))
            train.x[i].reshape(-1)[slice(None) if whole else rng.choice(PATCH_BYTES, count, replace=False)] = value
            train.planted.extend((i, truth) for truth in kinds)


def synthesize(settings: SampleSettings) -> dict[str, SampleSplit]:
    """The splits train, valid and test. Raises: ValueError when defects, patches or slides are too many."""
    sizes = {split: getattr(settings, f"{split}_patches") for split in ("train", "valid", "test")}
    slides = {split: getattr(settings, f"{split}_slides") for split in sizes}
    amounts = {kind: round(getattr(settings, f"{kind}_rate") * sizes["train"]) for kind in BROKEN}
    needed = sum(amounts.values()) + 2 * settings.duplicate_pairs + settings.cross_split_pairs
    if 4 * settings.faded_slides > min(sizes["valid"], sizes["test"]):
        raise ValueError(
            f"{settings.faded_slides} faded slides of two patches each are more than half of valid or test."
        )
    if (
        needed > sizes["train"]
        or settings.cross_split_pairs > 2 * min(sizes["valid"], sizes["test"]) - 4 * settings.faded_slides
        or min(slides.values()) < 1
    ):
        raise ValueError(f"{sizes} patches of {slides} slides cannot hold {needed} broken or copied training rows.")
    rng = np.random.default_rng([settings.seed, len(slides)])
    splits = {}
    tumours = {split: max(1, round(TUMOUR_SLIDES * count)) for split, count in slides.items()}
    counts = {split: (tumours[split], count - tumours[split]) for split, count in slides.items()}
    plan = plan_slides(rng, counts | {f"faded {split}": (settings.faded_slides, 0) for split in ("valid", "test")})
    for order, split in enumerate(slides):
        positives = round((settings.train_positive_rate if split == "train" else 0.5) * sizes[split])
        splits[split] = cut_split(
            settings.seed, order, plan[split], plan.get(f"faded {split}", []), sizes[split], positives
        )
    train = splits["train"]
    free = rng.permutation(train.y.size).tolist()
    plant_copies(rng, free, settings, splits)
    splits["train"] = SampleSplit(train.x.astype(np.float32), train.y, train.meta, train.planted)
    plant_defects(rng, free, amounts, splits["train"])
    return splits
