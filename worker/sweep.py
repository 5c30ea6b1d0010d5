"""The sweep: decides that series are complete, wakes what stands still, takes back what dead workers hold.

Until a series is queued the spool is the truth: a sweep that starts with an empty database finds every series again.
"""

import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.orm import Session

from pacs.discreet import said
from pacs.facts import SeriesFacts, read_facts
from pacs.head import read_head
from pacs.series import SeriesHeader, read_header
from pacs.spool import Spool, SpooledInstance, SpooledSeries
from worker import delivery, exams, liveness, retention, training_runs
from worker.audit_relay import AuditRelay
from worker.broker import ENOUGH_MESSAGES, Broker
from worker.commitments import CommitmentInbox
from worker.database import Database, now
from worker.errors import SettingsError, UnavailableError
from worker.expectation import Expectations
from worker.journal import Journal
from worker.privacy import Identities
from worker.queues import CLASSIFY, DELIVER, TRAINING
from worker.registry import Registry
from worker.rules import Rules
from worker.settings import Settings
from worker.states import Completeness, State
from worker.switches import Switch
from worker.tables import Delivery, Instance, Series, Study, TrainingRun

logger = logging.getLogger(__name__)

WAKE_AGAIN = timedelta(seconds=15)
_HOUSEKEEPING_SECONDS = 3600.0
# A folder that changed so recently may change again within the resolution of its time stamp.
_SETTLED_NS = 2_000_000_000
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


class Sweep:
    """One sweep; several at once do no harm, but one is enough."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        spool: Spool,
        registry: Registry,
        broker: Broker,
        journal: Journal,
        commitments: CommitmentInbox,
        identities: Identities,
        rules: Rules,
        expectations: Expectations | None,
        work_switch: Switch,
        audit_relay: AuditRelay | None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._spool = spool
        self._registry = registry
        self._broker = broker
        self._journal, self._commitments, self._identities = journal, commitments, identities
        self._expectations = expectations
        self._rules, self._work_switch, self._audit_relay = rules, work_switch, audit_relay
        # Folders with nothing new, by their modification time: they are not listed again.
        self._settled: dict[Path, int] = {}
        self._troubled: set[Path] = set()
        self._next_housekeeping = 0.0
        self._complaint = ""

    def tick(self) -> None:
        """Do everything once. A database or broker that is away is logged, once, and tried again by the next tick."""
        complaint = ""
        for step in (self._assemble, self._release, self._wake, self._collect, self._keep_house):
            try:
                step()
            except UnavailableError as error:
                complaint = str(error)
            except Exception as error:  # a step that fails must not end the sweep: the others, and the next tick, go on
                complaint = said(error)
                if complaint != self._complaint:
                    logger.exception("A step of the sweep failed.")
        if complaint and complaint != self._complaint:
            logger.warning("%s The sweep goes on trying.", complaint)
        elif self._complaint and not complaint:
            logger.info("Database and broker are back.")
        self._complaint = complaint

    def _assemble(self) -> None:
        for spooled in self._spool.series():
            if self._settled.get(spooled.folder) == spooled.changed_ns:
                continue
            try:
                settled = self._look_at(spooled)
            except UnavailableError:
                raise
            except Exception:
                # One odd series must not keep the others waiting. It is looked at again by each tick.
                if spooled.folder not in self._troubled:
                    self._troubled.add(spooled.folder)
                    logger.exception("Series %s cannot be assembled; it is tried again.", spooled.series_uid)
                continue
            self._troubled.discard(spooled.folder)
            if settled and time.time_ns() - spooled.changed_ns > _SETTLED_NS:
                self._settled[spooled.folder] = spooled.changed_ns

    def _look_at(self, spooled: SpooledSeries) -> bool:
        """Bring the rows of a series up to date with its folder; True where nothing is left to do."""
        instances = self._spool.instances(spooled.folder)
        with self._database.read() as session:
            known = _known(session, spooled, lock=False)
        new = known.new(instances)
        if not new and (known.series is None or known.series.state != State.RECEIVING):
            return True
        header = self._header(new) if known.series is None else None
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
            series = self._receiving(session, spooled, known.series, new, header)
            if series is None:
                return False
            series.instance_count = len(known.sop_uids.union(instance.sop_uid for instance in new))
            series.last_instance_at = max(series.last_instance_at, new[-1].arrived)
            criterion = self._criterion(series, new, now())
            if criterion is not None:
                self._close(session, series, new, criterion)
        return False

    def _receiving(
        self,
        session: Session,
        spooled: SpooledSeries,
        series: Series | None,
        new: list[SpooledInstance],
        header: "_Head | None",
    ) -> Series | None:
        """Return the revision that takes the new instances, made where need be; None while a worker has the exam."""
        if series is None:
            series = _first_revision(session, spooled, new, header)
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

    def _criterion(self, series: Series, new: list[SpooledInstance], moment: datetime) -> Completeness | None:
        listener = self._settings.listener
        quiet = moment - new[-1].arrived
        if self._expectations is not None and quiet >= timedelta(seconds=listener.settled_seconds) / 2:
            expected = self._expectations.count(series.study.study_uid, series.series_uid)
            series.expected_count = expected if expected is not None else series.expected_count
            settled = quiet >= timedelta(seconds=listener.settled_seconds)
            if settled and expected is not None and series.instance_count >= expected > 0:
                return Completeness.EXPECTED_COUNT
        if quiet >= timedelta(seconds=listener.quiet_seconds):
            return Completeness.QUIET_PERIOD
        if moment - new[0].arrived >= timedelta(seconds=listener.max_wait_seconds):
            return Completeness.MAXIMUM_WAIT
        return None

    def _close(self, session: Session, series: Series, new: list[SpooledInstance], criterion: Completeness) -> None:
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
        series.urgent = series.urgent or self._goes_ahead(series, new)
        exams.queue(session, series, criterion)
        logger.info("Series %s is complete (%s): %d instances.", series.series_uid, criterion, series.instance_count)

    def _goes_ahead(self, series: Series, new: list[SpooledInstance]) -> bool:
        """Whether a rule puts the exam ahead, now that it is known how many slices it has."""
        found = _first_header(new)
        try:
            return (
                found is not None
                and self._rules.scope(replace(found.facts, slices=series.instance_count)).urgent_by is not None
            )
        except SettingsError as error:  # it is no reason to let the exam wait
            logger.warning("%s Series %s goes without its place ahead.", error, series.series_uid)
            return False

    def _release(self) -> None:
        released = exams.release_expired(self._database)
        if released:
            logger.warning("%d exams were taken back from workers that died or hung.", released)
        if training_runs.release_expired(self._database):
            logger.warning("A retraining was taken back from a process that died or hung.")

    def _header(self, instances: list[SpooledInstance]) -> "_Head | None":
        """Return what SQL keeps of the header of new instances, and what rules ask of them."""
        found = _first_header(instances)
        return None if found is None else replace(found, header=self._identities.header(found.header))

    def _wake(self) -> None:
        if self._work_switch.is_stopped():
            return
        moment = now()
        stale = moment - WAKE_AGAIN
        names = [destination.name for destination in self._settings.destinations]
        asleep = or_(Series.woken_at.is_(None), Series.woken_at < stale)
        with self._database.write() as session:
            waiting: dict[str, int] = {}
            if self._registry.active(session) is not None:
                ready = exams.waiting(moment, together=self._settings.together)
                waiting[CLASSIFY] = _mark(session, Series, ready, asleep)
            late = or_(Delivery.woken_at.is_(None), Delivery.woken_at < stale)
            waiting[DELIVER] = _mark(session, Series, delivery.unprepared(names), asleep)
            waiting[DELIVER] += _mark(session, Delivery, delivery.due(), late)
            waiting[TRAINING] = _mark(session, TrainingRun, training_runs.due_to_wake(stale))
        for queue, count in waiting.items():
            if count:
                self._broker.wake(queue, count)

    def _collect(self) -> None:
        self._journal.collect(self._database)
        self._commitments.collect(partial(delivery.settle_commitment, self._database))
        if self._audit_relay is not None:
            self._audit_relay.send_new()

    def _keep_house(self) -> None:
        if time.monotonic() < self._next_housekeeping:
            return
        self._next_housekeeping = time.monotonic() + _HOUSEKEEPING_SECONDS
        days = self._settings.retention.pixels_days
        removed = (
            0 if days is None else retention.expire_pixels(self._database, self._spool, self._settings.data_dir, days)
        )
        if removed:
            logger.info("The pixels of %d reported exams were removed after %s days.", removed, days)
        with self._database.read() as session:
            logger.info("Disk: %s.", retention.room(session, self._settings.data_dir))
        try:
            self._spool.expire_aside(self._settings.listener.aside_days, now().date())
            self._broker.tidy()
            liveness.forget_signs(self._settings.data_dir)
            if self._expectations is not None:
                self._expectations.forget()
        except OSError as error:
            logger.warning("What was laid aside could not be removed: %s", error)


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


def _first_header(instances: list[SpooledInstance]) -> "_Head | None":
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


def _mark(session: Session, table: Any, *conditions: Any) -> int:
    """Note that a message goes out for the rows that meet the conditions; return how many, up to a handful."""
    ids = list(session.scalars(select(table.id).where(*conditions).limit(ENOUGH_MESSAGES)))
    if ids:
        session.execute(update(table).where(table.id.in_(ids)).values(woken_at=now()))
    return len(ids)
