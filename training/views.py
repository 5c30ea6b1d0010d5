"""The study's synthetic images: of each slice one crop, one mirror image and one rotation, the same in every run."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.resizing import AIR_HU

SYNTHETIC = 3
ROTATION_DEGREES = 15.0
_SMALLEST_CROP = 0.8  # of the side; the study names no figure


@dataclass(frozen=True)
class View:
    """What is done to a slice: crop (top, left, side, as parts of the whole), mirrored left to right, turned."""

    crop: tuple[float, float, float] = (0.0, 0.0, 1.0)
    mirrored: bool = False
    degrees: float = 0.0


WHOLE = View()


def views_of(digest: str, seed: int) -> tuple[View, ...]:
    """Return the slice itself and its synthetic images; they depend on its sha256 and the seed alone."""
    rng = np.random.default_rng([seed, int(digest[:16], 16)])
    side = rng.uniform(_SMALLEST_CROP, 0.95)
    top, left = rng.uniform(0, 1 - side, 2)
    degrees = rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)
    return (
        WHOLE,
        View(crop=(round(float(top), 4), round(float(left), 4), round(float(side), 4))),
        View(mirrored=True),
        View(degrees=round(float(degrees), 3)),
    )


def render(image: NDArray[np.int16], view: View) -> NDArray[np.int16]:
    """Return the view of a slice (size, size) in HU, of the same shape; what lies outside is air."""
    if view == WHOLE:
        return image
    if view.mirrored:
        image = np.ascontiguousarray(image[:, ::-1])
    if view.degrees:
        turned = ndimage.rotate(image, view.degrees, reshape=False, order=1, cval=AIR_HU)
        return np.asarray(turned, dtype=np.int16)
    top, left, side = view.crop
    if side == 1.0:
        return image
    size = image.shape[0]
    offset = np.array([top, left]) * size + (side - 1) / 2  # centres of pixels lie half a pixel in
    return np.asarray(
        ndimage.affine_transform(image, np.array([side, side]), offset, order=1, mode="nearest"), dtype=np.int16
    )
