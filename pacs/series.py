"""What the headers of a series say; which of its slices are looked at is chosen in `pacs.selection`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage
from pydicom.valuerep import validate_value

from pacs.discreet import said
from pacs.elements import first, floats, integer, text, words
from pacs.errors import Rejected, Unreadable
from pacs.head import read_head, read_parts
from pacs.pixel_data import PixelData, locate

# Multi-frame; the second holds what was sent as single frames once.
_ENHANCED = frozenset({EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage})
CT_CLASSES = frozenset({CTImageStorage}) | _ENHANCED

# Attributes of the Patient, Clinical Trial, General Study and Patient Study modules (PS3.3 C.7.1.1, C.7.1.3, C.7.2.1 to
# C.7.2.3) that every object of a study should repeat, beside those that have a field of their own.
CONTEXT = (
    "PatientBirthTime", "EthnicGroup", "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "OtherPatientNames", "PatientSpeciesDescription", "ProcedureCodeSequence",
    "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "AdmittingDiagnosesDescription", "PatientAge", "PatientSize",
    "PatientWeight", "MedicalAlerts", "Allergies", "SmokingStatus", "AdditionalPatientHistory", "PregnancyStatus",
    "LastMenstrualDate", "Occupation", "PatientState", "PatientSexNeutered", "AdmissionID", "ServiceEpisodeID",
    "ServiceEpisodeDescription", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """Who was scanned, as the header says; what is absent is an empty string."""

    patient_id: str
    issuer: str
    name: str
    birth_date: str
    sex: str

    @property
    def identity(self) -> tuple[str, str]:
        """Number, or the name where there is no number; empty where the header tells neither."""
        if self.patient_id:
            return self.patient_id, ""
        return "", self.name.replace("^", " ").strip().casefold()

    def is_same_as(self, other: "Patient") -> bool:
        """Whether two headers can mean one patient: issuers of numbers count where both are named."""
        if self.identity != other.identity:
            return False
        return not (self.issuer and other.issuer) or self.issuer == other.issuer


@dataclass(frozen=True)
class SeriesHeader:
    """What all instances of a series share; what is absent is an empty string or None.

    context: the other attributes of patient and study that a report repeats, as DICOM JSON (PS3.18 F).
    """

    patient: Patient
    study_uid: str
    series_uid: str
    study_date: str
    study_time: str
    study_id: str
    accession_number: str
    referring_physician: str
    study_description: str
    series_description: str
    series_number: int | None
    modality: str
    body_part: str
    manufacturer: str
    kernel: str
    timezone: str
    priority: str
    context: str = "{}"


@dataclass(frozen=True)
class Rescale:
    """From stored values to units: value × slope + intercept, in `unit` (HU where the header names none)."""

    slope: float
    intercept: float
    unit: str


@dataclass(frozen=True)
class SourceSlice:
    """One image: an instance, or a frame of an Enhanced CT.

    frame: 1 for the first frame, None for a single-frame instance.
    position, orientation: PS3.3 C.7.6.2, in mm and as cosines; position_mm lies along the normal.
    pixel_spacing: (between rows, between columns) in mm. padding: (lowest, highest) stored value outside the image.
    pixels: where they lie in the file, where that is known. quality_control: whether the header says that it shows no
    patient but a phantom (Quality Control Image, PS3.3 C.7.6.1).
    """

    path: Path
    sop_uid: str
    sop_class_uid: str
    frame: int | None
    instance_number: int | None
    acquisition_number: int | None
    temporal_position: int | None
    image_type: tuple[str, ...]
    position: tuple[float, float, float] | None
    orientation: tuple[float, float, float, float, float, float] | None
    pixel_spacing: tuple[float, float] | None
    thickness: float | None
    rows: int
    columns: int
    rescale: "Rescale | None" = None
    padding: tuple[int, int] | None = None
    pixels: PixelData | None = None
    quality_control: bool = False

    def __hash__(self) -> int:
        """Tell images apart by what names them: the rest takes long to hash, and is asked for at every slice."""
        return hash((self.path, self.frame))

    @property
    def normal(self) -> tuple[float, float, float] | None:
        """The direction across the slice, or None where the header does not tell."""
        if self.orientation is None:
            return None
        (a, b, c), (d, e, f) = self.orientation[:3], self.orientation[3:]
        return b * f - c * e, c * d - a * f, a * e - b * d

    @property
    def position_mm(self) -> float | None:
        """Distance from the origin of the frame of reference along the normal, from foot to head."""
        normal = self.normal
        if normal is None or self.position is None:
            return None
        distance = sum(along * place for along, place in zip(normal, self.position, strict=True))
        return -distance if normal[2] < 0 else distance


@dataclass(frozen=True)
class Series:
    """The headers of a series. `unreadable`: (file, why) of what could not be read."""

    header: SeriesHeader
    slices: tuple[SourceSlice, ...]
    unreadable: tuple[tuple[Path, str], ...] = ()


class SeriesReader:
    """Reads the headers of one series' files, one after the other."""

    def __init__(self) -> None:
        self._header: SeriesHeader | None = None
        self._identities: dict[tuple[Patient, str, str], None] = {}
        self._slices: list[SourceSlice] = []
        self._unreadable: list[tuple[Path, str]] = []

    @property
    def header(self) -> SeriesHeader | None:
        """The header of the series, when one was read."""
        return self._header

    @property
    def agrees(self) -> bool:
        """Whether all that was read so far names one patient, study and series, in the same words."""
        return len(self._identities) == 1

    def read(self, path: Path) -> list[SourceSlice]:
        """Read a file's header and return its images; none where it cannot be read, which the series will say."""
        try:
            with path.open("rb") as file:
                meta, dataset = read_parts(file)
                pixels = locate(file, meta, dataset)
            identity, images = _identity(dataset), read_slices(dataset, path, pixels)
            self._header = self._header or read_header(dataset)
        except Exception as error:  # pydicom raises whatever it likes on corrupt data
            self._unreadable.append((path, said(error)))
            return []
        self._identities[identity] = None
        self._slices.extend(images)
        return images

    def series(self) -> Series:
        """Return what was read.

        Raises Rejected where it does not belong to one patient and one series, or none is readable.
        """
        header = self._header
        if header is None:
            raise Rejected("unreadable", "No instance of this series could be read.")
        if not all(patient.is_same_as(header.patient) for patient, _study, _series in self._identities):
            raise Rejected("mixed_patients", "The instances of this series name more than one patient.")
        if len({(study, series) for _patient, study, series in self._identities}) > 1:
            raise Rejected("mixed_series", "The instances belong to more than one series or study.")
        return Series(header, tuple(self._slices), tuple(self._unreadable))


def read_series(paths: Iterable[Path]) -> Series:
    """Read the headers of one series' files.

    Raises Rejected where they do not belong to one patient and one series, or none is readable.
    """
    reader = SeriesReader()
    for path in paths:
        reader.read(path)
    return reader.series()


def group_by_series(paths: Iterable[Path]) -> tuple[list[tuple[Path, ...]], list[tuple[Path, str]]]:
    """Sort files by study and series; return the groups, and (file, why) of what is no instance of a series."""
    groups: dict[tuple[str, str], list[Path]] = {}
    unreadable: list[tuple[Path, str]] = []
    for path in paths:
        try:
            dataset = read_head(path, ["StudyInstanceUID", "SeriesInstanceUID"])
        except Exception as error:  # pydicom raises whatever it likes on corrupt data
            unreadable.append((path, said(error)))
            continue
        study, series = text(dataset, "StudyInstanceUID"), text(dataset, "SeriesInstanceUID")
        if study and series:
            groups.setdefault((study, series), []).append(path)
        else:
            unreadable.append((path, "The dataset names no study or series."))
    return [tuple(group) for group in groups.values()], unreadable


def _identity(dataset: Dataset) -> tuple[Patient, str, str]:
    """Return whose instance it is, and of which study and series. Raises Unreadable without a UID of these."""
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not text(dataset, keyword):
            raise Unreadable(f"The dataset has no {keyword}.")
    patient = Patient(
        patient_id=text(dataset, "PatientID"),
        issuer=text(dataset, "IssuerOfPatientID"),
        name=text(dataset, "PatientName"),
        birth_date=text(dataset, "PatientBirthDate"),
        sex=text(dataset, "PatientSex"),
    )
    return patient, text(dataset, "StudyInstanceUID"), text(dataset, "SeriesInstanceUID")


def read_header(dataset: Dataset) -> SeriesHeader:
    """Read what the instances of a series share. Raises Unreadable without study or series UID."""
    patient, study_uid, series_uid = _identity(dataset)
    return SeriesHeader(
        patient=patient,
        study_uid=study_uid,
        series_uid=series_uid,
        study_date=text(dataset, "StudyDate"),
        study_time=text(dataset, "StudyTime"),
        study_id=text(dataset, "StudyID"),
        accession_number=text(dataset, "AccessionNumber"),
        referring_physician=text(dataset, "ReferringPhysicianName"),
        study_description=text(dataset, "StudyDescription"),
        series_description=text(dataset, "SeriesDescription"),
        series_number=integer(dataset, "SeriesNumber"),
        modality=text(dataset, "Modality"),
        body_part=text(dataset, "BodyPartExamined"),
        manufacturer=text(dataset, "Manufacturer"),
        kernel=text(dataset, "ConvolutionKernel"),
        timezone=text(dataset, "TimezoneOffsetFromUTC"),
        priority=text(dataset, "RequestedProcedurePriority"),
        context=_context(dataset),
    )


def read_slices(dataset: Dataset, path: Path, pixels: PixelData | None = None) -> list[SourceSlice]:
    """Return the image of a single-frame instance, or those of an Enhanced CT's frames.

    pixels: where they lie in the file; without it the file is read again to decode them.
    """
    shared, frames = _functional_groups(dataset)
    slices = []
    for frame, own in frames:
        groups = [own, *shared] if own is not None else [dataset]
        spacing = floats(first(groups, "PixelSpacing"), 2)
        thickness = floats(first(groups, "SliceThickness"), 1)
        position = floats(first(groups, "ImagePositionPatient"), 3)
        orientation = floats(first(groups, "ImageOrientationPatient"), 6)
        slices.append(
            SourceSlice(
                path=path,
                sop_uid=text(dataset, "SOPInstanceUID"),
                sop_class_uid=text(dataset, "SOPClassUID"),
                frame=frame,
                instance_number=integer(dataset, "InstanceNumber"),
                acquisition_number=_whole(first([*groups, dataset], "FrameAcquisitionNumber", "AcquisitionNumber")),
                temporal_position=_whole(
                    first([*groups, dataset], "TemporalPositionIndex", "TemporalPositionIdentifier")
                ),
                image_type=words(first([*groups, dataset], "FrameType", "ImageType")),
                position=position,  # type: ignore[arg-type]
                orientation=orientation,  # type: ignore[arg-type]
                pixel_spacing=spacing if spacing and min(spacing) > 0 else None,  # type: ignore[arg-type]
                thickness=thickness[0] if thickness else None,
                rows=integer(dataset, "Rows") or 0,
                columns=integer(dataset, "Columns") or 0,
                rescale=_rescale(groups),
                padding=_padding(dataset),
                pixels=pixels,
                quality_control=text(dataset, "QualityControlImage").upper() == "YES",
            )
        )
    return slices


def _context(dataset: Dataset) -> str:
    """The attributes of CONTEXT whose values are valid; an invalid one is left out."""
    kept = Dataset()
    for keyword in CONTEXT:
        try:
            element = dataset[keyword]
            if element.VR != "SQ":
                for value in element.value if element.VM > 1 else [element.value]:
                    validate_value(element.VR, value, config.RAISE)
            element.to_json_dict(None, 0)
        except Exception:  # absent, or a value that pydicom cannot read or write
            continue
        kept.add(element)
    return kept.to_json()


def _functional_groups(dataset: Dataset) -> tuple[list[Dataset], list[tuple[int | None, Dataset | None]]]:
    if text(dataset, "SOPClassUID") not in _ENHANCED:
        return [], [(None, None)]
    shared = [_merged(item) for item in dataset.get("SharedFunctionalGroupsSequence") or []]
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if not frames:
        raise Unreadable("The Enhanced CT has no functional groups.")
    return shared, [(number, _merged(item)) for number, item in enumerate(frames, start=1)]


def _merged(groups: Dataset) -> Dataset:
    """One flat dataset of the first items of all functional group macros."""
    flat = Dataset()
    for element in groups:
        if element.VR == "SQ" and element.value:
            flat.update(element.value[0])
    return flat


def _rescale(groups: Sequence[Dataset]) -> Rescale | None:
    slope = floats(first(groups, "RescaleSlope"), 1)
    intercept = floats(first(groups, "RescaleIntercept"), 1)
    if slope is None or intercept is None:
        return None
    return Rescale(slope[0], intercept[0], str(first(groups, "RescaleType") or "HU").strip())


def _whole(value: Any) -> int | None:
    """Return a value as a whole number, or None where it is none."""
    numbers = floats(value, 1)
    return int(numbers[0]) if numbers is not None and numbers[0].is_integer() else None


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Padding value and range limit (PS3.3 C.7.5.1.1.2)."""
    value, limit = integer(dataset, "PixelPaddingValue"), integer(dataset, "PixelPaddingRangeLimit")
    if value is None:
        return None
    return min(value, value if limit is None else limit), max(value, value if limit is None else limit)
