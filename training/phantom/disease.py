"""The two patterns, after their radiological description.

UIP: subpleural and basal honeycombing, traction bronchiectasis, coarse reticulation (Raghu et al.,
Am J Respir Crit Care Med 2022;205:e18). NSIP: bilateral, symmetric, basal ground glass with fine reticulation
that spares the lung next to the pleura (Travis et al., ibid. 2013;188:733). These are caricatures: they carry
the signs that a reader names, not the looks of a patient.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from training.phantom.anatomy import Floats, Mask, Patient

DISEASES = ("UIP", "NSIP")


@dataclass(frozen=True)
class Tube:
    """A dilated bronchus: centres (N, 3) and inner radii (N,), in mm."""

    centres: Floats
    radii: Floats


@dataclass(frozen=True)
class Lesions:
    """One patient's disease; lengths in mm.

    severity: 0 to 1, how far up and inwards it reaches.
    noise: coarse random volume (8, 8, 8) in standard deviations that makes it patchy.
    """

    disease: str
    severity: float
    cell_spacing: float
    wall: float
    density_hu: float
    sparing: float
    noise: Floats
    cells: cKDTree
    mesh: cKDTree
    tubes: tuple[Tube, ...]

    def draw(self, hu: Floats, patient: Patient, lungs: Mask, x: Floats, y: Floats, z: float, spacing: float) -> Mask:
        """Draw the disease into the slice `hu` (rows, columns; in place) and return where it is.

        x and y are the positions in mm along the columns (1, C) and rows (R, 1); spacing is the size of a pixel.
        """
        affected = np.zeros(lungs.shape, dtype=bool)
        if not lungs.any():
            return affected
        rows, columns = np.nonzero(lungs)
        position = np.stack([x[0, columns], y[rows, 0], np.full(rows.size, z, np.float32)], axis=1)
        depth = (ndimage.distance_transform_edt(lungs)[rows, columns] * spacing).astype(np.float32)
        patchy = _noise_at(self.noise, patient, position)
        basal = 1.0 - z / patient.lung_height  # 1 at the base, 0 at the apex
        posterior: Floats = (position[:, 1] / patient.lung_half_depth).astype(np.float32)
        values = hu[rows, columns]
        if self.disease == "UIP":
            hit = _honeycomb(values, self, position, depth, basal, posterior, patchy)
        else:
            hit = _ground_glass(values, self, position, depth, basal, posterior, patchy)
        hu[rows, columns] = values
        affected[rows, columns] = hit
        if self.disease == "UIP":
            affected |= _traction_bronchiectasis(hu, self, lungs, x, y, z)
        return affected


def draw_lesions(disease: str, patient: Patient, rng: np.random.Generator) -> Lesions:
    """Draw how the disease shows in this patient."""
    spacing = rng.uniform(5.0, 8.5)
    mesh_spacing = rng.uniform(9, 13) if disease == "UIP" else rng.uniform(5, 7)
    return Lesions(
        disease=disease,
        severity=rng.uniform(0.2, 1.0),
        cell_spacing=spacing,
        wall=spacing * rng.uniform(0.22, 0.32),
        density_hu=rng.uniform(230, 400),
        sparing=rng.uniform(4, 8),
        noise=ndimage.gaussian_filter(rng.normal(size=(8, 8, 8)), 0.8).astype(np.float32) * 4,
        cells=cKDTree(_jittered_points(patient, spacing, rng)),
        mesh=cKDTree(_jittered_points(patient, mesh_spacing, rng)),
        tubes=tuple(_draw_tubes(patient, rng)),
    )


def _jittered_points(patient: Patient, spacing: float, rng: np.random.Generator) -> Floats:
    """Points about `spacing` apart in the chest: the seeds of Voronoi cells, (N, 3) in mm."""
    width = patient.lung_offset + patient.lung_half_width + 10
    depth = patient.lung_half_depth + 15
    grid = np.mgrid[-width:width:spacing, -depth:depth:spacing, -spacing : patient.lung_height : spacing]
    points = grid.reshape(3, -1).T + rng.uniform(-0.5, 0.5, size=(grid[0].size, 3)) * spacing
    return points.astype(np.float32)


def _draw_tubes(patient: Patient, rng: np.random.Generator) -> list[Tube]:
    tubes = []
    for side in (-1.0, 1.0):
        for _ in range(int(rng.integers(4, 9))):
            start = np.array([side * (patient.lung_offset - 25), 15.0, patient.lung_height * 0.4])
            angle = rng.uniform(-0.4, 1.5)
            reach = np.array([np.cos(angle) * side * 0.9 * patient.lung_half_width, np.sin(angle) * 60, 0])
            end = start + reach + np.array([0, 0, -patient.lung_height * rng.uniform(0.1, 0.35)])
            along = np.linspace(0.25, 1, 60)[:, None]
            wiggle = rng.normal(0, 3, size=(1, 3)) * np.sin(along * rng.uniform(6, 14))
            centres = start + (end - start) * along + wiggle
            radii = np.full(60, rng.uniform(2.2, 4.5)) * rng.uniform(0.85, 1.15, size=60)
            tubes.append(Tube(centres.astype(np.float32), radii.astype(np.float32)))
    return tubes


def _honeycomb(
    hu: Floats,
    lesions: Lesions,
    position: Floats,
    depth: Floats,
    basal: float,
    posterior: Floats,
    patchy: Floats,
) -> Mask:
    reach = 10 + 24 * lesions.severity * basal  # how far the disease comes in from the pleura
    score = 1 - depth / reach + 0.35 * posterior + 0.22 * patchy + 1.6 * (basal - 0.95 + 0.45 * lesions.severity)
    comb = score > 0.55
    net = (score > 0.1) & ~comb
    if comb.any():
        # Air in the cells, a wall where the two nearest seeds are almost equally far.
        hu[comb] = np.where(_to_wall(lesions.cells, position[comb]) < lesions.wall, -120.0, -955.0)
    if net.any():
        hu[net] = np.where(_to_wall(lesions.mesh, position[net]) < 2.2, np.maximum(hu[net], -330.0), hu[net])
    hit: Mask = comb | net
    return hit


def _ground_glass(
    hu: Floats,
    lesions: Lesions,
    position: Floats,
    depth: Floats,
    basal: float,
    posterior: Floats,
    patchy: Floats,
) -> Mask:
    # The patchiness is weak and even on both sides: the pattern is symmetric.
    score = 2.2 * (basal - 0.8 + 0.55 * lesions.severity) + 0.3 * posterior + 0.1 * patchy
    weight = 1 / (1 + np.exp(-6 * (score - 0.15)))
    weight *= np.clip((depth - lesions.sparing) / 5, 0, 1)
    hu += (weight * lesions.density_hu).astype(np.float32)
    hit: Mask = weight > 0.35
    if hit.any():
        hu[hit] += np.where(_to_wall(lesions.mesh, position[hit]) < 0.9, 130.0, 0.0).astype(np.float32)
    return hit


def _to_wall(seeds: cKDTree, position: Floats) -> NDArray[np.float64]:
    """How much farther the second nearest seed is than the nearest, in mm: small near the wall of a Voronoi cell."""
    distances = np.asarray(seeds.query(position, k=2)[0])
    return np.asarray(distances[:, 1] - distances[:, 0])


def _traction_bronchiectasis(hu: Floats, lesions: Lesions, lungs: Mask, x: Floats, y: Floats, z: float) -> Mask:
    drawn = np.zeros_like(lungs)
    for tube in lesions.tubes:
        index = int(np.argmin(np.abs(tube.centres[:, 2] - z)))
        if abs(float(tube.centres[index, 2]) - z) > 2.5:
            continue
        centre, radius = tube.centres[index], float(tube.radii[index])
        distance = np.hypot(x - centre[0], y - centre[1])
        hu[(distance < radius + 1.3) & lungs] = -150
        hu[(distance < radius) & lungs] = -970
        drawn |= (distance < radius + 1.3) & lungs
    return drawn


def _noise_at(noise: Floats, patient: Patient, position: Floats) -> Floats:
    """Interpolate the coarse volume at positions (N, 3) in mm."""
    extent = np.array([2 * (patient.lung_offset + patient.lung_half_width), 2 * patient.lung_half_depth, 1.0])
    extent[2] = patient.lung_height
    unit = (position / extent + np.array([0.5, 0.5, 0.0])) * (np.array(noise.shape) - 1)
    return ndimage.map_coordinates(noise, unit.T, order=1, mode="nearest").astype(np.float32)
