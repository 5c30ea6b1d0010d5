"""Rejection notes that come for images: what was said with them is taken back, and said again of the images left."""

import logging
from pathlib import Path

from pydicom import dcmread
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pacs.discreet import said
from pacs.report.rejection import Grounds, RejectedSeries, RejectionNote, read_rejection_note
from pacs.spool import Spool
from worker import audit, exams, retraction
from worker.database import Database, now
from worker.errors import BusyError
from worker.states import AT_REST, Completeness, State
from worker.tables import Instance, RejectedInstance, Series, Study

logger = logging.getLogger(__name__)


class RejectionNotes:
    """The notes that lie in the spool. follow: whether what they say is done; otherwise they only go aside."""

    def __init__(self, database: Database, spool: Spool, *, follow: bool) -> None:
        self._database, self._spool, self._follow = database, spool, follow

    def collect(self) -> None:
        """Do what each note says and lay it aside; one whose exam is being worked on waits for the next time."""
        for path in self._spool.notes():
            note = self._read(path) if self._follow else None
            try:
                if note is not None:
                    self._apply(note)
            except BusyError as error:
                logger.info("Rejection note %s waits: %s", note.sop_uid if note else path.stem, error)
                continue
            self._spool.lay_aside(path)

    def _read(self, path: Path) -> RejectionNote | None:
        try:
            return read_rejection_note(dcmread(path))
        except Exception as error:  # pydicom raises whatever it likes on garbage
            logger.warning("Key Object Selection %s is not understood: %s", path.stem, said(error))
            return None

    def _apply(self, note: RejectionNote) -> None:
        """Do what a note says, all or nothing. Raises BusyError."""
        if note.grounds == Grounds.RETENTION:
            # The images were right, and so is what was said of them.
            logger.info("Note %s says that images were removed after their time: nothing is taken back.", note.sop_uid)
            return
        with self._database.write() as session:
            for each in note.series:
                self._reject(session, note, each)

    def _reject(self, session: Session, note: RejectionNote, rejected: RejectedSeries) -> None:
        known = select(RejectedInstance.sop_uid).where(RejectedInstance.study_uid == rejected.study_uid)
        new = set(rejected.sop_uids) - set(session.scalars(known))
        session.add_all(
            RejectedInstance(
                note_uid=note.sop_uid,
                study_uid=rejected.study_uid,
                series_uid=rejected.series_uid,
                sop_uid=sop_uid,
                grounds=note.grounds,
                noted_at=now(),
            )
            for sop_uid in sorted(new)
        )
        if not new:
            return  # a note, or another one like it, was followed before
        audit.record(session, "images rejected", rejected.series_uid, note=note.sop_uid, grounds=note.grounds,
                     instances=len(new))  # fmt: skip
        session.flush()
        series = session.scalar(
            select(Series)
            .join(Study)
            .where(
                Series.series_uid == rejected.series_uid,
                Study.study_uid == rejected.study_uid,
                exams.latest_revisions(),
            )
            .with_for_update(of=Series)
        )
        if series is None or series.state in (State.RECEIVING, State.QUEUED):
            return  # it is classified without them
        revisions = select(Series.id).where(
            Series.series_uid == series.series_uid, Series.study_id == series.study_id, Series.withdrawn_at.is_(None)
        )
        held = select(func.count(func.distinct(Instance.sop_uid))).where(Instance.series_id.in_(revisions))
        if not session.scalar(held.where(Instance.sop_uid.in_(new))):
            return
        if series.state not in AT_REST:
            raise BusyError(f"series {series.series_uid} is {series.state}.")
        left = _left(session, series)
        if not retraction.standing(session, series):
            if left == 0 and series.reason_code != exams.NOT_PREFERRED:
                _end(session, series, note)
            return
        reason = f"{len(new)} of its images were rejected by a note from the PACS."
        retraction.withdraw(session, series, note.grounds, retraction.SOURCE_REJECTED, reason)
        logger.warning("The result of series %s is taken back: %s", series.series_uid, reason)
        if left == 0:
            exams.call_others(session, series)
            return
        again = exams.next_revision(series, series.received_at, series.last_instance_at)
        again.instance_count = left
        session.add(again)
        exams.queue(session, again, Completeness.REPROCESS)


def _left(session: Session, series: Series) -> int:
    """Return how many instances of a series no note rejects."""
    revisions = select(Series.id).where(Series.series_uid == series.series_uid, Series.study_id == series.study_id)
    rejected = select(RejectedInstance.sop_uid).where(RejectedInstance.study_uid == series.study.study_uid)
    return (
        session.scalar(
            select(func.count(func.distinct(Instance.sop_uid))).where(
                Instance.series_id.in_(revisions), Instance.sop_uid.not_in(rejected)
            )
        )
        or 0
    )


def _end(session: Session, series: Series, note: RejectionNote) -> None:
    """A series that came to nothing, and of which no image is left, says why."""
    series.state, series.reason_code = State.REJECTED, retraction.SOURCE_REJECTED
    series.reason = "All of its images were rejected by a note from the PACS."
    audit.record(session, "series rejected", series.series_uid, note=note.sop_uid)
