"""Reports on their way: made once, stored, sent to every destination until it has them or refuses for good."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from pydicom.uid import generate_uid
from sqlalchemy import CursorResult, case, select, update
from sqlalchemy.orm import Session

from pacs.destinations import Destination, Offer, Sent
from pacs.discreet import said
from pacs.errors import DeliveryError, Rejected, Retry
from pacs.report import SR_CLASSES, Document
from worker import audit, exams, notices, retraction
from worker.database import Database, now
from worker.errors import UnavailableError
from worker.identity import AskAgainError, HeldError
from worker.objects import objects_of, sop_classes
from worker.outbox import FIRST_DELAY, delay, due, note, unprepared
from worker.reports import NotAtHandError, ReportStore
from worker.sections import DestinationSettings, DimseSettings
from worker.states import DeliveryState, State
from worker.tables import ABOUT, NOTICE, SR, Delivery, Series

logger = logging.getLogger(__name__)

LEASE = timedelta(minutes=3)
# A PACS may commit itself when it has copied to its archive; until then it is not asked again.
COMMITMENT_DELAY = timedelta(hours=1)
# A held exam is looked at again so often: somebody may have settled it in the PACS.
_ASK_AGAIN_SECONDS = 60.0
_UNDRAWN = "undrawn"
HELD, HELD_DELAY = "identity_changed", timedelta(minutes=5)


@dataclass(frozen=True)
class ClaimedDelivery:
    """An object that this worker sends to a destination now."""

    delivery_id: int
    series_id: int
    series_uid: str
    object: str
    destination: str
    attempts: int
    owner: str
    transaction_uid: str | None


class DeliveryStage:
    """Makes and sends what is due, one object at a time."""

    def __init__(
        self,
        database: Database,
        reports: ReportStore,
        destinations: Mapping[str, Destination],
        configured: Sequence[DestinationSettings],
        lease: timedelta = LEASE,
        *,
        notices_after: timedelta | None = None,
    ) -> None:
        self._lease, self._notices_after = lease, notices_after
        self._database = database
        self._reports = reports
        self._destinations = destinations
        self._configured = configured
        self._ask_from = 0.0  # the PACS could not be asked whose exam it is: what is made already goes out meanwhile
        self._committing = [each.name for each in configured if isinstance(each, DimseSettings) and each.commitment]

    def run_one(self, owner: str) -> bool:
        """Do the next piece of work; False where nothing was due."""
        if self._prepare_one() or self._prepare_notice():
            return True
        claimed = self._claim(owner)
        if claimed is None:
            return False
        self._send(claimed)
        return True

    def _prepare_one(self) -> bool:
        """Make the report of a classified revision and a row for each destination; False where nothing was made."""
        if time.monotonic() < self._ask_from:
            return False
        with self._database.read() as session:
            waiting = list(session.scalars(select(Series).where(unprepared(self._names)).order_by(Series.id).limit(20)))
        for series in waiting:
            try:
                self._reports.document(series.id, SR_CLASSES[0])
            except AskAgainError as error:
                logger.warning("Reports wait: %s", error)
                self._ask_from = time.monotonic() + _ASK_AGAIN_SECONDS
                return False
            except NotAtHandError as error:
                logger.warning("The report of series %s waits: %s", series.series_uid, error)
                self._put_off(series, FIRST_DELAY * 4)
                continue
            except HeldError as error:
                if series.reason_code != HELD:
                    logger.warning("The report of series %s is held: %s", series.series_uid, error)
                self._put_off(series, HELD_DELAY, HELD, str(error))
                continue
            except UnavailableError:
                raise
            except Exception as error:
                logger.exception("The report of series %s cannot be made.", series.series_uid)
                code = error.code if isinstance(error, Rejected) else "report_failed"
                self._fail(series.id, code, f"The report cannot be made: {said(error)}")
                return True
            unmade = self._make_others(series)
            with self._database.write() as session:
                held = session.get_one(Series, series.id, with_for_update=True)
                if held.state != State.CLASSIFIED or held.withdrawn_at is not None:
                    return True  # it was taken back meanwhile
                if held.reason_code == HELD:
                    held.reason_code = held.reason = None
                rows = select(Delivery.destination).where(Delivery.series_id == held.id, Delivery.object.not_in(ABOUT))
                known = set(session.scalars(rows))
                for destination in self._configured:
                    if destination.name not in known:
                        names = objects_of(destination.objects, self._reports.drawn(held.id))
                        session.add_all(_new_delivery(held, destination, name, unmade.get(name)) for name in names)
            return True
        return False

    def _prepare_notice(self) -> bool:
        """Make the notice of a study that came to nothing, and its rows; False where none was made."""
        if self._notices_after is None or not self._configured or time.monotonic() < self._ask_from:
            return False
        with self._database.read() as session:
            series = session.scalar(notices.due(self._notices_after).limit(1))
        if series is None:
            return False
        unmade = None
        try:
            self._reports.document(series.id, SR_CLASSES[0], NOTICE)
        except AskAgainError as error:
            logger.warning("Notices wait: %s", error)
            self._ask_from = time.monotonic() + _ASK_AGAIN_SECONDS
            return False
        except (NotAtHandError, HeldError) as error:
            logger.warning("The notice about series %s waits: %s", series.series_uid, error)
            self._put_off(series, HELD_DELAY, series.reason_code, series.reason)
            return False
        except UnavailableError:
            raise
        except Exception as error:
            logger.exception("The notice about series %s cannot be made.", series.series_uid)
            unmade = f"It cannot be made: {said(error)}"
        with self._database.write() as session:
            held = notices.take(session, series.id, self._notices_after)
            if held is not None:
                session.add_all(_new_delivery(held, each, NOTICE, unmade) for each in self._configured)
        return True

    def _make_others(self, series: Series) -> dict[str, str]:
        """Make what goes out beside the report; return why something cannot be. The report goes out all the same."""
        wanted = {name: None for destination in self._configured for name in destination.objects}
        unmade: dict[str, str] = {}
        for name in objects_of(list(wanted), self._reports.drawn(series.id)):
            if name == SR:
                continue
            try:
                self._reports.document(series.id, sop_classes(name)[0], name)
            except (NotAtHandError, AskAgainError, HeldError, UnavailableError):
                continue  # tried again by its delivery
            except Exception as error:
                logger.exception("Object %s of series %s cannot be made.", name, series.series_uid)
                unmade[name] = f"It cannot be made: {said(error)}"
        return unmade

    def _put_off(self, series: Series, delay: timedelta, code: str | None = None, reason: str | None = None) -> None:
        with self._database.write() as session:
            session.execute(
                update(Series)
                .where(Series.id == series.id, Series.state == series.state)
                .values(not_before=now() + delay, reason_code=code, reason=reason)
            )

    def _claim(self, owner: str) -> ClaimedDelivery | None:
        with self._database.write() as session:
            while True:
                next_id = session.scalar(
                    select(Delivery.id).where(due()).order_by(Delivery.next_attempt_at, Delivery.id).limit(1)
                )
                if next_id is None:
                    return None
                # Noted before it is asked for: the result may come before this attempt has ended.
                asked = Delivery.destination.in_(self._committing)
                taken = session.execute(
                    update(Delivery)
                    .where(Delivery.id == next_id, due())
                    .values(
                        lease_owner=owner,
                        lease_until=now() + self._lease,
                        attempts=Delivery.attempts + 1,
                        attempted=True,
                        transaction_uid=case((asked, str(generate_uid(prefix=None)))),
                    )
                )
                if cast("CursorResult[Any]", taken).rowcount:
                    break
            row = session.get_one(Delivery, next_id)
            session.refresh(row)
            uid = session.get_one(Series, row.series_id).series_uid
            return ClaimedDelivery(
                row.id, row.series_id, uid, row.object, row.destination, row.attempts, owner, row.transaction_uid
            )

    def _send(self, claimed: ClaimedDelivery) -> None:
        destination = self._destinations.get(claimed.destination)
        if destination is None:
            self._record(claimed, None, "There is no destination of this name in the settings any more.", final=True)
            return
        offer = Offer(
            sop_classes(claimed.object),
            lambda sop_class: self._document(claimed, sop_class),
            claimed.transaction_uid,
        )
        try:
            sent = destination.deliver(offer)
        except (NotAtHandError, AskAgainError, HeldError) as error:
            self._record(claimed, None, str(error), final=False)
        except Retry as error:
            self._record(claimed, None, str(error), final=False, away=True)
        except (DeliveryError, Rejected) as error:
            undrawn = isinstance(error, Rejected) and error.code == _UNDRAWN
            self._record(claimed, None, str(error), final=True, optional=undrawn)
        except UnavailableError:
            raise  # the lease runs out, and the delivery is due again
        except Exception as error:
            logger.exception("The delivery to %s failed.", claimed.destination)
            self._record(claimed, None, said(error), final=False)
        else:
            self._record(claimed, sent, None, final=True)

    def _document(self, claimed: ClaimedDelivery, sop_class: str) -> Document:
        try:
            return self._reports.document(claimed.series_id, sop_class, claimed.object)
        except (DeliveryError, UnavailableError, Rejected):
            raise
        except Exception as error:
            if claimed.object == SR:
                raise
            raise Rejected(_UNDRAWN, f"It cannot be made: {said(error)}") from error

    def _record(
        self,
        claimed: ClaimedDelivery,
        sent: Sent | None,
        error: str | None,
        *,
        final: bool,
        away: bool = False,
        optional: bool = False,
    ) -> None:
        """Store how an attempt ended, and what follows for the series.

        away: the destination is, so nothing else is tried there now. optional: the exam is reported without it.
        """
        with self._database.write() as session:
            series = session.get(Series, claimed.series_id, with_for_update=True)
            row = session.get(Delivery, claimed.delivery_id)
            if series is None or row is None:
                logger.warning("Series %s was erased while its report was sent.", claimed.series_uid)
                audit.record(session, "delivery of an erased exam", claimed.series_uid, destination=claimed.destination)
                return
            if row.lease_owner != claimed.owner or row.state != DeliveryState.PENDING:
                if sent is not None and series.withdrawn_at is not None:
                    retraction.repeat(session, series, claimed.destination)
                return  # it took so long that another worker has it, or it was taken back meanwhile
            row.lease_owner = row.lease_until = row.woken_at = None
            row.last_error = error
            if sent is not None:
                row.sop_class_uid, row.sop_uid = sent.document.sop_class_uid, sent.document.sop_uid
            if sent is not None and sent.committed:
                row.state, row.delivered_at = DeliveryState.DELIVERED, now()
            elif sent is not None:
                row.last_error = "It has the report; that it commits itself to it is awaited."
                row.next_attempt_at = now() + COMMITMENT_DELAY * min(claimed.attempts, 24)
            elif final:
                row.state = DeliveryState.REFUSED
                # A destination that was taken out of the settings decides nothing.
                row.required &= claimed.destination in self._destinations and not optional
            else:
                row.next_attempt_at = now() + delay(claimed.attempts)
                if away:
                    self._put_off_destination(session, row)
            note(session, series, row)

    def _put_off_destination(self, session: Session, row: Delivery) -> None:
        """Let nothing else that is due for a destination that is away hold up the others until then."""
        session.execute(
            update(Delivery)
            .where(
                Delivery.destination == row.destination,
                Delivery.state == DeliveryState.PENDING,
                Delivery.next_attempt_at < row.next_attempt_at,
            )
            .values(next_attempt_at=row.next_attempt_at)
        )

    def _fail(self, series_id: int, code: str, reason: str) -> None:
        with self._database.write() as session:
            series = session.get_one(Series, series_id, with_for_update=True)
            if series.state != State.CLASSIFIED:
                return
            exams.end(session, series, State.FAILED, code, reason)

    @property
    def _names(self) -> list[str]:
        return [destination.name for destination in self._configured]


def _new_delivery(series: Series, destination: DestinationSettings, name: str, unmade: str | None) -> Delivery:
    """Return the row of an object for a destination; one that cannot be made decides nothing."""
    return Delivery(
        series_id=series.id,
        object=name,
        destination=destination.name,
        protocol=destination.kind,
        required=destination.required and unmade is None,
        state=DeliveryState.PENDING if unmade is None else DeliveryState.REFUSED,
        attempts=0,
        last_error=unmade,
        next_attempt_at=now(),
    )
