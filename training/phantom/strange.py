"""What no model has learned from: lungs of noise or of a checkerboard, and parts of the body without lungs.

A battery asks a model about these beside `training.phantom.others`; `reticula phantom` makes none of them, so that
nobody can train on them by chance.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.phantom.anatomy import AIR_HU, BONE_HU, FAT_HU, MUSCLE_HU, Floats, Mask, Patient

STRANGE = ("noise", "checkerboard", "body")
_SIDE = 64  # of the noise that repeats itself through the lungs


@dataclass(frozen=True)
class Texture:
    """Lungs filled with what no lung shows. scale: size of a grain or a square in mm; low, high: in HU."""

    condition: str
    scale: float
    low: float
    high: float
    noise: Floats

    def draw(self, hu: Floats, patient: Patient, lungs: Mask, x: Floats, y: Floats, z: float, spacing: float) -> Mask:
        """Fill the lungs of the slice `hu` (rows, columns; in place) and return where that is.

        x and y are the positions in mm along the columns (1, C) and rows (R, 1).
        """
        if self.condition == "checkerboard":
            squares = (np.floor(x / self.scale) + np.floor(y / self.scale) + np.floor(z / self.scale)) % 2
            values = np.where(squares > 0, self.high, self.low)
        else:
            places = np.broadcast_arrays(x / self.scale, y / self.scale, np.float32(z / self.scale))
            part = ndimage.map_coordinates(self.noise, np.stack(places), order=1, mode="grid-wrap")
            values = self.low + (self.high - self.low) * part
        hu[lungs] = np.broadcast_to(values, hu.shape)[lungs]
        return lungs.copy()


@dataclass(frozen=True)
class OtherBody:
    """A part of the body that is no chest: an abdomen or a head, with gas in it.

    cavities: ellipsoids of gas, (N, 6): centre and half axes in mm.
    """

    condition: str
    part: str
    cavities: Floats

    def draw(self, hu: Floats, patient: Patient, lungs: Mask, x: Floats, y: Floats, z: float, spacing: float) -> Mask:
        """Draw the slice `hu` (rows, columns; in place) anew, without a chest; return that nothing is diseased."""
        head = self.part == "head"
        width, depth = (75.0, 95.0) if head else (patient.body_half_width, patient.body_half_depth)
        radius = (x / width) ** 2 + (y / depth) ** 2
        hu[:] = AIR_HU
        hu[radius < 1] = FAT_HU
        hu[radius < 0.85] = BONE_HU if head else MUSCLE_HU
        if head:
            hu[radius < 0.72] = 35
        hu[(x / 18) ** 2 + ((y - 0.6 * depth) / 15) ** 2 < 1] = BONE_HU
        for centre_x, centre_y, centre_z, half_x, half_y, half_z in self.cavities.tolist():
            rest = 1 - ((z - centre_z) / half_z) ** 2
            if rest > 0:
                hole = ((x - centre_x) / half_x) ** 2 + ((y - centre_y) / half_y) ** 2 < rest
                hu[hole & (radius < 0.8)] = AIR_HU + 30 if head else AIR_HU + 90
        return np.zeros(hu.shape, dtype=bool)


def draw_strange(condition: str, patient: Patient, rng: np.random.Generator) -> Texture | OtherBody:
    """Draw how one of STRANGE shows in this patient."""
    if condition == "body":
        part = "abdomen" if rng.random() < 0.75 else "head"
        count = int(rng.integers(4, 9))
        return OtherBody(condition, part, _cavities(part, count, patient, rng))
    low, high = float(rng.uniform(-1000, -850)), float(rng.uniform(-700, -100))
    noise: NDArray[np.float32] = np.zeros((1, 1, 1), np.float32)
    if condition == "noise":
        noise = rng.random((_SIDE, _SIDE, _SIDE), dtype=np.float32)
        return Texture(condition, float(rng.uniform(0.6, 6.0)), low, high, noise)
    return Texture(condition, float(rng.uniform(4.0, 25.0)), low, high, noise)


def _cavities(part: str, count: int, patient: Patient, rng: np.random.Generator) -> Floats:
    """Sinuses of a head, or distended loops of bowel."""
    if part == "head":
        reach, low, high = (35.0, 50.0, patient.lung_height * 0.4), 8.0, 18.0
    else:
        reach = (patient.body_half_width * 0.6, patient.body_half_depth * 0.5, patient.lung_height * 0.5)
        low, high = 22.0, 60.0
    centres = rng.uniform(-1, 1, size=(count, 3)) * reach
    centres[:, 2] += patient.lung_height * 0.5
    return np.concatenate([centres, rng.uniform(low, high, size=(count, 3))], axis=1).astype(np.float32)
