"""The transport below an association: limits on time, size and number, and TLS, derived from pynetdicom's classes.

pynetdicom shakes hands of TLS in the thread that accepts connections, reads a PDU of any length and waits for ever for
its end. Here whatever one peer does or fails to do costs that peer its connection, and nobody else anything.
"""

import errno
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from socketserver import BaseServer
from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from pacs.answers import answer_at_once
from pacs.counts import Counts
from pacs.discreet import said
from pacs.fragments import PDU_HEADER, take_fragments
from pacs.reactor import PromptSocket, wake_up

logger = logging.getLogger(__name__)

# Senders may count the headers of a PDU into its length or not.
_PDU_MARGIN = 4096
# One message is on its way at a time (no asynchronous operations are negotiated); a release may follow.
_MOST_UNANSWERED = 2
# Bytes that are reserved at a time.
_RESERVED = 1 << 20
# Seconds that a connection is left to the other processes, for each that this one has more; one that hangs costs that.
_STEP_BACK, _LONGEST_STEP_BACK = 0.005, 0.02
# A connection that finds no descriptor stays in the queue; asked for again at once, it would keep the processor busy.
_NO_DESCRIPTOR, _SHORTAGE = (errno.EMFILE, errno.ENFILE), 0.1


@dataclass(frozen=True)
class Limits:
    """What one peer may cost. Times in seconds, sizes in bytes.

    negotiation: for the TLS handshake, and again for the request. idle: between two PDUs. pdu_seconds: for one PDU.
    instance: for one message. receiving: for all messages that are under way. connections: of all peers, associated
    or not yet.
    """

    negotiation: float = 15.0
    idle: float = 60.0
    pdu_seconds: float = 60.0
    pdu: int = 1 << 20
    instance: int = 1 << 30
    receiving: int = 2 << 30
    connections: int = 64


DEFAULT_LIMITS = Limits()


class Server(ThreadedAssociationServer):
    """Accepts connections; everything that can take time happens in a thread of the connection's own."""

    request_queue_size = 64

    def __init__(
        self,
        *args: Any,
        limits: Limits,
        counts: Counts,
        tls: ssl.SSLContext | None = None,
        inherited: socket.socket | None = None,
        tend: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> None:
        self.limits, self.counts, self.tls = limits, counts, tls
        self._inherited, self._tend = inherited, tend
        self._lock = threading.Lock()
        self._starting = 0  # connections on their way to an association
        self._short = False  # of descriptors, and it has been said
        super().__init__(*args, **{**options, "request_handler": _Connection})
        self.contexts = [_Context.of(context) for context in self.contexts]

    def server_bind(self) -> None:
        """Take the address, or the socket that listens on it for several processes."""
        if self._inherited is None:
            super().server_bind()
            return
        self.socket.close()  # type: ignore[union-attr]
        self.socket = self._inherited
        # Another process may be faster: whoever finds nobody to accept goes on waiting.
        self._inherited.setblocking(False)
        self.server_address = self._inherited.getsockname()

    def server_close(self) -> None:
        """Listen no more; where others share the socket they go on."""
        if self._inherited is None:
            super().server_close()
        else:
            self._inherited.close()

    def server_activate(self) -> None:
        """Listen, where the socket does not do so already."""
        if self._inherited is None:
            super().server_activate()

    def service_actions(self) -> None:
        """Tell the other processes how many connections there are here, and tend what has to be ten times a second."""
        self._tend()
        self.counts.connections(self._connected())

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection and nothing else: the handshake is its own thread's.

        Of several processes the one that has the fewest connections comes first; a core each is what they are for.
        """
        time.sleep(min(self.counts.lead(self._connected()) * _STEP_BACK, _LONGEST_STEP_BACK))
        try:
            accepted = self.socket.accept()  # type: ignore[union-attr]
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR:
                if not self._short:
                    logger.warning("Connections wait: this process may open no more files (ulimit -n, LimitNOFILE=).")
                self._short = True
                time.sleep(_SHORTAGE)
            raise
        self._short = False
        return accepted

    def shutdown(self) -> None:
        """Accept nothing more; associations that are open go on."""
        BaseServer.shutdown(self)
        self.server_close()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close a connection at once where there are too many."""
        connected = self.counts.connections(self._connected())
        if connected < self.limits.connections:
            return True
        logger.warning("Connection from %s closed: %d are open already.", client_address[0], connected)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread of its own."""
        with self._lock:
            self._starting += 1
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            with self._lock:
                self._starting -= 1
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Be that thread; it ends when the association's own has begun."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._starting -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line why a connection came to nothing; the base class prints a traceback."""
        logger.exception("The connection from %s failed.", client_address[0])

    def reserve(self, size: int) -> bool:
        """Count the bytes of a message under way (fewer, where negative); False where that would be too many."""
        return self.counts.reserve(size, self.limits.receiving)

    def _connected(self) -> int:
        with self._lock:
            return len(self.active_associations) + self._starting


class _Context(PresentationContext):
    """A context that is cheap to copy: pynetdicom copies all of them, with thousands of UIDs, for each association."""

    @classmethod
    def of(cls, context: PresentationContext) -> "_Context":
        """Return the same context of this class."""
        made = cls()
        vars(made).update(vars(context))
        return made

    def __deepcopy__(self, _memo: dict[int, Any]) -> "_Context":
        copied = _Context.of(self)
        for name, value in vars(self).items():
            if isinstance(value, list):  # of UIDs, which never change
                setattr(copied, name, list(value))
        return copied


class _Connection(RequestHandler):
    """From an accepted connection to an association that negotiates."""

    server: Server

    def handle(self) -> None:
        """Secure the connection where TLS is set, and start the association."""
        if self.server.tls is not None:
            self.request = self._secured(self.server.tls)
            if self.request is None:
                return
        super().handle()

    def _secured(self, context: ssl.SSLContext) -> ssl.SSLSocket | None:
        plain = self.request
        try:
            plain.settimeout(self.server.limits.negotiation)
            secured = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it was closed before it began
            plain.close()
            return None
        try:
            deadline = threading.Timer(self.server.limits.negotiation, _shut, [secured])
            deadline.daemon = True
            deadline.start()
            try:
                secured.do_handshake()
            finally:
                deadline.cancel()
        except OSError as error:  # ssl.SSLError is one
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            logger.warning("Connection from %s closed: no TLS (%s).", self.client_address[0], reason)
            secured.close()
            return None
        return secured

    def _create_association(self) -> Association:
        association = super()._create_association()
        # pynetdicom's socket has told of the connection, and ours tells of it again.
        association.dul.event_queue.get_nowait()
        association.dul.socket = connection = _BoundedSocket(association, self.request, self.server)
        wake_up(association, connection)
        answer_at_once(association)
        take_fragments(association, connection)
        machine = association.dul.state_machine
        machine.do_action = partial(_act, association, machine.do_action)  # type: ignore[method-assign]
        return association


class _BoundedSocket(PromptSocket):
    """Reads whole PDUs within the limits; what goes beyond them ends the connection."""

    def __init__(self, association: Association, connection: Any, server: Server) -> None:
        super().__init__(association, connection)
        self._server = server
        self._message = self._reserved = 0
        self._over = False
        self._lock = threading.Lock()
        self._deadline = 0.0  # of the PDU that is read

    def recv(self, nr_bytes: int) -> bytearray:
        """Return so many bytes, or fewer where the peer has closed the connection. Raises OSError beyond a limit."""
        if nr_bytes == PDU_HEADER:  # type and length of a PDU come first, alone
            self._begin()
        else:
            self.expect(nr_bytes)
        received = bytearray()
        for piece in self.pieces(nr_bytes):
            received += piece
        return received

    def peek(self, size: int) -> memoryview:
        """Return the next bytes and leave them; fewer where the peer has closed the connection.

        Raises OSError beyond a limit.
        """
        if size == PDU_HEADER:
            self._begin()
        while self.held < size and self.fill(self._left()):
            pass
        return self.look(size)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield so many bytes as they come, or fewer where the peer has closed the connection.

        Each piece is valid until the next. Raises OSError beyond a limit.
        """
        while size and (self.held or self.fill(self._left())):
            piece = self.take(size)
            size -= len(piece)
            yield piece

    def expect(self, size: int) -> None:
        """Count a PDU of so many bytes, which begins. Raises OSError beyond a limit."""
        limits = self._server.limits
        if size > limits.pdu + _PDU_MARGIN:
            raise self._excess(f"a PDU of {size} bytes; {limits.pdu} is the most")
        if self.assoc.dimse.msg_queue.qsize() > _MOST_UNANSWERED:
            raise self._excess("requests come without waiting for their answers")
        if self._message + size > limits.instance:
            raise self._excess(f"an instance of more than {limits.instance} bytes")
        with self._lock:
            self._message += size
            # Other processes share what is reserved, and wait for each other there: not at every PDU.
            wanted = -(-self._message // _RESERVED) * _RESERVED - self._reserved
            if self._over:
                raise OSError("the connection is closed")
            if wanted and not self._server.reserve(wanted):
                raise self._excess(f"more than {limits.receiving} bytes are being received already")
            self._reserved += wanted

    def message_ended(self) -> None:
        """Begin to count anew: a message has come to its end."""
        with self._lock:
            if self._reserved:
                self._server.reserve(-self._reserved)
            self._message = self._reserved = 0

    def _shutdown_socket(self) -> None:
        """Close it in any case; the base class leaves it open where the other side has gone.

        Every end of a connection comes here, and not every one by `close`: a message that has not come to its own end
        counts no longer.
        """
        self._over = True
        self.message_ended()
        connection = self.socket
        if connection is not None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _begin(self) -> None:
        self._deadline = time.monotonic() + self._server.limits.pdu_seconds

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._excess(f"a PDU took more than {self._server.limits.pdu_seconds:g} s")
        return left

    def _excess(self, what: str) -> OSError:
        logger.warning("Association from %s ended: %s.", self.assoc.requestor.address, what)
        return OSError(what)


def _act(association: Association, act: Callable[[str], None], event: str) -> None:
    """Let the state machine act; where bytes make it fail, end the association as pynetdicom does for a bad PDU."""
    service = association.dul
    try:
        act(event)
        ended = service.state_machine.current_state == "Sta1"
        if ended and association.requestor.primitive is None and service.to_user_queue.empty():
            # It was closed before anything was asked: its thread would wait for that until the time is over.
            waiting: Any = service.to_user_queue  # typed without the None that its reader knows
            waiting.put(None)
    except Exception as error:  # pynetdicom raises whatever it likes on a command set that is none
        logger.warning(
            "Association from %s ended: it sent what cannot be read (%s).", association.requestor.address, said(error)
        )
        connection = service.socket
        if isinstance(connection, _BoundedSocket):
            abort = A_ABORT_RQ()
            abort.source, abort.reason_diagnostic = 0x02, 0x00
            with suppress(OSError):
                connection.send(abort.encode())
            connection.close()
        association.is_aborted, association.is_established = True, False
        # Both threads end by themselves; to wait here for that, as `kill` does, would be to wait for oneself.
        association._kill = True  # noqa: SLF001
        service.kill_dul()
        evt.trigger(association, evt.EVT_CONN_CLOSE, {"address": association.requestor.address})


def message_ended(association: Association) -> None:
    """Tell the socket of an association that a message has come to its end."""
    connection = association.dul.socket
    if isinstance(connection, _BoundedSocket):
        connection.message_ended()


def _shut(connection: ssl.SSLSocket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
