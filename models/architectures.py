"""The networks (torch): torchvision's layouts with a last layer for our classes, and the input that they share.

Nothing that serves imports this module; a trained network is exported (`models.export`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as zoo

from models.preprocessing import Preprocessing

# The layer that torchvision's classifiers end with, by architecture.
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


class HounsfieldClassifier(nn.Module):
    """A network that takes Hounsfield units (N, 1, size, size) and gives logits (N, classes).

    Windowing, normalisation and the copy to three channels happen here, so that training, export and work
    share them to the letter.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        self.low, self.high = preprocessing.window
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, hounsfield: Tensor) -> Any:
        """Classify a batch."""
        unit = (hounsfield.clamp(self.low, self.high) - self.low) / (self.high - self.low)
        return self.network((unit.expand(-1, 3, -1, -1) - self.mean) / self.std)
