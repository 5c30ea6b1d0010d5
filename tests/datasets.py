"""CT datasets made for tests."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

STUDY, SERIES = "1.2.3.4", "1.2.3.4.5"


def ct(number: int = 1, *, rows: int = 64, columns: int = 64, pixels: Any = None, **values: Any) -> Dataset:
    """Return an axial CT slice at `number` × 5 mm; keywords set or, with None, remove elements."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = f"{SERIES}.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.PatientID, dataset.PatientName = "P1", "Silva^Ana"
    dataset.PatientBirthDate, dataset.PatientSex = "19600101", "F"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = (
        "20240101",
        "101010",
        "1",
        "A1",
    )
    dataset.ReferringPhysicianName, dataset.StudyDescription = "", "Chest"
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.InstanceNumber, dataset.AcquisitionNumber = str(number), "1"
    dataset.ImagePositionPatient = ["0", "0", str(number * 5.0)]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = ["0.8", "0.8"], "5"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept = "1", "-1024"
    if pixels is None:
        pixels = np.arange(rows * columns, dtype=np.int16).reshape(rows, columns) % 2000
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelData = pixels.tobytes()
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def write(folder: Path, *datasets: Dataset) -> list[Path]:
    """Write datasets as files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, dataset in enumerate(datasets):
        path = folder / f"{index:04d}.dcm"
        dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", CTImageStorage)
        dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.get("SOPInstanceUID", generate_uid()))
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
