"""The HTTP server below the application, with limits on what a connection may cost before it asks."""

import asyncio
import socket
import ssl
import threading
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pacs.errors import ListenError
from worker.web.access import PEER_NAME

_BACKLOG = 64
_POLL_SECONDS = 0.05


class HttpServer:
    """Serves an ASGI application in a thread of its own.

    header_seconds: for a request to begin. connections: of all clients.
    """

    def __init__(
        self,
        app: Any,
        *,
        host: str,
        port: int,
        header_seconds: float,
        connections: int,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = host, port

        class Connection(_Connection):
            longest_wait, most = header_seconds, connections

        self._server = _Server(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            )
        )
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; it was chosen by the system where 0 was asked for."""
        if self._socket is None:
            raise ListenError("The HTTP server was not started.")
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Serve. Raises ListenError where the address cannot be had."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ListenError(
                f"Cannot listen on {host}:{port}: {error.strerror}. Set http.port to a free one."
            ) from error
        # Signals belong to the main thread, which says when to stop.
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise ListenError(f"Cannot serve on {host}:{port}: the log says why.")
            time.sleep(_POLL_SECONDS)

    def stop(self, grace_seconds: float = 0) -> None:
        """Take nothing more; give requests under way so long to end."""
        if self._thread is None:
            return
        self._server.config.timeout_graceful_shutdown = max(1, int(grace_seconds))
        self._server.should_exit = True
        self._thread.join(grace_seconds + 2)


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        # What did not end within the grace, and clients that never answer the end of TLS.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(_POLL_SECONDS)


class _Connection(H11Protocol):
    """Ends connections that do not ask, and tells the application whose certificate was shown."""

    longest_wait = 15.0
    most = 64
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
            return
        certificate = transport.get_extra_info("peercert")
        if certificate:
            self.app = _named(self.app, _common_name(certificate))
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Let the time run while the head of a request is waited for, however slowly its bytes come."""
        asked: Any = self.cycle  # None until there is a request, which its type does not say
        if asked is not None and not asked.response_complete:
            self._unwatch()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.longest_wait, self.transport.abort)

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _named(app: Any, name: str) -> Any:
    async def named(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, PEER_NAME: name}, receive, send)

    return named


def _common_name(certificate: dict[str, Any]) -> str:
    parts = dict(pair for group in certificate.get("subject", ()) for pair in group)
    return str(parts.get("commonName", ""))
