"""A patient: body, lungs, heart, bones and vessels as functions of position in millimetres.

Axes are those of DICOM (PS3.3 C.7.6.2.1.1): x grows to the patient's left, y to the back, z to the head.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

AIR_HU = -1000
FAT_HU = -100
MUSCLE_HU = 45
BLOOD_HU = 50
BONE_HU = 450
LUNG_HU = -860


@dataclass(frozen=True)
class Branch:
    """A pulmonary vessel: centres (N, 3) in mm from the hilum outwards, radii (N,) in mm."""

    centres: Floats
    radii: Floats


@dataclass(frozen=True)
class Patient:
    """Lengths in mm; `ripples` are the amplitudes of the lungs' irregular outline, by side and harmonic."""

    sex: Literal["F", "M"]
    age_years: int
    body_half_width: float
    body_half_depth: float
    fat_thickness: float
    lung_height: float
    lung_half_width: float
    lung_half_depth: float
    lung_offset: float
    heart_radius: float
    ripples: Floats
    vessels: tuple[Branch, ...]
    blood_hu: float
    lung_hu: float
    dependent_hu: float


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw a patient at random."""
    sex: Literal["F", "M"] = "F" if rng.random() < 0.6 else "M"
    size = (0.94 if sex == "F" else 1.04) * rng.uniform(0.93, 1.07)
    half_width = 66.0 * size * rng.uniform(0.94, 1.06)
    height = 235.0 * size * rng.uniform(0.92, 1.08)
    offset = half_width + rng.uniform(12, 18)
    half_depth = 88.0 * size * rng.uniform(0.94, 1.06)
    fat = rng.uniform(8, 28)
    return Patient(
        sex=sex,
        age_years=int(rng.integers(28, 80)),
        body_half_width=offset + half_width + 24 + fat,
        body_half_depth=half_depth + 26 + fat,
        fat_thickness=fat,
        lung_height=height,
        lung_half_width=half_width,
        lung_half_depth=half_depth,
        lung_offset=offset,
        heart_radius=rng.uniform(40, 52) * size,
        ripples=rng.normal(0, 0.018, size=(2, 5, 2)).astype(np.float32),
        vessels=tuple(_draw_vessels(rng, offset, half_width, half_depth, height)),
        blood_hu=BLOOD_HU if rng.random() < 0.7 else rng.uniform(150, 260),
        lung_hu=LUNG_HU + rng.uniform(-30, 30),
        dependent_hu=rng.uniform(20, 90),
    )


def _draw_vessels(
    rng: np.random.Generator, offset: float, half_width: float, half_depth: float, height: float
) -> list[Branch]:
    branches = []
    for side in (-1.0, 1.0):
        hilum = np.array([side * (offset - half_width * 0.75), 5.0, height * 0.5])
        for _ in range(60):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            target = np.array([side * offset, 0.0, height * 0.42]) + direction * (
                np.array([half_width, half_depth, height * 0.45]) * rng.uniform(0.55, 0.95)
            )
            bend = rng.normal(0, 12, size=3)
            along = np.linspace(0, 1, 70)[:, None]
            centres = hilum + (target - hilum) * along + bend * np.sin(np.pi * along)
            radii = np.linspace(rng.uniform(2.0, 4.0), 0.6, 70)
            branches.append(Branch(centres.astype(np.float32), radii.astype(np.float32)))
    return branches


def lung_profile(t: float) -> float:
    """Width of a lung at height `t` (0 base, 1 apex) as a part of its greatest width."""
    if t <= 0 or t >= 1:
        return 0.0
    if t < 0.3:
        return float(0.8 + 0.2 * np.sqrt(1 - ((0.3 - t) / 0.3) ** 2))
    return float((1 - ((t - 0.3) / 0.7) ** 2) ** 0.6)


def body_mask(patient: Patient, x: Floats, y: Floats) -> Mask:
    """Everything inside the skin."""
    inside: Mask = (x / patient.body_half_width) ** 2 + (y / patient.body_half_depth) ** 2 < 1
    return inside


def lung_masks(patient: Patient, x: Floats, y: Floats, z: float) -> tuple[Mask, Mask]:
    """Return (right, left) lung at height `z`, without heart and liver dome."""
    t = z / patient.lung_height
    profile = lung_profile(t)
    none = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    if profile <= 0.05:
        return none, none
    lungs = []
    for index, side in enumerate((-1.0, 1.0)):
        # The apex leans to the middle.
        centre = side * (patient.lung_offset - (1 - profile) * patient.lung_half_width * 0.35)
        u = (x - centre) / (patient.lung_half_width * profile)
        v = (y - 4.0) / (patient.lung_half_depth * profile)
        angle = np.arctan2(v, u)
        ripple = np.ones_like(angle)
        for harmonic, (cosine, sine) in enumerate(patient.ripples[index], start=2):
            phase = harmonic * angle + 3.0 * t
            ripple = ripple + cosine * np.cos(phase) + sine * np.sin(phase)
        inside = np.abs(u) ** 2.4 + np.abs(v) ** 2.4 < ripple**2.4
        if t < 0.16:  # the dome of the diaphragm rises into the middle of the base
            dome = 0.78 * np.sqrt(1 - (t / 0.16) ** 2) * (1.0 if side < 0 else 0.92)
            inside &= (u / dome) ** 2 + ((v + 0.18) / dome) ** 2 > 1
        lungs.append(inside)
    right, left = lungs
    medial = np.abs(x) < 14 + 8 * (1 - profile)
    heart = heart_mask(patient, x, y, z)
    return right & ~medial & ~heart, left & ~medial & ~heart


def heart_mask(patient: Patient, x: Floats, y: Floats, z: float) -> Mask:
    """Heart and great vessels: an ellipsoid left of the middle, low in the chest."""
    t = z / patient.lung_height
    squeeze = 1 - ((t - 0.25) / 0.38) ** 2
    if squeeze <= 0:
        return np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    radius = patient.heart_radius * np.sqrt(squeeze)
    inside: Mask = ((x - 16) / (radius * 1.15)) ** 2 + ((y + patient.lung_half_depth * 0.35) / radius) ** 2 < 1
    return inside


def bones(patient: Patient, x: Floats, y: Floats, z: float) -> Mask:
    """Vertebra, sternum and the ribs that the plane at `z` cuts."""
    spine = patient.lung_half_depth - 4
    bone: Mask = (x / 19) ** 2 + ((y - spine) / 16) ** 2 < 1
    bone &= (x / 11) ** 2 + ((y - spine - 19) / 9) ** 2 > 1  # the spinal canal
    bone |= (x / 16) ** 2 + ((y + patient.body_half_depth - patient.fat_thickness - 10) / 6) ** 2 < 1
    ring_width = patient.body_half_width - patient.fat_thickness - 9
    ring_depth = patient.body_half_depth - patient.fat_thickness - 9
    for side in (-1.0, 1.0):
        for rib in range(7):
            angle = (rib * 0.42 + z / 26.0) % 2.9 - 1.4
            centre_x, centre_y = side * ring_width * np.cos(angle), ring_depth * np.sin(angle)
            tangent = np.arctan2(ring_depth * np.cos(angle), -side * ring_width * np.sin(angle))
            along = (x - centre_x) * np.cos(tangent) + (y - centre_y) * np.sin(tangent)
            across = -(x - centre_x) * np.sin(tangent) + (y - centre_y) * np.cos(tangent)
            bone |= (along / 15) ** 2 + (across / 4.5) ** 2 < 1
    return bone


def airways(patient: Patient, x: Floats, y: Floats, z: float) -> Mask:
    """Trachea above the carina, main bronchi below it."""
    t = z / patient.lung_height
    if t > 0.6:
        return x**2 + (y - 12) ** 2 < 8.5**2
    if t > 0.42:
        spread = (0.6 - t) / 0.18 * 34
        return (np.abs(x) - spread) ** 2 + (y - 10) ** 2 < 6.5**2
    return np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
