"""Taking a result back: nothing more of it goes out, and what went out is rejected by a note (IHE IOCM)."""

from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pacs.report.rejection import Grounds
from worker import audit, exams
from worker.database import Database, now
from worker.errors import BusyError, WorkerError
from worker.states import AT_REST, DeliveryState, State
from worker.tables import RETRACTION, Delivery, Report, Retraction, Series

RETRACTED, SOURCE_REJECTED = "retracted", "source_rejected"


def retract(database: Database, series_uid: str, grounds: Grounds, *, actor: str) -> list[str]:
    """Take back what was said of a series; return the destinations that get a note. Raises WorkerError."""
    with database.write() as session:
        series = exams.latest(session, series_uid, lock=True)
        if series.state not in AT_REST:
            raise BusyError(f"Series {series_uid} is {series.state}: wait until it is done.")
        if not standing(session, series):
            raise WorkerError(f"Series {series_uid} has no result that could be taken back.")
        return withdraw(session, series, grounds, RETRACTED, f"Taken back by {actor}.", actor=actor)


def standing(session: Session, series: Series) -> list[Series]:
    """Return the revisions of a series of which something was said or sent that was not taken back."""
    revisions = session.scalars(select(Series).where(*_same(series), Series.withdrawn_at.is_(None)))
    sent = select(Delivery.id).where(Delivery.attempts > 0)
    return [
        each
        for each in revisions
        if each.classification is not None or session.scalar(sent.where(Delivery.series_id == each.id).limit(1))
    ]


def withdraw(
    session: Session, series: Series, grounds: Grounds, code: str, reason: str, *, actor: str = audit.SYSTEM
) -> list[str]:
    """Take back what stands of a series, whose latest revision is locked and at rest.

    Return the destinations that get a note: those that something was sent to, or may have been. Raises BusyError while
    something of it is being sent.
    """
    ids = [each.id for each in session.scalars(select(Series).where(*_same(series), Series.withdrawn_at.is_(None)))]
    rows = list(session.scalars(select(Delivery).where(Delivery.series_id.in_(ids)).with_for_update()))
    moment = now()
    if any(row.lease_until is not None and row.lease_until > moment for row in rows):
        raise BusyError(f"The report of series {series.series_uid} is being sent: try it again in a minute.")
    made = {(row.series_id, row.object) for row in session.scalars(select(Report).where(Report.series_id.in_(ids)))}
    attempted = {row.destination: row.protocol for row in rows if row.attempts and (row.series_id, row.object) in made}
    for row in rows:
        if row.state == DeliveryState.PENDING:
            row.state, row.last_error = DeliveryState.REFUSED, "The result was taken back before this was sent."
    session.execute(update(Series).where(Series.id.in_(ids)).values(withdrawn_at=moment))
    series.withdrawn_at = series.ended_at = moment
    series.state, series.reason_code, series.reason, series.not_before = State.REJECTED, code, reason, None
    session.add(
        Retraction(
            series_id=series.id,
            grounds=grounds,
            reason_code=code,
            reason=reason,
            requested_by=actor,
            requested_at=moment,
        )
    )
    session.add_all(
        Delivery(
            series_id=series.id,
            object=RETRACTION,
            destination=destination,
            protocol=protocol,
            required=True,
            state=DeliveryState.PENDING,
            attempts=0,
            next_attempt_at=moment,
        )
        for destination, protocol in attempted.items()
    )
    audit.record(
        session, "result taken back", series.series_uid, actor=actor, grounds=grounds, destinations=sorted(attempted)
    )
    return sorted(attempted)


def _same(series: Series) -> tuple[Any, ...]:
    return Series.series_uid == series.series_uid, Series.study_id == series.study_id
