"""Draw an H&E-like stand-in for PatchCamelyon from a seed, with planted defects whose rows are known.

Each slide is one canvas of tissue at 10x (about 1 um per pixel) with its own stains; patches are cut from it on a
16-pixel grid, so some of them share tissue, as in PCam. Tumour differs from normal tissue by structure (large,
irregular, pleomorphic nuclei) and hardly by colour. Only elementwise numpy and seeded generators are used, so the bits
depend on the settings and never on the number of threads.
"""

from dataclasses import dataclass

import numpy as np

from pcam.settings import SampleSettings

GRID_PX = 16  # PCam was cut on this grid of the 10x image
PATCH_CELLS, CENTRE = 6, slice(2, 4)  # a 96-px patch spans 6 grid cells; its centre 32 px are cells 2 and 3
PATCH_PX = GRID_PX * PATCH_CELLS
POSITIONS_PER_PATCH = 16  # positions of a canvas for each patch asked: sets how many patches overlap
SIDE_PX_LIMITS = 448, 4096  # the upper one bounds the memory of a canvas
MARGIN_PX = 16  # canvas border that takes the half-drawn nuclei
MIN_TISSUE = 0.35  # share of tissue in a patch: purely white windows would repeat naturally
TUMOUR_SLIDES = 0.6  # share of tumour slides in a split
RING_SHARE = 0.25  # of a tumour slide's negatives, those with tumour outside the centre only
BLACKOUT_NEGATIVES = 0.92  # in the course's set blackouts look concentrated in class 0
BAD_VALUE_RATE, OUT_OF_RANGE_VALUE = 69 / 27_648, 100_000.0

# What tells tumour from normal tissue, and with it the difficulty: radii in pixels, depth of stain, spacing in pixels.
LYMPHOCYTE = dict(radius=(2.5, 3.8), stretch=(1.0, 1.3), ragged=0.06, rim=0.15, body=(0.5, 1.0), nucleoli=0.0)
HISTIOCYTE = dict(radius=(3.6, 5.4), stretch=(1.1, 1.7), ragged=0.08, rim=0.3, body=(0.25, 0.7), nucleoli=0.5)
SPINDLE = dict(radius=(2.6, 3.6), stretch=(2.2, 3.6), ragged=0.05, rim=0.1, body=(0.6, 0.9), nucleoli=0.0)
TUMOUR = dict(radius=(4.4, 8.0), stretch=(1.0, 1.6), ragged=0.16, rim=0.3, body=(0.2, 0.85), nucleoli=1.2)
DEPTH_SPREAD = 0.06  # slide to slide, for each kind of nucleus: no depth of stain belongs to tumour alone
STAMP_PX, STAMPS = 27, 160  # drawn nuclei of each kind, reused at random
SPACING_PX = {"lymphocyte": 7.2, "histiocyte": 11.0, "spindle": 15.0, "tumour": 14.8}

# Optical density for red, green, blue of haematoxylin and eosin, and the brightness of empty glass, by hospital.
STAINS = {
    "RUMC": (np.array([0.60, 0.72, 0.46]), np.array([0.17, 0.62, 0.42]), 240.0),
    "UMCU": (np.array([0.78, 0.80, 0.28]), np.array([0.26, 0.72, 0.20]), 232.0),
}
SLIDE_NUMBERS = {  # the numbers from which PCam's users read the hospital
    ("RUMC", "normal"): range(1, 101),
    ("RUMC", "tumor"): range(1, 71),
    ("UMCU", "normal"): range(101, 161),
    ("UMCU", "tumor"): range(71, 111),
}


@dataclass(frozen=True)
class SampleSplit:
    """One split: x (N,96,96,3), float32 in 0..255 units with defects for train, else uint8; y (N,) uint8 of 0 and 1;
    meta, N rows with PCam's columns; planted, the truth as (row, kind)."""

    x: np.ndarray
    y: np.ndarray
    meta: list[dict]
    planted: list[tuple[int, str]]


def smooth_noise(rng: np.random.Generator, side: int, cell: float) -> np.ndarray:
    """Noise of mean 0 and variance 1, (side, side) float32, whose bumps are about `cell` pixels wide."""
    at = np.arange(side, dtype=np.float32) / np.float32(0.75 * cell)
    low = at.astype(np.intp)
    t = (at - low)[:, None]
    spline = (1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3  # cubic: plain lerp looks square
    out = rng.standard_normal((low[-1] + 4, low[-1] + 4), dtype=np.float32)
    for _ in range(2):  # whole rows are gathered faster than columns, hence the transpose
        out = sum(weight * out[low + k] for k, weight in enumerate(spline)).T
    return (out - out.mean()) / (out.std() + np.float32(1e-6))


def fibres(rng: np.random.Generator, side: int) -> np.ndarray:
    """Wavy collagen-like streaks, (side, side) float32 of about unit variance."""
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    bend = 22 * smooth_noise(rng, side, 150)
    along = (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y) / 34
    across = (np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x + bend) / np.float32(3.2)
    grid = rng.standard_normal((128, 128), dtype=np.float32)
    i, j = np.floor(along).astype(np.int32), np.floor(across).astype(np.int32)
    u, v = along - i, across - j
    u = u * u * (3 - 2 * u)
    i0, i1, j0, j1 = i & 127, (i + 1) & 127, j & 127, (j + 1) & 127
    top = grid[i0, j0] * (1 - v) + grid[i0, j1] * v
    low = grid[i1, j0] * (1 - v) + grid[i1, j1] * v
    return (top * (1 - u) + low * u) * np.float32(1.6)


def draw_nuclei(rng, radius, stretch, ragged, rim, body, nucleoli, shift=0.0) -> np.ndarray:
    """Stamps of nuclei, (STAMPS, STAMP_PX, STAMP_PX) float32, haematoxylin from 0 to about 1.2."""
    def uniform(low, high):
        return rng.uniform(low, high, (STAMPS, 1, 1))

    at = np.arange(STAMP_PX) - STAMP_PX // 2
    y, x = at[None, :, None] + uniform(-0.5, 0.5), at[None, None, :] + uniform(-0.5, 0.5)
    turn, ratio, size = uniform(0, np.pi), np.sqrt(uniform(*stretch)), uniform(*radius)
    x, y = (x * np.cos(turn) + y * np.sin(turn)) / ratio, (y * np.cos(turn) - x * np.sin(turn)) * ratio
    phi, r = np.arctan2(y, x), np.hypot(y, x)
    edge = size * (1 + sum(ragged * uniform(-1, 1) * np.cos(k * phi + uniform(0, 6.28)) for k in (2, 3, 4, 5)))
    inside = np.clip(edge - r + 0.5, 0, 1)
    depth = uniform(*body) + shift
    chromatin = rng.normal(0, 0.11, (STAMPS, STAMP_PX, STAMP_PX))
    shade = depth + rim * np.exp(-((edge - r - 0.8) ** 2)) + chromatin
    for _ in range(2):
        spot = np.hypot(y - size * uniform(-0.5, 0.5), x - size * uniform(-0.5, 0.5))
        shade += (uniform(0, 1) < nucleoli / 2) * 0.5 * np.exp(-((spot / 1.3) ** 2))
    return (inside * np.clip(shade, 0.1, 1.3)).astype(np.float32)


def scatter(rng: np.random.Generator, side: int, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in pixels of points on a shaken hexagonal lattice, so that no two nuclei coincide."""
    rows, cols = np.mgrid[0 : side / spacing : 1.0, 0 : side / spacing : 1.0]
    cols = cols + 0.5 * (rows % 2)
    shaken = [(a.ravel() + rng.uniform(-0.42, 0.42, a.size)) * spacing for a in (rows, cols)]
    rows, cols = (a.astype(np.intp) for a in shaken)
    keep = (rows >= 0) & (rows < side) & (cols >= 0) & (cols < side)
    return rows[keep], cols[keep]


def stamp(rng: np.random.Generator, canvas: np.ndarray, stamps: np.ndarray, spacing: float, chance: np.ndarray) -> None:
    """Draw nuclei into the padded canvas wherever `chance` (side, side), a probability, lets them stand."""
    rows, cols = scatter(rng, chance.shape[0], spacing)
    keep = rng.random(rows.size) < chance[rows, cols]
    rows, cols = rows[keep], cols[keep]
    at = np.arange(STAMP_PX) - STAMP_PX // 2 + MARGIN_PX
    flat = (rows[:, None, None] + at[:, None]) * canvas.shape[1] + cols[:, None, None] + at
    drawn = stamps[rng.integers(0, STAMPS, rows.size)]
    drawn *= rng.uniform(0.85, 1.1, rows.size).astype(np.float32)[:, None, None]
    hit = drawn > 0
    np.maximum.at(canvas.reshape(-1), flat[hit], drawn[hit])


def soften(plane: np.ndarray, amount: float) -> np.ndarray:
    """The plane blurred by a 3x3 binomial, mixed with itself by `amount` in 0..1: the focus of a scanner."""
    rows = np.pad(plane, 1, mode="edge")
    rows = rows[:-2] + 2 * rows[1:-1] + rows[2:]
    return plane + np.float32(amount) * ((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16 - plane)


def draw_tissue(rng: np.random.Generator, side: int) -> np.ndarray:
    """Tissue thickness, (side, side) float32 in 0..1, with tears and fat holes at 0."""
    field = smooth_noise(rng, side, 170) + 0.35 * smooth_noise(rng, side, 26)
    tissue = np.clip((field - np.quantile(field[::8, ::8], rng.uniform(0.02, 0.10))) * 9, 0, 1)
    y0, x0 = rng.uniform(0.1, 0.9, 2) * side
    for _ in range(rng.integers(0, 24)):
        y, x = rng.normal((y0, x0), 60)
        radius, ratio = rng.uniform(9, 26), rng.uniform(0.8, 1.25)
        r0, r1, c0, c1 = (int(np.clip(v, 0, side)) for v in (y - 40, y + 40, x - 40, x + 40))
        away = np.hypot((np.arange(r0, r1)[:, None] - y) * ratio, (np.arange(c0, c1) - x) / ratio)
        tissue[r0:r1, c0:c1] = np.minimum(tissue[r0:r1, c0:c1], np.clip((away - radius) / 1.5, 0, 1))
    return tissue.astype(np.float32)


def draw_slide(rng: np.random.Generator, stamps: dict, hospital: str, tumour: bool, side: int):
    """One slide: image (side, side, 3) uint8, tissue and tumour masks (side, side) bool."""
    tissue = draw_tissue(rng, side)
    mask = np.zeros((side, side), bool)
    if tumour:
        field = smooth_noise(rng, side, 120) + 0.4 * smooth_noise(rng, side, 43) + 0.2 * smooth_noise(rng, side, 17)
        mask = (field > np.quantile(field[::8, ::8], rng.uniform(0.5, 0.62))) & (tissue > 0.5)
    crowd = np.clip(0.5 + 0.45 * (smooth_noise(rng, side, 90) + rng.normal(0.5, 0.5)), 0.03, 0.95)
    pale = np.clip(1.6 * (smooth_noise(rng, side, 75) - rng.uniform(0.1, 0.9)), 0, 1)
    cells = np.clip(0.85 + 0.15 * smooth_noise(rng, side, 60), 0.45, 1)
    normal, stands = ~mask, tissue > 0.5
    pad = np.zeros((side + 2 * MARGIN_PX,) * 2, np.float32)
    chances = {
        "lymphocyte": np.where(mask, rng.uniform(0.1, 0.4) * crowd, crowd * (1 - 0.9 * pale)),
        "histiocyte": normal * (0.12 + 0.8 * pale),
        "spindle": normal * (1 - crowd) * 0.7 + mask * 0.1,
        "tumour": mask * cells,
    }
    for kind, chance in chances.items():
        stamp(rng, pad, stamps[kind], SPACING_PX[kind], chance * stands)
    streaks = fibres(rng, side)
    loose = np.where(mask, 0.45, 1 - 0.75 * crowd)
    eosin = 0.42 + 0.16 * loose + (0.05 + 0.13 * loose) * streaks + 0.07 * smooth_noise(rng, side, 9)
    blue = 0.10 + 0.05 * smooth_noise(rng, side, 14)
    inner = slice(MARGIN_PX, MARGIN_PX + side)
    nuclei = pad[inner, inner]
    focus = rng.uniform(0.4, 1.0)
    haematoxylin = soften((nuclei + blue * (1 - nuclei)) * tissue, focus) * np.float32(rng.uniform(0.85, 1.15))
    eosin = soften(np.clip(eosin, 0.05, 1.5) * tissue, focus) * np.float32(rng.uniform(0.75, 1.15))
    h_vector, e_vector, glass = STAINS[hospital]
    h_vector = h_vector * rng.normal(1, 0.04, 3)
    e_vector = e_vector * rng.normal(1, 0.05, 3)
    glass = glass + rng.normal(0, 3)
    grain = rng.standard_normal((side, side), dtype=np.float32) * np.float32(2.0)
    image = np.empty((side, side, 3), np.uint8)
    for c in range(3):
        light = np.exp(-1.25 * (np.float32(h_vector[c]) * haematoxylin + np.float32(e_vector[c]) * eosin))
        image[:, :, c] = np.clip(np.float32(glass) * light + np.roll(grain, (5 * c, 11 * c), (0, 1)) + 0.5, 0, 255)
    return image, stands, mask


def grid_cells(mask: np.ndarray) -> np.ndarray:
    """Share of True in the 6 x 6 grid cells of each possible patch: (rows, cols, 6, 6) float32 from (side, side) bool."""
    n = mask.shape[0] // GRID_PX
    share = mask.reshape(n, GRID_PX, n, GRID_PX).mean((1, 3), dtype=np.float32)
    return np.lib.stride_tricks.sliding_window_view(share, (PATCH_CELLS, PATCH_CELLS))


def choose_positions(rng, tissue: np.ndarray, mask: np.ndarray, negatives: int, positives: int, wsi: str) -> list[dict]:
    """Meta rows of distinct patches on the grid of one slide; coordinates in pixels of the 10x canvas, top left.

    Raises ValueError when the slide holds fewer such positions than asked."""
    tumour = grid_cells(mask)
    usable = grid_cells(tissue).mean((2, 3)) >= MIN_TISSUE
    centre = tumour[:, :, CENTRE, CENTRE].any((2, 3))  # PCam's rule: one tumour pixel in the centre 32 x 32
    anywhere = tumour.any((2, 3))
    inside, ring, clear = (
        rng.permutation(np.flatnonzero(usable & which)) for which in (centre, anywhere & ~centre, ~anywhere)
    )
    if positives > inside.size or negatives > ring.size + clear.size:
        raise ValueError(
            f"{wsi} has {inside.size} tumour and {ring.size + clear.size} normal positions, too few for {positives} "
            f"and {negatives} patches; ask for fewer patches or more slides."
        )
    near = max(min(round(RING_SHARE * negatives), ring.size), negatives - clear.size)
    chosen = np.concatenate([inside[:positives], ring[:near], clear[: negatives - near]])
    rows, cols = np.unravel_index(chosen, centre.shape)
    return [
        {
            "coord_y": int(i) * GRID_PX,
            "coord_x": int(j) * GRID_PX,
            "tumor_patch": bool(anywhere[i, j]),
            "center_tumor_patch": bool(centre[i, j]),
            "wsi": wsi,
        }
        for i, j in zip(rows, cols, strict=True)
    ]


def plan_slides(rng: np.random.Generator, counts: dict[str, int]) -> dict[str, list[tuple[str, str, str]]]:
    """(hospital, kind, name) of each split's slides, tumour slides first; no name twice, three of five from RUMC."""
    unused = {key: list(rng.permutation(numbers)) for key, numbers in SLIDE_NUMBERS.items()}
    plan = {}
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f"{split} needs at least one slide, {count} asked.")
        tumours = max(1, round(TUMOUR_SLIDES * count))
        plan[split] = []
        for k in range(count):
            kind, turn = ("tumor", k) if k < tumours else ("normal", k - tumours)
            hospital = "UMCU" if turn % 5 in (1, 3) else "RUMC"
            if not unused[hospital, kind]:
                raise ValueError(f"Camelyon16 has no more {kind} slides of {hospital} for {split}; ask for fewer slides.")
            name = f"camelyon16_train_{kind}_{unused[hospital, kind].pop():03d}"
            plan[split].append((hospital, kind, name))
    return plan


def share_out(total: int, among: int) -> list[int]:
    """`total` in `among` parts that differ by one at most."""
    return [total // among + (k < total % among) for k in range(among)]


def cut_split(seed: int, order: int, slides: list[tuple[str, str, str]], patches: int, positives: int) -> SampleSplit:
    """A clean split, uint8, rows in random order; each slide has a generator of its own (seed, split, slide)."""
    kinds = {"lymphocyte": LYMPHOCYTE, "histiocyte": HISTIOCYTE, "spindle": SPINDLE, "tumour": TUMOUR}
    negatives = share_out(patches - positives, len(slides))
    tumours = share_out(positives, sum(kind == "tumor" for _, kind, _ in slides))
    tumours += [0] * (len(slides) - len(tumours))
    x = np.empty((patches, PATCH_PX, PATCH_PX, 3), np.uint8)
    meta: list[dict] = []
    for k, (hospital, kind, name) in enumerate(slides):
        rng = np.random.default_rng([seed, order, k])
        cells = int(np.ceil(np.sqrt(POSITIONS_PER_PATCH * (negatives[k] + tumours[k])))) + PATCH_CELLS - 1
        side = int(np.clip(cells * GRID_PX, *SIDE_PX_LIMITS))
        stamps = {which: draw_nuclei(rng, **shape, shift=rng.normal(0, DEPTH_SPREAD)) for which, shape in kinds.items()}
        image, tissue, mask = draw_slide(rng, stamps, hospital, kind == "tumor", side)
        for row in choose_positions(rng, tissue, mask, negatives[k], tumours[k], name):
            y, c = row["coord_y"], row["coord_x"]
            x[len(meta)] = image[y : y + PATCH_PX, c : c + PATCH_PX]
            meta.append(row)
    shuffled = np.random.default_rng([seed, order, len(slides)]).permutation(patches)
    meta = [meta[i] for i in shuffled]
    return SampleSplit(x[shuffled], np.array([m["center_tumor_patch"] for m in meta], np.uint8), meta, [])


class Rows:
    """Clean training rows in random order, each handed out once."""

    def __init__(self, rng: np.random.Generator, y: np.ndarray):
        self.free, self.y = [int(i) for i in rng.permutation(y.size)], y

    def take(self, count: int, label: int | None = None) -> list[int]:
        """Distinct rows of the given label (of any label if None). Raises ValueError when too few are left."""
        rows = [i for i in self.free if label is None or self.y[i] == label][:count]
        if len(rows) < count:
            raise ValueError(f"Too few clean training rows for the defects asked: {count} needed, {len(rows)} left.")
        taken = set(rows)
        self.free = [i for i in self.free if i not in taken]
        return rows


def plant_copies(rng, rows: Rows, settings: SampleSettings, splits: dict[str, SampleSplit]) -> None:
    """Overwrite training rows with copies, in place. Labels stay as they are, as source and target have the same one.

    A copy within train takes over the position too, as PCam sampled with replacement; a copy from another split keeps
    its own slide, so that pixels alone betray it."""
    train = splits["train"]
    for _ in range(settings.duplicate_pairs):
        (source,) = rows.take(1)
        (copy,) = rows.take(1, train.y[source])
        train.x[copy], train.meta[copy] = train.x[source], dict(train.meta[source])
        train.planted.extend([(source, "exact_duplicate"), (copy, "exact_duplicate")])
    order = {name: rng.permutation(splits[name].y.size) for name in ("valid", "test")}
    for k in range(settings.cross_split_pairs):
        name = ("valid", "test")[k % 2]
        if k // 2 >= order[name].size:
            raise ValueError(f"{settings.cross_split_pairs} cross-split pairs need more patches than {name} holds.")
        source = int(order[name][k // 2])
        (copy,) = rows.take(1, splits[name].y[source])
        train.x[copy] = splits[name].x[source]
        train.meta[copy] = train.meta[copy] | {"tumor_patch": splits[name].meta[source]["tumor_patch"]}
        train.planted.append((copy, "cross_split_duplicate"))
        splits[name].planted.append((source, "cross_split_duplicate"))


def plant_defects(rng, rows: Rows, amounts: dict[str, int], train: SampleSplit) -> None:
    """Break whole training patches (float32) in place, `amounts` rows of each kind."""
    negative = min(round(BLACKOUT_NEGATIVES * amounts["blackout"]), sum(train.y[i] == 0 for i in rows.free))
    broken = {"blackout": rows.take(negative, 0) + rows.take(amounts["blackout"] - negative)}
    broken |= {kind: rows.take(amounts[kind]) for kind in ("washout", "non_finite", "out_of_range")}
    for kind, value in (("blackout", 0.0), ("washout", 255.0)):
        train.x[broken[kind]] = value
        if len(broken[kind]) > 1:  # uniform patches are each other's copies
            train.planted.extend((i, "exact_duplicate") for i in broken[kind])
    for kind, value in (("non_finite", np.nan), ("out_of_range", OUT_OF_RANGE_VALUE)):
        for i in broken[kind]:
            patch = train.x[i].reshape(-1)
            patch[rng.choice(patch.size, max(1, rng.poisson(BAD_VALUE_RATE * patch.size)), replace=False)] = value
    train.planted.extend((i, kind) for kind, hit in broken.items() for i in hit)


def synthesize(settings: SampleSettings) -> dict[str, SampleSplit]:
    """The splits train, valid and test; the same settings give the same bits.

    Raises ValueError when the settings cannot be met (too many defects, patches or slides)."""
    amounts = {
        kind: round(getattr(settings, f"{kind}_rate") * settings.train_patches)
        for kind in ("blackout", "washout", "non_finite", "out_of_range")
    }
    needed = sum(amounts.values()) + 2 * settings.duplicate_pairs + settings.cross_split_pairs
    if needed > settings.train_patches:
        raise ValueError(f"The planted defects need {needed} rows, but train has {settings.train_patches} patches.")
    slides = {"train": settings.train_slides, "valid": settings.valid_slides, "test": settings.test_slides}
    patches = {"train": settings.train_patches, "valid": settings.valid_patches, "test": settings.test_patches}
    rng = np.random.default_rng([settings.seed, len(slides)])
    plan = plan_slides(rng, slides)
    splits = {}
    for order, split in enumerate(plan):
        rate = settings.train_positive_rate if split == "train" else 0.5
        splits[split] = cut_split(settings.seed, order, plan[split], patches[split], round(rate * patches[split]))
    rows = Rows(rng, splits["train"].y)
    plant_copies(rng, rows, settings, splits)
    clean = splits["train"]
    splits["train"] = SampleSplit(clean.x.astype(np.float32), clean.y, clean.meta, clean.planted)
    plant_defects(rng, rows, amounts, splits["train"])
    for split in splits.values():
        split.planted.sort()
    return splits
