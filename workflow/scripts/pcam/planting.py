"""Plant defects of every kind into clean splits, so that the audit can be scored against a truth it does not see.

Every planted unit has rows of its own. A defect is planted only where it can be seen:
damages and stamps where they change the pixels they touch by a root mean square of VISIBLE grey levels or more (a
blurred blank patch is the same patch); copies and overlaps where the grey of the very pixels that are shared has a
standard deviation of VISIBLE or more, and a turned copy differs from its source as damages do. That is the condition
"textured tissue" of the audit's promises; glass repeats by itself and proves nothing.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pcam.damage import COPIES, DAMAGES, SIDE, STAMPS, Rng, Variant, grey_std, rms_change, shared_parts, stamped
from pcam.facts import CLASSES, FILE_SPLITS, GRID_PX
from pcam.files import InputError
from pcam.hdf5 import PatchReader, convert_lossless, read_labels
from pcam.synthetic import SIDE_PX
from pcam.tissue import STAINS, draw_slide

Patch = tuple[str, int]  # split, row
Trial = Callable[[Patch], np.ndarray]
VISIBLE = 3.0  # grey levels, 0..255
LARGEST_SHIFT_PX = 80
TRIES = 1000  # rows looked at for one defect: bounds the time where hardly any shows it
ONLY_CLASS = {"black_class_0": 0}  # variants that befall one class alone
# NaN, -1 and 1e5 need float32: they go to train alone, as in the course's subset, and the other splits stay uint8.
FLOAT_SPLIT, FLOAT_KINDS = "train", ("non_finite", "out_of_range")
# Variants of the kind "overlap". Pasted: the part that two patches share is copied from one into the other, at any
# offset or at multiples of PCam's 16-pixel grid. Canvas: both are cut from one bigger piece of tissue.
PASTES = {"pasted": 1, "pasted_on_grid": GRID_PX}
CANVAS, CANVAS_PAIRS = "canvas", 25
# True of a patch besides its own kind. A square blanked in the same colour in many patches is a flat trigger as well.
ALSO = {("partly_blanked", f"square_{colour}"): ("trigger",) for colour in ("black", "white")}
CONFLICT = "label_conflict"
CONFLICTS_AS = {"exact": ("exact_duplicate", "cross_split_duplicate"), "rotated": ("rotated_duplicate",),
                "jpeg": ("near_duplicate",)}  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """One planted defect: the patches that show it (both of a pair), and other kinds that are true of them too."""

    kind: str
    variant: str
    level: float | None
    patches: tuple[Patch, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planted:
    """Splits with defects: x (N,96,96,3) uint8, float32 where a kind needs it; y as given; the units, which are truth.

    asked: how many units of each kind were wanted; fewer stand where the clean rows did not allow them.
    """

    x: dict[str, np.ndarray]
    units: tuple[Unit, ...]
    asked: dict[str, int]


def truth(units: Iterable[Unit]) -> dict[str, set[Patch]]:
    """Patches by kind that were planted as this kind."""
    found: dict[str, set[Patch]] = {}
    for unit in units:
        found.setdefault(unit.kind, set()).update(unit.patches)
    return found


def read_clean(
    x_files: Mapping[str, str], y_files: Mapping[str, str], clean: set[Patch], patches: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray | None]]:
    """At most `patches` clean patches of each split, drawn by the seed, as uint8 with their labels.

    Raises: InputError when a split has none, or a patch without a finding cannot be stored as uint8.
    """
    x: dict[str, np.ndarray] = {}
    y: dict[str, np.ndarray | None] = {}
    for number, split in enumerate(FILE_SPLITS):
        rows = sorted(row for name, row in clean if name == split)
        if not rows:
            raise InputError(f"{x_files[split]}: no patch without a defect, so the audit cannot be scored on it")
        chosen = np.sort(np.random.default_rng([seed, number]).permutation(rows)[:patches])
        try:
            with PatchReader(x_files[split]) as reader:
                x[split] = np.concatenate([convert_lossless(reader.read(row, row + 1)) for row in chosen.tolist()])
        except ValueError as error:
            raise InputError(
                f"{x_files[split]}: a patch without a defect cannot be stored as uint8 ({error}); see storage.json"
            ) from None
        labels = read_labels(y_files[split])
        y[split] = None if labels is None else labels[chosen]
    return x, y


class Field:
    """Splits being planted, and the rows that are still clean, in random order."""

    def __init__(self, rng: Rng, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray | None]) -> None:
        self.x = {split: np.array(x[split]) for split in FILE_SPLITS}
        self.y = y
        rows = [(split, row) for split in FILE_SPLITS for row in range(len(self.x[split]))]
        self.total = len(rows)
        self.free = deque(rows[i] for i in rng.permutation(len(rows)))
        self.broken: dict[int, np.ndarray] = {}  # rows of FLOAT_SPLIT as float32
        self.units: list[Unit] = []

    def pixels(self, patch: Patch) -> np.ndarray:
        return np.asarray(self.x[patch[0]][patch[1]])

    def label(self, patch: Patch) -> int | None:
        labels = self.y[patch[0]]
        return None if labels is None else int(labels[patch[1]])

    def find(self, accept: Callable[[Patch], bool]) -> Patch | None:
        """A free row that is accepted, None when TRIES rows are not; refused ones go to the end of the queue."""
        for _ in range(min(TRIES, len(self.free))):
            if accept(self.free[0]):
                return self.free[0]
            self.free.rotate(-1)
        return None

    def use(self, kind: str, variant: str, level: float | None, patches: Sequence[Patch], *also: str) -> None:
        for patch in patches:
            self.free.remove(patch)
        self.units.append(Unit(kind, variant, level, tuple(patches), also))

    def partner(self, source: Patch, *, within: bool | None, conflict: bool = False) -> Patch | None:
        """A free row for a copy of `source`: in its split or not (None: either), with its label or the other one.

        A label that is unknown can neither agree nor conflict, so it serves for all but a conflict.
        """

        def fits(patch: Patch) -> bool:
            one, other = self.label(source), self.label(patch)
            known = one is not None and other is not None
            labels = (known and one != other) if conflict else (not known or one == other)
            place = within is None or (patch[0] == source[0]) == within
            return patch != source and labels and place

        return self.find(fits)


def in_turn(rng: Rng, variants: Sequence[Variant], amount: int) -> list[Variant]:
    """`amount` variants in equal shares, from a random one on."""
    start = int(rng.integers(len(variants)))
    return [variants[(start + i) % len(variants)] for i in range(amount)]


def plant_damages(rng: Rng, field: Field, kind: str, amount: int) -> None:
    """Spoil single patches."""
    for variant in in_turn(rng, [v for v in DAMAGES if v.kind == kind], amount):
        seed = int(rng.integers(2**62))  # the same draw for the trial and for the deed

        def damaged(patch: Patch, variant: Variant = variant, seed: int = seed) -> np.ndarray:
            return variant.damage(np.random.default_rng(seed), field.pixels(patch))

        def fits(patch: Patch, variant: Variant = variant, damaged: Trial = damaged) -> bool:
            wrong_split = kind in FLOAT_KINDS and patch[0] != FLOAT_SPLIT
            wrong_class = variant.name in ONLY_CLASS and field.label(patch) != ONLY_CLASS[variant.name]
            return not wrong_split and not wrong_class and rms_change(field.pixels(patch), damaged(patch)) >= VISIBLE

        patch = field.find(fits)
        if patch is None:
            continue
        if kind in FLOAT_KINDS:
            field.broken[patch[1]] = damaged(patch)
        else:
            field.x[patch[0]][patch[1]] = damaged(patch)
        field.use(kind, variant.name, variant.level, [patch], *ALSO.get((kind, variant.name), ()))


def plant_copies(rng: Rng, field: Field, kind: str, amount: int) -> None:
    """Overwrite patches with copies of others: within a split, across, or in turn, as the kind allows."""
    places = {"exact_duplicate": (True,), "cross_split_duplicate": (False,)}.get(kind, (True, False))
    for number, variant in enumerate(in_turn(rng, [v for v in COPIES if v.kind == kind], amount)):
        # How much a copy must differ from its source: an exact one not at all, a turned one as much as damages do.
        turned, exact = "rotated" in f"{kind} {variant.name}", variant.name in ("copy", "exact")
        least = 0.0 if exact else VISIBLE if turned else np.finfo(float).tiny

        def fits(patch: Patch, variant: Variant = variant, least: float = least) -> bool:
            if kind == CONFLICT and field.label(patch) is None:
                return False
            pixels = field.pixels(patch)
            return grey_std(pixels) >= VISIBLE and rms_change(pixels, variant.damage(rng, pixels)) >= least

        source = field.find(fits)
        copy = source and field.partner(source, within=places[number % len(places)], conflict=kind == CONFLICT)
        if source is None or copy is None:
            continue
        field.x[copy[0]][copy[1]] = variant.damage(rng, field.pixels(source))
        also = CONFLICTS_AS[variant.name] if kind == CONFLICT else ()
        field.use(kind, variant.name, variant.level, [source, copy], *also)


def draw_shift(rng: Rng, step: int) -> tuple[int, int]:
    """(dy, dx), each a multiple of `step` up to 80 pixels either way, not both 0."""
    while True:
        dy, dx = (step * rng.integers(-(LARGEST_SHIFT_PX // step), LARGEST_SHIFT_PX // step + 1, 2)).tolist()
        if dy or dx:
            return dy, dx


def shared_side(dy: int, dx: int) -> int:
    """The smaller side of what is shared, rounded down to a multiple of 16: the level of an overlap."""
    return (SIDE - max(abs(dy), abs(dx))) // GRID_PX * GRID_PX


def plant_pastes(rng: Rng, field: Field, variant: str, amount: int) -> None:
    """Overlaps by pasting; both patches show the shared part, pixel for pixel."""
    for _ in range(amount):
        dy, dx = draw_shift(rng, PASTES[variant])
        in_first, in_second = shared_parts(dy, dx)
        source = field.find(lambda patch, part=in_first: grey_std(field.pixels(patch)[part]) >= VISIBLE)  # type: ignore[misc]
        target = source and field.partner(source, within=None)
        if source is None or target is None:
            continue
        field.x[target[0]][target[1]][in_second] = field.pixels(source)[in_first]
        field.use("overlap", variant, shared_side(dy, dx), [source, target])


def plant_canvases(rng: Rng, field: Field, amount: int) -> None:
    """Overlaps by cutting both patches from one drawn slide, every pair from a region of its own."""
    pairs_a_side, region = math.isqrt(max(min(amount, CANVAS_PAIRS) - 1, 0)) + 1, SIDE + LARGEST_SHIFT_PX
    for done in range(0, amount, pairs_a_side**2):
        side = max(SIDE_PX[0], pairs_a_side * region)
        image = draw_slide(rng, list(STAINS)[int(rng.integers(len(STAINS)))], "tumor", side)[0]
        for number in rng.permutation(pairs_a_side**2)[: amount - done].tolist():
            dy, dx = draw_shift(rng, 1)
            top, left = (region * place for place in divmod(number, pairs_a_side))
            y, x = (top + max(-dy, 0), top + max(dy, 0)), (left + max(-dx, 0), left + max(dx, 0))
            first, second = (image[y[i] : y[i] + SIDE, x[i] : x[i] + SIDE] for i in (0, 1))
            source = field.find(lambda patch: True)
            target = source and field.partner(source, within=None)
            if source is None or target is None or grey_std(first[shared_parts(dy, dx)[0]]) < VISIBLE:
                continue
            field.x[source[0]][source[1]], field.x[target[0]][target[1]] = first, second
            field.use("overlap", CANVAS, shared_side(dy, dx), [source, target])


def plant_stamps(rng: Rng, field: Field, rate: float) -> None:
    """Each stamp as an attack of its own, into `rate` of one class of train (drawn for each)."""
    labels = field.y["train"]
    for stamp in STAMPS:
        block, victim = stamp.block(rng), int(rng.choice(CLASSES))
        amount = round(rate * len(field.x["train"]) if labels is None else rate * float((labels == victim).sum()))
        place = rng.integers(0, SIDE - stamp.side + 1, 2)
        for _ in range(amount):
            top, left = (rng.integers(0, SIDE - stamp.side + 1, 2) if stamp.moving else place).tolist()

            def fits(patch: Patch, block: np.ndarray = block, top: int = top, left: int = left,
                     victim: int = victim) -> bool:  # fmt: skip
                if patch[0] != "train" or field.label(patch) not in (victim, None):
                    return False
                pixels = field.pixels(patch)
                return rms_change(pixels, stamped(pixels, block, top, left)) >= VISIBLE

            patch = field.find(fits)
            if patch is None:
                continue
            field.x["train"][patch[1]] = stamped(field.pixels(patch), block, top, left)
            field.use("trigger", stamp.name, stamp.side, [patch])


def plant(
    rng: Rng, x: Mapping[str, np.ndarray], y: Mapping[str, np.ndarray | None], *, rate: float, canvas: bool
) -> Planted:
    """Every kind at once, round(rate * N) units of each kind among N clean patches, variants in equal shares.

    x: (N,96,96,3) uint8 by split, every row clean.  y: (N,) of 0 and 1, None when unknown.  Neither is changed.
    A stamp goes into `rate` of one class of train instead.  canvas: also cut overlaps from slides of the embedded
    sample, which only there are tissue of the same kind.  The same generator gives the same bits.
    """
    field = Field(rng, x, y)
    amount = max(1, round(rate * field.total))
    overlaps = [*PASTES, *([CANVAS] if canvas else [])]
    shares = {name: (amount + i) // len(overlaps) for i, name in enumerate(overlaps)}
    copies, damages = (list(dict.fromkeys(v.kind for v in table)) for table in (COPIES, DAMAGES))
    for kind in copies:
        plant_copies(rng, field, kind, amount)
    for name in PASTES:
        plant_pastes(rng, field, name, shares[name])
    plant_canvases(rng, field, shares.get(CANVAS, 0))
    plant_stamps(rng, field, rate)
    for kind in damages:
        plant_damages(rng, field, kind, amount)
    if field.broken:
        field.x[FLOAT_SPLIT] = field.x[FLOAT_SPLIT].astype(np.float32)
        for row, patch in field.broken.items():
            field.x[FLOAT_SPLIT][row] = patch
    return Planted(field.x, tuple(field.units), dict.fromkeys((*copies, "overlap", *damages), amount))
