"""The notice that an exam has no result: a short report with the reason, so that nobody waits for one.

Root TID 2000 (PS3.16), a text report: TID 1500 without a measurement shows nothing in viewers that draw it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime

from highdicom import ContributingEquipment
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    LanguageOfContentItemAndDescendants,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.dataset import Dataset

from pacs.codes import ORGANISATION, Language
from pacs.elements import is_uid
from pacs.errors import Rejected
from pacs.report import header as headers
from pacs.report.concepts import concept, private, translate
from pacs.report.content import hashed_uid
from pacs.report.cover import Cover, Document, write_report
from pacs.report.descriptions import describe_notice
from pacs.report.exam import ReportedInstance
from pacs.report.wording import sentence
from pacs.series import SeriesHeader

_TEMPLATE = "TID2000-2"  # changes with every change of the tree
_SENTENCE = {
    "en": "No series of this exam was classified. {}.",
    "pt-BR": "Nenhuma série deste exame foi classificada. {}.",
    "es": "Ninguna serie de este examen fue clasificada. {}.",
}


@dataclass(frozen=True)
class UnreportedExam:
    """An exam that came to nothing. instances: of the series that speaks for it. reason_code: why, as SQL has it.

    failed: it was tried and went wrong; otherwise it was not fit to be tried. ended_at: with the zone that is stated.
    """

    header: SeriesHeader
    instances: tuple[ReportedInstance, ...]
    revision: int
    failed: bool
    reason_code: str
    ended_at: datetime
    software: str
    language: Language
    final: bool


def build_notice(exam: UnreportedExam, sop_class_uid: str) -> Document:
    """Build the notice in one of SR_CLASSES. Raises Rejected where none can be made."""
    if not is_uid(exam.header.study_uid) or not exam.instances:
        raise Rejected("not_reportable", "A notice needs a study and at least one instance.")
    identity = _fingerprint(exam)
    description = describe_notice(exam.language)
    charset = headers.character_set(exam.header, description, *_sentences(exam))
    cover = Cover(
        header=exam.header,
        instances=exam.instances,
        number=exam.revision,
        description=description,
        moment=exam.ended_at,
        final=exam.final,
        software=exam.software,
        serial="",
        equipment=software_equipment(exam.software, exam.language),
    )
    return write_report(cover, _tree(exam), charset, sop_class_uid, hashed_uid("notice", identity, sop_class_uid))


def software_observer(software: str) -> ObserverContext:
    """Return this software as the device that observed; no model had a part in it."""
    return ObserverContext(
        observer_type=concept("121007", "DCM"),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=hashed_uid("device", software),
            name="Reticula",
            manufacturer_name=ORGANISATION,
            model_name=f"Reticula {software}"[:64],
        ),
    )


def software_equipment(software: str, language: Language) -> ContributingEquipment:
    """Return this software as contributing equipment."""
    made = ContributingEquipment(
        manufacturer=ORGANISATION,
        purpose_of_reference=concept("109102", "DCM", language),
        manufacturer_model_name="Reticula",
        software_versions=software,
    )
    made.DeviceUID = hashed_uid("device", software)
    return made


def _tree(exam: UnreportedExam) -> Dataset:
    contains = RelationshipTypeValues.CONTAINS
    outcome = concept("111224" if exam.failed else "111225", "DCM")
    conclusions = ContainerContentItem(name=concept("55110-1", "LN"), relationship_type=contains)
    conclusions.ContentSequence = ContentSequence(
        [
            CodeContentItem(concept("111065", "DCM"), outcome, relationship_type=contains),
            CodeContentItem(private("NO-RESULT", exam.language, ""), _reason(exam), relationship_type=contains),
            *(TextContentItem(concept("121077", "DCM"), text, relationship_type=contains) for text in _sentences(exam)),
        ]
    )
    root: Dataset = ContainerContentItem(name=concept("24627-2", "LN"), template_id="2000")
    language = LanguageOfContentItemAndDescendants(concept(exam.language, "RFC5646"))
    root.ContentSequence = ContentSequence([*language, *software_observer(exam.software), conclusions])
    translate(root, exam.language)
    return root


def _reason(exam: UnreportedExam) -> CodedConcept:
    return private(exam.reason_code, exam.language, private("error", exam.language, "").meaning)


def _sentences(exam: UnreportedExam) -> tuple[str, ...]:
    reason = _reason(exam).meaning
    # Where there is a result, and only its report is missing, a series was classified.
    said = f"{reason}." if exam.reason_code == "report_failed" else _SENTENCE[exam.language].format(reason)
    return said, f"{sentence('disclaimer', exam.language)}."


def _fingerprint(exam: UnreportedExam) -> str:
    content = json.dumps([_TEMPLATE, asdict(exam)], sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()
