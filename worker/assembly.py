"""From the spool to rows: every folder becomes a revision of a series, and is closed when it is complete."""

import logging
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from pacs.facts import SeriesFacts, read_facts
from pacs.head import read_head
from pacs.series import SeriesHeader, read_header
from pacs.spool import Spool, SpooledInstance, SpooledSeries
from worker import exams
from worker.database import Database, now
from worker.errors import SettingsError, UnavailableError
from worker.expectation import Expectations
from worker.privacy import Identities
from worker.rules import Rules
from worker.settings import Settings
from worker.states import Completeness, State
from worker.tables import Instance, Series, Study

logger = logging.getLogger(__name__)

# A folder that changed so recently may change again within the resolution of its time stamp.
_SETTLED_NS = 2_000_000_000
# The whole spool is walked this often: an announcement may be lost with the power.
_WALK_SECONDS = 3600.0
# For so long at once: what has just come must not wait until a year of series was walked.
_WALK_AT_ONCE_SECONDS = 1.0
_URGENT = frozenset({"STAT", "HIGH"})


@dataclass(frozen=True)
class _Known:
    """What the database knows of a spooled series: its latest revision, and UID and file name of all instances."""

    series: Series | None
    sop_uids: frozenset[str]
    names: frozenset[str]

    def new(self, instances: list[SpooledInstance]) -> list[SpooledInstance]:
        """Return the instances that no revision holds yet; one of a known UID is new by its content."""
        return [instance for instance in instances if instance.path.name not in self.names]


@dataclass(frozen=True)
class _Head:
    """What the first instance of a series says."""

    header: SeriesHeader
    facts: SeriesFacts


class Assembly:
    """Assembles series; several at once do no harm."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        spool: Spool,
        identities: Identities,
        rules: Rules,
        expectations: Expectations | None,
    ) -> None:
        self._settings, self._database, self._spool = settings, database, spool
        self._identities, self._rules, self._expectations = identities, rules, expectations
        # Folders with nothing new, by their modification time: they are not listed again.
        self._settled: dict[Path, int] = {}
        self._walk: Iterator[SpooledSeries] | None = None
        self._next_walk = 0.0
        self._troubled: set[Path] = set()

    def assemble(self) -> None:
        """Bring the rows up to date with what came since; at start and hourly with the whole spool, part by part."""
        for spooled in self._unsettled():
            self._assemble_one(spooled)
        if self._walk is None and time.monotonic() >= self._next_walk:
            self._walk = self._spool.series()
        if self._walk is None:
            return
        walk, until = self._walk, time.monotonic() + _WALK_AT_ONCE_SECONDS
        self._walk = None  # it begins anew where a database that is away ends it here
        for spooled in walk:
            if not self._assemble_one(spooled):
                with suppress(OSError):  # a full disk; the next walk comes by again
                    self._spool.announce(spooled.study_uid, spooled.series_uid)  # each tick looks at it from now on
            if time.monotonic() >= until:
                self._walk = walk
                return
        self._next_walk = time.monotonic() + _WALK_SECONDS

    def _assemble_one(self, spooled: SpooledSeries) -> bool:
        """Bring the rows up to date with one folder; False where something is left to do."""
        if self._settled.get(spooled.folder) == spooled.changed_ns:
            self._spool.settle(spooled)
            return True
        try:
            settled = self._look_at(spooled)
        except UnavailableError:
            raise
        except Exception:
            # One odd series must not keep the others waiting. It is looked at again by each tick.
            if spooled.folder not in self._troubled:
                self._troubled.add(spooled.folder)
                logger.exception("Series %s cannot be assembled; it is tried again.", spooled.series_uid)
            return False
        self._troubled.discard(spooled.folder)
        if settled and time.time_ns() - spooled.changed_ns > _SETTLED_NS:
            self._settled[spooled.folder] = spooled.changed_ns
        return settled

    def _unsettled(self) -> Iterator[SpooledSeries]:
        """Yield the arrivals, and what SQL says is coming in, whether or not it was announced."""
        announced = {spooled.folder: spooled for spooled in self._spool.arrivals()}
        with self._database.read() as session:
            query = select(Study.study_uid, Series.series_uid).join_from(Series, Study)
            receiving = list(session.execute(query.where(Series.state == State.RECEIVING)))
        yield from announced.values()
        for study_uid, series_uid in receiving:
            folder = self._spool.folder(study_uid, series_uid)
            if folder not in announced:
                with suppress(FileNotFoundError):
                    yield SpooledSeries(study_uid, series_uid, folder, folder.stat().st_mtime_ns)

    def _look_at(self, spooled: SpooledSeries) -> bool:
        """Bring the rows of a series up to date with its folder; True where nothing is left to do."""
        instances = self._spool.instances(spooled.folder)
        with self._database.read() as session:
            known = _known(session, spooled, lock=False)
        new = known.new(instances)
        if not new and (known.series is None or known.series.state != State.RECEIVING):
            return True
        # What is read of files is read before the lock is taken.
        due = known.series is None or self._criterion(spooled, known.series, new, now()) is not None
        head = _first_head(new) if due else None
        with self._database.write() as session:
            # Another sweep may have been here since: only what is seen under the lock counts.
            seen, known = known, _known(session, spooled, lock=True)
            if seen.series is not None and known.series is None:
                return False  # it was erased meanwhile, and its files with it: they are listed anew by the next tick
            new = known.new(instances)
            if not new:
                if known.series is not None and known.series.state == State.RECEIVING and known.sop_uids:
                    # Taken back for late instances that have gone again.
                    exams.queue(session, known.series, Completeness.QUIET_PERIOD)
                return False
            series = self._receiving(session, spooled, known.series, new, head)
            if series is None:
                return False
            here = known.sop_uids.union(instance.sop_uid for instance in new)
            series.instance_count = len(here - exams.rejected_instances(session, spooled.study_uid))
            series.last_instance_at = max(series.last_instance_at, new[-1].arrived)
            criterion = self._criterion(spooled, series, new, now())
            if criterion is not None and due:
                self._close(session, series, new, criterion, head)
        return False

    def _receiving(
        self,
        session: Session,
        spooled: SpooledSeries,
        series: Series | None,
        new: list[SpooledInstance],
        head: "_Head | None",
    ) -> Series | None:
        """Return the revision that takes the new instances, made where need be; None while a worker has the exam."""
        if series is None:
            if head is not None:
                head = replace(head, header=self._identities.header(head.header))
            series = _first_revision(session, spooled, new, head)
            session.add(series)
            return series
        if series.state == State.RECEIVING:
            return series
        if series.state == State.QUEUED and series.completeness != Completeness.REPROCESS:
            # Nobody has looked at it yet: what came late still belongs to it.
            series.state, series.queued_at, series.precedence = State.RECEIVING, None, None
            return series
        if series.state in (State.QUEUED, State.CLASSIFYING):
            return None
        following = exams.next_revision(series, new[0].arrived, new[-1].arrived)
        session.add(following)
        return following

    def _criterion(
        self, spooled: SpooledSeries, series: Series, new: list[SpooledInstance], moment: datetime
    ) -> Completeness | None:
        listener = self._settings.listener
        quiet = moment - new[-1].arrived
        if self._expectations is not None and quiet >= timedelta(seconds=listener.settled_seconds) / 2:
            expected = self._expectations.count(spooled.study_uid, spooled.series_uid)
            series.expected_count = expected if expected is not None else series.expected_count
            settled = quiet >= timedelta(seconds=listener.settled_seconds)
            if settled and expected is not None and series.instance_count >= expected > 0:
                return Completeness.EXPECTED_COUNT
        if quiet >= timedelta(seconds=listener.quiet_seconds):
            return Completeness.QUIET_PERIOD
        if moment - new[0].arrived >= timedelta(seconds=listener.max_wait_seconds):
            return Completeness.MAXIMUM_WAIT
        return None

    def _close(
        self,
        session: Session,
        series: Series,
        new: list[SpooledInstance],
        criterion: Completeness,
        head: "_Head | None",
    ) -> None:
        session.flush()
        root = self._settings.data_dir
        rows: list[dict[str, Any]] = [
            {
                "series_id": series.id,
                "sop_uid": instance.sop_uid,
                "path": str(instance.path.relative_to(root)),
                "size": instance.size,
                "arrived_at": instance.arrived,
            }
            for instance in new
        ]
        session.execute(insert(Instance), rows)
        series.urgent = series.urgent or self._goes_ahead(series, head)
        exams.queue(session, series, criterion)
        logger.info("Series %s is complete (%s): %d instances.", series.series_uid, criterion, series.instance_count)

    def _goes_ahead(self, series: Series, head: "_Head | None") -> bool:
        """Whether a rule puts the exam ahead, now that it is known how many slices it has."""
        if head is None:
            return False
        try:
            return self._rules.scope(replace(head.facts, slices=series.instance_count)).urgent_by is not None
        except SettingsError as error:  # it is no reason to let the exam wait
            logger.warning("%s Series %s goes without its place ahead.", error, series.series_uid)
            return False

    def forget(self) -> None:
        """Drop answers about series that nobody asks for any more."""
        if self._expectations is not None:
            self._expectations.forget()

    def end_empty(self) -> None:
        """End what is said to come in and is not in the spool: it keeps its study waiting, and whoever drains us."""
        latest = now() - timedelta(seconds=self._settings.listener.max_wait_seconds)
        with self._database.write() as session:
            for series in session.scalars(
                select(Series)
                .where(Series.state == State.RECEIVING, Series.last_instance_at < latest)
                .with_for_update(of=Series)
            ):
                folder = self._spool.folder(series.study.study_uid, series.series_uid)
                known = _known(session, SpooledSeries(series.study.study_uid, series.series_uid, folder, 0), lock=False)
                if not folder.exists() or not known.new(self._spool.instances(folder)):
                    reason = "Its files are not in the spool any more: send the series again."
                    exams.end(session, series, State.REJECTED, "missing_files", reason)


def _known(session: Session, spooled: SpooledSeries, *, lock: bool) -> _Known:
    query = (
        select(Series)
        .join(Study)
        .where(Series.series_uid == spooled.series_uid, Study.study_uid == spooled.study_uid)
        .order_by(Series.revision)
    )
    rows = list(session.scalars(query.with_for_update(of=Series) if lock else query))
    if not rows:
        return _Known(None, frozenset(), frozenset())
    held = session.execute(
        select(Instance.sop_uid, Instance.path).where(Instance.series_id.in_([row.id for row in rows]))
    ).all()
    return _Known(
        rows[-1], frozenset(sop_uid for sop_uid, _ in held), frozenset(PurePath(path).name for _, path in held)
    )


def _first_head(instances: list[SpooledInstance]) -> "_Head | None":
    """Return the header and the facts of the first instance that tells them."""
    for instance in instances[:8]:
        try:
            dataset = read_head(instance.path)
            return _Head(read_header(dataset), read_facts(dataset, len(instances)))
        except Exception:
            continue
    return None


def _first_revision(
    session: Session,
    spooled: SpooledSeries,
    new: list[SpooledInstance],
    found: "_Head | None",
) -> Series:
    header, facts = (found.header, found.facts) if found is not None else (None, None)
    study = session.scalar(select(Study).where(Study.study_uid == spooled.study_uid))
    if study is None:
        study = Study(
            study_uid=spooled.study_uid,
            patient_id=header.patient.patient_id[:256] if header else "",
            patient_name=header.patient.name[:512] if header else "",
            accession_number=header.accession_number[:64] if header else "",
            study_date=header.study_date[:32] if header else "",
            description=header.study_description[:256] if header else "",
            created_at=now(),
        )
        session.add(study)
    return Series(
        study=study,
        series_uid=spooled.series_uid,
        revision=1,
        state=State.RECEIVING,
        patient_id=header.patient.patient_id[:256] if header else "",
        patient_issuer=header.patient.issuer[:256] if header else "",
        patient_name=header.patient.name[:512] if header else "",
        sender=facts.sender[:16] if facts else "",
        description=facts.description[:256] if facts else "",
        kernel=facts.kernel[:64] if facts else "",
        thickness_mm=facts.thickness if facts else None,
        urgent=bool(header and header.priority.upper() in _URGENT),
        instance_count=len(new),
        received_at=new[0].arrived,
        last_instance_at=new[-1].arrived,
    )
