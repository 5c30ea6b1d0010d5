"""Rejection notes of IHE Imaging Object Change Management: for objects of ours, and those that come for images.

A note is a Key Object Selection (TID 2010) whose title says why (IHE RAD TF-3, 4.66.4.1.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from pacs.codes import ORGANISATION, Language
from pacs.elements import is_uid, text
from pacs.errors import Unreadable
from pacs.report.concepts import concept, translate
from pacs.report.content import hashed_uid
from pacs.report.cover import Document, complete, names_as_they_came, whole_seconds, written
from pacs.report.descriptions import describe_withdrawn
from pacs.report.notice import software_equipment, software_observer
from pacs.series import CONTEXT

NOTE_SERIES_NUMBER = 991
# What highdicom reads of evidence, and what else an object of a study repeats of patient and study.
_READ = (
    "SpecificCharacterSet", "StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_SHARED = (*CONTEXT, "IssuerOfPatientID", "StudyDescription")


class Grounds(StrEnum):
    """Why objects are rejected, by the code of the title (PS3.16 CID 7010)."""

    QUALITY = "113001"
    SAFETY = "113037"
    WRONG_WORKLIST_ENTRY = "113038"
    RETENTION = "113039"


@dataclass(frozen=True)
class SentObject:
    """An object that was sent, as a note names it."""

    series_uid: str
    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True)
class RejectedSeries:
    """Instances of one series that a note rejects."""

    study_uid: str
    series_uid: str
    sop_uids: tuple[str, ...]


@dataclass(frozen=True)
class RejectionNote:
    """A note that came."""

    sop_uid: str
    grounds: Grounds
    series: tuple[RejectedSeries, ...]


def build_rejection_note(
    like: Dataset,
    objects: Sequence[SentObject],
    grounds: Grounds,
    moment: datetime,
    software: str,
    language: Language,
    number: int = 1,
) -> Document:
    """Build the note that rejects objects, with patient and study as `like` has them. moment: with its zone.

    number: its own among the notes of the study.
    """
    moment = whole_seconds(moment)
    evidence = [_stub(like, each) for each in objects]
    selection = KeyObjectSelection(
        concept(grounds, "DCM"),
        evidence,
        observer_device_context=software_observer(software),
        description=describe_withdrawn(language),
    )
    uids = (each.sop_uid for each in objects)
    with names_as_they_came():
        note: Dataset = KeyObjectSelectionDocument(
            evidence,
            selection,
            series_instance_uid=hashed_uid("note series", like.StudyInstanceUID),
            series_number=NOTE_SERIES_NUMBER,
            sop_instance_uid=hashed_uid("note", grounds, moment.isoformat(), software, language, *uids),
            instance_number=number,
            manufacturer=ORGANISATION,
            contributing_equipment=[software_equipment(software, language)],
            series_description=describe_withdrawn(language),
            manufacturer_model_name="Reticula",
            software_versions=software,
            content_date=moment.date(),
            content_time=moment.time(),
            series_date=moment.date(),
            series_time=moment.time(),
        )
    for keyword in _SHARED:
        if keyword in like:
            note[keyword] = like[keyword]
    complete(note, moment)
    translate(note, language)
    return written(note)


def _stub(like: Dataset, sent: SentObject) -> Dataset:
    stub = Dataset()
    for keyword in _READ:
        stub[keyword] = like[keyword]
    stub.SeriesInstanceUID, stub.SOPClassUID, stub.SOPInstanceUID = sent.series_uid, sent.sop_class_uid, sent.sop_uid
    return stub


def read_rejection_note(dataset: Dataset) -> RejectionNote | None:
    """Return what a Key Object Selection rejects; None where it is none that rejects. Raises Unreadable."""
    if dataset.get("SOPClassUID") != KeyObjectSelectionDocumentStorage:
        raise Unreadable("The object is no Key Object Selection.")
    try:
        title = dataset.ConceptNameCodeSequence[0]
        grounds = text(title, "CodeValue")
        if text(title, "CodingSchemeDesignator") != "DCM" or grounds not in set(Grounds):
            return None
        series = tuple(
            RejectedSeries(
                text(study, "StudyInstanceUID"),
                text(each, "SeriesInstanceUID"),
                tuple(text(sop, "ReferencedSOPInstanceUID") for sop in each.ReferencedSOPSequence),
            )
            for study in dataset.CurrentRequestedProcedureEvidenceSequence
            for each in study.ReferencedSeriesSequence
        )
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise Unreadable("The Key Object Selection lacks its title or what it selects.") from error
    uids = [uid for each in series for uid in (each.study_uid, each.series_uid, *each.sop_uids)]
    if not uids or not all(map(is_uid, uids)):
        raise Unreadable("The Key Object Selection names something that is no UID.")
    return RejectionNote(text(dataset, "SOPInstanceUID"), Grounds(grounds), series)
