"""The embedded broker: kombu's file system transport, which must not die of half a file.

A process may be killed while it writes, and two may begin at once.
"""

import fcntl
import json
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.transport.filesystem import exchange_queue_t
from kombu.transport.virtual import Empty

EMBEDDED = "reticula-embedded"


class Channel(filesystem.Channel):  # type: ignore[misc]
    """As kombu's, but a file left half written counts as none; SQL knows what to do, and bindings are made anew."""

    def _get(self, queue: str) -> Any:
        try:
            return super()._get(queue)
        except ValueError as error:
            raise Empty from error

    def get_table(self, exchange: str) -> list[Any]:
        """Return the bindings of an exchange."""
        try:
            return list(super().get_table(exchange))
        except (ValueError, TypeError):
            return []

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Add a binding under a lock; the file appears whole. kombu makes it empty, then locks it, then writes."""
        folder = Path(self.control_folder)
        folder.mkdir(exist_ok=True)
        bound = exchange_queue_t(routing_key or "", pattern or "", queue or "")
        with (folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            table = self.get_table(exchange)
            if bound not in table:
                temporary = folder / f".{uuid.uuid4().hex}"
                temporary.write_text(json.dumps([bound, *table]), encoding="utf-8")
                temporary.replace(self._exchange_file(exchange))


class Transport(filesystem.Transport):  # type: ignore[misc]
    """Found by kombu under the name above."""

    Channel = Channel
    # Shared by all channels of a process, as in kombu's own class, but apart from it.
    global_state = filesystem.virtual.BrokerState()


TRANSPORT_ALIASES[EMBEDDED] = f"{__name__}:Transport"
