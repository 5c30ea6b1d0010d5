"""What is neither of the two patterns: a healthy lung, and other diseases. A model must not name these UIP or NSIP.

Emphysema: holes without walls, mostly in the upper lobes. Consolidation: a lobe's air replaced by fluid, on one side.
Nodules: round, solid, scattered. (Fleischner Society glossary: Hansell et al., Radiology 2008;246:697.)
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from training.phantom.anatomy import Floats, Mask, Patient

OTHERS = ("normal", "emphysema", "consolidation", "nodules")
_SOLID_HU = 30.0
_HOLE_HU = -985.0


@dataclass(frozen=True)
class OtherFindings:
    """Balls of changed density: centres (N, 3) and radii (N,) in mm.

    hu: what is inside; where that is solid, denser structure stays. rough: unevenness of the border, after `noise`.
    """

    condition: str
    centres: Floats
    radii: Floats
    hu: float
    rough: float
    noise: Floats

    def draw(self, hu: Floats, patient: Patient, lungs: Mask, x: Floats, y: Floats, z: float, spacing: float) -> Mask:
        """Draw the findings into the slice `hu` (rows, columns; in place) and return where they are.

        x and y are the positions in mm along the columns (1, C) and rows (R, 1).
        """
        affected = np.zeros(lungs.shape, dtype=bool)
        near = np.abs(self.centres[:, 2] - z) < self.radii * (1 + self.rough) if len(self.radii) else np.zeros(0, bool)
        rows, columns = np.nonzero(lungs)
        if not near.any() or not rows.size:
            return affected
        position = np.stack([x[0, columns], y[rows, 0], np.full(rows.size, z)], axis=1).astype(np.float32)
        centres, radii = self.centres[near], self.radii[near]
        # How deep inside the nearest few balls a pixel lies, 1 in the middle and 0 at the border.
        count = min(4, len(radii))
        distances, indices = cKDTree(centres).query(position, k=list(range(1, count + 1)))
        inside = (1 - np.asarray(distances) / radii[indices]).max(axis=1)
        unit = position / np.array([30.0, 30.0, 30.0]) % np.array(self.noise.shape)
        inside += self.rough * ndimage.map_coordinates(self.noise, unit.T, order=1, mode="grid-wrap")
        hit = inside > 0
        values = hu[rows, columns]
        values[hit] = np.maximum(values[hit], self.hu) if self.hu > -500 else self.hu
        hu[rows, columns] = values
        affected[rows, columns] = hit
        return affected


def draw_others(condition: str, patient: Patient, rng: np.random.Generator) -> OtherFindings:
    """Draw how one of OTHERS shows in this patient."""
    noise = rng.normal(size=(12, 12, 12)).astype(np.float32)
    if condition == "emphysema":
        # Centrilobular: many holes of 2 to 9 mm, the more the higher.
        count = int(rng.integers(500, 1500))
        centres = _in_lungs(patient, count, rng, low=0.35, high=1.0)
        return OtherFindings(condition, centres, _radii(rng, count, 1.5, 6.0), _HOLE_HU, 0.15, noise)
    if condition == "consolidation":
        side = rng.choice([-1.0, 1.0])
        count = int(rng.integers(3, 7))
        middle = _in_lungs(patient, 1, rng, low=0.1, high=0.7)
        middle[:, 0] = side * np.abs(middle[:, 0])
        centres = middle + rng.normal(0, 16, size=(count, 3)).astype(np.float32)
        return OtherFindings(condition, centres, _radii(rng, count, 22.0, 42.0), _SOLID_HU, 0.2, noise)
    if condition == "nodules":
        count = int(rng.integers(25, 90))
        centres = _in_lungs(patient, count, rng, low=0.0, high=1.0)
        return OtherFindings(condition, centres, _radii(rng, count, 3.0, 11.0), _SOLID_HU, 0.05, noise)
    return OtherFindings(condition, np.zeros((0, 3), np.float32), np.zeros(0, np.float32), 0.0, 0.0, noise)


def _in_lungs(patient: Patient, count: int, rng: np.random.Generator, *, low: float, high: float) -> Floats:
    """Points inside the boxes around the two lungs, (count, 3) in mm; low and high are parts of their height."""
    side = rng.choice([-1.0, 1.0], size=count)
    x = side * (patient.lung_offset + rng.uniform(-0.95, 0.95, count) * patient.lung_half_width)
    y = rng.uniform(-0.95, 0.95, count) * patient.lung_half_depth
    z = rng.uniform(low, high, count) * patient.lung_height
    return np.stack([x, y, z], axis=1).astype(np.float32)


def _radii(rng: np.random.Generator, count: int, low: float, high: float) -> Floats:
    return rng.uniform(low, high, count).astype(np.float32)
