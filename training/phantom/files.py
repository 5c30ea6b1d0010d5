"""Phantoms as files: a DICOM series for each exam, the masks, and `truth.json` beside them."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from training.phantom.anatomy import Mask
from training.phantom.disease import DISEASES
from training.phantom.mark import phantom_uid
from training.phantom.slices import MATRIX, ExamPlan, PhantomSlice, plan_exam, render

_FAMILY = ("Phantom", "Fantasma", "Fantôme", "Muñoz", "Araújo", "Silva", "Conceição", "Núñez")
_GIVEN = {"F": ("Ana", "Maria", "Inês", "Lúcia"), "M": ("João", "José", "Luís", "André")}


@dataclass(frozen=True)
class PhantomExam:
    """What is true of a written exam. `extent`: diseased part of the lungs' pixels, 0 to 1."""

    series_uid: str
    study_uid: str
    patient_id: str
    label: str
    extent: float
    slices: int
    folder: str
    masks: str


def write_phantoms(
    folder: Path,
    *,
    seed: int,
    exams: int,
    slices: int | None = None,
    conditions: Sequence[str] = DISEASES,
    totals: Mapping[str, int] | None = None,
    progress: Callable[[int], None] = lambda _done: None,
) -> list[PhantomExam]:
    """Write `exams` series to `folder`, as many of each condition, and the truth about them.

    `totals` asks for that many slices of a condition over all its exams, each of them with lung enough to be
    classified. The same seed writes the same pixels and UIDs. `masks` (.npz) hold `lungs` and `affected`, uint8
    of shape (slices, rows, columns) from foot to head. `progress` is told the number of exams done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    written = []
    order = _balanced(seed, exams, conditions)
    for exam, condition in enumerate(order):
        if totals is None:
            plan = plan_exam(condition, seed, exam, slices)
        else:
            before, count = order[:exam].count(condition), order.count(condition)
            share = totals[condition] // count + (before < totals[condition] % count)
            plan = plan_exam(condition, seed, exam, share, lungs=True)
        written.append(_write_exam(folder, plan, seed, exam))
        progress(exam + 1)
    truth = {exam.series_uid: asdict(exam) for exam in written}
    (folder / "truth.json").write_text(json.dumps(truth, indent=2, ensure_ascii=False), encoding="utf-8")
    return written


def _balanced(seed: int, exams: int, conditions: Sequence[str]) -> list[str]:
    repeated = [conditions[index % len(conditions)] for index in range(exams)]
    order = np.random.default_rng([seed, 0]).permutation(exams)
    return [repeated[index] for index in order]


def _write_exam(folder: Path, plan: ExamPlan, seed: int, exam: int) -> PhantomExam:
    name = f"exam-{exam + 1:03d}"
    series_folder = folder / name
    series_folder.mkdir(exist_ok=True)
    header = _series_header(plan, seed, exam)
    lungs, affected = [], []
    for number, image in enumerate(render(plan), start=1):
        dataset = _instance(header, plan, image, number)
        dataset.save_as(series_folder / f"{number:04d}.dcm", enforce_file_format=True)
        lungs.append(image.lungs)
        affected.append(image.affected)
    masks = folder / "masks" / f"{name}.npz"
    np.savez_compressed(masks, lungs=np.stack(lungs).view(np.uint8), affected=np.stack(affected).view(np.uint8))
    return PhantomExam(
        series_uid=header.SeriesInstanceUID,
        study_uid=header.StudyInstanceUID,
        patient_id=header.PatientID,
        label=plan.condition,
        extent=round(_count(affected) / max(1, _count(lungs)), 4),
        slices=len(lungs),
        folder=name,
        masks=str(masks.relative_to(folder)),
    )


def _count(masks: Iterable[Mask]) -> int:
    return sum(int(mask.sum()) for mask in masks)


def _series_header(plan: ExamPlan, seed: int, exam: int) -> Dataset:
    rng = np.random.default_rng([seed, exam, 5])
    patient, scan = plan.patient, plan.scan
    date = f"2024{rng.integers(1, 13):02d}{rng.integers(1, 29):02d}"
    time = f"{rng.integers(7, 19):02d}{rng.integers(60):02d}{rng.integers(60):02d}"
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName = f"{rng.choice(_FAMILY)}^{rng.choice(_GIVEN[patient.sex])}"
    header.PatientID = f"PHANTOM-{seed}-{exam + 1:03d}"
    header.PatientSex = patient.sex
    header.PatientBirthDate = f"{2024 - patient.age_years}0615"
    header.PatientAge = f"{patient.age_years:03d}Y"
    header.StudyInstanceUID = phantom_uid(seed, exam, "study")
    header.SeriesInstanceUID = phantom_uid(seed, exam, "series")
    header.FrameOfReferenceUID = phantom_uid(seed, exam, "frame of reference")
    header.StudyID = str(exam + 1)
    header.AccessionNumber = f"P{seed}{exam + 1:03d}"
    header.StudyDate = header.SeriesDate = header.AcquisitionDate = header.ContentDate = date
    header.StudyTime = header.SeriesTime = header.AcquisitionTime = header.ContentTime = time
    header.ReferringPhysicianName = ""
    header.StudyDescription = "Phantom: TC de tórax"
    header.SeriesDescription = f"Phantom {scan.kernel.name}"
    header.Modality = "CT"
    header.BodyPartExamined = "CHEST"
    header.QualityControlImage = "YES"
    header.PatientPosition = "HFS"
    header.Manufacturer, header.ManufacturerModelName = scan.manufacturer, scan.model_name
    header.ConvolutionKernel = scan.kernel.name
    header.KVP = str(scan.kvp)
    header.SeriesNumber = "2"
    header.AcquisitionNumber = "1"
    header.PositionReferenceIndicator = ""
    header.SliceThickness = f"{scan.slice_spacing:g}"
    return header


def _instance(header: Dataset, plan: ExamPlan, image: PhantomSlice, number: int) -> Dataset:
    scan = plan.scan
    corner = -(MATRIX - 1) / 2 * scan.pixel_spacing
    dataset = Dataset()
    dataset.update(header)
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = phantom_uid(header.SeriesInstanceUID, number)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber = str(number)
    dataset.ImagePositionPatient = [f"{corner:.3f}", f"{corner:.3f}", f"{image.z:.3f}"]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SliceLocation = f"{image.z:.3f}"
    dataset.PixelSpacing = [f"{scan.pixel_spacing:g}"] * 2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = image.hu.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", str(scan.intercept), "HU"
    dataset.WindowCenter, dataset.WindowWidth = "-600", "1500"
    stored = image.hu - np.int16(scan.intercept)
    if scan.padding is not None:
        dataset.PixelPaddingValue = scan.padding
        axis = np.arange(MATRIX) - (MATRIX - 1) / 2
        stored[np.hypot(axis[None, :], axis[:, None]) > MATRIX / 2] = scan.padding
    dataset.PixelData = stored.astype("<i2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset
