"""The networks (torch): torchvision's layouts with a last layer for our classes, and the input that they share.

Nothing that serves imports this module; a trained network is exported (`models.export`).
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as zoo

from models.preprocessing import Preprocessing

_BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v2": zoo.mobilenet_v2,
    "vgg16": zoo.vgg16,
    "resnet50": zoo.resnet50,
    "efficientnet_b0": zoo.efficientnet_b0,
}
ARCHITECTURES = tuple(_BUILDERS)


def build(architecture: str, classes: int) -> nn.Module:
    """Return a network with random weights: input (N, 3, size, size), output (N, classes) logits.

    Raises ValueError for an unknown architecture.
    """
    if architecture not in _BUILDERS:
        raise ValueError(f"Unknown architecture {architecture!r}: choose one of {', '.join(ARCHITECTURES)}.")
    network: nn.Module = _BUILDERS[architecture](weights=None, num_classes=classes)
    return network


def parameter_count(network: nn.Module) -> int:
    """Return how many parameters a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def split_last_layer(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return (backbone, head), which share their parameters with `network`.

    The head is the last linear layer with the dropout before it; the backbone gives the features that it takes,
    (N, features).
    """
    name, last = list(network.named_children())[-1]
    kept: list[nn.Module] = []
    head: list[nn.Module] = [last]
    if isinstance(last, nn.Sequential):
        layers = list(last)
        start = len(layers) - (2 if isinstance(layers[-2], nn.Dropout) else 1)
        kept, head = layers[:start], layers[start:]
    backbone = copy.copy(network)
    backbone._modules = {**network._modules, name: nn.Sequential(*kept)}  # noqa: SLF001  # a shallow copy shares the dictionary
    return backbone, nn.Sequential(*head)


class HounsfieldClassifier(nn.Module):
    """A network that takes Hounsfield units (N, 1, size, size) and gives logits (N, classes).

    Windowing, normalisation and the copy to three channels happen here, so that training, export and work
    share them to the letter. It trains the parameters of `network` itself; with `frozen` only the last layer learns,
    and BatchNorm and dropout before it stay as they work.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, *, frozen: bool = False) -> None:
        super().__init__()
        self.backbone, self.head = split_last_layer(network)
        self.frozen = frozen
        self.mean: Tensor
        self.std: Tensor
        self.low, self.high = preprocessing.window
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.backbone.requires_grad_(requires_grad=False).eval()

    def features(self, hounsfield: Tensor) -> Any:
        """Return what the last layer judges by, (N, features)."""
        unit = (hounsfield.clamp(self.low, self.high) - self.low) / (self.high - self.low)
        return self.backbone((unit.expand(-1, 3, -1, -1) - self.mean) / self.std)

    def forward(self, hounsfield: Tensor) -> Any:
        """Classify a batch."""
        return self.head(self.features(hounsfield))

    def train(self, mode: bool = True) -> "HounsfieldClassifier":
        """Change between learning and work; a frozen backbone stays at work."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self


class FoldedClassifier(nn.Module):
    """What `HounsfieldClassifier` computes, with normalisation and the copy to three channels in the first convolution.

    That convolution pads with zeros after the normalisation, so a shift of its bias would be wrong along the border: a
    second channel of ones carries the shift, which the padding ends as it does the picture. For work, not training.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        network = copy.deepcopy(network)
        first = next(each for each in network.modules() if isinstance(each, nn.Conv2d))
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
        self.mean, self.std = float(mean.mean()), float(std.mean())
        with torch.no_grad():
            shift = (self.mean - mean) / std
            parts = (first.weight * self.std / std).sum(1), (first.weight * shift).sum(1)
        first.in_channels = 2
        first.weight = nn.Parameter(torch.stack(parts, 1))
        self.backbone, self.head = split_last_layer(network)
        self.low, self.high = preprocessing.window

    def features(self, hounsfield: Tensor) -> Any:
        """Return what the last layer judges by, (N, features)."""
        unit = (hounsfield.clamp(self.low, self.high) - self.low) / (self.high - self.low)
        one = (unit - self.mean) / self.std
        return self.backbone(torch.cat([one, torch.ones_like(one)], 1))


class FeaturesOf(nn.Module):
    """The features of a classifier alone: HU (N, 1, size, size) in, (N, features) out."""

    def __init__(self, model: HounsfieldClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, hounsfield: Tensor) -> Tensor:
        """Return the features of a batch."""
        features: Tensor = self.model.features(hounsfield)
        return features
