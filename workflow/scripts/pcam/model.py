"""Models by name: a small ResNet and the course's MLP. Both take (N,3,96,96) float32 and give logits (N,)."""

from typing import TypedDict

import torch
from torch import nn
from torch.nn import functional


class Architecture(TypedDict):
    """What rebuilds a model; stands in weights.json."""

    model: str
    width: int
    hidden: int
    dropout: float


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut (He et al. 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        same = stride == 1 and channels_in == channels_out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Stem at half resolution, three residual stages of `width`, 2 and 4 times it, global average pooling."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.stages = nn.Sequential(
            ResidualBlock(width, width, 2), ResidualBlock(width, 2 * width, 2), ResidualBlock(2 * width, 4 * width, 2)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4 * width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stages(self.stem(x)).mean((2, 3))
        return self.head(self.dropout(features)).squeeze(1)


class MLP(nn.Module):
    """The course's baseline: flatten, two hidden layers. It sees pixels, not structure."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(3 * 96 * 96, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden // 2),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 2, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(1)


def build_model(architecture: Architecture) -> nn.Module:
    """Raises: ValueError when no model has that name."""
    match architecture["model"]:
        case "resnet":
            return ResNet(architecture["width"], architecture["dropout"])
        case "mlp":
            return MLP(architecture["hidden"], architecture["dropout"])
        case name:
            raise ValueError(f"no model is named {name!r}; known are resnet, mlp")
