"""Reading a report back, as any other program that knows TID 1500 can."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from pacs.codes import INDETERMINATE_CODE, reason_of
from pacs.elements import text
from pacs.errors import Unreadable
from pacs.meanings import PRIVATE_SCHEME

_IMPRESSION, _CERTAINTY = ("111023", "DCM"), ("111013", "DCM")
_REASON = ("REASON", PRIVATE_SCHEME)
_MEASUREMENT_GROUP = ("125007", "DCM")


@dataclass(frozen=True)
class ReadReport:
    """What a report says. certainty, probabilities by class name: 0 to 1; of an abstention None and, mostly, nothing.

    reason_code: why it abstains (`models.verdict.ReasonCode`), and reason in the report's own words; empty where it
    does not. verified: whether a person has put a name to it. impression: (code, scheme, meaning). series_uids,
    sop_uids: of the evidence. replaces: reports that it replaces.
    reported_at: as the report states it, with its zone; None where it does not.
    """

    sop_uid: str
    study_uid: str
    patient_id: str
    patient_name: str
    accession_number: str
    study_date: str
    description: str
    reported_at: datetime | None
    preliminary: bool
    verified: bool
    replaces: frozenset[str]
    impression: tuple[str, str, str]
    certainty: float | None
    reason_code: str
    reason: str
    probabilities: dict[str, float]
    series_uids: frozenset[str]
    sop_uids: frozenset[str]


def read_report(dataset: Dataset) -> ReadReport:
    """Read the exam's group of a report. Raises Unreadable where there is none."""
    for node in _nodes(dataset):
        if _concept(node) == _MEASUREMENT_GROUP:
            named = {_concept(child): child for child in node.get("ContentSequence", ())}
            if _IMPRESSION in named and (_CERTAINTY in named or _abstains(named[_IMPRESSION])):
                return _read(dataset, node, named)
    raise Unreadable("The object holds no group with an impression that is certain or none.")


def _abstains(impression: Dataset) -> bool:
    return bool(impression.ConceptCodeSequence[0].CodeValue == INDETERMINATE_CODE)


def _read(dataset: Dataset, group: Dataset, named: dict[tuple[str, str], Dataset]) -> ReadReport:
    code = named[_IMPRESSION].ConceptCodeSequence[0]
    # Reports of earlier versions state a certainty beside an abstention: of nothing that they say.
    certainty = None if _abstains(named[_IMPRESSION]) else _percent(named[_CERTAINTY])
    why = named[_REASON].ConceptCodeSequence[0] if _REASON in named else None
    probabilities = {}
    for child in group.ContentSequence:
        value, scheme = _concept(child)
        if scheme == PRIVATE_SCHEME and value.startswith("PROB-"):
            probabilities[value.removeprefix("PROB-")] = _percent(child)
    series = [
        item for study in dataset.CurrentRequestedProcedureEvidenceSequence for item in study.ReferencedSeriesSequence
    ]
    return ReadReport(
        sop_uid=str(dataset.SOPInstanceUID),
        study_uid=str(dataset.StudyInstanceUID),
        patient_id=text(dataset, "PatientID"),
        patient_name=text(dataset, "PatientName"),
        accession_number=text(dataset, "AccessionNumber"),
        study_date=text(dataset, "StudyDate"),
        description=text(dataset, "StudyDescription"),
        reported_at=_moment(dataset),
        preliminary=text(dataset, "PreliminaryFlag") != "FINAL",
        verified=text(dataset, "VerificationFlag") == "VERIFIED",
        replaces=frozenset(_replaced(dataset)),
        impression=(code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning),
        certainty=certainty,
        reason_code="" if why is None else reason_of(why.CodeValue),
        reason="" if why is None else str(why.CodeMeaning),
        probabilities=probabilities,
        series_uids=frozenset(str(item.SeriesInstanceUID) for item in series),
        sop_uids=frozenset(str(sop.ReferencedSOPInstanceUID) for item in series for sop in item.ReferencedSOPSequence),
    )


def _moment(dataset: Dataset) -> datetime | None:
    stated = text(dataset, "ContentDate") + text(dataset, "ContentTime").partition(".")[0]
    zone = text(dataset, "TimezoneOffsetFromUTC") or "+0000"
    try:
        return datetime.strptime(stated + zone, "%Y%m%d%H%M%S%z")
    except ValueError:
        return None


def _replaced(dataset: Dataset) -> Iterator[str]:
    for study in dataset.get("PredecessorDocumentsSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for sop in series.get("ReferencedSOPSequence") or ():
                yield text(sop, "ReferencedSOPInstanceUID")


def _nodes(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", ()):
        yield child
        yield from _nodes(child)


def _concept(node: Dataset) -> tuple[str, str]:
    names = node.get("ConceptNameCodeSequence")
    return (names[0].CodeValue, names[0].CodingSchemeDesignator) if names else ("", "")


def _percent(node: Dataset) -> float:
    return float(node.MeasuredValueSequence[0].NumericValue) / 100
