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
# A hole of this part of the lungs or more is an organ.
_ORGAN = 0.08
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
    air = (small < TISSUE_HU) & body
    reach = 2 * max(1, round(WALL_MM / min(row_mm, column_mm))) + 1
    closed = ndimage.minimum_filter(ndimage.maximum_filter(air.view(np.uint8), reach), reach).astype(bool) & body
    labels, _count = ndimage.label(closed)
    lungs = np.zeros(small.shape, dtype=bool)
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[window] == number
        if component.sum() * row_mm * column_mm < MIN_COMPONENT_MM2:
            continue
        if np.median(small[window][component & air[window]]) > GAS_HU:
            lungs[window] |= component
    lungs |= _small_holes(lungs)
    full = np.repeat(np.repeat(lungs, factor, axis=0), factor, axis=1)
    return full[: hu.shape[0], : hu.shape[1]]


def lung_fraction(mask: NDArray[np.bool_], pixel_spacing: tuple[float, float]) -> float:
    """Area of the lungs in this slice as a part of 40000 mm², about that of the largest slice of an adult."""
    return min(1.0, float(mask.sum()) * pixel_spacing[0] * pixel_spacing[1] / 40_000.0)


def block_mean(hu: NDArray[np.int16], factor: int) -> NDArray[np.float32]:
    """Shrink by a whole factor; what does not fill a block at the lower and right edge is repeated."""
    if factor == 1:
        return hu.astype(np.float32)
    rows, columns = (-(-size // factor) * factor for size in hu.shape)
    if (rows, columns) != hu.shape:
        hu = np.pad(hu, ((0, rows - hu.shape[0]), (0, columns - hu.shape[1])), mode="edge")
    total = np.zeros((rows // factor, columns // factor), dtype=np.int32)
    for row in range(factor):
        for column in range(factor):
            total += hu[row::factor, column::factor]
    return (total / np.float32(factor**2)).astype(np.float32)


def _body(hu: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The largest piece of tissue with everything that it encloses."""
    labels, count = ndimage.label(hu >= TISSUE_HU)
    if not count:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == sizes.argmax()
    return np.asarray(body | (_enclosed(body)[0] > 0), dtype=bool)


def _small_holes(lungs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Vessels, but not a heart that thin lung encloses: what is as large as an organ stays out."""
    holes, sizes = _enclosed(lungs)
    small = sizes < lungs.sum() * _ORGAN
    small[0] = False
    return np.asarray(small[holes], dtype=bool)


def _enclosed(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label what the mask encloses; return the labels, 0 elsewhere, and the size of each.

    As `ndimage.binary_fill_holes`, which grows the outside step by step and takes six times as long.
    """
    labels, _count = ndimage.label(~mask)
    outside = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    sizes = np.bincount(labels.ravel())
    keep = np.ones(len(sizes), dtype=bool)
    keep[outside] = False
    keep[0] = False
    return np.where(keep[labels], labels, 0), sizes
