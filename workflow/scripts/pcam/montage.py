"""Patches in a picture at a whole-number scale, without resampling, so that their colours are those of the file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from pcam.facts import CENTRE, PATCH_SHAPE
from pcam.figures import BLUE, INK, LABEL_STRIP_IN, RED, STYLE

SCALE = 2  # pixels of the picture for each of a patch, along each side
SIDE_PX = SCALE * PATCH_SHAPE[0]
PITCH_PX = SIDE_PX + 24
HEADING_PX, TEXT_LINE_PX, MARGIN_PX = 40, 19, 20

_DOTS = float(STYLE["savefig.dpi"])


@dataclass(frozen=True)
class Line:
    """A row of a montage: uint8 images (96,96,3), each with its text below; the heading may be empty."""

    heading: str
    images: Sequence[np.ndarray]
    texts: Sequence[str]

    @property
    def height_px(self) -> int:
        most = max((text.count("\n") + 1 for text in self.texts if text), default=0)
        return (HEADING_PX if self.heading else 0) + SIDE_PX + TEXT_LINE_PX * most + 14


def montage_size_in(lines: Sequence[Line], columns: int, foot_in: float = 0.0) -> tuple[float, float]:
    """Width and height of a figure that holds the lines, the data label and `foot_in` above it."""
    width_px = columns * PITCH_PX - (PITCH_PX - SIDE_PX) + 2 * MARGIN_PX
    height_px = max(sum(line.height_px for line in lines), SIDE_PX) + MARGIN_PX
    return width_px / _DOTS, height_px / _DOTS + foot_in + LABEL_STRIP_IN


def draw_montage(figure: Figure, lines: Sequence[Line]) -> None:
    """Lines from the top of a figure down."""
    figure.set_layout_engine("none")
    width, height = (int(side * _DOTS) for side in figure.get_size_inches())
    top = height - MARGIN_PX // 2
    for line in lines:
        bottom = top - SIDE_PX - (HEADING_PX if line.heading else 0)
        if line.heading:
            figure.text(MARGIN_PX / width, (top - HEADING_PX / 2) / height, line.heading, fontsize=10, weight="bold",
                        va="center")  # fmt: skip
        for column, (image, text) in enumerate(zip(line.images, line.texts, strict=True)):
            left = MARGIN_PX + column * PITCH_PX
            figure.figimage(image.repeat(SCALE, 0).repeat(SCALE, 1), left, bottom, origin="upper")
            figure.text((left + SIDE_PX / 2) / width, (bottom - 4) / height, text, fontsize=7.5, ha="center", va="top")
        top -= line.height_px


def heat(patch: np.ndarray, effects: np.ndarray) -> np.ndarray:
    """uint8 (96,96,3): a patch in pale grey under its map (8,8), orange for tumour, blue against, its centre framed."""
    grey = 255 - 0.4 * (255 - patch.mean(axis=2, keepdims=True))
    fine = np.kron(effects, np.ones((len(patch) // len(effects),) * 2))[:, :, None]
    strength = 0.8 * np.abs(fine) / max(float(np.abs(fine).max()), 1e-12)
    tint = 255 * np.where(fine > 0, to_rgb(RED), to_rgb(BLUE))
    shown = np.rint(grey + strength * (tint - grey)).astype(np.uint8)
    ink = np.rint(255 * np.array(to_rgb(INK))).astype(np.uint8)
    first, last = CENTRE.start, CENTRE.stop - 1
    for frame in (np.s_[first : last + 1, [first, last]], np.s_[[first, last], first : last + 1]):
        shown[frame] = ink
    return shown
