"""Classify patches with a trained checkpoint: `python inference.py weights.pt image-or-folder-or-h5 …`.

Prints a CSV row a patch: source, row (of an .h5 file), x, y (of a 96-pixel tile in a larger image), probability of
tumour in the centre, decision at the threshold stored beside the weights. Needs torch, numpy, pillow and h5py only.
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

from pcam.checkpoint import load_checkpoint, predict_logits
from pcam.files import InputError
from pcam.hdf5 import PatchReader, convert_lossless
from pcam.preprocess import normalise

SIZE = 96
BATCH = 64
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


def classify(weights: str, paths: list[str]) -> Iterator[tuple[Patch, float, int]]:
    """Patch, probability and decision 0/1, streamed in batches.

    Raises: InputError when the checkpoint or an input is missing, damaged or foreign.
    """
    model, preprocessing, sidecar = load_checkpoint(weights)
    threshold = sidecar["threshold"]
    if threshold is None:
        raise InputError(f"{weights}: no threshold was chosen for it; use results/champion/weights.pt")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    patches = (patch for path in paths for patch in patches_of(Path(path)))
    while batch := list(islice(patches, BATCH)):
        pixels = torch.from_numpy(np.stack([patch.pixels for patch in batch])).to(device)
        logits = predict_logits(model, normalise(pixels, preprocessing)).cpu().double()
        for patch, probability in zip(batch, torch.sigmoid(logits).tolist(), strict=True):
            yield patch, probability, int(probability >= threshold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights.pt; its weights.json must lie beside it")
    parser.add_argument("inputs", nargs="+", help="image, folder of images, or .h5 file")
    arguments = parser.parse_args()
    writer = csv.writer(sys.stdout, lineterminator="\n")
    try:
        results = classify(arguments.weights, arguments.inputs)
        for index, (patch, probability, decision) in enumerate(results):
            if index == 0:
                writer.writerow(("source", "row", "x", "y", "probability", "decision"))
            writer.writerow((patch.source, patch.row, patch.x, patch.y, f"{probability:.6f}", decision))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
