"""Where the lungs are in one axial slice: threshold and connected components."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Above aerated and ground-glass lung, below soft tissue.
TISSUE_HU = -320
# The middle of a component of bowel gas or of the trachea lies below this, that of a lung above it.
GAS_HU = -965
# Walls of honeycombs and vessels up to this width belong to the lung that surrounds them.
WALL_MM = 4.0
MIN_COMPONENT_MM2 = 250.0
# Finding components needs no finer grid than this.
GRID = 256


def lung_mask(hu: NDArray[np.int16], pixel_spacing: tuple[float, float]) -> NDArray[np.bool_]:
    """Return the lungs of an axial slice (rows, columns), of the shape of `hu`.

    pixel_spacing: (between rows, between columns) in mm.
    """
    factor = max(1, max(hu.shape) // GRID)
    small = block_mean(hu, factor)
    row_mm, column_mm = pixel_spacing[0] * factor, pixel_spacing[1] * factor
    body = _body(small)
    if not body.any():
        return np.zeros(hu.shape, dtype=bool)
    air = (small < TISSUE_HU) & body
    wall = max(1, round(WALL_MM / min(row_mm, column_mm)))
    closed = ndimage.binary_closing(air, iterations=wall) & body
    labels, count = ndimage.label(closed)
    if not count:
        return np.zeros(hu.shape, dtype=bool)
    indices = np.arange(1, count + 1)
    area = ndimage.sum_labels(closed, labels, indices) * row_mm * column_mm
    middle = ndimage.median(small, np.where(air, labels, 0), indices)
    keep = (area >= MIN_COMPONENT_MM2) & (np.nan_to_num(middle, nan=0.0) > GAS_HU)
    lungs = ndimage.binary_fill_holes(np.isin(labels, indices[keep]), structure=None) if keep.any() else None
    if lungs is None:
        return np.zeros(hu.shape, dtype=bool)
    full = np.repeat(np.repeat(_small_holes_only(lungs, labels, keep), factor, axis=0), factor, axis=1)
    return _fit(full, hu.shape)


def lung_fraction(mask: NDArray[np.bool_], pixel_spacing: tuple[float, float]) -> float:
    """Area of the lungs in this slice as a part of 40000 mm², about that of the largest slice of an adult."""
    return min(1.0, float(mask.sum()) * pixel_spacing[0] * pixel_spacing[1] / 40_000.0)


def block_mean(hu: NDArray[np.int16], factor: int) -> NDArray[np.float32]:
    """Shrink by a whole factor; what does not fill a block at the lower and right edge is repeated."""
    if factor == 1:
        return hu.astype(np.float32)
    rows, columns = (-(-size // factor) * factor for size in hu.shape)
    padded = np.pad(hu, ((0, rows - hu.shape[0]), (0, columns - hu.shape[1])), mode="edge")
    blocks = padded.reshape(rows // factor, factor, columns // factor, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _body(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest piece of tissue with everything that it encloses."""
    labels, count = ndimage.label(hu >= TISSUE_HU)
    if not count:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), dtype=bool)


def _small_holes_only(
    filled: NDArray[np.bool_], labels: NDArray[np.int32], keep: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Fill vessels, but not a heart that thin lung encloses: holes stay where they are as large as an organ."""
    lungs = np.isin(labels, np.flatnonzero(keep) + 1)
    holes, count = ndimage.label(filled & ~lungs)
    if not count:
        return lungs
    sizes = np.bincount(holes.ravel())
    small = sizes < filled.sum() * 0.08
    small[0] = False
    return lungs | small[holes]


def _fit(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return mask[: shape[0], : shape[1]]
