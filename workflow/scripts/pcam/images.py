"""Image files to uint8 RGB, with limits on what a small file may unpack to."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pcam.facts import PATCH_SHAPE
from pcam.files import InputError

SIZE = PATCH_SHAPE[0]
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"}
_PNG_DEPTH_AT = 24  # the byte that holds a PNG's bits a sample: 8 of signature, 8 of IHDR's head, 8 of width and height
_TIFF_DEPTHS = 258  # the tag BitsPerSample
FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # Pillow knows others that start programs or read further files
MOST_PIXELS = 10_000**2  # 300 MB as RGB


def _depth(path: Path, image: Image.Image) -> int:
    """Bits a sample as the file states them: Pillow cuts colours of 16 bits down to 8 and does not tell."""
    if image.format == "PNG":
        with path.open("rb") as handle:
            return handle.read(_PNG_DEPTH_AT + 1)[_PNG_DEPTH_AT]
    tags = getattr(image, "tag_v2", {})
    return max(tags.get(_TIFF_DEPTHS, (8,)))


def _decode(path: Path) -> np.ndarray:
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        if min(width, height) < SIZE:
            raise InputError(f"{path}: {width} x {height} pixels; a patch needs at least {SIZE} x {SIZE}")
        if width * height > MOST_PIXELS:
            raise InputError(
                f"{path}: says it has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}; cut it into tiles"
            )
        if image.mode not in ("RGB", "RGBA", "L", "P"):
            raise InputError(f"{path}: pixels of mode {image.mode}; save it as 8-bit RGB")
        if (depth := _depth(path, image)) > 8:
            raise InputError(f"{path}: {depth} bits a colour; save it as 8-bit RGB")
        if (pages := getattr(image, "n_frames", 1)) > 1:
            raise InputError(f"{path}: holds {pages} images; save the one you mean on its own")
        clear = image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255)
        if clear or "transparency" in image.info:
            raise InputError(f"{path}: has transparent pixels, whose colour is undefined; save it as 8-bit RGB")
        return np.asarray(image.convert("RGB"))


def read_image(path: Path) -> np.ndarray:
    """uint8 (height,width,3), each side 96 at least.

    Raises: InputError when the file is missing, damaged, no image of FORMATS, not of 8 bits, too small or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that MOST_PIXELS allows, and of odd tags
            return _decode(path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not a readable image ({', '.join(FORMATS)}) or HDF5 file (.h5, .h5.gz)") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path}: says it has more than {MOST_PIXELS:,} pixels; cut it into tiles") from None
    except Exception as error:  # Pillow's parsers raise whatever damaged bytes lead them into
        told = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path}: cannot be read ({told}); fetch or save it again") from None


def window_starts(length: int, stride: int) -> np.ndarray:
    """Where windows begin along a side of `length` pixels, int64 (n,): every `stride` pixels, and the last at its end.

    So the last two may lie closer together, and no pixel is left out.
    """
    last = length - SIZE
    return np.append(np.arange(0, last, stride), last)
