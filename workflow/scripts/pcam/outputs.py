"""Answers as CSV or JSON lines, and as a map of probabilities over a large image."""

import csv
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from PIL import Image

from pcam.files import InputError, atomic_path
from pcam.images import SIZE, read_image, window_starts
from pcam.inputs import Block

FORMATS = ("csv", "jsonl")
# Colours of probability 0, 1/4, 1/2, 3/4 and 1, of even steps in lightness: viridis (Smith and van der Walt 2015).
COLOURS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
TOLD_EVERY_S = {True: 0.5, False: 30.0}  # progress, by whether stderr is a terminal
STRIP = 96  # lines of a picture worked on together


class Answer(NamedTuple):
    """A row of the output. row: of an HDF5 file, else None; x, y: of the patch's upper left corner in an image."""

    source: str
    row: int | None
    x: int
    y: int
    probability: float
    decision: int


def answers_of(blocks: Iterable[Block], probabilities: np.ndarray, threshold: float) -> Iterator[Answer]:
    """One for each patch, for probabilities (n,) of all patches of the blocks."""
    told = iter(probabilities.tolist())
    for block in blocks:
        rows = [None] * len(block) if block.rows is None else block.rows.tolist()
        for row, (x, y) in zip(rows, block.places.tolist(), strict=True):
            probability = next(told)
            yield Answer(block.source, row, x, y, probability, int(probability >= threshold))


def counted(answers: Iterable[Answer]) -> Iterator[Answer]:
    """The same answers; stderr hears how many have passed, and at what pace."""
    watched = sys.stderr.isatty()
    begun = told = time.monotonic()
    for count, answer in enumerate(answers, 1):
        yield answer
        if (now := time.monotonic()) - told > TOLD_EVERY_S[watched]:
            told = now
            line = f"{count:,} patches, {count / (now - begun):,.0f} a second"
            print(f"\r{line} " if watched else line, end="" if watched else "\n", file=sys.stderr, flush=True)
    if watched and told != begun:
        print(file=sys.stderr)


@contextmanager
def opened(output: str | None, *, held_back: bool) -> Iterator[TextIO]:
    """Where answers go: a file that appears once it is whole, or stdout, at the end alone when they are held back."""
    if output is not None:
        with atomic_path(output) as temporary, temporary.open("w", newline="") as handle:
            yield handle
    elif held_back:
        with tempfile.TemporaryFile("w+", newline="") as handle:
            yield handle
            handle.seek(0)
            shutil.copyfileobj(handle, sys.stdout)
    else:
        yield sys.stdout


def write_answers(handle: TextIO, answers: Iterable[Answer], form: str) -> None:
    """Write them as they come; probabilities have six digits."""
    if form == "jsonl":
        for answer in answers:
            handle.write(json.dumps(answer._asdict() | {"probability": round(answer.probability, 6)}) + "\n")
        return
    writer = csv.writer(handle, lineterminator="\n")
    for index, answer in enumerate(answers):
        if index == 0:
            writer.writerow(Answer._fields)
        writer.writerow((*answer[:4], f"{answer.probability:.6f}", answer.decision))


def coloured(values: np.ndarray) -> np.ndarray:
    """uint8 (...,3) for probabilities 0..1."""
    at = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(values, at, channel) for channel in zip(*COLOURS, strict=True)], axis=-1).astype(
        np.uint8
    )


def draw_map(pixels: np.ndarray, grid: np.ndarray, stride: int) -> np.ndarray:
    """The image uint8 (h,w,3) in grey under the colours of grid (rows,columns): each cell round its window's centre.

    The margin that no cell covers stays grey.
    """
    picture = np.empty_like(pixels)
    first = SIZE // 2 - stride // 2
    columns = np.repeat(np.arange(grid.shape[1]), stride)
    for top in range(0, len(pixels), STRIP):
        strip = pixels[top : top + STRIP]
        grey = strip.mean(axis=2, keepdims=True)
        picture[top : top + STRIP] = (128 + grey / 2).astype(np.uint8)
        lines = np.arange(top, top + len(strip))
        rows = (lines - first) // stride
        covered = (rows >= 0) & (rows < len(grid))
        tint = coloured(grid[rows[covered]])[:, columns]
        area = (np.flatnonzero(covered) + top, slice(first, first + len(columns)))
        picture[area] = (0.45 * grey[covered][:, first : first + len(columns)] + 0.55 * tint).astype(np.uint8)
    return picture


class Maps:
    """Writes, for each image larger than a patch, NAME.probability.npy (float32, a cell a window) and .png.

    Memory holds the probabilities of one image at a time. Raises: InputError when two images share a name.
    """

    def __init__(self, folder: Path, stride: int) -> None:
        self.folder, self.stride = folder, stride
        self.source: str | None = None
        self.values: list[float] = []
        self.written: set[str] = set()

    def through(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """The same answers; a map is written once its image's last answer has passed."""
        for answer in answers:
            if answer.source != self.source or (answer.x == answer.y == 0 and self.values):
                self._finish()
                self.source = answer.source if answer.row is None else None
            if self.source is not None:
                self.values.append(answer.probability)
            yield answer
        self._finish()

    def _finish(self) -> None:
        values, self.values = self.values, []
        if self.source is None or len(values) < 2:
            return
        pixels = read_image(Path(self.source))
        shape = tuple(len(window_starts(length, self.stride)) for length in pixels.shape[:2])
        name = Path(self.source).name
        if name in self.written:
            raise InputError(f"{self.source}: a second image of the name {name}; give each a map folder of its own")
        self.written.add(name)
        grid = np.array(values, np.float32).reshape(shape)
        with atomic_path(self.folder / f"{name}.probability.npy") as temporary, temporary.open("wb") as handle:
            np.save(handle, grid)
        with atomic_path(self.folder / f"{name}.probability.png") as temporary:
            Image.fromarray(draw_map(pixels, grid, self.stride)).save(temporary, "PNG")
