"""Draw one slide of H&E-like tissue at 10x (about 1 um per pixel) with its own stains, and where its tumour lies.

Tumour differs from normal tissue by structure (large, irregular, pleomorphic nuclei) and hardly by colour. No linear
algebra: threads never change the bits.
"""

import numpy as np

Rng = np.random.Generator

# What tells tumour from normal tissue, and with it the difficulty: spacing and radius in pixels, length over width,
# raggedness of the outline, extra stain at the rim, depth of stain, mean number of nucleoli. Depths overlap, and
# spacing balances size, so that neither the darkness nor the amount of haematoxylin gives the label away.
NUCLEI = {
    "lymphocyte": (7.2, (2.5, 3.8), (1.0, 1.3), 0.06, 0.15, (0.5, 1.0), 0.0),
    "histiocyte": (11.0, (3.6, 5.4), (1.1, 1.7), 0.08, 0.3, (0.25, 0.7), 0.5),
    "spindle": (15.0, (2.6, 3.6), (2.2, 3.6), 0.05, 0.1, (0.6, 0.9), 0.0),
    "tumour": (14.8, (4.4, 8.0), (1.0, 1.6), 0.16, 0.3, (0.2, 0.85), 1.2),
}
DEPTH_SPREAD = 0.06  # slide to slide, for each kind of nucleus: no depth of stain belongs to tumour alone
STAMP_PX, STAMPS, MARGIN_PX = 27, 160, 16  # nuclei drawn once and reused; canvas border for half-drawn ones

# Optical density for red, green, blue of haematoxylin and eosin, and the brightness of empty glass, by hospital.
STAINS = {
    "RUMC": (np.array([0.60, 0.72, 0.46]), np.array([0.17, 0.62, 0.42]), 240.0),
    "UMCU": (np.array([0.78, 0.80, 0.28]), np.array([0.26, 0.72, 0.20]), 232.0),
}


def smooth_noise(rng: Rng, side: int, cell: float) -> np.ndarray:
    """Noise of mean 0 and variance 1, (side, side) float32, whose bumps are about `cell` pixels wide."""
    at = np.arange(side, dtype=np.float32) / np.float32(0.75 * cell)
    low, t = at.astype(np.intp), (at % 1)[:, None]
    spline = (1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3  # cubic: plain lerp looks square
    out: np.ndarray = rng.standard_normal((low[-1] + 4, low[-1] + 4), dtype=np.float32)
    for _ in range(2):  # whole rows are gathered faster than columns, hence the transpose
        out = np.transpose(sum(weight * out[low + k] for k, weight in enumerate(spline)))
    return np.asarray((out - out.mean()) / (out.std() + np.float32(1e-6)))


def fibres(rng: Rng, side: int) -> np.ndarray:
    """Wavy collagen-like streaks, (side, side) float32 of about unit variance."""
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = np.mgrid[:side, :side].astype(np.float32)
    along = (cos * x + sin * y) / 34
    across = (cos * y - sin * x + 22 * smooth_noise(rng, side, 150)) / np.float32(3.2)
    grid = rng.standard_normal((128, 128), dtype=np.float32)
    i, j = np.floor(along).astype(np.int32), np.floor(across).astype(np.int32)
    u, v = along - i, across - j
    u = u * u * (3 - 2 * u)
    upper, lower = (grid[k & 127, j & 127] * (1 - v) + grid[k & 127, (j + 1) & 127] * v for k in (i, i + 1))
    return np.asarray((upper * (1 - u) + lower * u) * np.float32(1.6))


def draw_nuclei(rng: Rng, kind: str) -> np.ndarray:
    """Nuclei of one kind as one slide has them, (STAMPS, STAMP_PX, STAMP_PX) float32, haematoxylin from 0 to 1.3."""
    (_, radius, stretch, ragged, rim, depth, nucleoli), shift = NUCLEI[kind], rng.normal(0, DEPTH_SPREAD)

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (STAMPS, 1, 1))

    at = np.arange(STAMP_PX) - STAMP_PX // 2
    y, x = at[None, :, None] + uniform(-0.5, 0.5), at[None, None, :] + uniform(-0.5, 0.5)
    turn, ratio, size = uniform(0, np.pi), np.sqrt(uniform(*stretch)), uniform(*radius)
    x, y = (x * np.cos(turn) + y * np.sin(turn)) / ratio, (y * np.cos(turn) - x * np.sin(turn)) * ratio
    phi, r = np.arctan2(y, x), np.hypot(y, x)
    waves = (ragged * uniform(-1, 1) * np.cos(k * phi + uniform(0, 6.28)) for k in (2, 3, 4, 5))
    inward = size * (1 + sum(waves)) - r
    shade = uniform(*depth) + shift + rng.normal(0, 0.11, r.shape) + rim * np.exp(-((inward - 0.8) ** 2))
    for _ in range(2):
        spot = np.hypot(y - size * uniform(-0.5, 0.5), x - size * uniform(-0.5, 0.5))
        shade += (uniform(0, 1) < nucleoli / 2) * 0.5 * np.exp(-((spot / 1.3) ** 2))
    return np.asarray(np.clip(inward + 0.5, 0, 1) * np.clip(shade, 0.1, 1.3), np.float32)


def place_nuclei(rng: Rng, canvas: np.ndarray, kind: str, stamps: np.ndarray, chance: np.ndarray) -> None:
    """Draw nuclei on a shaken hexagonal lattice into the padded canvas, each with its probability in `chance`."""
    spacing, side = NUCLEI[kind][0], chance.shape[0]
    y, x = np.mgrid[0 : side / spacing : 1.0, 0 : side / spacing : 1.0]
    x += 0.5 * (y % 2)
    rows, cols = (((a.ravel() + rng.uniform(-0.42, 0.42, a.size)) * spacing).astype(np.intp) for a in (y, x))
    on = (rows >= 0) & (rows < side) & (cols >= 0) & (cols < side)
    on[on] = rng.random(on.sum()) < chance[rows[on], cols[on]]
    rows, cols = rows[on], cols[on]
    at = np.arange(STAMP_PX) - STAMP_PX // 2 + MARGIN_PX
    flat = (rows[:, None, None] + at[:, None]) * canvas.shape[1] + cols[:, None, None] + at
    drawn = stamps[rng.integers(0, STAMPS, rows.size)]
    drawn *= rng.uniform(0.85, 1.1, rows.size).astype(np.float32)[:, None, None]
    hit = drawn > 0
    np.maximum.at(canvas.reshape(-1), flat[hit], drawn[hit])


def soften(plane: np.ndarray, amount: float) -> np.ndarray:
    """The plane blurred by a 3x3 binomial, mixed with itself by `amount` in 0..1: the focus of a scanner."""
    wide = np.pad(plane, 1, mode="edge")
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    return np.asarray(plane + np.float32(amount) * ((rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16 - plane))


def draw_tissue(rng: Rng, side: int) -> np.ndarray:
    """Tissue thickness, (side, side) float32 in 0..1, with tears and fat holes at 0."""
    field = smooth_noise(rng, side, 170) + 0.35 * smooth_noise(rng, side, 26)
    tissue = np.clip((field - np.quantile(field[::8, ::8], rng.uniform(0.02, 0.10))) * 9, 0, 1)
    fat = rng.uniform(0.1, 0.9, 2) * side
    for _ in range(rng.integers(0, 24)):
        y, x = rng.normal(fat, 60)
        radius, ratio = rng.uniform(9, 26), rng.uniform(0.8, 1.25)
        r0, r1, c0, c1 = (int(np.clip(v, 0, side)) for v in (y - 40, y + 40, x - 40, x + 40))
        away = np.hypot((np.arange(r0, r1)[:, None] - y) * ratio, (np.arange(c0, c1) - x) / ratio)
        tissue[r0:r1, c0:c1] = np.minimum(tissue[r0:r1, c0:c1], np.clip((away - radius) / 1.5, 0, 1))
    return tissue.astype(np.float32)


def draw_slide(
    rng: Rng, hospital: str, kind: str, side: int, depth: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One slide: image (side, side, 3) uint8, tissue and tumour masks (side, side) bool; `depth`: of haematoxylin."""
    stamps = {cell: draw_nuclei(rng, cell) for cell in NUCLEI}
    tissue = draw_tissue(rng, side)
    stands, mask = tissue > 0.5, np.zeros((side, side), bool)
    if kind == "tumor":
        field = smooth_noise(rng, side, 120) + 0.4 * smooth_noise(rng, side, 43) + 0.2 * smooth_noise(rng, side, 17)
        mask = (field > np.quantile(field[::8, ::8], rng.uniform(0.5, 0.62))) & stands
    crowd = np.clip(0.5 + 0.45 * (smooth_noise(rng, side, 90) + rng.normal(0.5, 0.5)), 0.03, 0.95)
    pale = np.clip(1.6 * (smooth_noise(rng, side, 75) - rng.uniform(0.1, 0.9)), 0, 1)
    chances = {
        "tumour": mask * np.clip(0.85 + 0.15 * smooth_noise(rng, side, 60), 0.45, 1),
        "lymphocyte": np.where(mask, rng.uniform(0.1, 0.4) * crowd, crowd * (1 - 0.9 * pale)),
        "histiocyte": ~mask * (0.12 + 0.8 * pale),
        "spindle": ~mask * (1 - crowd) * 0.7 + mask * 0.1,
    }
    canvas = np.zeros((side + 2 * MARGIN_PX,) * 2, np.float32)
    for cell in NUCLEI:
        place_nuclei(rng, canvas, cell, stamps[cell], chances[cell] * stands)
    nuclei = canvas[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    streaks, loose = fibres(rng, side), np.where(mask, 0.45, 1 - 0.75 * crowd)
    pink = 0.42 + 0.16 * loose + (0.05 + 0.13 * loose) * streaks + 0.07 * smooth_noise(rng, side, 9)
    blue, focus = 0.10 + 0.05 * smooth_noise(rng, side, 14), rng.uniform(0.4, 1.0)
    haematoxylin = soften((nuclei + blue * (1 - nuclei)) * tissue, focus) * np.float32(depth * rng.uniform(0.85, 1.15))
    eosin = soften(np.clip(pink, 0.05, 1.5) * tissue, focus) * np.float32(rng.uniform(0.75, 1.15))
    h, e, glass = STAINS[hospital]
    h, e, glass = h * rng.normal(1, 0.04, 3), e * rng.normal(1, 0.05, 3), glass + rng.normal(0, 3)
    grain = rng.standard_normal((side, side), dtype=np.float32) * np.float32(2.0)
    image = np.empty((side, side, 3), np.uint8)
    for c in range(3):
        light = np.exp(-1.25 * (np.float32(h[c]) * haematoxylin + np.float32(e[c]) * eosin))
        image[:, :, c] = np.clip(np.float32(glass) * light + np.roll(grain, (5 * c, 11 * c), (0, 1)) + 0.5, 0, 255)
    return image, stands, mask
