"""What an audit trail keeps of processes that need no database: a file an event, until the sweep has it in SQL."""

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from pacs.commitment import CommitmentResult, Requestor
from pacs.durable import Mailbox
from pacs.intake import Happening
from worker.database import Database, now
from worker.tables import AuditEvent

logger = logging.getLogger(__name__)

_AT_ONCE = 200


class Journal:
    """Events in `folder` that are not in SQL yet."""

    def __init__(self, folder: Path) -> None:
        self._mailbox = Mailbox(folder, _read, "event of the audit trail")

    def witness(self, happening: Happening) -> None:
        """Keep what a listener has seen. A disk that does not take it stops nobody from working."""
        detail = {"address": happening.address, "reason": happening.reason, "received": happening.received}
        self._keep(
            happening.calling,
            f"association {happening.kind}" if happening.kind != "conflict" else "instance conflict",
            next(iter(happening.received), happening.address),
            {name: value for name, value in detail.items() if value},
        )

    def note(self, actor: str, action: str, subject: str) -> None:
        """Keep what somebody did."""
        self._keep(actor, action, subject, {})

    def application(self, actor: str, happened: str, name: str) -> None:
        """Keep that a process has started or stopped."""
        self._keep(actor, f"application {happened}", name, {})

    def committed(self, requestor: Requestor, result: CommitmentResult) -> None:
        """Keep that a requestor has the result of its storage commitment."""
        detail = {"address": requestor.address, "committed": len(result.committed), "failed": len(result.failed)}
        self._keep(requestor.ae_title, "storage committed", result.transaction_uid, detail)

    def _keep(self, actor: str, action: str, subject: str, detail: dict[str, Any]) -> None:
        event = {
            "at": now().isoformat(),
            "actor": actor[:128],
            "action": action,
            "subject": subject[:128],
            "detail": detail,
        }
        try:
            self._mailbox.put(event)
        except OSError as error:
            logger.error("An event of the audit trail is lost (%s): %s", error.strerror, event)  # noqa: TRY400

    def collect(self, database: Database) -> int:
        """Bring what is kept into SQL, once each, and return how many. Raises UnavailableError."""
        found = list(self._mailbox.letters(_AT_ONCE))
        if not found:
            return 0
        with database.write() as session:
            query = select(AuditEvent.uid).where(AuditEvent.uid.in_([each.name for each in found]))
            known = set(session.scalars(query))
            session.add_all(
                AuditEvent(uid=each.name, **each.content)
                for each in sorted(found, key=lambda each: each.content["at"])
                if each.name not in known
            )
        for each in found:
            each.remove()
        return len(found)


def _read(content: Any) -> dict[str, Any]:
    return {
        "at": datetime.fromisoformat(content["at"]),
        "detail": dict(content["detail"]),
        **{name: str(content[name]) for name in ("actor", "action", "subject")},
    }
