"""The audit trail on its way to an audit repository: from SQL, in order, each event once it is sure to be there."""

import logging
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import takewhile

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs import audit_message as dicom
from pacs.audit_message import AuditMessage, Participant
from pacs.errors import Retry
from pacs.syslog import Syslog
from worker.audit import SYSTEM
from worker.database import Database, now
from worker.tables import AuditCursor, AuditEvent, Series, Study

logger = logging.getLogger(__name__)

_NAME = "syslog"
_AT_ONCE = 200
# The transaction of an event may end after that of a later one; none takes so long.
SETTLED = timedelta(seconds=30)
_PAUSE_SECONDS = 60.0
_UNSAID = frozenset({"received", "address", "error", "study"})
# A datagram holds 64 kB.
_STUDIES_AT_ONCE = 50
_OF_SERIES = ("series", "exam ", "delivery", "pixels", "retry", "resend", "reprocess")

# By the beginning of the action: the event, its type, its action code, and its outcome.
_EVENTS: tuple[tuple[str, dicom.Code, dicom.Code | None, str, int], ...] = (
    ("application started", dicom.APPLICATION_ACTIVITY, dicom.APPLICATION_START, "E", dicom.SUCCESS),
    ("application stopped", dicom.APPLICATION_ACTIVITY, dicom.APPLICATION_STOP, "E", dicom.SUCCESS),
    ("application", dicom.APPLICATION_ACTIVITY, None, "E", dicom.SUCCESS),
    ("association rejected", dicom.SECURITY_ALERT, dicom.NODE_AUTHENTICATION, "E", dicom.MINOR_FAILURE),
    ("association received", dicom.INSTANCES_TRANSFERRED, None, "C", dicom.SUCCESS),
    ("instance conflict", dicom.SECURITY_ALERT, dicom.OBJECT_ATTRIBUTES_CHANGED, "E", dicom.MINOR_FAILURE),
    ("storage committed", dicom.INSTANCES_ACCESSED, None, "R", dicom.SUCCESS),
    ("delivery delivered", dicom.INSTANCES_TRANSFERRED, None, "R", dicom.SUCCESS),
    ("delivery pending", dicom.INSTANCES_TRANSFERRED, None, "R", dicom.MINOR_FAILURE),
    ("delivery refused", dicom.INSTANCES_TRANSFERRED, None, "R", dicom.SERIOUS_FAILURE),
    ("series failed", dicom.INSTANCES_ACCESSED, None, "R", dicom.SERIOUS_FAILURE),
    ("series labelled", dicom.INSTANCES_ACCESSED, None, "U", dicom.SUCCESS),
    ("series", dicom.INSTANCES_ACCESSED, None, "R", dicom.SUCCESS),
    ("exam shown", dicom.INSTANCES_ACCESSED, None, "R", dicom.SUCCESS),
    ("exams listed", dicom.INSTANCES_ACCESSED, None, "R", dicom.SUCCESS),
    ("exam erased", dicom.STUDY_DELETED, None, "D", dicom.SUCCESS),
    ("pixels removed", dicom.STUDY_DELETED, None, "D", dicom.SUCCESS),
    ("model", dicom.SECURITY_ALERT, dicom.SOFTWARE_CONFIGURATION, "E", dicom.SUCCESS),
    ("retraining", dicom.SECURITY_ALERT, dicom.SOFTWARE_CONFIGURATION, "E", dicom.SUCCESS),
    ("", dicom.INSTANCES_ACCESSED, None, "U", dicom.SUCCESS),
)


class AuditRelay:
    """Sends what is new to a repository; what was not taken is sent again. source_id: who we are there."""

    def __init__(self, database: Database, repository: Syslog, ae_title: str) -> None:
        self._database, self._repository = database, repository
        self._ae_title, self._source_id = ae_title, f"{ae_title}@{socket.gethostname()}"
        self._not_before = 0.0

    def send_new(self) -> int:
        """Send the next events and return how many; 0 also while the repository is away. Raises UnavailableError."""
        if time.monotonic() < self._not_before:
            return 0
        with self._database.read() as session:
            cursor = session.get(AuditCursor, _NAME)
            after = 0 if cursor is None else cursor.event_id
            query = select(AuditEvent).where(AuditEvent.id > after).order_by(AuditEvent.id).limit(_AT_ONCE)
            events = list(takewhile(_is_settled, session.scalars(query)))
            messages = [
                message.xml(self._source_id)
                for event in events
                for message in messages_of(session, event, self._ae_title)
            ]
        if not events:
            return 0
        try:
            self._repository.send(messages)
        except Retry as error:
            logger.warning("%s It is tried again.", error)
            self._not_before = time.monotonic() + _PAUSE_SECONDS
            return 0
        with self._database.write() as session:
            session.merge(AuditCursor(name=_NAME, event_id=events[-1].id))
        return len(events)


def _is_settled(event: AuditEvent) -> bool:
    return event.stored_at is None or event.stored_at < now() - SETTLED


def messages_of(session: Session, event: AuditEvent, ae_title: str) -> Iterator[AuditMessage]:
    """Yield an event as the standard has it, so many studies a message. ae_title: ours."""
    _action, kind, kind_type, action, outcome = next(each for each in _EVENTS if event.action.startswith(each[0]))
    studies = list(_studies(session, event))
    # An error is told in the words of a PACS, which may name the patient.
    said = "; ".join(f"{name}: {value}" for name, value in event.detail.items() if name not in _UNSAID)
    message = AuditMessage(
        event=kind,
        kind=kind_type,
        action=action,
        outcome=outcome,
        at=event.at,
        description=f"{event.action}: {said}" if said else event.action,
        participants=tuple(_participants(event, ae_title)),
    )
    for start in range(0, len(studies), _STUDIES_AT_ONCE):
        yield replace(message, studies=studies[start : start + _STUDIES_AT_ONCE])
    if not studies and event.action.startswith(_OF_SERIES):
        yield replace(message, series=(event.subject,))
    elif not studies:
        yield replace(message, others=(event.subject,))


def _participants(event: AuditEvent, ae_title: str) -> Iterable[Participant]:
    address = str(event.detail.get("address", ""))
    if event.action.startswith(("association", "instance conflict", "storage committed")):
        yield Participant(event.actor, is_requestor=True, role=dicom.SOURCE, address=address)
        yield Participant(ae_title, is_requestor=False, role=dicom.DESTINATION)
    elif event.action.startswith("delivery"):
        yield Participant(ae_title, is_requestor=True, role=dicom.SOURCE)
        yield Participant(str(event.detail.get("destination", "")), is_requestor=False, role=dicom.DESTINATION)
    else:
        if event.actor != SYSTEM:
            yield Participant(event.actor, is_requestor=True)
        yield Participant(ae_title, is_requestor=event.actor == SYSTEM, role=dicom.APPLICATION)


def _studies(session: Session, event: AuditEvent) -> Iterable[str]:
    """The studies that an event is about; of an exam that was erased nothing but its series is known."""
    if event.action == "association received":
        return list(event.detail.get("received", {}))
    if "study" in event.detail:  # it was erased since
        return [str(event.detail["study"])]
    query = select(Study.study_uid).join(Series).where(Series.series_uid == event.subject).distinct()
    return session.scalars(query).all()
