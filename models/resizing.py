"""From a slice of any size to the network's input: the same code in training and at work."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.lung_mask import block_mean

AIR_HU = -1024


def fit(hu: NDArray[np.int16], pixel_spacing: tuple[float, float], size: int) -> NDArray[np.int16]:
    """Return the slice as int16 of shape (size, size), its proportions in mm kept.

    A slice that is not square is padded with air. Shrinking averages whole blocks first, so that noise does not
    alias; what remains is linear interpolation.
    """
    if hu.shape == (size, size) and np.isclose(*pixel_spacing, rtol=1e-3):
        return hu
    target = _target(hu.shape, pixel_spacing, size)
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


def spread(
    values: NDArray[np.float32], shape: tuple[int, int], pixel_spacing: tuple[float, float], size: int
) -> NDArray[np.float32]:
    """Return a map over the network's input as one over the slice that was fitted into it: shape (rows, columns)."""
    target = _target(shape, pixel_spacing, size)
    coordinates = []
    for axis in (0, 1):
        start = (size - target[axis]) // 2
        fitted = start + (np.arange(shape[axis]) + 0.5) * target[axis] / shape[axis]
        coordinates.append(fitted * values.shape[axis] / size - 0.5)
    grid = np.meshgrid(*coordinates, indexing="ij")
    return np.asarray(ndimage.map_coordinates(values, grid, order=1, mode="nearest"), dtype=np.float32)


def _target(shape: tuple[int, ...], pixel_spacing: tuple[float, float], size: int) -> tuple[int, int]:
    """How many pixels of the input a slice fills, (rows, columns)."""
    height, width = shape[0] * pixel_spacing[0], shape[1] * pixel_spacing[1]
    longest = max(height, width)
    return max(1, round(size * height / longest)), max(1, round(size * width / longest))
