"""The sweep: assembles series, wakes what stands still, takes back what dead workers hold, and keeps house.

Until a series is queued the spool is the truth: a sweep that starts with an empty database finds every series again.
"""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from pacs.discreet import said
from pacs.spool import Spool
from worker import challengers, exams, liveness, notices, outbox, retention, training_runs
from worker.assembly import Assembly
from worker.audit_relay import AuditRelay
from worker.broker import ENOUGH_MESSAGES, Broker
from worker.commitments import CommitmentInbox
from worker.database import Database, now
from worker.errors import UnavailableError
from worker.journal import Journal
from worker.queues import CLASSIFY, DELIVER, TRAINING
from worker.registry import Registry
from worker.rejections import RejectionNotes
from worker.settings import Settings
from worker.switches import Switch
from worker.tables import Delivery, Series, TrainingRun

logger = logging.getLogger(__name__)

WAKE_AGAIN = timedelta(seconds=15)
_HOUSEKEEPING_SECONDS, _AFTER_A_FAILURE_SECONDS = 3600.0, 60.0


class Step:
    """A part of what a sweep does. When it fails it says so once, and again when it works.

    work: returns False where it was not its time yet, which says nothing.
    """

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        self._name, self._work = name, work
        self._complaint = ""

    def take(self) -> None:
        """Do the work. Raises UnavailableError where the database or the broker is away; other failures are logged."""
        complaint = ""
        try:
            if self._work() is False:
                return
        except UnavailableError:
            raise  # it says nothing about the step
        except Exception as error:  # a step that fails must not end the sweep: the others, and the next tick, go on
            complaint = said(error)
            if complaint != self._complaint:
                logger.exception("The step '%s' of the sweep failed; it is tried again.", self._name)
        if self._complaint and not complaint:
            logger.info("The step '%s' of the sweep works again.", self._name)
        self._complaint = complaint


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
        assembly: Assembly,
        work_switch: Switch,
        audit_relay: AuditRelay | None,
        notes: RejectionNotes,
    ) -> None:
        self._settings = settings
        self._database = database
        self._spool = spool
        self._registry = registry
        self._broker = broker
        self._journal, self._commitments, self._assembly = journal, commitments, assembly
        self._work_switch, self._audit_relay, self._notes = work_switch, audit_relay, notes
        self._next_housekeeping = self._next_challenge = 0.0
        self._away: set[str] = set()  # what is said of the database and the broker
        self._steps: tuple[Step, ...] = (
            Step("assembly", self._assembly.assemble),
            Step("rejection notes", self._notes.collect),
            Step("series without files", self._assembly.end_empty),
            Step("leases of exams", self._release_exams),
            Step("leases of retrainings", self._release_retrainings),
            Step("notices", self._drop_notices),
            Step("waking workers", self._wake),
            Step("audit trail", partial(self._journal.collect, self._database)),
            Step("storage commitment", self._collect_commitments),
            Step("audit repository", self._relay),
            Step("housekeeping", self._keep_house),
        )

    def tick(self) -> None:
        """Do every step once. One that fails is tried again by the next tick, and stops none of the others."""
        away: set[str] = set()
        for step in self._steps:
            try:
                step.take()
            except UnavailableError as error:
                away.add(str(error))
        for complaint in sorted(away - self._away):
            logger.warning("%s The sweep goes on trying.", complaint)
        for complaint in sorted(self._away - away):
            logger.info("It is over: %s", complaint)
        self._away = away

    def _release_exams(self) -> None:
        released = exams.release_expired(self._database)
        if released:
            logger.warning("%d exams were taken back from workers that died or hung.", released)

    def _drop_notices(self) -> None:
        with self._database.write() as session:
            notices.drop(session)

    def _release_retrainings(self) -> None:
        if training_runs.release_expired(self._database):
            logger.warning("A retraining was taken back from a process that died or hung.")

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
            waiting[DELIVER] = _mark(session, Series, outbox.unprepared(names), asleep)
            waiting[DELIVER] += _mark(session, Delivery, outbox.due(), late)
            if self._settings.notices_after is not None:
                told = notices.due(self._settings.notices_after).whereclause
                waiting[DELIVER] += _mark(session, Series, told, asleep)
            waiting[TRAINING] = _mark(session, TrainingRun, training_runs.due_to_wake(stale))
        for queue, count in waiting.items():
            if count:
                self._broker.wake(queue, count)
        if not waiting.get(CLASSIFY):
            self._wake_challenger()

    def _wake_challenger(self) -> None:
        """Wake a worker for what a challenger has not looked at, now and then: it is in no hurry."""
        configured = self._settings.worker
        if not configured.challenger or time.monotonic() < self._next_challenge:
            return
        self._next_challenge = time.monotonic() + WAKE_AGAIN.total_seconds()
        with self._database.read() as session:
            found = challengers.due(session, self._registry, configured.challenger_days)
        if found is not None:
            self._broker.wake(CLASSIFY)

    def _collect_commitments(self) -> None:
        self._commitments.collect(partial(outbox.settle_commitment, self._database))

    def _relay(self) -> None:
        if self._audit_relay is not None:
            self._audit_relay.send_new()

    def _keep_house(self) -> bool:
        if time.monotonic() < self._next_housekeeping:
            return False
        self._next_housekeeping = time.monotonic() + _AFTER_A_FAILURE_SECONDS
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
            self._assembly.forget()
        except OSError as error:
            logger.warning("What was laid aside could not be removed: %s", error)
        self._next_housekeeping = time.monotonic() + _HOUSEKEEPING_SECONDS
        return True


def _mark(session: Session, table: Any, *conditions: Any) -> int:
    """Note that a message goes out for the rows that meet the conditions; return how many, up to a handful."""
    ids = list(session.scalars(select(table.id).where(*conditions).limit(ENOUGH_MESSAGES)))
    if ids:
        session.execute(update(table).where(table.id.in_(ids)).values(woken_at=now()))
    return len(ids)
