"""Classify patches with a trained checkpoint: `python inference.py weights.pt image-or-folder-or-h5 …`.

Prints a CSV row a patch: source, row (of an .h5 file), x, y (of a 96-pixel tile in a larger image), probability of
tumour in the centre, decision at the threshold stored beside the weights. Compares the patches with those that the
threshold was chosen on (guard.json beside the weights) and says on stderr where they differ more than by chance;
--watch tells every statistic, that of the answers too. Exit code 1: bad input; 3: --guard refuse and the patches
differ. Needs torch, numpy, pillow and h5py only.
"""

import argparse
import csv
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

sys.path.insert(0, str(Path(__file__).resolve().parent / "workflow" / "scripts"))

from pcam.checkpoint import load_checkpoint, predict_logits, probabilities
from pcam.files import InputError
from pcam.guard import Guard, Tally, read_guard, watched_values
from pcam.hdf5 import PatchReader, convert_lossless
from pcam.preprocess import normalise
from pcam.readings import Verdict

SIZE = 96
BATCH = 64
GUARD = "guard.json"  # beside the weights
REFUSED = 3  # exit code
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}


class Patch(NamedTuple):
    source: str
    row: int | None
    x: int
    y: int
    pixels: np.ndarray


def image_patches(path: Path) -> Iterator[Patch]:
    """The whole 96-pixel tiles of an image, left to right, top to bottom; a margin that fills no tile is left out."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("RGB", "RGBA", "L", "P"):
                raise InputError(f"{path}: pixels of mode {image.mode}; save it as 8-bit RGB")
            pixels = np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    height, width = pixels.shape[:2]
    if min(height, width) < SIZE:
        raise InputError(f"{path}: {width} x {height} pixels; a patch needs at least {SIZE} x {SIZE}")
    for y in range(0, height - SIZE + 1, SIZE):
        for x in range(0, width - SIZE + 1, SIZE):
            yield Patch(str(path), None, x, y, pixels[y : y + SIZE, x : x + SIZE])


def hdf5_patches(path: Path) -> Iterator[Patch]:
    with PatchReader(path) as reader:
        for start, chunk in reader.chunks():
            for offset, pixels in enumerate(chunk):
                try:
                    yield Patch(str(path), start + offset, 0, 0, convert_lossless(pixels))
                except ValueError as error:
                    raise InputError(f"{path}: row {start + offset}: {error}; the model takes uint8 pixels") from None


def patches_of(path: Path) -> Iterator[Patch]:
    """Every patch behind a path: an .h5 file, an image, or the images of a folder in order of name."""
    if path.is_dir():
        images = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise InputError(f"{path}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        for image in images:
            yield from image_patches(image)
    elif not path.exists():
        raise InputError(f"{path}: no such file or folder")
    elif path.suffix in (".h5", ".hdf5"):
        yield from hdf5_patches(path)
    else:
        yield from image_patches(path)


class Answer(NamedTuple):
    """A row of the output; without pixels, so that many can be held back."""

    source: str
    row: int | None
    x: int
    y: int
    probability: float
    decision: int


class Watch:
    """Collects what the guard must know of the patches that pass by, in memory that does not grow with them."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.tally: Tally | None = None
        self.first_strange = ""

    def see(self, batch: list[Patch], probabilities: np.ndarray) -> None:
        """Patches and the answers (n,) to them."""
        seen = self.guard.tally(watched_values(np.stack([patch.pixels for patch in batch]), probabilities))
        if seen.first_strange is not None and not self.first_strange:
            patch = batch[seen.first_strange]
            place = f"x {patch.x}, y {patch.y}" if patch.row is None else f"row {patch.row}"
            self.first_strange = f"{patch.source} ({place})"
        self.tally = seen if self.tally is None else self.tally + seen

    def verdict(self) -> Verdict | None:
        """On all patches as one set; None before the first."""
        return None if self.tally is None else self.guard.verdict(self.tally)

    def findings(self) -> tuple[str | None, str | None]:
        """What speaks against the pixels as a set, and what is worth a note about single patches; None: nothing."""
        verdict = self.verdict()
        if verdict is None:
            return None, None
        note = None
        if verdict.strange:
            note = (
                f"{verdict.strange} of {verdict.n:,} patches are unlike any validation patch, "
                f"the first is {self.first_strange}"
            )
        return verdict.sentence() if verdict.warns else None, note


def classify(weights: str, paths: list[str], *, guarded: bool = False) -> tuple[Iterator[Answer], Watch | None]:
    """Answers, streamed in batches, and the watch that has seen all patches when the answers have ended.

    Raises: InputError when the checkpoint, its guard or an input is missing, damaged or foreign.
    """
    model, preprocessing, sidecar = load_checkpoint(weights)
    threshold = sidecar["threshold"]
    if threshold is None:
        raise InputError(f"{weights}: no threshold was chosen for it; use results/champion/weights.pt")
    watch = Watch(read_guard(Path(weights).with_name(GUARD), sidecar)) if guarded else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)

    def results() -> Iterator[Answer]:
        patches = (patch for path in paths for patch in patches_of(Path(path)))
        while batch := list(islice(patches, BATCH)):
            pixels = torch.from_numpy(np.stack([patch.pixels for patch in batch])).to(device)
            logits = predict_logits(model, normalise(pixels, preprocessing)).cpu().numpy()
            answers = probabilities(logits, sidecar)
            if watch is not None:
                watch.see(batch, answers)
            for patch, probability in zip(batch, answers.tolist(), strict=True):
                yield Answer(patch.source, patch.row, patch.x, patch.y, probability, int(probability >= threshold))

    return results(), watch


def report(watch: Watch) -> None:
    """The table and the conclusion of --watch, on stderr."""
    verdict = watch.verdict()
    told = ["no patch was seen"] if verdict is None else [*verdict.table(), verdict.conclusion()]
    print(*(f"watch: {line}" for line in told), sep="\n", file=sys.stderr)


def main() -> int:
    """Exit code 0, or 3 where the guard refuses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights.pt; its weights.json must lie beside it")
    parser.add_argument("inputs", nargs="+", help="image, folder of images, or .h5 file")
    parser.add_argument(
        "--guard",
        choices=("warn", "refuse", "off"),
        default="warn",
        help="patches unlike validation patches: warn on stderr (the default), print nothing and end with 3, or off",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="tell on stderr each statistic of pixels and answers, on validation, here, and as far as chance allows",
    )
    arguments = parser.parse_args()
    if arguments.watch and arguments.guard == "off":
        parser.error("--watch needs the guard; leave --guard off away")
    guarded = arguments.guard != "off"
    if arguments.guard == "warn" and not arguments.watch and not Path(arguments.weights).with_name(GUARD).exists():
        guarded = False
    writer = csv.writer(sys.stdout, lineterminator="\n")
    try:
        results, watch = classify(arguments.weights, arguments.inputs, guarded=guarded)
        if arguments.guard == "refuse":
            results = iter(list(results))  # the guard speaks last, and until then nothing may be printed
            if watch is not None and (finding := watch.findings()[0]):
                if arguments.watch:
                    report(watch)
                print(f"refused: {finding}; --guard warn prints the answers all the same", file=sys.stderr)
                return REFUSED
        for index, answer in enumerate(results):
            if index == 0:
                writer.writerow(Answer._fields)
            writer.writerow((*answer[:4], f"{answer.probability:.6f}", answer.decision))
    except InputError as error:
        sys.exit(f"error: {error}")
    if watch is not None:
        warning, note = watch.findings()
        if arguments.watch:
            report(watch)  # which tells the warning
        elif warning:
            print(f"warning: {warning}", file=sys.stderr)
        if note:
            print(f"note: {note}", file=sys.stderr)
    elif arguments.guard == "warn":
        print(f"note: no {GUARD} beside {arguments.weights}, so the patches were compared with none", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
