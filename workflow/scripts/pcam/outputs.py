"""Answers as CSV or JSON lines, and as a map of probabilities over a large image."""

import csv
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np
from PIL import Image

from pcam.files import InputError, atomic_path
from pcam.images import SIZE, read_image, window_starts
from pcam.inputs import Block, shown

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
            sys.stdout.flush()
    else:
        yield sys.stdout
        sys.stdout.flush()  # here, where a full disk can still be told


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


def _cells(length: int, stride: int) -> np.ndarray:
    """For each pixel line int64 (length,) the window whose cell it lies in, -1 where there is none."""
    begins = window_starts(length, stride) + SIZE // 2 - stride // 2
    lines = np.arange(length)
    cells = np.searchsorted(begins, lines, side="right") - 1
    return np.where(lines < begins[-1] + stride, cells, -1)


def draw_map(pixels: np.ndarray, grid: np.ndarray, stride: int) -> np.ndarray:
    """The image uint8 (h,w,3) in grey under the colours of grid (rows,columns): each cell round its window's centre.

    A cell is `stride` wide and high, less where the next one, flush with the image's end, begins sooner. The margin
    that no cell covers stays grey.
    """
    picture = np.empty_like(pixels)
    rows, columns = (_cells(length, stride) for length in pixels.shape[:2])
    across = np.flatnonzero(columns >= 0)
    area = slice(across[0], across[-1] + 1)
    for top in range(0, len(pixels), STRIP):
        strip = pixels[top : top + STRIP]
        grey = strip.mean(axis=2, keepdims=True)
        picture[top : top + STRIP] = (128 + grey / 2).astype(np.uint8)
        covered = np.flatnonzero(rows[top : top + STRIP] >= 0)
        tint = coloured(grid[rows[top + covered]])[:, columns[area]]
        picture[top + covered, area] = (0.45 * grey[covered][:, area] + 0.55 * tint).astype(np.uint8)
    return picture


class Maps:
    """Writes, for each image larger than a patch, NAME.probability.npy (float32, a cell a window) and .png.

    A second image of a name gets NAME-2 and so on; `tell` hears of it. Memory holds the probabilities of one image at a
    time.

    Raises: InputError when the folder is a file or cannot be made; then, when an image lies in it.
    """

    def __init__(self, folder: Path, stride: int, tell: Callable[[str], None]) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be the folder of maps ({error.strerror}); name another") from None
        self.folder, self.stride, self.tell = folder, stride, tell
        self.image: Path | None = None
        self.values: list[float] = []
        self.written: set[str] = set()

    def see(self, blocks: Iterable[Block], probabilities: np.ndarray) -> None:
        """Blocks of patches and all their answers (n,); an image's map is written when the next image begins."""
        start = 0
        for block in blocks:
            if block.image != self.image or not block.places[0].any():
                self.finish()
                self.image = block.image
                if block.image is not None and self.folder.samefile(block.image.parent):
                    raise InputError(
                        f"{shown(block.image)}: lies in the folder of maps, where these would be read as images "
                        "another time; name another folder for --map"
                    )
            if self.image is not None:
                self.values += probabilities[start : start + len(block)].tolist()
            start += len(block)

    def finish(self) -> None:
        """Write the map of the last image."""
        values, self.values = self.values, []
        if self.image is None or len(values) < 2:
            return
        pixels = read_image(self.image)
        grid = np.array(values, np.float32).reshape([len(window_starts(n, self.stride)) for n in pixels.shape[:2]])
        name, number = self.image.name, 1
        while name in self.written:
            number += 1
            name = f"{self.image.name}-{number}"
        if number > 1:
            self.tell(f"the map of {shown(self.image)} is {shown(Path(name))}.probability.npy and .png")
        self.written.add(name)
        with atomic_path(self.folder / f"{name}.probability.npy") as temporary, temporary.open("wb") as handle:
            np.save(handle, grid)
        with atomic_path(self.folder / f"{name}.probability.png") as temporary:
            Image.fromarray(draw_map(pixels, grid, self.stride)).save(temporary, "PNG")
