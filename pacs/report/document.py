"""The report as a DICOM object: the same exam gives the same bytes, under a UID that is their fingerprint."""

import hashlib
import json
from dataclasses import asdict
from datetime import datetime
from functools import lru_cache

from highdicom import ContributingEquipment
from pydicom.dataset import Dataset

from pacs.codes import ORGANISATION
from pacs.elements import is_uid
from pacs.errors import Rejected
from pacs.report import header as headers
from pacs.report.concepts import concept
from pacs.report.content import cautions, content_tree, device_uid, hashed_uid
from pacs.report.cover import Cover, Document, report_series_uid, write_report
from pacs.report.descriptions import describe
from pacs.report.exam import ReportedExam

TEMPLATE = "TID1500-5"  # changes with every change of the tree


def build_report(exam: ReportedExam, sop_class_uid: str) -> Document:
    """Build the report in one of SR_CLASSES. Raises Rejected where the exam cannot be reported."""
    if not is_uid(exam.header.study_uid) or not exam.instances:
        raise Rejected("not_reportable", "A report needs a study and at least one classified instance.")
    if not exam.key_slices or not all(key.outlines for key in exam.key_slices):
        raise Rejected("not_reportable", "A report needs key slices with the outlines of the lungs.")
    identity = fingerprint(exam)
    sop_uid = hashed_uid("report", identity, sop_class_uid)
    description = describe(exam, "sr")
    algorithm = exam.algorithm
    said = (
        algorithm.name,
        algorithm.version,
        *algorithm.parameters,
        *cautions(exam),
        *(known.code_meaning for known in exam.classes),
    )
    charset = headers.character_set(exam.header, description, *said)
    return write_report(
        Cover(
            header=exam.header,
            instances=exam.instances,
            number=exam.revision,
            description=description,
            moment=exam.classified_at,
            final=exam.final,
            software=exam.algorithm.software,
            serial=exam.algorithm.sha256[:16],
            equipment=equipment(exam),
            previous=_previous(exam),
        ),
        content_tree(exam, charset),
        charset,
        sop_class_uid,
        sop_uid,
    )


@lru_cache(maxsize=4)
def fingerprint(exam: ReportedExam) -> str:
    """Hash of everything that changes the bytes."""
    content = json.dumps([TEMPLATE, asdict(exam)], sort_keys=True, default=_as_text, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in a fingerprint.")


def _previous(exam: ReportedExam) -> list[Dataset] | None:
    before = exam.predecessor
    if before is None:
        return None
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID = before.sop_class_uid, before.sop_uid
    item.StudyInstanceUID = exam.header.study_uid
    item.SeriesInstanceUID = report_series_uid(exam.header.study_uid, before.series_uid)
    return [item]


def equipment(exam: ReportedExam) -> ContributingEquipment:
    """Return the algorithm as contributing equipment."""
    made = ContributingEquipment(
        manufacturer=ORGANISATION,
        purpose_of_reference=concept("109102", "DCM", exam.language),
        manufacturer_model_name=f"{exam.algorithm.name} {exam.algorithm.version}"[:64],
        software_versions=exam.algorithm.software,
        device_serial_number=exam.algorithm.sha256[:16],
    )
    made.DeviceUID = device_uid(exam)
    return made
