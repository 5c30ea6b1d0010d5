"""Rejection notes that come for images: what was said with them is taken back, and said again of the images left."""

import logging
from pathlib import Path

from pydicom import dcmread
from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs.discreet import said
from pacs.report.rejection import Grounds, RejectedSeries, RejectionNote, read_rejection_note
from pacs.spool import Spool
from worker import audit, exams, retraction
from worker.database import Database, now
from worker.errors import BusyError, UnavailableError
from worker.states import Completeness, State
from worker.tables import Instance, RejectedInstance, Series, Study

logger = logging.getLogger(__name__)

ALL_REJECTED = (
    "All of its images were rejected by a note from the PACS. Where they were corrected under the same UIDs, 'reticula "
    "exams forget' it and send it again."
)


class RejectionNotes:
    """The notes that lie in the spool. follow: whether what they say is done; otherwise they only go aside."""

    def __init__(self, database: Database, spool: Spool, *, follow: bool) -> None:
        self._database, self._spool, self._follow = database, spool, follow
        self._troubled: set[Path] = set()

    def collect(self) -> None:
        """Do what each note says and lay it aside; one whose exam is being worked on waits for the next time."""
        for path in self._spool.notes():
            note = self._read(path) if self._follow else None
            try:
                if note is not None:
                    self._apply(note)
                self._spool.lay_aside(path)
            except BusyError as error:
                logger.info("Rejection note %s waits: %s", path.stem, error)
            except UnavailableError:
                raise
            except FileNotFoundError:
                continue  # another sweep was faster
            except Exception:
                # One odd note must not keep the others waiting.
                if path not in self._troubled:
                    self._troubled.add(path)
                    logger.exception("Rejection note %s cannot be followed; it is tried again.", path.stem)

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
        new = set(rejected.sop_uids) - exams.rejected_instances(session, rejected.study_uid)
        if not new:
            return  # it, or another one like it, was followed before
        _remember(session, note, rejected, new)
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
        if series is None:
            return
        held = _instances(session, series)
        if not held & new:
            return
        if series.state == State.CLASSIFYING:
            raise BusyError(f"series {series.series_uid} is {series.state}.")
        stand = retraction.standing(session, series)
        left = len(held - exams.rejected_instances(session, rejected.study_uid))
        waiting = series.state in (State.RECEIVING, State.QUEUED)  # it is classified without them
        if stand:
            reason = f"{len(held & new)} of its images were rejected by a note from the PACS."
            retraction.withdraw(session, stand, note.grounds, retraction.SOURCE_REJECTED, reason)
            logger.warning("The result of series %s is taken back: %s", series.series_uid, reason)
        if waiting:
            return
        if left == 0:
            if series.reason_code != exams.NOT_PREFERRED:
                exams.end(session, series, State.REJECTED, retraction.SOURCE_REJECTED, ALL_REJECTED)
        elif stand:
            again = exams.next_revision(series, series.received_at, series.last_instance_at)
            again.instance_count = left
            session.add(again)
            exams.queue(session, again, Completeness.REPROCESS)


def _remember(session: Session, note: RejectionNote, rejected: RejectedSeries, new: set[str]) -> None:
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
    audit.record(
        session, "images rejected", rejected.series_uid, note=note.sop_uid, grounds=note.grounds, instances=len(new)
    )
    session.flush()


def _instances(session: Session, series: Series) -> set[str]:
    """Return the UIDs of the instances of a series, of all its revisions."""
    revisions = select(Series.id).where(exams.of_the_series(series))
    return set(session.scalars(select(Instance.sop_uid).where(Instance.series_id.in_(revisions))))
