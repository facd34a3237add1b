"""From uint8 patches to what a model sees, on the device: normalisation and the eight symmetries of the square."""

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Preprocessing:
    """Per-channel mean and standard deviation in 0..1 units, measured on the training split alone."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def normalise(patches: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 (N,96,96,3) to float32 (N,3,96,96), zero mean and unit variance per channel."""
    mean, std = _of_one_line(preprocessing, patches.shape[2], patches.device)
    lines = patches.to(torch.float32, copy=True).flatten(2)
    return lines.sub_(mean).div_(std).view(patches.shape).permute(0, 3, 1, 2)


@cache
def _of_one_line(preprocessing: Preprocessing, width: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of every value in a line of pixels: sums over whole lines take a fifth of the time.

    Kept, because copying them to a GPU in each step would wait for it.
    """
    with torch.inference_mode(False):  # also when a prediction is the first to ask
        mean, std = (torch.tensor(values).mul(255).repeat(width) for values in (preprocessing.mean, preprocessing.std))
        return mean.to(device), std.to(device)


def augment_d4(patches: torch.Tensor, symmetries: torch.Tensor) -> torch.Tensor:
    """Apply to each patch (N,96,96,3) the symmetry of the square its index 0..7 names, without waiting for the device.

    Bits of the index: 1 swaps rows and columns, 2 turns the rows round, 4 the columns; together all eight. A patch's
    label does not depend on its orientation, and the centre square that decides it maps onto itself.
    """
    n, side = patches.shape[:2]
    first = torch.arange(0, n * side * side, side * side, dtype=torch.int32, device=patches.device)
    sources = _sources(side, patches.device).index_select(0, symmetries) + first.view(-1, 1)
    return patches.reshape(-1, patches.shape[3]).index_select(0, sources.view(-1)).view(patches.shape)


@cache
def _sources(side: int, device: torch.device) -> torch.Tensor:
    """int32 (8,side*side): which pixel of a patch comes to each place, by symmetry."""
    with torch.inference_mode(False):
        places = torch.arange(side * side, dtype=torch.int32).view(side, side)
        swapped = (places, places.T)  # by bit 1; the other two bits turn rows and columns round
        tables = [swapped[s & 1].flip([axis for axis in (0, 1) if s & (2, 4)[axis]]) for s in range(8)]
        return torch.stack(tables).view(8, -1).to(device)
