"""From Hounsfield units to the network's input: the same code in training and at work.

The bundle carries these settings. Windowing and normalisation are part of the exported network, so what
stands here is geometry only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.lung_mask import block_mean

AIR_HU = -1024


@dataclass(frozen=True)
class Preprocessing:
    """How a slice becomes an input.

    size: rows and columns of the network's input.
    window: (lowest, highest) HU that the network tells apart.
    mean, std: normalisation of the windowed value, 0 to 1, for each of the three channels.
    min_lung_fraction: slices with less lung than this are not classified.
    """

    size: int = 512
    window: tuple[float, float] = (-1350.0, 150.0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    min_lung_fraction: float = 0.12


def fit(hu: NDArray[np.int16], pixel_spacing: tuple[float, float], size: int) -> NDArray[np.int16]:
    """Return the slice as int16 of shape (size, size), its proportions in mm kept.

    A slice that is not square is padded with air. Shrinking averages whole blocks first, so that noise does not
    alias; what remains is linear interpolation.
    """
    if hu.shape == (size, size) and np.isclose(*pixel_spacing, rtol=1e-3):
        return hu
    height, width = hu.shape[0] * pixel_spacing[0], hu.shape[1] * pixel_spacing[1]
    target = (
        max(1, round(size * height / max(height, width))),
        max(1, round(size * width / max(height, width))),
    )
    factor = max(1, min(hu.shape[0] // target[0], hu.shape[1] // target[1]))
    source = block_mean(hu, factor)
    rows = (np.arange(target[0]) + 0.5) * source.shape[0] / target[0] - 0.5
    columns = (np.arange(target[1]) + 0.5) * source.shape[1] / target[1] - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    resized = ndimage.map_coordinates(source, grid, order=1, mode="nearest")
    result = np.full((size, size), AIR_HU, dtype=np.int16)
    top, left = (size - target[0]) // 2, (size - target[1]) // 2
    result[top : top + target[0], left : left + target[1]] = np.rint(resized)
    return result
