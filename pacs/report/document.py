"""The report as a DICOM object: the same exam gives the same bytes, under a UID that is their fingerprint."""

import hashlib
import json
import warnings
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from io import BytesIO

from highdicom import ContributingEquipment
from highdicom.sr import Comprehensive3DSR, ComprehensiveSR
from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from pacs.codes import ORGANISATION, PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, concept
from pacs.elements import is_uid
from pacs.errors import Rejected
from pacs.report import header as headers
from pacs.report.content import content_tree, device_uid, hashed_uid
from pacs.report.exam import Language, ReportedExam

# What is offered to a PACS, the better first; both hold the same content.
SR_CLASSES: tuple[str, ...] = (Comprehensive3DSRStorage, ComprehensiveSRStorage)
SR_SERIES_NUMBER = 990  # above the CT's: what is below may open instead of the CT
TEMPLATE = "TID1500-3"  # changes with every change of the tree

_DESCRIPTION = {
    "en": "{} AI, not for diagnosis",
    "pt-BR": "{} IA, não é diagnóstico",
    "es": "{} IA, no es diagnóstico",
}
_SHORT = {
    "UIP": {"en": "UIP", "pt-BR": "PIU", "es": "NIU"},
    "NSIP": {"en": "NSIP", "pt-BR": "PINE", "es": "NINE"},
    "normal": {"en": "Normal", "pt-BR": "Normal", "es": "Normal"},
    "other": {"en": "Other disease", "pt-BR": "Outra doença", "es": "Otra enfermedad"},
    "indeterminate": {"en": "Indeterminate", "pt-BR": "Indeterminado", "es": "Indeterminado"},
}


@dataclass(frozen=True)
class Document:
    """A report: its UIDs and its bytes in the DICOM File Format."""

    sop_class_uid: str
    sop_uid: str
    content: bytes


def build_report(exam: ReportedExam, sop_class_uid: str) -> Document:
    """Build the report in one of SR_CLASSES. Raises Rejected where the exam cannot be reported."""
    if not is_uid(exam.header.study_uid) or not exam.instances:
        raise Rejected("not_reportable", "A report needs a study and at least one classified instance.")
    if not exam.key_slices or not all(key.outlines for key in exam.key_slices):
        raise Rejected("not_reportable", "A report needs key slices with the outlines of the lungs.")
    identity = fingerprint(exam)
    sop_uid = hashed_uid("report", identity, sop_class_uid)
    series_uid = report_series_uid(exam.header.study_uid, exam.header.series_uid)
    description = describe(exam)
    algorithm = exam.algorithm
    said = (
        algorithm.name,
        algorithm.version,
        *algorithm.parameters,
        *(known.code_meaning for known in exam.classes),
    )
    charset = headers.character_set(exam.header, description, *said)
    shared = {
        "evidence": [headers.evidence(exam.header, instance, charset) for instance in exam.instances],
        "content": content_tree(exam, charset, identity),
        "series_instance_uid": series_uid,
        "series_number": SR_SERIES_NUMBER,
        "sop_instance_uid": sop_uid,
        "instance_number": exam.revision,
        "manufacturer": ORGANISATION,
        "manufacturer_model_name": "Reticula",
        "software_versions": exam.algorithm.software,
        "device_serial_number": exam.algorithm.sha256[:16],
        "is_complete": True,
        "is_final": exam.final,
        "series_description": description,
        "content_date": exam.classified_at.date(),
        "content_time": whole_seconds(exam.classified_at).time(),
        "series_date": exam.classified_at.date(),
        "series_time": whole_seconds(exam.classified_at).time(),
        "specific_character_set": charset,
        "previous_versions": _previous(exam),
        "contributing_equipment": [equipment(exam)],
    }
    report_class = Comprehensive3DSR if sop_class_uid == Comprehensive3DSRStorage else ComprehensiveSR
    with warnings.catch_warnings():
        # The patient's name is copied as it came, a single component included.
        warnings.filterwarnings("ignore", message=".*is unlikely to represent the intended person name")
        report: Dataset = report_class(**shared)
    _complete(report, exam)
    buffer = BytesIO()
    dcmwrite(buffer, report, enforce_file_format=True)
    return Document(sop_class_uid, sop_uid, buffer.getvalue())


def short_name(name: str, language: Language) -> str:
    """Return what radiologists call a class, or `indeterminate`, in a language."""
    return _SHORT.get(name, {}).get(language, name)


def describe(exam: ReportedExam) -> str:
    """Return the series description; a panel shows its first characters, so the verdict stands first."""
    verdict = short_name(exam.verdict, exam.language)
    if exam.verdict in {known.name for known in exam.classes}:
        verdict += f" {exam.certainty:.0%}"
    return _DESCRIPTION[exam.language].format(verdict)


def report_series_uid(study_uid: str, series_uid: str) -> str:
    """Return the series that holds the reports of one CT series, all its revisions."""
    return hashed_uid("report series", study_uid, series_uid)


@lru_cache(maxsize=4)
def fingerprint(exam: ReportedExam) -> str:
    """Hash of everything that changes the bytes."""
    content = json.dumps([TEMPLATE, asdict(exam)], sort_keys=True, default=_as_text, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def _as_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} has no place in a fingerprint.")


def whole_seconds(moment: datetime) -> datetime:
    """Return a moment without its fraction of a second, which DICOM writes in several ways."""
    return moment.replace(microsecond=0)


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


def _complete(report: Dataset, exam: ReportedExam) -> None:
    """Set what highdicom leaves out, and the stored time where it takes the present one."""
    moment = whole_seconds(exam.classified_at)
    report.update(Dataset.from_json(exam.header.context))
    report.InstanceCreationDate, report.InstanceCreationTime = report.ContentDate, report.ContentTime
    report.TimezoneOffsetFromUTC = moment.strftime("%z")
    scheme = Dataset()
    scheme.CodingSchemeDesignator = PRIVATE_SCHEME
    scheme.CodingSchemeName = PRIVATE_SCHEME_NAME
    scheme.CodingSchemeResponsibleOrganization = ORGANISATION
    report.CodingSchemeIdentificationSequence = [scheme]
    report.ContributingEquipmentSequence = [
        item for item in report.ContributingEquipmentSequence if "DeviceUID" in item
    ]
