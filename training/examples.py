"""What a network learns from: features that were computed before, fixed views, or new random views in every epoch."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augmentation import random_views
from training.dataset import LabelledSlices
from training.features import Features, Request
from training.views import WHOLE, render, views_of

Rows = NDArray[np.int64]


class Examples(Protocol):
    """Inputs with what the network shall say of them; targets: (examples, classes)."""

    targets: Tensor

    def inputs(self, rows: Rows, epoch: int, generator: torch.Generator) -> Tensor:
        """Return the inputs of some examples for an epoch, counted from 1."""
        ...


class FeatureExamples:
    """Features (examples, features) of a frozen backbone: input of the last layer."""

    def __init__(self, features: Features, targets: NDArray[np.float32]) -> None:
        self._features = torch.from_numpy(features)
        self.targets = torch.from_numpy(targets)

    def inputs(self, rows: Rows, epoch: int, generator: torch.Generator) -> Tensor:
        """Return features (rows, features)."""
        return self._features[torch.from_numpy(rows)]


class ViewExamples:
    """Views that are the same in every epoch."""

    def __init__(self, data: LabelledSlices, requests: Sequence[Request]) -> None:
        self._data = data
        self._requests = requests
        self.targets = torch.from_numpy(data.targets[[request.index for request in requests]])

    def inputs(self, rows: Rows, epoch: int, generator: torch.Generator) -> Tensor:
        """Return slices (rows, 1, size, size) in HU."""
        chosen = [self._requests[row] for row in rows]
        images = [render(self._data.images[request.index], request.view) for request in chosen]
        return torch.from_numpy(np.stack(images)).float()[:, None]


class RandomExamples:
    """A new random view of each slice in every epoch: a window over the lungs, from `full_from` on the whole."""

    def __init__(self, data: LabelledSlices, indices: Rows, *, window: int, full_from: int) -> None:
        self._data = data
        self._indices = indices
        self._window = window
        self._full_from = full_from
        self.targets = torch.from_numpy(data.targets[indices])

    def inputs(self, rows: Rows, epoch: int, generator: torch.Generator) -> Tensor:
        """Return views (rows, 1, window, window) in HU."""
        chosen = self._indices[rows]
        window = self._data.images.shape[-1] if epoch >= self._full_from else self._window
        images = torch.from_numpy(self._data.images[chosen]).float()[:, None]
        return random_views(images, self._data.boxes[chosen], window, generator)


def whole(indices: Rows) -> list[Request]:
    """Return the slices as they are."""
    return [Request(int(index), WHOLE) for index in indices]


def augmented(data: LabelledSlices, indices: Rows, seed: int) -> list[Request]:
    """Return the slices and their synthetic images."""
    return [Request(int(index), view) for index in indices for view in views_of(data.digests[index], seed)]
