"""The embedded broker: kombu's file system transport, which must not die of half a message."""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.transport.virtual import Empty

EMBEDDED = "reticula-embedded"


class Channel(filesystem.Channel):  # type: ignore[misc]
    """As kombu's, but a file that a killed process left half written counts as no message; SQL knows what to do."""

    def _get(self, queue: str) -> Any:
        try:
            return super()._get(queue)
        except ValueError as error:
            raise Empty from error


class Transport(filesystem.Transport):  # type: ignore[misc]
    """Found by kombu under the name above."""

    Channel = Channel
    # Shared by all channels of a process, as in kombu's own class, but apart from it.
    global_state = filesystem.virtual.BrokerState()


TRANSPORT_ALIASES[EMBEDDED] = f"{__name__}:Transport"
