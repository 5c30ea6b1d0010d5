"""Clean headers of our own for highdicom, which copies what it is given and raises on what it does not know.

What is invalid in the received header is left empty rather than cut: half an accession number is a wrong one.
"""

import json
import re
from dataclasses import replace
from datetime import date

from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from pacs.report.exam import KeySlice, ReportedInstance
from pacs.series import Patient, SeriesHeader

_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")  # with dots: ACR-NEMA
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_ZONE = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def character_set(header: SeriesHeader, *others: str) -> str:
    """Return ISO_IR 100 where Latin-1 holds all text of the report, else ISO_IR 192 (UTF-8)."""
    patient = header.patient
    context = json.dumps(json.loads(header.context), ensure_ascii=False)
    texts = (
        context,
        patient.name,
        patient.patient_id,
        patient.issuer,
        header.study_description,
        header.accession_number,
    )
    try:
        "".join((*texts, header.study_id, header.referring_physician, *others)).encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def evidence(header: SeriesHeader, instance: ReportedInstance, charset: str) -> Dataset:
    """Return a header without pixels that stands for a classified instance."""
    patient = header.patient
    stub = Dataset()
    stub.SpecificCharacterSet = charset
    stub.SOPClassUID, stub.SOPInstanceUID = instance.sop_class_uid, instance.sop_uid
    stub.StudyInstanceUID, stub.SeriesInstanceUID = header.study_uid, header.series_uid
    stub.Modality = "CT"
    stub.PatientName = _person_name(patient.name)
    stub.PatientID = _short_text(patient.patient_id, 64)
    if _short_text(patient.issuer, 64):
        stub.IssuerOfPatientID = _short_text(patient.issuer, 64)
    stub.PatientBirthDate = valid_date(patient.birth_date)
    stub.PatientSex = _sex(patient.sex)
    stub.StudyDate, stub.StudyTime = valid_date(header.study_date), _valid_time(header.study_time)
    stub.StudyID = _short_text(header.study_id, 16)
    stub.AccessionNumber = _short_text(header.accession_number, 16)
    stub.ReferringPhysicianName = _person_name(header.referring_physician)
    stub.update(Dataset.from_json(header.context))
    description = _CONTROL.sub("", header.study_description).replace("\\", " ")[:64]
    if description:
        stub.StudyDescription = description
    return stub


def cleaned(header: SeriesHeader) -> SeriesHeader:
    """Return who and what a header names as a report states it: what is invalid is empty."""
    patient = header.patient
    return replace(
        header,
        patient=Patient(
            _short_text(patient.patient_id, 64),
            _short_text(patient.issuer, 64),
            _person_name(patient.name),
            valid_date(patient.birth_date),
            _sex(patient.sex),
        ),
        accession_number=_short_text(header.accession_number, 16),
    )


def image(header: SeriesHeader, key: KeySlice, charset: str) -> Dataset:
    """Return a header without pixels that stands for a key slice in the image library."""
    stub = evidence(header, key.instance, charset)
    stub.Rows, stub.Columns = key.rows, key.columns
    stub.PixelSpacing = _decimals(key.pixel_spacing)
    stub.ImagePositionPatient = _decimals(key.position)
    stub.ImageOrientationPatient = _decimals(key.orientation)
    stub.SliceThickness = _decimals((key.thickness or 0.0,))[0]
    if key.instance.sop_class_uid != CTImageStorage:
        stub.NumberOfFrames = 1
    return stub


def valid_date(value: str) -> str:
    """Return a date as YYYYMMDD, or nothing."""
    match = _DATE.fullmatch(value)
    if not match:
        return ""
    try:
        date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return ""
    return "".join(match.groups())


def valid_zone(value: str) -> str:
    """Return an offset from UTC as ±HHMM, or nothing."""
    return value if _ZONE.fullmatch(value) else ""


def _sex(value: str) -> str:
    return value.upper() if value.upper() in ("M", "F", "O") else ""


def _valid_time(value: str) -> str:
    return value if _TIME.fullmatch(value) else ""


def _short_text(value: str, length: int) -> str:
    return value if len(value) <= length and not _CONTROL.search(value) and "\\" not in value else ""


def _person_name(value: str) -> str:
    """At most three groups of five components, each group at most 64 characters (PS3.5 6.2)."""
    groups = _CONTROL.sub("", value).replace("\\", " ").split("=")[:3]
    return "=".join("^".join(group.split("^")[:5])[:64] for group in groups).rstrip("=")


def _decimals(values: tuple[float, ...]) -> list[str]:
    """Decimal strings of at most 16 characters (PS3.5 6.2)."""
    return [f"{value:.10g}"[:16] for value in values]
