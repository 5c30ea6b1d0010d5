"""What is kept, and for how long: pixels of reported exams go after a time, and one exam goes altogether on request."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import Select, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from pacs.head import read_head
from pacs.spool import VERSION_MARK, Spool, SpooledSeries
from worker import audit, exams
from worker.database import Database, now
from worker.errors import WorkerError
from worker.states import AT_REST, WITHOUT_RESULT, DeliveryState, State
from worker.tables import (
    RETRACTION,
    ChallengerResult,
    Classification,
    Delivery,
    Instance,
    Label,
    RejectedInstance,
    Report,
    Retraction,
    Series,
    SliceResult,
    Study,
)

_AT_ONCE = 500
_LOOK_BACK = timedelta(days=7)


def expire_pixels(database: Database, spool: Spool, data_dir: Path, days: int) -> int:
    """Remove the files of exams that were reported more than `days` days ago; return of how many exams.

    What is undelivered anywhere, or labelled and so learned from, is kept; so are files that no revision holds yet, and
    those that were sent again since.
    """
    before = now() - timedelta(days=days)
    removed = 0
    for spooled in _batches(spool.series()):
        with database.read() as session:
            query = _expired(before).where(Series.series_uid.in_([each.series_uid for each in spooled]))
            old = [series.id for series in session.scalars(query) if _old_files(session, series, data_dir, before)]
        removed += sum(_expire(database, data_dir, series_id, before) for series_id in old)
    return removed


def _expire(database: Database, data_dir: Path, series_id: int, before: datetime) -> bool:
    """Remove the files of one exam, unless it has been asked for meanwhile; whoever asks for it waits for the lock."""
    with database.write() as session:
        series = session.scalar(_expired(before).where(Series.id == series_id).with_for_update(of=Series))
        if series is None:
            return False
        files = _old_files(session, series, data_dir, before)
        _remove(files)
        session.execute(update(Series).where(exams.of_the_series(series)).values(pixels_removed_at=now()))
        audit.record(session, "pixels removed", series.series_uid, files=len(files), study=series.study.study_uid)
        return True


def forget(database: Database, data_dir: Path, series_uid: str, *, actor: str) -> int:
    """Erase an exam: its files, reports and rows; only the audit trail says that it was there. Return how many files.

    What a destination has taken stays there. Raises NotFoundError, WorkerError while a worker has it.
    """
    with database.read() as session:
        study_uid = exams.latest(session, series_uid).study.study_uid
    beside = _laid_aside(data_dir, study_uid)  # files are read before the lock is taken: there may be very many
    with database.write() as session:
        series = exams.latest(session, series_uid, lock=True)
        study_id = series.study_id
        if series.state == State.CLASSIFYING:
            raise WorkerError(f"Series {series_uid} is {series.state}: wait until it is done.")
        ids = select(Series.id).where(exams.of_the_series(series))
        if session.scalar(
            select(Delivery.id).where(Delivery.series_id.in_(ids), Delivery.lease_until > now()).limit(1)
        ):
            raise WorkerError(f"The report of series {series_uid} is being sent: try it again in a minute.")
        note = select(Delivery.id).where(
            Delivery.series_id.in_(ids), Delivery.object == RETRACTION, Delivery.state == DeliveryState.PENDING
        )
        if session.scalar(note.limit(1)):
            raise WorkerError(
                f"The rejection note about series {series_uid} has not arrived yet, and its report would stay in the "
                "PACS: see 'reticula exams show'."
            )
        paths = [data_dir / path for path in _paths(session, series)]
        folder = data_dir / "spool" / "series" / study_uid / series_uid
        with suppress(FileNotFoundError):
            paths.extend(path for path in folder.iterdir() if path not in paths)
        uids = {path.stem.partition(VERSION_MARK)[0] for path in paths}
        others = select(Series.id).where(Series.study_id == study_id, Series.series_uid != series_uid).limit(1)
        whole_study = session.scalar(others) is None
        conflicts = (data_dir / "spool" / "conflicts").glob("*/*.dcm")
        paths.extend(path for path in conflicts if path.stem.partition(VERSION_MARK)[0] in uids)
        paths.extend(path for path, of_series in beside if whole_study or of_series == series_uid)
        # Files first: where this is cut short, the rows still name what is left, and it can be asked for again.
        _remove(paths)
        shutil.rmtree(data_dir / "reports" / series_uid, ignore_errors=True)
        Spool(data_dir / "spool").forget_arrival(study_uid, series_uid)
        _erase(session, series)
        audit.record(session, "exam erased", series_uid, actor=actor, files=len(paths), study=study_uid)
    return len(paths)


def bytes_per_day(session: Session) -> float | None:
    """Return what came in a day, on the mean of the last week; None where nothing did."""
    since = now() - _LOOK_BACK
    size, first = session.execute(
        select(func.sum(Instance.size), func.min(Instance.arrived_at)).where(Instance.arrived_at >= since)
    ).one()
    if not size:
        return None
    days = max(1.0, (now() - first) / timedelta(days=1))
    return float(size) / days


def room(session: Session, data_dir: Path) -> str:
    """Say how much room the disk has, and for how many days at the rate of the last week."""
    free = shutil.disk_usage(data_dir).free
    rate = bytes_per_day(session)
    days = "" if rate is None else f", about {free / rate:.0f} days at the rate of the last week"
    return f"{free / 1024**3:.0f} GiB free{days}"


def _batches(series: Iterable[SpooledSeries]) -> Iterator[list[SpooledSeries]]:
    left = iter(series)
    while batch := list(islice(left, _AT_ONCE)):
        yield batch


def _expired(before: datetime) -> Select[Series]:
    """Latest revisions that came to their end before, of which no revision waits for anything."""
    other, sending = aliased(Series), aliased(Delivery)
    of_the_same = (other.series_uid == Series.series_uid) & (other.study_id == Series.study_id)
    speaker = aliased(Series)
    spoken_for = exists().where(
        speaker.study_id == Series.study_id, speaker.state == State.REPORTED, speaker.reported_at < before
    )
    judged = exists().where(Classification.series_id == Series.id, Classification.classified_at < before)
    return select(Series).where(
        exams.latest_revisions(),
        or_(
            (Series.state == State.REPORTED) & (Series.reported_at < before),
            # Another series spoke for the study, or nothing is sent at all.
            (Series.state == State.REJECTED) & (Series.reason_code == exams.NOT_PREFERRED) & spoken_for,
            (Series.state == State.CLASSIFIED) & Series.shadow & judged,
            Series.state.in_(WITHOUT_RESULT) & (Series.withdrawn_at < before),
        ),
        ~exists().where(of_the_same, other.state.not_in(AT_REST)),
        ~exists().where(of_the_same, sending.series_id == other.id, sending.state == DeliveryState.PENDING),
        ~exists().where(Label.series_uid == Series.series_uid),
    )


def _paths(session: Session, series: Series) -> Sequence[str]:
    ids = select(Series.id).where(exams.of_the_series(series))
    return session.scalars(select(Instance.path).where(Instance.series_id.in_(ids))).all()


def _old_files(session: Session, series: Series, data_dir: Path, before: datetime) -> list[Path]:
    found = []
    for path in _paths(session, series):
        with suppress(FileNotFoundError):
            if (data_dir / path).stat().st_mtime < before.timestamp():
                found.append(data_dir / path)
    return found


def _laid_aside(data_dir: Path, study_uid: str) -> list[tuple[Path, str]]:
    """Return what was laid aside of a study, with the series UID of each file."""
    found = []
    for path in (data_dir / "spool" / "aside").glob("*/*.dcm"):
        try:
            head = read_head(path, ["StudyInstanceUID", "SeriesInstanceUID"])
        except Exception:  # pydicom raises exceptions of any kind on garbage
            continue
        if head.get("StudyInstanceUID") == study_uid:
            found.append((path, str(head.get("SeriesInstanceUID"))))
    return found


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
    for folder in {path.parent for path in paths}:
        for each in (folder, folder.parent):  # of the series, and of its study
            with suppress(OSError):  # something else lies in it
                each.rmdir()


def _erase(session: Session, series: Series) -> None:
    ids = list(session.scalars(select(Series.id).where(exams.of_the_series(series))))
    results = select(Classification.id).where(Classification.series_id.in_(ids))
    for said in (SliceResult, ChallengerResult):
        session.execute(delete(said).where(said.classification_id.in_(results)))
    for table in (Classification, Delivery, Report, Retraction, Instance):
        session.execute(delete(table).where(table.series_id.in_(ids)))
    session.execute(
        delete(RejectedInstance).where(
            RejectedInstance.series_uid == series.series_uid, RejectedInstance.study_uid == series.study.study_uid
        )
    )
    session.execute(delete(Label).where(Label.series_uid == series.series_uid))
    study = series.study_id
    session.execute(delete(Series).where(Series.id.in_(ids)))
    if session.scalar(select(Series.id).where(Series.study_id == study).limit(1)) is None:
        session.execute(delete(Study).where(Study.id == study))
