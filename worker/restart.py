"""Starting an exam again, as people ask for it: under a lock of its row."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from worker import audit, exams, notices
from worker.database import Database, now
from worker.errors import WorkerError
from worker.states import AT_REST, WITHOUT_RESULT, Completeness, DeliveryState, State
from worker.tables import ABOUT, RETRACTION, Delivery, Retraction, Series


def retry(database: Database, series_uid: str, *, actor: str) -> Series:
    """Start a failed or rejected exam again. Raises NotFoundError or WorkerError."""
    with database.write() as session:
        series = exams.latest(session, series_uid, lock=True)
        if _retry_notes(session, series):
            audit.record(session, "retry asked", series_uid, actor=actor)
            return series
        if series.state not in WITHOUT_RESULT:
            raise WorkerError(f"Series {series_uid} is {series.state}: only a failed or rejected one can be retried.")
        if series.withdrawn_at is not None:
            raise WorkerError(f"The result of series {series_uid} was taken back: 'reticula exams reprocess' it.")
        notices.forget_unsent(session, series)
        if series.classification is not None:
            _reset_deliveries(session, series, [DeliveryState.REFUSED])
            series.state, series.reason_code, series.reason = State.CLASSIFIED, None, None
        else:
            series.reason_code = series.reason = None
            exams.queue(session, series, Completeness(series.completeness or Completeness.QUIET_PERIOD))
        audit.record(session, "retry asked", series_uid, actor=actor)
        return series


def _retry_notes(session: Session, series: Series) -> bool:
    """Send the rejection notes of a series again that were refused; False where none was."""
    refused = session.scalars(
        select(Series)
        .join(Delivery)
        .where(exams.of_the_series(series), Delivery.object == RETRACTION, Delivery.state == DeliveryState.REFUSED)
        .distinct()
    ).all()
    for each in refused:
        _reset(session, Delivery.series_id == each.id, Delivery.object == RETRACTION,
               Delivery.state == DeliveryState.REFUSED)  # fmt: skip
        taken_back = session.scalars(select(Retraction).where(Retraction.series_id == each.id)).one()
        each.state, each.reason_code, each.reason = State.REJECTED, taken_back.reason_code, taken_back.reason
    return bool(refused)


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


def _reset_deliveries(session: Session, series: Series, states: Sequence[DeliveryState]) -> None:
    _reset(session, Delivery.series_id == series.id, Delivery.state.in_(states), Delivery.object.not_in(ABOUT))


def _reset(session: Session, *conditions: Any) -> None:
    session.execute(
        update(Delivery)
        .where(*conditions)
        .values(state=DeliveryState.PENDING, attempts=0, next_attempt_at=now(), delivered_at=None, woken_at=None)
    )
