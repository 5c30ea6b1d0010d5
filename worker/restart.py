"""Starting an exam again, as people ask for it: under a lock of its row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.orm import Session

from worker import audit, exams
from worker.database import Database, now
from worker.errors import WorkerError
from worker.states import AT_REST, WITHOUT_RESULT, Completeness, DeliveryState, State
from worker.tables import RETRACTION, Delivery, Retraction, Series


def retry(database: Database, series_uid: str, *, actor: str) -> Series:
    """Start a failed or rejected exam again. Raises NotFoundError or WorkerError."""
    with database.write() as session:
        series = exams.latest(session, series_uid, lock=True)
        if series.state not in WITHOUT_RESULT:
            raise WorkerError(f"Series {series_uid} is {series.state}: only a failed or rejected one can be retried.")
        if series.withdrawn_at is not None:
            if not _reset_deliveries(session, series, [DeliveryState.REFUSED], Delivery.object == RETRACTION):
                raise WorkerError(f"The result of series {series_uid} was taken back: 'reticula exams reprocess' it.")
            taken_back = session.scalars(select(Retraction).where(Retraction.series_id == series.id)).one()
            series.state, series.reason_code, series.reason = State.REJECTED, taken_back.reason_code, taken_back.reason
        elif series.classification is not None:
            _reset_deliveries(session, series, [DeliveryState.REFUSED])
            series.state, series.reason_code, series.reason = State.CLASSIFIED, None, None
        else:
            series.reason_code = series.reason = None
            exams.queue(session, series, Completeness(series.completeness or Completeness.QUIET_PERIOD))
        audit.record(session, "retry asked", series_uid, actor=actor)
        return series


def resend(database: Database, series_uid: str, *, actor: str) -> Series:
    """Send the reports of an exam again to every destination. Raises NotFoundError or WorkerError."""
    with database.write() as session:
        series = exams.latest(session, series_uid, lock=True)
        if series.classification is None:
            raise WorkerError(f"Series {series_uid} is {series.state}: it has no report to send.")
        if series.withdrawn_at is not None:
            raise WorkerError(f"The result of series {series_uid} was taken back: 'reticula exams reprocess' it.")
        _reset_deliveries(session, series, list(DeliveryState))
        series.shadow = False  # somebody wants it sent
        series.state, series.reason_code, series.reason, series.reported_at = (
            State.CLASSIFIED,
            None,
            None,
            None,
        )
        audit.record(session, "resend asked", series_uid, actor=actor)
        return series


def reprocess(database: Database, data_dir: Path, series_uid: str, *, actor: str) -> Series:
    """Classify an exam again, as its next revision, with the model that is active. Raises WorkerError."""
    with database.write() as session:
        series = exams.latest(session, series_uid, lock=True)
        if series.state not in AT_REST:
            raise WorkerError(f"Series {series_uid} is {series.state}: wait until it is done.")
        if not all(path.is_file() for path in exams.instance_paths(session, series, data_dir)):
            raise WorkerError(
                f"Files of series {series_uid} are not in the spool any more: send the series again first."
            )
        again = exams.next_revision(series, series.received_at, series.last_instance_at)
        again.instance_count = series.instance_count
        session.add(again)
        exams.queue(session, again, Completeness.REPROCESS)
        audit.record(session, "reprocess asked", series_uid, actor=actor)
        return again


def _reset_deliveries(session: Session, series: Series, states: Sequence[DeliveryState], *conditions: Any) -> int:
    done = session.execute(
        update(Delivery)
        .where(Delivery.series_id == series.id, Delivery.state.in_(states), *conditions)
        .values(state=DeliveryState.PENDING, attempts=0, next_attempt_at=now(), delivered_at=None, woken_at=None)
    )
    return cast("CursorResult[Any]", done).rowcount
