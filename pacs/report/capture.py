"""What is shown beside the report: pages and pictures as Secondary Capture, and the page as Encapsulated PDF.

All stand in the study of the CT, in series of their own above its numbers: what is below may open instead of the CT.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from pacs.codes import ORGANISATION, Language
from pacs.report import header as headers
from pacs.report.concepts import concept, translate
from pacs.report.content import cautions, hashed_uid
from pacs.report.cover import Document, whole_seconds, written
from pacs.report.descriptions import Kind, describe
from pacs.report.document import equipment, fingerprint
from pacs.report.exam import KeySlice, ReportedExam
from pacs.report.wording import sentence

SUMMARY_SERIES_NUMBER, HEAT_MAP_SERIES_NUMBER, PDF_SERIES_NUMBER = 980, 981, 982
_CLEAR_COSINE = 0.8
_REVISIONS = 5000  # of a series, in which the newest stands first
_SHORT_TEXT = 1024  # characters of a value (PS3.5 section 6.2, ST)
_IMAGE_REPORT = ("18748-4", "LN")  # the document's title: Diagnostic imaging study


@dataclass(frozen=True)
class Place:
    """Where an object stands: its name within the exam, its kind, the number of its series, its own within that."""

    name: str
    kind: Kind
    series_number: int
    instance_number: int


def newest_first(revision: int, number: int = 0) -> int:
    """Return an instance number, the smaller the later the revision: viewers open the smallest of a series.

    number: within the revision, below 100. What stands behind it and before the revision before is
    `newest_first(revision, 99)`.
    """
    return max(_REVISIONS - revision, 0) * 100 + number + 1


def build_capture(
    exam: ReportedExam, place: Place, pixels: NDArray[np.uint8], sources: tuple[KeySlice, ...], *, axial: bool = False
) -> Document:
    """Build a Secondary Capture (PS3.3 A.8.1) of RGB pixels (rows, columns, 3).

    sources: the slices that it was derived from. axial: it shows the first of them, as it lies.
    """
    dataset = _shared(exam, place, SecondaryCaptureImageStorage)
    dataset.Modality = "OT"  # CT would be taken for a damaged one
    dataset.ConversionType = "WSD"
    dataset.BodyPartExamined = "CHEST"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.PatientOrientation = list(directions(sources[0].orientation)) if axial else ""
    dataset.BurnedInAnnotation = "NO"  # nothing in it says who the patient is
    dataset.DerivationDescription = ". ".join((sentence("derivation", exam.language), *cautions(exam)))[:_SHORT_TEXT]
    dataset.SourceImageSequence = Sequence(map(_source, sources))
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    content = pixels.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB"
    return _written(dataset, exam.language)


def build_pdf(exam: ReportedExam, place: Place, content: bytes, title: str) -> Document:
    """Build an Encapsulated PDF (PS3.3 A.45.1); the page names the patient."""
    dataset = _shared(exam, place, EncapsulatedPDFStorage)
    dataset.Modality = "DOC"
    dataset.ConversionType = "WSD"
    dataset.BurnedInAnnotation = "YES"
    dataset.AcquisitionDateTime = None
    dataset.DocumentTitle = title
    dataset.ConceptNameCodeSequence = Sequence([concept(*_IMAGE_REPORT, exam.language)])
    dataset.SourceInstanceSequence = Sequence(map(_reference, exam.key_slices))
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = len(content)
    dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    return _written(dataset, exam.language)


def capture_series_uid(series_number: int, study_uid: str, series_uid: str) -> str:
    """Return the series that holds what is shown of one CT series, of one kind and all revisions."""
    return hashed_uid(f"series {series_number}", study_uid, series_uid)


def directions(orientation: tuple[float, float, float, float, float, float]) -> tuple[str, ...]:
    """Return whereto rows and columns run (PS3.3 C.7.6.1.1.1); nothing where they lie between two directions."""
    letters = []
    for cosines in (orientation[:3], orientation[3:]):
        axis = int(np.argmax(np.abs(cosines)))
        if abs(cosines[axis]) < _CLEAR_COSINE:
            return ()
        letters.append(("LR", "PA", "HF")[axis][int(cosines[axis] < 0)])
    return tuple(letters)


def _shared(exam: ReportedExam, place: Place, sop_class_uid: str) -> Dataset:
    """Return what all objects have: patient and study as in the report, a series and an instance."""
    description = describe(exam, place.kind)
    algorithm = exam.algorithm
    charset = headers.character_set(exam.header, description, algorithm.name, algorithm.version, *cautions(exam))
    dataset = headers.evidence(exam.header, exam.instances[0], charset)
    moment = whole_seconds(exam.classified_at)
    dataset.SOPClassUID = sop_class_uid
    dataset.SOPInstanceUID = hashed_uid(place.name, fingerprint(exam))
    header = exam.header
    dataset.SeriesInstanceUID = capture_series_uid(place.series_number, header.study_uid, header.series_uid)
    dataset.SeriesNumber, dataset.InstanceNumber = place.series_number, place.instance_number
    dataset.SeriesDescription = description
    for kind in ("Series", "Content", "InstanceCreation"):
        setattr(dataset, f"{kind}Date", moment.strftime("%Y%m%d"))
        setattr(dataset, f"{kind}Time", moment.strftime("%H%M%S"))
    dataset.TimezoneOffsetFromUTC = moment.strftime("%z")
    dataset.Manufacturer, dataset.ManufacturerModelName = ORGANISATION, "Reticula"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = exam.algorithm.sha256[:16], exam.algorithm.software
    dataset.ContributingEquipmentSequence = Sequence([equipment(exam)])
    return dataset


def _reference(key: KeySlice) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = key.instance.sop_class_uid, key.instance.sop_uid
    if key.frame is not None:
        item.ReferencedFrameNumber = key.frame
    return item


def _source(key: KeySlice) -> Dataset:
    item = _reference(key)
    item.PurposeOfReferenceCodeSequence = Sequence([concept("121322", "DCM")])
    return item


def _written(dataset: Dataset, language: Language) -> Document:
    translate(dataset, language)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.preamble = b"\0" * 128
    return written(dataset)
