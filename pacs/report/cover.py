"""What stands around the tree of every structured report, and its bytes."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from highdicom import ContributingEquipment
from highdicom.sr import Comprehensive3DSR, ComprehensiveSR
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from pacs.codes import ORGANISATION, PRIVATE_SCHEME_NAME
from pacs.meanings import PRIVATE_SCHEME
from pacs.report import header as headers
from pacs.report.content import hashed_uid
from pacs.report.exam import ReportedInstance
from pacs.series import SeriesHeader

# What is offered to a PACS, the better first; both hold the same content.
SR_CLASSES: tuple[str, ...] = (Comprehensive3DSRStorage, ComprehensiveSRStorage)
SR_SERIES_NUMBER = 990  # above the CT's: what is below may open instead of the CT


@dataclass(frozen=True)
class Document:
    """An object that is sent: its UIDs and its bytes in the DICOM File Format."""

    sop_class_uid: str
    sop_uid: str
    content: bytes


@dataclass(frozen=True)
class Cover:
    """What a report says of itself. instances: its evidence. number: its own within its series. moment: with its zone.

    serial: of the device; empty where it has none. previous: references to what it replaces.
    """

    header: SeriesHeader
    instances: tuple[ReportedInstance, ...]
    number: int
    description: str
    moment: datetime
    final: bool
    software: str
    serial: str
    equipment: ContributingEquipment
    previous: list[Dataset] | None = None


def write_report(cover: Cover, content: Dataset, charset: str, sop_class_uid: str, sop_uid: str) -> Document:
    """Return a report of one of SR_CLASSES with a tree."""
    header, moment = cover.header, whole_seconds(cover.moment)
    shared = {
        "evidence": [headers.evidence(header, instance, charset) for instance in cover.instances],
        "content": content,
        "series_instance_uid": report_series_uid(header.study_uid, header.series_uid),
        "series_number": SR_SERIES_NUMBER,
        "sop_instance_uid": sop_uid,
        "instance_number": cover.number,
        "manufacturer": ORGANISATION,
        "manufacturer_model_name": "Reticula",
        "software_versions": cover.software,
        "device_serial_number": cover.serial or None,
        "is_complete": True,
        "is_final": cover.final,
        "series_description": cover.description,
        "content_date": moment.date(),
        "content_time": moment.time(),
        "series_date": moment.date(),
        "series_time": moment.time(),
        "specific_character_set": charset,
        "previous_versions": cover.previous,
        "contributing_equipment": [cover.equipment],
    }
    report_class = Comprehensive3DSR if sop_class_uid == Comprehensive3DSRStorage else ComprehensiveSR
    with names_as_they_came():
        report: Dataset = report_class(**shared)
    report.update(Dataset.from_json(header.context))
    _separate(report)
    complete(report, moment)
    return written(report)


def _separate(node: Dataset) -> None:
    """Let containers say that their items stand apart: of a running text viewers print numbers without their names."""
    if node.get("ValueType") == "CONTAINER":
        node.ContinuityOfContent = "SEPARATE"
    for child in node.get("ContentSequence", ()):
        _separate(child)


@contextmanager
def names_as_they_came() -> Iterator[None]:
    """Let highdicom copy a patient's name as it came, a single component included, without a warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is unlikely to represent the intended person name")
        yield


def complete(dataset: Dataset, moment: datetime) -> None:
    """Set what highdicom leaves out, and the stored time where it takes the present one."""
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dataset.ContentDate, dataset.ContentTime
    dataset.TimezoneOffsetFromUTC = moment.strftime("%z")
    scheme = Dataset()
    scheme.CodingSchemeDesignator = PRIVATE_SCHEME
    scheme.CodingSchemeName = PRIVATE_SCHEME_NAME
    scheme.CodingSchemeResponsibleOrganization = ORGANISATION
    dataset.CodingSchemeIdentificationSequence = [scheme]
    dataset.ContributingEquipmentSequence = [
        item for item in dataset.ContributingEquipmentSequence if "DeviceUID" in item
    ]


def written(dataset: Dataset) -> Document:
    """Return a dataset as it is sent."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return Document(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), buffer.getvalue())


def report_series_uid(study_uid: str, series_uid: str) -> str:
    """Return the series that holds the reports of one CT series, all its revisions."""
    return hashed_uid("report series", study_uid, series_uid)


def whole_seconds(moment: datetime) -> datetime:
    """Return a moment without its fraction of a second, which DICOM writes in several ways."""
    return moment.replace(microsecond=0)
