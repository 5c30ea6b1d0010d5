"""What stands in the worklist: new UIP first, then new NSIP, then what is indeterminate; of each the oldest first.

New is a report that no later one replaces. Anybody can make the same list from the same reports.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset

from models.bundle import KNOWN_CLASSES
from pacs.codes import INDETERMINATE_CODE
from pacs.errors import PartlyRead, QueryError, Unreadable
from pacs.report.reader import ReadReport, read_report
from pacs.report.rejection import read_rejection_note
from pacs.retrieval import Source, StudyQuery

INDETERMINATE = "indeterminate"
# By the code of the impression; what is not here comes last.
_NAMES = {known.code.value: known.name for known in KNOWN_CLASSES.values()} | {INDETERMINATE_CODE: INDETERMINATE}
URGENCY = ("UIP", "NSIP", INDETERMINATE)
_ENOUGH_FAILURES = 3  # of studies, one after the other
_NEVER = datetime.max.replace(tzinfo=UTC)
_KEYS = (
    "urgency", "verdict", "reason_code", "reason", "certainty", "probabilities", "patient_id", "patient_name",
    "accession_number", "study_uid", "study_date", "description", "series_uids", "sop_uid", "preliminary", "verified",
    "reported_at", "link", "unreadable",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A report and how urgent it is: 1 is the most urgent. link: where the study is opened; None without a viewer."""

    report: ReadReport
    verdict: str
    urgency: int
    link: str | None


@dataclass(frozen=True)
class LeftOut:
    """A series that could not be read, or not whole: the list may lack its reports, or show one that was taken back.

    series_uid: empty where the PACS did not even list the series of the study.
    """

    study_uid: str
    series_uid: str
    why: str


@dataclass(frozen=True)
class Worklist:
    """The entries, the most urgent first, and the series that could not be read whole."""

    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...] = ()

    def as_json(self) -> list[dict[str, Any]]:
        """Return it as scripts read it: a row for each entry, and one with `unreadable` for each series left out."""
        rows = [as_json(entry) for entry in self.entries]
        return rows + [_left_out_as_json(each) for each in self.left_out]


def gather(source: Source, dates: str, viewer: str | None) -> Worklist:
    """Return the worklist of studies of some days (as in DICOM: a range). Raises QueryError where the PACS is away."""
    rejected: set[str] = set()
    left_out: list[LeftOut] = []
    reports = [report for report in list(_reports(source, dates, left_out, rejected)) if report.sop_uid not in rejected]
    replaced = {uid for report in reports for uid in report.replaces}
    newest = {report.sop_uid: report for report in reports if report.sop_uid not in replaced}
    return Worklist(tuple(ordered(_entry(report, viewer) for report in newest.values())), tuple(left_out))


def ordered(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries in the order in which they are looked at."""
    return sorted(entries, key=lambda entry: (entry.urgency, entry.report.reported_at or _NEVER, entry.report.sop_uid))


def as_json(entry: Entry) -> dict[str, Any]:
    """Return an entry as scripts read it."""
    report = entry.report
    return {
        "urgency": entry.urgency,
        "verdict": entry.verdict,
        "reason_code": report.reason_code or None,
        "reason": report.reason or None,
        "certainty": report.certainty,
        "probabilities": report.probabilities,
        "patient_id": report.patient_id or None,
        "patient_name": report.patient_name or None,
        "accession_number": report.accession_number or None,
        "study_uid": report.study_uid,
        "study_date": report.study_date or None,
        "description": report.description or None,
        "series_uids": sorted(report.series_uids),
        "sop_uid": report.sop_uid,
        "preliminary": report.preliminary,
        "verified": report.verified,
        "reported_at": None if report.reported_at is None else report.reported_at.astimezone(UTC).isoformat(),
        "link": entry.link,
        "unreadable": None,
    }


def _left_out_as_json(series: LeftOut) -> dict[str, Any]:
    """Return a series that was left out with the keys of an entry, none of them known."""
    known = {
        "study_uid": series.study_uid,
        "series_uids": [series.series_uid] if series.series_uid else [],
        "unreadable": series.why,
    }
    return dict.fromkeys(_KEYS) | known


def _reports(source: Source, dates: str, left_out: list[LeftOut], rejected: set[str]) -> Iterator[ReadReport]:
    """Yield the reports.

    Add to `rejected` the objects that rejection notes take back, and to `left_out` the series that could not be read.
    """
    for study in source.studies(StudyQuery(dates=dates, modality="SR")):
        try:
            found = source.series(study.study_uid)
        except QueryError as error:
            left_out.append(LeftOut(study.study_uid, "", str(error)))
            if len(left_out) >= _ENOUGH_FAILURES and not any(each.series_uid for each in left_out):
                raise  # it is the PACS, and not a study
            continue
        for series in found:
            if series.modality not in ("SR", "KO"):
                continue
            try:
                datasets = source.read(series)
            except PartlyRead as error:
                left_out.append(LeftOut(study.study_uid, series.series_uid, str(error)))
                datasets = list(error.datasets)
            for dataset in datasets:
                try:
                    if series.modality == "KO":
                        rejected |= _rejected(dataset)
                        continue
                    report = read_report(dataset)
                except (Unreadable, AttributeError, IndexError, ValueError, TypeError):
                    continue  # somebody else's report
                if report.impression[0] in _NAMES:
                    yield report


def _rejected(dataset: Dataset) -> set[str]:
    note = read_rejection_note(dataset)
    return set() if note is None else {uid for series in note.series for uid in series.sop_uids}


def _entry(report: ReadReport, viewer: str | None) -> Entry:
    verdict = _NAMES[report.impression[0]]
    urgency = URGENCY.index(verdict) + 1 if verdict in URGENCY else len(URGENCY) + 1
    link = None if viewer is None else viewer.replace("{study_uid}", report.study_uid)
    return Entry(report, verdict, urgency, link)
