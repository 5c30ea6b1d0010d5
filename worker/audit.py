"""Who did what to which exam or model: one row an event, in the transaction of the deed."""

import getpass
from typing import Any

from sqlalchemy.orm import Session

from worker.database import now
from worker.tables import AuditEvent

SYSTEM = "reticula"


def record(session: Session, action: str, subject: str, *, actor: str = SYSTEM, **detail: Any) -> None:
    """Add an event to the transaction."""
    session.add(AuditEvent(at=now(), actor=actor, action=action, subject=subject, detail=detail))


def person() -> str:
    """Return who sits at the command line."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        return "unknown"
