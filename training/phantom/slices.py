"""A phantom exam, slice by slice: Hounsfield units and the truth about every pixel."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.phantom import anatomy
from training.phantom.anatomy import Floats, Mask, Patient
from training.phantom.disease import DISEASES, Lesions, draw_lesions
from training.phantom.others import OTHERS, OtherFindings, draw_others
from training.phantom.scanner import Scan, draw_scan, reconstruct
from training.phantom.strange import STRANGE, OtherBody, Texture, draw_strange

MATRIX = 512
_WELL_INSIDE = (0.12, 0.88)  # of the lungs' height
CONDITIONS: tuple[str, ...] = (*DISEASES, *OTHERS)
Findings = Lesions | OtherFindings | Texture | OtherBody


@dataclass(frozen=True)
class ExamPlan:
    """Everything that decides an exam's pixels. `positions` are the slices' z in mm, foot to head."""

    condition: str
    patient: Patient
    scan: Scan
    findings: Findings
    positions: tuple[float, ...]
    noise_seed: int


@dataclass(frozen=True)
class PhantomSlice:
    """One slice: hu (rows, columns) int16 in HU, masks of the same shape, z in mm."""

    z: float
    hu: NDArray[np.int16]
    lungs: Mask
    affected: Mask


def plan_exam(condition: str, seed: int, exam: int, slices: int | None = None, *, lungs: bool = False) -> ExamPlan:
    """Draw patient, scanner and one of CONDITIONS or STRANGE for exam number `exam`; `slices` sets their number.

    With `lungs` every slice shows lung enough to be classified. The streams of patient and scanner know nothing of
    the condition.
    """
    patient = anatomy.draw_patient(np.random.default_rng([seed, exam, 1]))
    scan = draw_scan(np.random.default_rng([seed, exam, 2]))
    rng = np.random.default_rng([seed, exam, 3])
    findings: Findings
    if condition in OTHERS:
        findings = draw_others(condition, patient, rng)
    elif condition in DISEASES:
        findings = draw_lesions(condition, patient, rng)
    elif condition in STRANGE:
        findings = draw_strange(condition, patient, rng)
    else:
        raise ValueError(f"Unknown condition {condition!r}: choose one of {', '.join(CONDITIONS)}.")
    bottom, top = -10.0, patient.lung_height + 10
    if lungs:
        bottom, top = (part * patient.lung_height for part in _WELL_INSIDE)
    if slices is None:
        positions = np.arange(bottom, top, scan.slice_spacing)
    else:
        positions = np.linspace(bottom, top, slices)
    return ExamPlan(
        condition, patient, scan, findings, tuple(float(z) for z in positions), noise_seed=seed * 100_003 + exam
    )


def render(plan: ExamPlan) -> Iterator[PhantomSlice]:
    """Yield the slices from foot to head, one at a time: no volume is held."""
    rng = np.random.default_rng([plan.noise_seed, 4])
    for z in plan.positions:
        yield _render_slice(plan, z, rng)


def _render_slice(plan: ExamPlan, z: float, rng: np.random.Generator) -> PhantomSlice:
    patient, scan = plan.patient, plan.scan
    axis = ((np.arange(MATRIX) - (MATRIX - 1) / 2) * scan.pixel_spacing).astype(np.float32)
    x, y = axis[None, :], (axis - scan.table_y)[:, None]
    body = anatomy.body_mask(patient, x, y)
    hu = np.full((MATRIX, MATRIX), anatomy.AIR_HU, dtype=np.float32)
    hu[body] = anatomy.FAT_HU
    inner_width = patient.body_half_width - patient.fat_thickness
    inner_depth = patient.body_half_depth - patient.fat_thickness
    hu[(x / inner_width) ** 2 + (y / inner_depth) ** 2 < 1] = anatomy.MUSCLE_HU
    hu[anatomy.bones(patient, x, y, z)] = anatomy.BONE_HU
    hu[anatomy.heart_mask(patient, x, y, z)] = patient.blood_hu
    right, left = anatomy.lung_masks(patient, x, y, z)
    lungs = right | left
    gradient = patient.dependent_hu * y / patient.lung_half_depth
    hu[lungs] = (patient.lung_hu + np.broadcast_to(gradient, hu.shape))[lungs]
    affected = plan.findings.draw(hu, patient, lungs, x, y, z, scan.pixel_spacing)
    if isinstance(plan.findings, OtherBody):
        lungs = np.zeros_like(lungs)
    else:
        _draw_vessels(hu, patient, lungs, x, y, z)
        hu[anatomy.airways(patient, x, y, z) & ~lungs] = anatomy.AIR_HU + 20
    table = np.abs(y - patient.body_half_depth - 14) < 3
    hu[table & (np.abs(x) < 200)] = -500
    image = reconstruct(hu, scan, rng)
    return PhantomSlice(z, np.rint(image).astype(np.int16), lungs, affected)


def _draw_vessels(hu: Floats, patient: Patient, lungs: Mask, x: Floats, y: Floats, z: float) -> None:
    origin_x, origin_y, spacing = float(x[0, 0]), float(y[0, 0]), float(x[0, 1] - x[0, 0])
    for branch in patient.vessels:
        near = np.abs(branch.centres[:, 2] - z) < branch.radii
        for (centre_x, centre_y, centre_z), radius in zip(branch.centres[near], branch.radii[near], strict=True):
            cut = float(np.sqrt(radius**2 - (centre_z - z) ** 2))
            column, row = (centre_x - origin_x) / spacing, (centre_y - origin_y) / spacing
            half = int(cut / spacing) + 2
            rows = slice(max(0, int(row) - half), int(row) + half + 1)
            columns = slice(max(0, int(column) - half), int(column) + half + 1)
            disc = np.hypot(x[:, columns] - centre_x, y[rows] - centre_y) < max(cut, 0.5 * spacing)
            patch = hu[rows, columns]
            patch[disc & lungs[rows, columns]] = np.maximum(patch[disc & lungs[rows, columns]], 20.0)
