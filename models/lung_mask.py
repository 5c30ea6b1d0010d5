"""Where the lungs are in one axial slice: threshold and connected components."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Several slices are looked at side by side: threads for the parts of one cost more than they gain.
cv2.setNumThreads(1)

Mask = NDArray[np.uint8]  # 1 or 0

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
_MOST_LABELS = np.iinfo(np.uint16).max


@dataclass(frozen=True)
class Lungs:
    """The lungs of a slice, by blocks of pixels. bits: a bit a block, packed; shape: (rows, columns) of the slice."""

    bits: NDArray[np.uint8]
    shape: tuple[int, int]

    @property
    def block(self) -> int:
        """How many pixels a block has along each side."""
        return _factor(self.shape)

    @property
    def blocks(self) -> Mask:
        """The lungs by blocks; those at the lower and right edge may reach beyond the slice."""
        rows, columns = (-(-size // self.block) for size in self.shape)
        return np.unpackbits(self.bits, count=rows * columns).reshape(rows, columns)

    @property
    def mask(self) -> Mask:
        """The lungs in the slice, of its shape."""
        full: Mask = cv2.resize(self.blocks, None, fx=self.block, fy=self.block, interpolation=cv2.INTER_NEAREST)
        return full[: self.shape[0], : self.shape[1]]

    def fraction(self, pixel_spacing: tuple[float, float]) -> float:
        """Area of the lungs as a part of 40000 mm², about that of the largest slice of an adult."""
        if any(size % self.block for size in self.shape):  # the last blocks reach beyond the slice
            pixels = int(np.count_nonzero(self.mask))
        else:
            pixels = int(np.bitwise_count(self.bits).sum()) * self.block**2
        return min(1.0, float(pixels) * pixel_spacing[0] * pixel_spacing[1] / 40_000.0)


def find_lungs(hu: NDArray[np.int16], pixel_spacing: tuple[float, float]) -> Lungs:
    """Find the lungs of an axial slice (rows, columns).

    pixel_spacing: (between rows, between columns) in mm.
    """
    factor = _factor(hu.shape)
    small = block_mean(hu, factor)
    row_mm, column_mm = pixel_spacing[0] * factor, pixel_spacing[1] * factor
    tissue = (small >= TISSUE_HU).view(np.uint8)
    body = _body(tissue)
    air = body & (1 - tissue)
    # No wall is wider than the slice, whatever a header says of its pixels.
    reach = 2 * max(1, round(min(max(small.shape), WALL_MM / min(row_mm, column_mm)))) + 1
    closed = cv2.morphologyEx(air, cv2.MORPH_CLOSE, np.ones((reach, reach), dtype=np.uint8)) & body
    labels, sizes = _components(closed)
    lungs = np.zeros(small.shape, dtype=np.uint8)
    for number in np.flatnonzero(sizes * row_mm * column_mm >= MIN_COMPONENT_MM2).tolist():
        component = (labels == number).view(np.uint8)
        if _median_is_above(GAS_HU, small, component & air):
            lungs |= component
    lungs |= _small_holes(lungs)
    return Lungs(np.packbits(lungs), (hu.shape[0], hu.shape[1]))


def _factor(shape: tuple[int, ...]) -> int:
    """How many pixels of a slice a block has along each side."""
    return max(1, max(shape) // GRID)


def block_mean(hu: NDArray[np.int16], factor: int) -> NDArray[np.float32]:
    """Shrink by a whole factor; what does not fill a block at the lower and right edge is repeated."""
    if factor == 1:
        return hu.astype(np.float32)
    down, right = (-size % factor for size in hu.shape)
    whole = cv2.copyMakeBorder(hu, 0, down, 0, right, cv2.BORDER_REPLICATE) if down or right else hu
    rows, columns = (size // factor for size in whole.shape)
    shrunk: NDArray[np.float32] = cv2.resize(whole.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)
    return shrunk


def _median_is_above(limit: float, values: NDArray[np.float32], within: Mask) -> bool:
    """Whether the median of the values within a mask is higher. Counting tells sooner, unless half are."""
    above, count = np.count_nonzero((values > limit) & within.view(bool)), np.count_nonzero(within)
    if 2 * above != count:
        return bool(2 * above > count)
    return bool(np.median(values[within.view(bool)]) > limit)


def _components(mask: Mask) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Label what hangs together, by edges and not by corners; return labels and sizes, 0 for what is not in it."""
    # Each label has a pixel of its own and one beside it that is not in the mask; OpenCV wants one number to spare.
    kind = cv2.CV_16U if mask.size < 2 * (_MOST_LABELS - 1) else cv2.CV_32S
    count, labels = cv2.connectedComponents(mask, connectivity=4, ltype=kind)
    if kind == cv2.CV_16U:  # their histogram takes a third of the time of NumPy's
        sizes = cv2.calcHist([labels], [0], None, [count], [0, count]).ravel().astype(np.int64)
    else:
        sizes = np.bincount(labels.ravel(), minlength=count)
    sizes[0] = 0
    return labels, sizes


def _body(tissue: Mask) -> Mask:
    """The largest piece of tissue with everything that it encloses."""
    labels, sizes = _components(tissue)
    if not sizes.any():
        return np.zeros_like(tissue)
    body: Mask = (labels == sizes.argmax()).view(np.uint8)
    return body | _enclosed(body)


def _small_holes(lungs: Mask) -> Mask:
    """Vessels, but not a heart that thin lung encloses: what is as large as an organ stays out."""
    enclosed, organ = _enclosed(lungs), np.count_nonzero(lungs) * _ORGAN
    if np.count_nonzero(enclosed) < organ:
        return enclosed
    labels, sizes = _components(enclosed)
    small = sizes < organ
    small[0] = False
    holes: Mask = small[labels].view(np.uint8)
    return holes


def _enclosed(mask: Mask) -> Mask:
    """What the mask encloses: everything that cannot be reached from the border, by edges, without crossing it."""
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    cv2.floodFill(framed, None, (0, 0), 1)
    inside: Mask = 1 - framed[1:-1, 1:-1]
    return inside
