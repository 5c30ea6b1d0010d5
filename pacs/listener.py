"""The C-STORE and C-ECHO service: what arrives is handed to a store, durable before the answer.

Storage commitment is served by the same associations; see `pacs.commitment`.

The bytes of a dataset are kept as they came; only its first elements are read, never its pixels. Neither SQL nor
a broker is needed here.
"""

import ipaddress
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pacs import inside
from pacs.acceptance import accepted
from pacs.commitment import PUSH_MODEL, CommitmentService
from pacs.counts import Counts, LocalCounts
from pacs.errors import ListenError
from pacs.intake import SUCCESS, Happening, Intake, Sender
from pacs.part10 import Announced
from pacs.spool import InstanceStore
from pacs.transport import DEFAULT_LIMITS, Limits, Server, message_ended

logger = logging.getLogger(__name__)

# A-ASSOCIATE-RJ (PS3.8 table 9-21): result, source, reason. Permanent and by the service user…
_NOT_A_PEER = (0x01, 0x01, 0x03)
_NOT_OUR_TITLE = (0x01, 0x01, 0x07)
# …or transient and by the service provider: temporary congestion, local limit exceeded.
_NO_ROOM = (0x02, 0x03, 0x01)
_TOO_MANY = (0x02, 0x03, 0x02)


@dataclass(frozen=True)
class Peer:
    """Who may connect: an AE title from an address."""

    ae_title: str
    address: str


class Listener:
    """A running service. With no peers any AE title may connect, but from this machine only.

    `witness` is told what an audit trail keeps, in the thread of the association. With `commitment` storage commitment
    is served, and results of our own requests are taken. Several processes can share a port: each is given the socket
    that listens on it, and what they count together.
    """

    def __init__(
        self,
        store: InstanceStore,
        *,
        ae_title: str,
        host: str,
        port: int,
        peers: Sequence[Peer] = (),
        associations: int = 32,
        associations_per_peer: int = 16,
        limits: Limits = DEFAULT_LIMITS,
        tls: ssl.SSLContext | None = None,
        witness: Callable[[Happening], None] = lambda _happening: None,
        commitment: CommitmentService | None = None,
        counts: Counts | None = None,
        inherited: socket.socket | None = None,
    ) -> None:
        self._store, self._commitment = store, commitment
        self._counts: Counts = counts or LocalCounts()
        self._inherited = inherited
        self._peers = frozenset((peer.ae_title, peer.address) for peer in peers)
        self._ae_title, self._address = ae_title, (host, port)
        self._associations, self._per_peer = associations, associations_per_peer
        self._limits, self._tls, self._witness = limits, tls, witness
        self._intake = Intake(store, limits.instance, witness)
        self._lock = threading.Lock()
        self._open: dict[Association, _Open] = {}
        self._server: Server | None = None
        self._entity = AE(ae_title)
        self._entity.require_called_aet = True
        self._entity.maximum_pdu_size = limits.pdu
        # We count ourselves, see `_objection`: those that still negotiate must not keep the others out.
        self._entity.maximum_associations = 10 * limits.connections
        self._entity.acse_timeout = limits.negotiation
        self._entity.dimse_timeout = self._entity.network_timeout = limits.idle
        self._entity.add_supported_context(Verification)
        if commitment is not None:
            # Who gives a result opens the association as provider, so both roles are taken (PS3.4 J.3.3).
            self._entity.add_supported_context(PUSH_MODEL, scu_role=True, scp_role=True)
        for sop_class, syntaxes in accepted().items():
            self._entity.add_supported_context(sop_class, list(syntaxes))

    @property
    def port(self) -> int:
        """The port that is listened on; it was chosen by the system where 0 was asked for."""
        if self._server is None:
            raise ListenError("The listener was not started.")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen in threads of its own.

        Raises ListenError where the address cannot be had, or pynetdicom is not as the listener knows it from inside.
        """
        inside.check()
        # pynetdicom's own handlers format every message that comes, for a log that nobody keeps.
        _config.LOG_HANDLER_LEVEL = "none"
        handlers = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_DIMSE_RECV, lambda event: message_ended(event.assoc)),
            (evt.EVT_CONN_CLOSE, self._on_closed),
            *(self._commitment.handlers() if self._commitment is not None else ()),
        ]
        try:
            server = self._entity.make_server(
                self._address,
                evt_handlers=handlers,
                server_class=partial(  # type: ignore[arg-type]
                    Server,
                    limits=self._limits,
                    counts=self._counts,
                    tls=self._tls,
                    inherited=self._inherited,
                    tend=self._dismiss_ended,
                ),
            )
        except OSError as error:
            raise _cannot_listen(*self._address, error) from error
        self._server = cast("Server", server)
        if self._commitment is not None:
            self._commitment.provider.start()
        threading.Thread(target=server.serve_forever, args=(0.1,), name="listener", daemon=True).start()

    @staticmethod
    def open_port(host: str, port: int) -> socket.socket:
        """Return a socket that listens, for several processes. Raises ListenError where the address cannot be had."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind((host, port))
            opened.listen(Server.request_queue_size)
        except OSError as error:
            opened.close()
            raise _cannot_listen(host, port, error) from error
        return opened

    def stop(self, grace_seconds: float = 0) -> None:
        """Take no more associations; give those that are open so long to end by themselves, then abort them."""
        if self._server is None:
            return
        server, self._server = self._server, None
        deadline = time.monotonic() + grace_seconds
        # Closes the listening socket and leaves the associations alone.
        server.shutdown()
        while server.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        for association in server.active_associations:
            association.abort()
        if self._commitment is not None:
            self._commitment.provider.stop()

    def _on_requested(self, event: Any) -> None:
        requestor = event.assoc.requestor
        calling, address = "?", str(requestor.address)
        try:
            calling = str(requestor.primitive.calling_ae_title).strip()
            called = str(requestor.primitive.called_ae_title).strip()
            objection = self._objection(event.assoc, _Open(calling, address), called)
        except Exception:  # pynetdicom logs what a handler raises and goes on: that would let anybody in
            logger.exception("The request for an association cannot be judged.")
            objection = _NOT_A_PEER, "it cannot be judged"
        if objection is None:
            return
        answer, reason = objection
        logger.warning("Association of %r from %s rejected: %s.", calling, address, reason)
        event.assoc.acse.send_reject(*answer)
        try:
            self._witness(Happening("rejected", calling, address, reason))
        finally:
            event.assoc.kill()  # waits for the other side

    def _objection(
        self, association: Association, requestor: "_Open", called: str
    ) -> tuple[tuple[int, int, int], str] | None:
        """Return why an association is not taken, as the answer and in words; None where it is, and count it."""
        if not self._may_connect(requestor.calling, requestor.address):
            return _NOT_A_PEER, "not among the peers"
        if called != self._ae_title:
            return _NOT_OUR_TITLE, f"it calls {called!r}, which is not our AE title"
        reason = self._store.objection()
        if reason is not None:
            return _NO_ROOM, reason
        self._dismiss_ended()
        with self._lock:
            admitted = self._counts.admit(requestor.peer, self._associations, self._per_peer)
            if isinstance(admitted, str):
                return _TOO_MANY, admitted
            requestor.ticket = admitted
            self._open[association] = requestor
        return None

    def _dismiss_ended(self) -> None:
        """Give back the places of associations whose end was told before they had one."""
        with self._lock:
            for each in [each for each in self._open if not each.is_alive()]:
                self._counts.dismiss(self._open.pop(each).ticket)

    def _on_closed(self, event: Any) -> None:
        with self._lock:
            known = self._open.pop(event.assoc, None)
            if known is not None:
                self._counts.dismiss(known.ticket)
        if known is not None and known.received:
            self._witness(Happening("received", known.calling, known.address, received=known.received))

    def _may_connect(self, calling: str, address: str) -> bool:
        if self._peers:
            return (calling, address) in self._peers
        return ipaddress.ip_address(address).is_loopback

    def _on_store(self, event: Any) -> int:
        known = self._open.get(event.assoc)
        sender = Sender(str(event.assoc.requestor.ae_title).strip(), "" if known is None else known.address)
        taken = self._intake.take(
            announced_by(event, sender.name, self._ae_title), event.encoded_dataset(include_meta=False), sender
        )
        if known is not None and taken.instance is not None and taken.status == SUCCESS:
            study = taken.instance.study_uid
            known.received[study] = known.received.get(study, 0) + 1
        return taken.status


def announced_by(event: Any, sender: str, receiver: str) -> Announced:
    """Return what a C-STORE request announces."""
    request = event.request
    return Announced(
        str(request.AffectedSOPClassUID),
        str(request.AffectedSOPInstanceUID),
        UID(event.context.transfer_syntax),
        sender[:16],
        receiver,
    )


def _cannot_listen(host: str, port: int, error: OSError) -> ListenError:
    return ListenError(f"Cannot listen on {host}:{port}: {error.strerror}. Set listener.port to a free one.")


@dataclass
class _Open:
    """An association that is open: who has it, and how many instances of which study came by it."""

    calling: str
    address: str
    received: dict[str, int] = field(default_factory=dict)
    ticket: int = -1

    @property
    def peer(self) -> tuple[str, str]:
        return self.calling, self.address
