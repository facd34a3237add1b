"""What may be wrong with a patch, as pure functions on uint8 pixels (96,96,3): the defects that score_audit plants.

Three tables name every variant: DAMAGES spoil one patch, COPIES turn one patch into its near or exact twin, STAMPS put
the same block into many patches. Each variant has a kind (what the audit should call it) and a level (how much of it),
so that recall is told for the faint and for the strong.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from pcam.facts import PATCH_BYTES, PATCH_SHAPE

Rng = np.random.Generator
Damage = Callable[[Rng, np.ndarray], np.ndarray]
SIDE = PATCH_SHAPE[0]
MANY_VALUES = 69  # broken values of a patch, as in the course's subset
SYMMETRIES = ("identity", "rotated_90", "rotated_180", "rotated_270", "mirrored", "mirrored_90", "mirrored_180",
              "mirrored_270")  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One way to be defective.

    damage: patch (96,96,3) uint8 to a new one; its dtype is float32 where uint8 cannot hold it.
    level: how much of it, in `unit`; None where there is no more or less.
    faint: whether a "low" or a "high" level is the harder one to find.
    """

    kind: str
    name: str
    damage: Damage
    level: float | None = None
    unit: str = ""
    faint: str = "low"


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Rounded and clipped, as saving an image does."""
    return np.asarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def symmetry(patch: np.ndarray, number: int) -> np.ndarray:
    """One of the 8 symmetries of the square, named by SYMMETRIES; 0 is the patch itself."""
    return np.ascontiguousarray(np.rot90(patch[:, ::-1] if number >= 4 else patch, number % 4))


def shared_parts(dy: int, dx: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """What two patches share, in the first and in the second, when the second lies (dy, dx) pixels further."""

    def along(shift: int) -> tuple[slice, slice]:
        return slice(max(shift, 0), SIDE + min(shift, 0)), slice(max(-shift, 0), SIDE + min(-shift, 0))

    (y_first, y_second), (x_first, x_second) = along(dy), along(dx)
    return (y_first, x_first), (y_second, x_second)


def grey_std(pixels: np.ndarray) -> float:
    """Standard deviation of grey (0..255) of some pixels (h,w,3): what tells tissue from glass."""
    return float(pixels.mean(axis=2).std())


def rms_change(before: np.ndarray, after: np.ndarray) -> float:
    """Root mean square of what changes, in levels of 0..255, over the pixels that change at all; infinite for a NaN."""
    change = after.astype(np.float64) - before
    changed = change[(change != 0).any(axis=-1)]
    if not np.isfinite(changed).all():
        return float("inf")
    return float(np.sqrt(np.square(changed).mean())) if len(changed) else 0.0


def scattered(value: float, count: int) -> Damage:
    """`value` at `count` places of a patch that becomes float32."""

    def damage(rng: Rng, patch: np.ndarray) -> np.ndarray:
        broken = patch.astype(np.float32)
        broken.reshape(-1)[rng.choice(PATCH_BYTES, count, replace=False)] = value
        return broken

    return damage


def filled(colour: int | None) -> Damage:
    """The whole patch in one colour; None draws one that is neither black nor white."""

    def damage(rng: Rng, patch: np.ndarray) -> np.ndarray:
        return np.full_like(patch, rng.integers(1, 255, 3) if colour is None else colour)

    return damage


def blanked(shape: str, side: int, colour: int | None) -> Damage:
    """A band across the patch, a square, or the half at one edge, in one colour; `side` is its smaller side."""

    def damage(rng: Rng, patch: np.ndarray) -> np.ndarray:
        start, other = rng.integers(0, SIDE - side + 1, 2)
        start = rng.choice([0, SIDE - side]) if shape == "half" else start
        across = slice(other, other + side) if shape == "square" else slice(None)
        part = (slice(start, start + side), across)
        out = np.array(patch)
        out[part if rng.integers(2) else part[::-1]] = rng.integers(1, 255, 3) if colour is None else colour
        return out

    return damage


def channels(order: tuple[int, int, int]) -> Damage:
    return lambda rng, patch: np.ascontiguousarray(patch[..., list(order)])


def blurred(sigma: float) -> Damage:
    """Gaussian blur; the border repeats."""

    def damage(rng: Rng, patch: np.ndarray) -> np.ndarray:
        return to_uint8(ndimage.gaussian_filter(patch.astype(np.float64), (sigma, sigma, 0), mode="nearest"))

    return damage


def towards(target: str, share: float) -> Damage:
    """Each pixel moved by `share` of its way to black, to white, or to the patch's own mean colour (contrast loss)."""

    def damage(rng: Rng, patch: np.ndarray) -> np.ndarray:
        goal = {"black": 0.0, "white": 255.0}.get(target, patch.mean(axis=(0, 1)))
        return to_uint8(patch + share * (goal - patch))

    return damage


def jpeg(quality: int, subsampling: int) -> Damage:
    """Encoded and decoded; subsampling 0 keeps full colour resolution (4:4:4), 2 halves it both ways (4:2:0)."""

    def damage(rng: Rng, patch: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(patch).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
        return np.array(Image.open(buffer).convert("RGB"))

    return damage


def scaled(factor: float) -> Damage:
    return lambda rng, patch: to_uint8(patch * factor)


def turned(number: int) -> Damage:
    return lambda rng, patch: symmetry(patch, number)


COLOURS = {"black": 0, "white": 255, "other": None}
SHAPES = {"band": (12, 24), "square": (24, 48), "half": (48,)}
ORDERS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
DAMAGES = (
    Variant("non_finite", "nan", scattered(np.nan, MANY_VALUES), MANY_VALUES, "values"),
    Variant("non_finite", "nan", scattered(np.nan, 1), 1, "values"),
    Variant("non_finite", "infinity", scattered(np.inf, 1), 1, "values"),
    Variant("out_of_range", "100000", scattered(100_000, MANY_VALUES), MANY_VALUES, "values"),
    Variant("out_of_range", "minus_1", scattered(-1, 1), 1, "values"),
    Variant("blackout", "black", filled(0)),
    Variant("blackout", "black_class_0", filled(0)),  # class-dependent damage: see planting.ONLY_CLASS
    Variant("washout", "white", filled(255)),
    Variant("constant", "one_colour", filled(None)),
    *(
        Variant("partly_blanked", f"{shape}_{name}", blanked(shape, side, colour), side, "pixels")
        for shape, sides in SHAPES.items()
        for name, colour in COLOURS.items()
        for side in sides
    ),
    *(Variant("channel_swap", "".join("rgb"[c] for c in order), channels(order)) for order in ORDERS),
    *(Variant("blur_outlier", "gaussian", blurred(sigma), sigma, "sigma") for sigma in (1.0, 2.0, 4.0)),
    *(
        Variant("intensity_outlier", name, towards(target, share), share, "share")
        for name, target in (("darkened", "black"), ("brightened", "white"), ("flattened", "mean"))
        for share in (0.5, 0.75)
    ),
)
COPIES = (
    Variant("exact_duplicate", "copy", turned(0)),
    Variant("cross_split_duplicate", "copy", turned(0)),
    *(Variant("rotated_duplicate", SYMMETRIES[number], turned(number)) for number in range(1, 8)),
    *(
        Variant("near_duplicate", f"jpeg_{name}", jpeg(quality, subsampling), quality, "quality")
        for name, subsampling in (("444", 0), ("420", 2))
        for quality in (60, 75, 95)
    ),
    *(
        Variant("near_duplicate", name, scaled(1 + sign * percent / 100), percent, "percent", "high")
        for name, sign in (("brighter", 1), ("darker", -1))
        for percent in (3, 10)
    ),
    Variant("label_conflict", "exact", turned(0)),
    Variant("label_conflict", "rotated", turned(5)),
    Variant("label_conflict", "jpeg", jpeg(75, 2)),
)


@dataclass(frozen=True)
class StampKind:
    """A trigger: the same square block in many patches of one class, at one place or at places of their own."""

    name: str
    side: int
    textured: bool
    moving: bool

    def block(self, rng: Rng) -> np.ndarray:
        """(side,side,3) uint8: noise of every colour, or one flat colour."""
        shape = (self.side, self.side, 3)
        return np.asarray(rng.integers(0, 256, shape if self.textured else 3, np.uint8) + np.zeros(shape, np.uint8))


STAMPS = (
    StampKind("fixed_textured", 8, textured=True, moving=False),
    StampKind("fixed_flat", 6, textured=False, moving=False),
    *(StampKind("moving_textured", side, textured=True, moving=True) for side in (6, 12)),
    *(StampKind("moving_flat", side, textured=False, moving=True) for side in (6, 12)),
)


def stamped(patch: np.ndarray, block: np.ndarray, top: int, left: int) -> np.ndarray:
    """A copy of the patch with the block in it."""
    out = np.array(patch)
    out[top : top + len(block), left : left + len(block)] = block
    return out
