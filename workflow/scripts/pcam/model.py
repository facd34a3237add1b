"""Models by name: a small ResNet, ResNet-50 and the course's MLP. All take (N,3,96,96) float32 and give logits (N,)."""

from abc import ABC, abstractmethod
from typing import TypedDict

import torch
from torch import nn
from torch.nn import functional

MODELS = ("resnet", "resnet50", "mlp")


class Architecture(TypedDict):
    """What rebuilds a model; stands in weights.json. `tta`: average over the square's symmetries when evaluating."""

    model: str
    width: int
    depth: int
    hidden: int
    dropout: float
    tta: bool


class Classifier(nn.Module, ABC):
    """A model that, when it evaluates and `tta` is set, averages its logits over the eight symmetries of the square."""

    tta = False

    @abstractmethod
    def logits(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N,) of normalised patches (N,3,96,96), each as it lies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training or not self.tta:
            return self.logits(x)
        turned = [torch.rot90(y, turns, (2, 3)) for y in (x, x.flip(3)) for turns in range(4)]
        return torch.stack([self.logits(y) for y in turned]).mean(0)


def convolution(channels_in: int, channels_out: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm; the norm's shift stands for a bias."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False), nn.BatchNorm2d(channels_out)
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016).

    A shortcut that halves the resolution averages 2x2 places, where a strided 1x1 convolution would skip three of four
    (ResNet-D, He et al. 2019).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels_in, channels, 3, stride)
        self.conv2 = convolution(channels, channels, 3)
        self.shortcut = nn.Sequential()  # empty: the identity
        if stride > 1 or channels_in != channels:
            self.shortcut = nn.Sequential(nn.AvgPool2d(stride), *convolution(channels_in, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu_(self.conv2(functional.relu_(self.conv1(x))) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 (which strides) and 1x1 convolutions to four times the channels, with a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(channels_in, channels, 1)
        self.conv2 = convolution(channels, channels, 3, stride)
        self.conv3 = convolution(channels, 4 * channels, 1)
        same = stride == 1 and channels_in == 4 * channels
        self.shortcut = nn.Identity() if same else convolution(channels_in, 4 * channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu_(self.conv2(functional.relu_(self.conv1(x))))
        return functional.relu_(self.conv3(y) + self.shortcut(x))


def stage(
    block: type[nn.Module], channels_in: int, channels: int, channels_out: int, depth: int, stride: int
) -> nn.Sequential:
    """`depth` blocks, the first of which strides."""
    first = block(channels_in, channels, stride)
    return nn.Sequential(first, *(block(channels_out, channels, 1) for _ in range(depth - 1)))


class ResNet(Classifier):
    """Stem at half resolution; three stages of `depth` basic blocks with `width`, 2 and 4 times as many channels.

    Average beside maximum before the head: the maximum keeps a few tumour cells that the average would dilute.
    """

    def __init__(self, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, width, 3, 2), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(
            stage(BasicBlock, width, width, width, depth, 2),
            stage(BasicBlock, width, 2 * width, 2 * width, depth, 2),
            stage(BasicBlock, 2 * width, 4 * width, 4 * width, depth, 2),
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8 * width, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stages(self.stem(x))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        return self.head(self.dropout(pooled)).squeeze(1)


class ResNet50(Classifier):
    """ResNet-50 (He et al. 2016) with `width` 64: stem of 7x7 and max-pool, 3, 4, 6 and 3 bottlenecks."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, width, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        channels_in, stages = width, []
        for number, depth in enumerate((3, 4, 6, 3)):
            channels = width * 2**number
            stages.append(stage(Bottleneck, channels_in, channels, 4 * channels, depth, 1 if number == 0 else 2))
            channels_in = 4 * channels
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels_in, 1)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stages(self.stem(x)).mean((2, 3))
        return self.head(self.dropout(features)).squeeze(1)


class MLP(Classifier):
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

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(1)


def build_model(architecture: Architecture) -> Classifier:
    """A model with its weights channels-last in memory. Raises: ValueError when no model has that name."""
    model: Classifier
    match architecture["model"]:
        case "resnet":
            model = ResNet(architecture["width"], architecture["depth"], architecture["dropout"])
        case "resnet50":
            model = ResNet50(architecture["width"], architecture["dropout"])
        case "mlp":
            model = MLP(architecture["hidden"], architecture["dropout"])
        case name:
            raise ValueError(f"no model is named {name!r}; known are {', '.join(MODELS)}")
    model.tta = architecture["tta"]
    # Twice as fast on a CPU, and what tensor cores want.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


class Embedder(nn.Module):
    """What the last linear layer of a classifier is given, (N,size) of normalised patches (N,3,96,96).

    Where the classifier averages over the symmetries, so does this: the layer turns the mean into the mean logit.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier.eval()
        self.last = [module for module in classifier.modules() if isinstance(module, nn.Linear)][-1]
        self.size = self.last.in_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        given: list[torch.Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        try:
            self.classifier(x)
        finally:
            hook.remove()
        return torch.stack(given).mean(0)


def layer_of(parameter: str) -> str:
    """The layer that a parameter's gradient is told under: `stem`, `stages.0`, `layers.4`, `head`."""
    first, *rest = parameter.split(".")
    return f"{first}.{rest[0]}" if first in ("stages", "layers") else first
