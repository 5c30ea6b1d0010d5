"""Taking a result back: nothing more of it goes out, and what went out is rejected by a note (IHE IOCM)."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs.report.rejection import Grounds
from worker import audit, exams
from worker.database import Database, now
from worker.errors import BusyError, WorkerError
from worker.states import AT_REST, DeliveryState, State
from worker.tables import RETRACTION, Delivery, Report, Retraction, Series

logger = logging.getLogger(__name__)

RETRACTED, SOURCE_REJECTED = "retracted", "source_rejected"
_HANGING = timedelta(minutes=5)
_TAKEN_BACK = "The result was taken back."


def retract(database: Database, series_uid: str, grounds: Grounds, *, actor: str) -> list[str]:
    """Take back what was said of a series; return the destinations that get a note. Raises WorkerError."""
    with database.write() as session:
        series = exams.latest(session, series_uid, lock=True)
        if series.state not in AT_REST:
            raise BusyError(f"Series {series_uid} is {series.state}: wait until it is done.")
        stand = standing(session, series)
        if not stand:
            raise WorkerError(_nothing(session, series))
        told = withdraw(session, stand, grounds, RETRACTED, f"Taken back by {actor}.", actor=actor)
        # Late images may have opened a revision that came to nothing: it stands for the series all the same.
        series.state, series.reason_code, series.reason = State.REJECTED, RETRACTED, f"Taken back by {actor}."
        return told


def standing(session: Session, series: Series) -> list[Series]:
    """Return the revisions of a series of which something was said or sent that was not taken back, the first first."""
    revisions = session.scalars(
        select(Series)
        .where(exams.of_the_series(series), Series.withdrawn_at.is_(None))
        .order_by(Series.revision)
        .with_for_update(of=Series)
    )
    sent = select(Delivery.id).where(Delivery.attempted)
    return [
        each
        for each in revisions
        if each.classification is not None or session.scalar(sent.where(Delivery.series_id == each.id).limit(1))
    ]


def withdraw(
    session: Session,
    revisions: Sequence[Series],
    grounds: Grounds,
    code: str,
    reason: str,
    *,
    actor: str = audit.SYSTEM,
) -> list[str]:
    """Take back what revisions of one series said, all of which are locked and at rest.

    Return the destinations that get a note: those that something was sent to, or may have been. Raises BusyError while
    something of it is being sent.
    """
    ids, last, moment = [each.id for each in revisions], revisions[-1], now()
    rows = list(session.scalars(select(Delivery).where(Delivery.series_id.in_(ids)).with_for_update()))
    if any(row.lease_until is not None and row.lease_until > moment for row in rows):
        raise BusyError(f"The report of series {last.series_uid} is being sent: try it again in a minute.")
    made = {(row.series_id, row.object) for row in session.scalars(select(Report).where(Report.series_id.in_(ids)))}
    sent = [row for row in rows if row.attempted and (row.series_id, row.object) in made]
    told = {row.destination: row.protocol for row in sent}
    # A sender whose lease ran out may hang and yet end: the note comes after what it may send.
    hanging = any(row.state == DeliveryState.PENDING and row.lease_owner is not None for row in rows)
    for row in rows:
        if row.state == DeliveryState.PENDING:
            row.state, row.last_error = DeliveryState.REFUSED, _TAKEN_BACK
    for each in revisions:
        each.withdrawn_at = moment
        if each.state == State.CLASSIFIED or each is last:
            each.state, each.reason_code, each.reason, each.ended_at = State.REJECTED, code, reason, moment
            each.not_before = None
    session.add(
        Retraction(
            series_id=last.id,
            grounds=grounds,
            reason_code=code,
            reason=reason,
            requested_by=actor,
            requested_at=moment,
        )
    )
    first = moment + _HANGING if hanging else moment
    session.add_all(_note_for(last, destination, protocol, first) for destination, protocol in told.items())
    audit.record(session, "result taken back", last.series_uid, actor=actor, grounds=grounds, destinations=sorted(told))
    return sorted(told)


def repeat(session: Session, series: Series, destination: str) -> None:
    """Send the note again to a destination that took something after it."""
    logger.warning("%s took something of series %s after it was taken back.", destination, series.series_uid)
    notes = select(Delivery).join(Series).where(
        exams.of_the_series(series), Delivery.object == RETRACTION, Delivery.destination == destination
    )  # fmt: skip
    for row in session.scalars(notes):
        row.state, row.next_attempt_at, row.attempts = DeliveryState.PENDING, now(), 0
    audit.record(session, "taking back repeated", series.series_uid, destination=destination)


def _note_for(series: Series, destination: str, protocol: str, first: datetime) -> Delivery:
    return Delivery(
        series_id=series.id,
        object=RETRACTION,
        destination=destination,
        protocol=protocol,
        required=True,
        state=DeliveryState.PENDING,
        attempts=0,
        next_attempt_at=first,
    )


def _nothing(session: Session, series: Series) -> str:
    before = session.scalar(
        select(Retraction).join(Series).where(exams.of_the_series(series)).order_by(Retraction.id.desc()).limit(1)
    )
    if before is None:
        return f"Series {series.series_uid} has no result that could be taken back."
    when = before.requested_at.astimezone().strftime("%Y-%m-%d %H:%M")
    return f"The result of series {series.series_uid} was taken back already, on {when} by {before.requested_by}."
