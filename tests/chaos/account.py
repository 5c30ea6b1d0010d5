"""The account: every instance that was acknowledged, by the sender's log, the disk and the PACS; SQL must agree."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs.report.reader import ReadReport, read_report
from tests.chaos.sender import SendLog, Sent, dataset_bytes
from worker.database import Database
from worker.tables import Classification, Instance, Series, SliceResult

_INDETERMINATE = "82334004"  # SNOMED CT
_ROUNDING = 0.006


@dataclass
class Account:
    """What was found; sentences name what is lost, doubled or wrong."""

    series: int = 0
    instances: int = 0
    reports: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is."""
        return not (self.lost or self.doubled or self.wrong)


def take_account(log: SendLog, data_dir: Path, reports: Sequence[Dataset], database: Database) -> Account:
    """Compare what was acknowledged with the spool, with the reports at the PACS and with SQL."""
    account = Account(instances=len(log.acknowledged), reports=len(reports))
    _look_at_disk(account, log, data_dir)
    for series_uid, instances in log.by_series().items():
        account.series += 1
        _look_at_reports(account, series_uid, instances, reports)
        _look_at_sql(account, series_uid, instances, reports, database)
    return account


def _look_at_disk(account: Account, log: SendLog, data_dir: Path) -> None:
    found: dict[str, list[Path]] = {}
    for path in (data_dir / "spool" / "series").rglob("*.dcm"):
        found.setdefault(path.stem.partition("~")[0], []).append(path)
    for sop_uid, sent in log.acknowledged.items():
        files = found.get(sop_uid, [])
        if not files:
            account.lost.append(f"instance {sop_uid} was acknowledged and is not on disk")
        elif len(files) > 1:
            account.doubled.append(f"instance {sop_uid} lies in {len(files)} files")
        for path in files:
            if hashlib.sha256(dataset_bytes(path)).hexdigest() != sent.digest:
                account.wrong.append(f"instance {sop_uid} is not what was sent")
            if path.parent.name != sent.series_uid or path.parent.parent.name != sent.study_uid:
                account.wrong.append(f"instance {sop_uid} lies under {path.parent}")


def _look_at_reports(account: Account, series_uid: str, instances: Sequence[Sent], reports: Sequence[Dataset]) -> None:
    """One report for each revision, in one line from the first to the last, of this patient and nobody else."""
    mine = [report for report in reports if report.StudyInstanceUID == instances[0].study_uid]
    if not mine:
        account.lost.append(f"series {series_uid} has no report at the PACS")
        return
    named = [_predecessor(report) for report in mine]
    for predecessor, count in Counter(named).items():
        if count > 1:
            account.doubled.append(f"series {series_uid} has {count} reports after {predecessor or 'none'}")
    if None not in named or not {name for name in named if name} <= {str(report.SOPInstanceUID) for report in mine}:
        account.lost.append(f"series {series_uid} lacks a report that another one names")
    acknowledged = {sent.sop_uid for sent in instances}
    for report in mine:
        shown = read_report(report)
        if shown.patient_id != instances[0].patient_id:
            account.wrong.append(f"the report of series {series_uid} is of {shown.patient_id}")
        if not shown.sop_uids <= acknowledged:
            account.wrong.append(f"the report of series {series_uid} names instances of others")


def _look_at_sql(
    account: Account, series_uid: str, instances: Sequence[Sent], reports: Sequence[Dataset], database: Database
) -> None:
    with database.read() as session:
        rows = list(session.scalars(select(Series).where(Series.series_uid == series_uid).order_by(Series.revision)))
        held = Counter(
            session.scalars(select(Instance.sop_uid).where(Instance.series_id.in_([row.id for row in rows])))
        )
        results = select(Classification).where(Classification.series_id.in_([row.id for row in rows]))
        said = {row.series.revision: _said(session, row) for row in session.scalars(results)}
    for sent in instances:
        if held[sent.sop_uid] != 1:
            kind = account.lost if held[sent.sop_uid] == 0 else account.doubled
            kind.append(f"instance {sent.sop_uid} stands in {held[sent.sop_uid]} revisions")
    if not rows or rows[-1].state != "reported" or rows[-1].instance_count != len(instances):
        state = (rows[-1].state, rows[-1].reason, rows[-1].instance_count) if rows else "absent"
        account.lost.append(f"series {series_uid} is {state} in SQL, {len(instances)} instances were acknowledged")
    mine = [report for report in reports if report.StudyInstanceUID == instances[0].study_uid]
    for report in mine:
        shown = read_report(report)
        stored = said.get(int(report.InstanceNumber))
        if stored is None or not stored.is_shown_by(shown):
            account.wrong.append(f"the report of series {series_uid} says {shown}, SQL {stored}")
    if len(mine) != len(said):
        kind = account.lost if len(mine) < len(said) else account.doubled
        kind.append(f"series {series_uid} has {len(said)} results and {len(mine)} reports at the PACS")


@dataclass(frozen=True)
class _Said:
    """What SQL holds of a result that a report states; verdict: the code that a report has for it."""

    verdict: str
    certainty: float | None
    probabilities: dict[str, float]
    sop_uids: frozenset[str]

    def is_shown_by(self, report: ReadReport) -> bool:
        """Whether a report says the same, with two decimals of a percentage."""
        return (
            report.impression[0] == self.verdict
            and _agree(report.certainty, self.certainty)
            and report.probabilities.keys() == self.probabilities.keys()
            and all(abs(report.probabilities[name] - value) <= _ROUNDING for name, value in self.probabilities.items())
            and report.sop_uids == self.sop_uids
        )


def _agree(reported: float | None, stored: float | None) -> bool:
    if reported is None or stored is None:
        return reported is stored
    return abs(reported - stored) <= _ROUNDING


def _said(session: Session, row: Classification) -> _Said:
    codes = {each["name"]: each["code"]["value"] for each in row.classes}
    classified = select(SliceResult.sop_uid).where(SliceResult.classification_id == row.id, SliceResult.classified)
    uids = frozenset(session.scalars(classified))
    return _Said(
        codes.get(row.verdict, _INDETERMINATE), row.certainty, row.probabilities if row.verdict in codes else {}, uids
    )


def _predecessor(report: Dataset) -> str | None:
    if "PredecessorDocumentsSequence" not in report:
        return None
    item = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    return str(item.ReferencedSOPInstanceUID)
