"""Audit messages to a repository by syslog: over UDP (RFC 5426), or TLS (RFC 5425), as PS3.15 A.6 and A.7 have it."""

import os
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

from pacs.errors import Retry

# Facility 10 (security), severity 5 (notice); PS3.15 A.6.
_PRIORITY = 10 * 8 + 5
_MESSAGE_ID = "DICOM+RFC3881"
_SECONDS = 3.0


class Syslog:
    """A syslog server. With `tls` a message has arrived at its host when `send` returns; by UDP nobody knows."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._port, self._tls = host, port, tls

    def send(self, messages: Sequence[bytes]) -> None:
        """Send XML messages in their order. Raises Retry."""
        framed = [_framed(message) for message in messages]
        try:
            if self._tls is None:
                kind, _type, _protocol, _name, address = socket.getaddrinfo(
                    self._host, self._port, type=socket.SOCK_DGRAM
                )[0]
                with socket.socket(kind, socket.SOCK_DGRAM) as sender:
                    sender.connect(address)
                    for content in framed:
                        sender.send(content)
                return
            with (
                socket.create_connection((self._host, self._port), timeout=_SECONDS) as plain,
                self._tls.wrap_socket(plain, server_hostname=self._host) as secured,
            ):
                for content in framed:
                    secured.sendall(f"{len(content)} ".encode() + content)
                # An answer in good order says that the other side has read what came before. Some just close, or wait.
                with suppress(ssl.SSLEOFError, TimeoutError):
                    secured.unwrap()
        except OSError as error:  # ssl.SSLError is one
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            raise Retry(f"The audit repository {self._host}:{self._port} takes no messages: {reason}.") from error


def _framed(message: bytes) -> bytes:
    moment = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    header = f"<{_PRIORITY}>1 {moment} {socket.gethostname()[:255]} reticula {os.getpid()} {_MESSAGE_ID} - "
    return header.encode("ascii", "replace") + b"\xef\xbb\xbf" + message
