"""Notices: that a study has no result, and why; one for each study, and none where a result came or may come."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Select, and_, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from worker import audit, exams
from worker.database import now
from worker.states import WITHOUT_RESULT, DeliveryState
from worker.tables import NOTICE, Delivery, Series, Study

# The reason codes that somebody who waits for a result is told. Others say that nobody does (a localizer, a series out
# of scope, another series that speaks) or that it is not settled whose images they are.
REASONS = (
    "too_few_slices", "no_lungs", "not_axial", "projection", "mixed_orientation", "no_geometry", "undecodable",
    "missing_files", "memory", "error", "worker_died", "report_failed",
)  # fmt: skip
_NOT_OURS = ("out_of_scope", "excluded", "patient_conflict", "mixed_patients", "mixed_series")
# What ended long ago is not told: the setting may be new, and the exam read.
_LOOK_BACK = timedelta(days=7)
_OVERTAKEN = "A result came before this was sent."


def due(after: timedelta) -> Select[Any]:
    """Return the query for series that speak in a notice now, when nothing happened in their study for so long."""
    moment = now()
    other, sent = aliased(Series), aliased(Delivery)
    of_the_study = other.study_id == Series.study_id
    return (
        select(Series)
        .where(
            Series.state.in_(WITHOUT_RESULT),
            Series.reason_code.in_(REASONS),
            Series.withdrawn_at.is_(None),
            Series.ended_at > moment - _LOOK_BACK,
            or_(Series.not_before.is_(None), Series.not_before <= moment),
            exams.latest_revisions(),
            ~exists().where(of_the_study, or_(other.state.not_in(WITHOUT_RESULT), other.reason_code.in_(_NOT_OURS))),
            ~exists().where(of_the_study, or_(other.ended_at > moment - after, other.withdrawn_at.is_not(None))),
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


def overtake(session: Session, series: Series) -> None:
    """Let a notice that was not sent yet go nowhere, now that a series of its study has a result."""
    of_the_study = select(Series.id).where(Series.study_id == series.study_id)
    free = or_(Delivery.lease_until.is_(None), Delivery.lease_until < now())
    session.execute(
        update(Delivery)
        .where(
            Delivery.series_id.in_(of_the_study),
            Delivery.object == NOTICE,
            Delivery.state == DeliveryState.PENDING,
            free,
        )
        .values(state=DeliveryState.REFUSED, last_error=_OVERTAKEN)
    )


def overtaken() -> Any:
    """Return the condition for a delivery of a notice whose study has a result, or may have one yet."""
    this, other = aliased(Series), aliased(Series)
    return and_(
        Delivery.object == NOTICE,
        exists().where(
            this.id == Delivery.series_id, other.study_id == this.study_id, other.state.not_in(WITHOUT_RESULT)
        ),
    )
