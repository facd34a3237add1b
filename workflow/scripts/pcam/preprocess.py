"""From uint8 patches to what a model sees, on the device: normalisation and the eight symmetries of the square."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Preprocessing:
    """Per-channel mean and standard deviation in 0..1 units, measured on the training split alone."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def normalise(patches: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """uint8 (N,96,96,3) to float32 (N,3,96,96), zero mean and unit variance per channel."""
    mean = torch.tensor(preprocessing.mean, device=patches.device).mul(255).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, device=patches.device).mul(255).view(1, 3, 1, 1)
    return (patches.permute(0, 3, 1, 2).to(torch.float32) - mean) / std


def augment_d4(patches: torch.Tensor, symmetries: torch.Tensor) -> torch.Tensor:
    """Apply to each patch (N,96,96,3) the symmetry of the square its index 0..7 names.

    Index = 4 * mirrored + quarter turns. A patch's label does not depend on its orientation, and the centre square
    that decides it maps onto itself.
    """
    out = patches.clone()
    for symmetry in range(1, 8):
        chosen = (symmetries == symmetry).nonzero(as_tuple=True)[0]
        if len(chosen):
            group = patches[chosen]
            if symmetry >= 4:
                group = group.flip(2)
            out[chosen] = torch.rot90(group, symmetry % 4, (1, 2))
    return out
