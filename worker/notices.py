"""Notices: that a study has no result, and why; one for each study, and none where a result came or may come."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, and_, delete, exists, or_, select
from sqlalchemy.orm import Session, aliased

from worker import audit, exams
from worker.database import now
from worker.states import WITHOUT_RESULT, DeliveryState
from worker.tables import NOTICE, Classification, Delivery, RejectedInstance, Report, Series, Study

# The reason codes that somebody who waits for a result is told. Others say that nobody does (a localizer, a series out
# of scope, another series that speaks) or that it is not settled whose images they are.
REPORT_FAILED = "report_failed"
REASONS = (
    "too_few_slices", "no_lungs", "not_axial", "projection", "mixed_orientation", "no_geometry", "undecodable",
    "missing_files", "memory", "error", "worker_died", REPORT_FAILED,
)  # fmt: skip
_NOT_OURS = ("out_of_scope", "excluded", "patient_conflict", "mixed_patients", "mixed_series")
# What ended long ago is not told: the setting may be new, and the exam read.
_LOOK_BACK = timedelta(days=7)
_OVERTAKEN = "It was true no longer when it could be sent."


def due(after: timedelta) -> Select[Any]:
    """Return the query for series that speak in a notice now, when nothing happened in their study for so long."""
    moment = now()
    other, sent = aliased(Series), aliased(Delivery)
    of_the_study = other.study_id == Series.study_id
    return (
        select(Series)
        .where(
            _true_of(Series),
            Series.ended_at > moment - _LOOK_BACK,
            or_(Series.not_before.is_(None), Series.not_before <= moment),
            ~exists().where(of_the_study, other.ended_at > moment - after),
            ~exists().where(of_the_study, sent.series_id == other.id, sent.object == NOTICE),
        )
        .order_by(Series.study_id, Series.instance_count.desc(), Series.id)
    )


def take(session: Session, series_id: int, after: timedelta) -> Series | None:
    """Return a series, locked with its study, where its notice is still due."""
    study = select(Series.study_id).where(Series.id == series_id).scalar_subquery()
    session.execute(select(Study.id).where(Study.id == study).with_for_update())
    held: Series | None = session.scalar(due(after).where(Series.id == series_id).with_for_update(of=Series))
    if held is not None:
        audit.record(session, "notice made", held.series_uid, reason_code=held.reason_code)
    return held


def overtaken() -> Any:
    """Return the condition for a delivery of a notice that is not true, or may not be so for long."""
    this = aliased(Series)
    return and_(Delivery.object == NOTICE, ~exists().where(this.id == Delivery.series_id, _true_of(this)))


def drop(session: Session, *conditions: Any) -> None:
    """Forget notices that nobody was sent, and give up those that somebody may have; by default what is overtaken."""
    free = or_(Delivery.lease_until.is_(None), Delivery.lease_until < now())
    rows = session.scalars(
        select(Delivery).where(
            Delivery.object == NOTICE,
            Delivery.state == DeliveryState.PENDING,
            free,
            *(conditions or (overtaken(),)),
        )
    )
    for row in list(rows):
        if row.attempted:
            row.state, row.last_error = DeliveryState.REFUSED, _OVERTAKEN
        else:
            session.delete(row)
    session.flush()


def forget_unsent(session: Session, series: Series) -> None:
    """Drop the notice of a series that is started again, the stored one too where nobody can have it."""
    drop(session, Delivery.series_id == series.id)
    tried = select(Delivery.id).where(Delivery.series_id == series.id, Delivery.object == NOTICE)
    if session.scalar(tried.limit(1)) is None:
        session.execute(delete(Report).where(Report.series_id == series.id, Report.object == NOTICE))


def _true_of(series: Any) -> Any:
    """Return the condition for a series that speaks for a study of one patient that has no result."""
    other, result = aliased(Series), aliased(Classification)
    of_the_study = other.study_id == series.study_id
    another_patient = or_(
        other.patient_id != series.patient_id,
        and_(series.patient_id == "", other.patient_name != series.patient_name),
        and_(other.patient_issuer != "", series.patient_issuer != "", other.patient_issuer != series.patient_issuer),
    )
    in_doubt = or_(
        other.state.not_in(WITHOUT_RESULT), other.reason_code.in_(_NOT_OURS), other.withdrawn_at.is_not(None)
    )
    # Of a result whose report cannot be made nothing was sent.
    unsaid = and_(other.id == series.id, other.reason_code == REPORT_FAILED)
    study = aliased(Study)
    return and_(
        series.state.in_(WITHOUT_RESULT),
        series.reason_code.in_(REASONS),
        series.withdrawn_at.is_(None),
        exams.latest_revisions(series),
        ~exists().where(of_the_study, or_(in_doubt, another_patient)),
        ~exists().where(of_the_study, result.series_id == other.id, ~unsaid),
        ~exists().where(
            study.id == series.study_id,
            RejectedInstance.study_uid == study.study_uid,
            RejectedInstance.series_uid == series.series_uid,
        ),
    )
