"""The house style of every picture, and saving it: one size of type, colour-blind safe, the same bits each time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pcam.files import atomic_path, write_text

# Okabe and Ito's colours: told apart with every common kind of colour blindness, and in grey by their lightness.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, SKY)
INK, GREY, FAINT = "#1a1a1a", "#767676", "#d9d9d9"
FRAME = "#F0E442"  # Okabe and Ito's yellow, which tissue does not show
MARKERS = ("o", "s", "^", "D", "v", "P")
LABEL_STRIP_IN = 0.3  # height kept free at the foot for the data label
PATCH_IN, PITCH_IN, ROW_IN, MARGIN_IN = 1.05, 1.2, 1.68, 0.15  # of a grid of patches
PAIR_IN = 0.11  # by which the members of a pair stand nearer to each other

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "lines.linewidth": 1.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "savefig.dpi": 150,
}


@contextmanager
def drawing(path: str | Path, label: str, width_in: float, height_in: float) -> Iterator[Figure]:
    """A figure in the house style that is written to `path`, atomically, when the block ends well.

    The data label is printed in its corner. The user's own matplotlib settings do not reach it, and the file holds no
    time and no version, so equal data give equal bytes.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(width_in, height_in), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        strip = LABEL_STRIP_IN / height_in
        layout = figure.get_layout_engine()
        assert layout is not None
        layout.set(rect=(0, strip, 1, 1 - strip), w_pad=0.08, h_pad=0.08)  # type: ignore[call-arg]
        yield figure
        figure.text(
            1 - 0.06 / width_in, 0.07 / height_in, label, ha="right", va="bottom", fontsize=9, color=GREY, weight="bold"
        )
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def write_caption(path: str | Path, sentences: Sequence[str], label: str) -> None:
    """Write what a picture shows, as the line that every document prints, with the data label."""
    write_text(path, " ".join((*sentences, f"Data: {label}.")) + "\n")


def displayable(patch: np.ndarray) -> np.ndarray:
    """A patch of any dtype as uint8: not-a-number as black, everything else clipped to 0..255."""
    if patch.dtype == np.uint8:
        return patch
    clipped: np.ndarray = np.clip(np.nan_to_num(patch, nan=0.0, posinf=255.0, neginf=0.0), 0, 255).astype(np.uint8)
    return clipped


def show_patch(axes: Axes, patch: np.ndarray, below: str) -> None:
    """One patch in its own colours with a small line of text below."""
    axes.imshow(displayable(patch), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color=FAINT)
    axes.set_xlabel(below, fontsize=7.5, labelpad=2)


def patch_grid(
    figure: Figure,
    rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, str]]]],
    *,
    paired: bool = False,
    first_line: int = 0,
) -> list[list[Axes]]:
    """Rows of patches, each patch with its line of text, each row with its heading; see grid_size_in. Gives the axes.

    Placed by hand, in inches: a layout engine would widen a column to the length of its heading. `paired`: every second
    patch moves towards the one before it. `first_line`: rows of the figure that are taken already.
    """
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    drawn: list[list[Axes]] = []
    for line, (heading, patches) in enumerate(rows, first_line):
        top = height - 0.1 - line * ROW_IN
        figure.text(MARGIN_IN / width, (top - 0.2) / height, heading, fontsize=10, weight="bold", va="bottom")
        drawn.append([])
        for column, shown in enumerate(patches):
            left, bottom = MARGIN_IN + column * PITCH_IN, top - 0.26 - PATCH_IN
            if paired and column % 2:
                left -= PAIR_IN
            axes = figure.add_axes((left / width, bottom / height, PATCH_IN / width, PATCH_IN / height))
            show_patch(axes, *shown)
            drawn[-1].append(axes)
    return drawn


def outline(axes: Axes, top: int, left: int, height: int, width: int, *, margin: int = 0) -> None:
    """A frame around pixels of a shown patch, `margin` pixels away, visible on dark and on light tissue."""
    top, left, height, width = top - margin, left - margin, height + 2 * margin, width + 2 * margin
    for colour, thickness in ((INK, 3.2), (FRAME, 1.5)):
        frame = Rectangle((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=thickness)
        axes.add_patch(frame)
        frame.set_clip_on(False)  # at the patch's edge half of it would be gone


def grid_size_in(rows: int, columns: int) -> tuple[float, float]:
    """Width and height of a figure that holds a patch_grid of so many rows and columns."""
    return columns * PITCH_IN + MARGIN_IN, max(rows, 1) * ROW_IN + LABEL_STRIP_IN + 0.1


def log_axis(axes: Axes, which: str, values: Sequence[float] | np.ndarray) -> None:
    """A logarithmic scale on axis "x" or "y" with plain numbers, few enough not to touch."""
    known = [value for value in values if np.isfinite(value) and value > 0]
    wide = len(known) > 0 and max(known) > 100 * min(known)
    axes.set(**{f"{which}scale": "log"})
    axis: Axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_locator(NullLocator())


def span_axis(axes: Axes, parameter: Mapping[str, Any]) -> None:
    """The x axis over all values that the search may give a setting, so that what it left out shows."""
    low, high = parameter["low"], parameter["high"]
    if parameter.get("log"):
        log_axis(axes, "x", [low, high])
        axes.set_xlim(low * (low / high) ** 0.05, high * (high / low) ** 0.05)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 4, 5, 10], integer=parameter["type"] == "int"))
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))


def seed_styles(seeds: Sequence[object]) -> dict[object, dict[str, Any]]:
    """A colour for each seed, the same in every picture."""
    return {seed: {"color": COLOURS[i % len(COLOURS)]} for i, seed in enumerate(seeds)}


def undefined_note(axes: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY, wrap=True)


def numbers(rows: Sequence[Mapping[str, str]], column: str) -> np.ndarray:
    """A column of a table as float64; empty cells are NaN."""
    return np.array([float(row[column]) if row[column] not in ("", None) else np.nan for row in rows], np.float64)
