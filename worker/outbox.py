"""What is to be made and sent now, and what follows for an exam when it has arrived or was refused."""

import logging
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import and_, distinct, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from pacs.commitment import CommitmentResult
from worker import audit, notices
from worker.database import Database, now
from worker.states import DeliveryState, State
from worker.tables import ABOUT, RETRACTION, SR, Delivery, Report, Series

logger = logging.getLogger(__name__)

FIRST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(hours=1)


def unprepared(destinations: Sequence[str]) -> Any:
    """Return the condition for a classified revision that lacks its report or a row for a destination."""
    has_report = exists().where(Report.series_id == Series.id, Report.object == SR)
    rows = (
        select(func.count(distinct(Delivery.destination)))
        .where(Delivery.series_id == Series.id, Delivery.destination.in_(destinations), Delivery.object.not_in(ABOUT))
        .scalar_subquery()
    )
    # A report names the one that it replaces, so that one is made first.
    earlier, sending = aliased(Series), aliased(Delivery)
    earlier_rows = (
        select(func.count(distinct(sending.destination)))
        .where(sending.series_id == earlier.id, sending.destination.in_(destinations), sending.object.not_in(ABOUT))
        .correlate(earlier)
        .scalar_subquery()
    )
    first = ~exists().where(
        earlier.series_uid == Series.series_uid,
        earlier.study_id == Series.study_id,
        earlier.revision < Series.revision,
        earlier.state == State.CLASSIFIED,
        earlier.withdrawn_at.is_(None),
        ~earlier.shadow,
        # A report without its rows counts for nothing yet: whoever made it may have died in between.
        or_(~exists().where(Report.series_id == earlier.id, Report.object == SR), earlier_rows < len(destinations)),
    )
    ready = or_(Series.not_before.is_(None), Series.not_before <= now())
    stands = and_(Series.state == State.CLASSIFIED, Series.withdrawn_at.is_(None), ~Series.shadow)
    return and_(stands, ready, first, or_(~has_report, rows < len(destinations)))


def due() -> Any:
    """Return the condition for a delivery that can be attempted now: earlier revisions arrive before later ones."""
    moment = now()
    this, earlier, before = aliased(Series), aliased(Series), aliased(Delivery)
    held_back = exists().where(
        this.id == Delivery.series_id,
        earlier.series_uid == this.series_uid,
        earlier.study_id == this.study_id,
        earlier.revision < this.revision,
        before.series_id == earlier.id,
        before.destination == Delivery.destination,
        before.object == Delivery.object,
        before.state == DeliveryState.PENDING,
    )
    free = or_(Delivery.lease_until.is_(None), Delivery.lease_until < moment)
    waiting = and_(Delivery.state == DeliveryState.PENDING, Delivery.next_attempt_at <= moment, free)
    return and_(waiting, ~held_back, ~notices.overtaken())


def settle(session: Session, series: Series) -> None:
    """Move a classified revision on where its deliveries allow it; see too whether one that was taken back is so."""
    if series.withdrawn_at is not None:
        _settle_withdrawn(session, series)
        return
    if series.state != State.CLASSIFIED:
        return
    results = select(Delivery).where(Delivery.series_id == series.id, Delivery.object.not_in(ABOUT))
    rows = list(session.scalars(results))
    deciding = [row for row in rows if row.required] or [row for row in rows if row.object == SR]
    if not rows or any(row.state == DeliveryState.PENDING for row in deciding):
        return
    refused = [row for row in deciding if row.state == DeliveryState.REFUSED]
    arrived = [row.destination for row in rows if row.state == DeliveryState.DELIVERED]
    if any(row.required for row in refused) or not arrived:
        series.state, series.reason_code = State.FAILED, "delivery_refused"
        series.reason = "; ".join(f"{row.destination} refused: {row.last_error}" for row in refused) + (
            f" Delivered to {', '.join(arrived)}." if arrived else " Delivered nowhere."
        )
    else:
        series.state, series.reported_at = State.REPORTED, now()
    audit.record(session, f"series {series.state}", series.series_uid, revision=series.revision)


def _settle_withdrawn(session: Session, series: Series) -> None:
    """Let an exam fail whose rejection note is refused: somebody must take its objects back by hand."""
    rows = session.scalars(select(Delivery).where(Delivery.series_id == series.id, Delivery.object == RETRACTION))
    refused = [row for row in rows if row.state == DeliveryState.REFUSED]
    if refused and series.state == State.REJECTED:
        refusals = [
            f"{row.destination} refused the rejection note ({(row.last_error or '').rstrip('.')})" for row in refused
        ]
        series.state, series.reason_code, series.ended_at = State.FAILED, "retraction_refused", now()
        series.reason = f"{'; '.join(refusals)}: remove the objects there by hand."
        logger.error("Series %s: %s", series.series_uid, series.reason)
        audit.record(session, "taking back refused", series.series_uid)


def settle_commitment(database: Database, result: CommitmentResult) -> bool:
    """Note the result of a storage commitment where a delivery waits for it; False where none does, or not yet."""
    with database.write() as session:
        waiting = select(Delivery.id, Delivery.series_id).where(Delivery.transaction_uid == result.transaction_uid)
        found = session.execute(waiting).one_or_none()
        if found is None:
            return False
        series = session.get_one(Series, found.series_id, with_for_update=True)
        row = session.get_one(Delivery, found.id)
        if row.state != DeliveryState.PENDING or row.transaction_uid != result.transaction_uid:
            return True  # it was sent again since, or given up
        if row.sop_uid is None:
            return False  # the attempt that asked has not ended
        failed = {reference.sop_uid: reason for reference, reason in result.failed}
        if row.sop_uid in {reference.sop_uid for reference in result.committed}:
            row.state, row.delivered_at, row.last_error = DeliveryState.DELIVERED, now(), None
        else:
            said = f"0x{failed[row.sop_uid]:04X}" if row.sop_uid in failed else "its answer does not name it"
            row.last_error = f"{row.destination} did not commit itself to the report ({said})."
            row.next_attempt_at = now() + delay(row.attempts)
        row.transaction_uid = row.lease_owner = row.lease_until = row.woken_at = None
        note(session, series, row)
        return True


def delay(attempts: int) -> timedelta:
    """Return how long to wait after so many attempts: twice as long each time, with a fifth of jitter."""
    longest: timedelta = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 20))
    return longest * random.uniform(0.8, 1.2)  # noqa: S311 – no secret


def note(session: Session, series: Series, row: Delivery) -> None:
    """Note in the audit trail how a delivery stands, and move its exam on."""
    audit.record(session, f"delivery {row.state}", series.series_uid, destination=row.destination, error=row.last_error)
    session.flush()
    settle(session, series)
