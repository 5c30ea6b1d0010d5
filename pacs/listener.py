"""The C-STORE and C-ECHO service: what arrives is handed to a store, durable before the answer.

The bytes of a dataset are kept as they came; only its first elements are read, never its pixels. Neither SQL nor
a broker is needed here.
"""

import ipaddress
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.dsutils import encode_file_meta
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import ThreadedAssociationServer

from pacs.elements import is_uid, text
from pacs.errors import ListenError, Unreadable
from pacs.series import CT_CLASSES
from pacs.spool import InstanceStore, ReceivedInstance, Stored, is_disk_full

logger = logging.getLogger(__name__)

# What `pacs.pixels` decodes.
CT_TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
)

# C-STORE statuses (PS3.4 table B.2-1, PS3.7 C).
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000

# A-ASSOCIATE-RJ (PS3.8 table 9-21): permanent, by the service user, calling AE title not recognised.
_NOT_A_PEER = (0x01, 0x01, 0x03)

_IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Peer:
    """Who may connect: an AE title from an address."""

    ae_title: str
    address: str


class Listener:
    """A running service. With no peers any AE title may connect, but from this machine only."""

    def __init__(
        self,
        store: InstanceStore,
        *,
        ae_title: str,
        host: str,
        port: int,
        peers: Sequence[Peer] = (),
        associations: int = 32,
    ) -> None:
        self._store = store
        self._peers = frozenset((peer.ae_title, peer.address) for peer in peers)
        self._ae_title, self._address = ae_title, (host, port)
        self._server: ThreadedAssociationServer | None = None
        self._entity = AE(ae_title)
        self._entity.require_called_aet = True
        self._entity.maximum_pdu_size = 0
        self._entity.maximum_associations = associations
        self._entity.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            syntaxes = CT_TRANSFER_SYNTAXES if context.abstract_syntax in CT_CLASSES else ALL_TRANSFER_SYNTAXES
            self._entity.add_supported_context(str(context.abstract_syntax), list(syntaxes))

    @property
    def port(self) -> int:
        """The port that is listened on; it was chosen by the system where 0 was asked for."""
        if self._server is None:
            raise ListenError("The listener was not started.")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen in threads of its own. Raises ListenError where the address cannot be had."""
        # pynetdicom's own handlers format every message that comes, for a log that nobody keeps.
        _config.LOG_HANDLER_LEVEL = "none"
        handlers = [(evt.EVT_REQUESTED, self._on_requested), (evt.EVT_C_STORE, self._on_store)]
        try:
            self._server = self._entity.start_server(
                self._address,
                block=False,
                evt_handlers=handlers,  # type: ignore[arg-type]
            )
        except OSError as error:
            host, port = self._address
            raise ListenError(
                f"Cannot listen on {host}:{port}: {error.strerror}. Set listener.port to a free one."
            ) from error

    def stop(self, grace_seconds: float = 0) -> None:
        """Take no more associations; give those that are open so long to end by themselves, then abort them."""
        if self._server is None:
            return
        server, self._server = self._server, None
        deadline = time.monotonic() + grace_seconds
        # Closes the listening socket and leaves the associations alone.
        server.shutdown()
        while self._entity.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        for association in self._entity.active_associations:
            association.abort()

    def _on_requested(self, event: Any) -> None:
        requestor = event.assoc.requestor
        calling = "?"
        try:
            calling = str(requestor.primitive.calling_ae_title).strip()
            if self._may_connect(calling, str(requestor.address)):
                return
        except Exception:  # pynetdicom logs what a handler raises and goes on: that would let anybody in
            logger.exception("The request for an association cannot be judged.")
        logger.warning("Association of %s from %s rejected: not among the peers.", calling, requestor.address)
        event.assoc.acse.send_reject(*_NOT_A_PEER)
        event.assoc.kill()

    def _may_connect(self, calling: str, address: str) -> bool:
        if self._peers:
            return (calling, address) in self._peers
        return ipaddress.ip_address(address).is_loopback

    def _on_store(self, event: Any) -> int:
        calling = str(event.assoc.requestor.ae_title).strip()
        try:
            instance = _read(event, calling, self._ae_title)
        except Unreadable as error:
            logger.warning("C-STORE from %s refused: %s", calling, error)
            return CANNOT_UNDERSTAND
        if instance.sop_class_uid != event.request.AffectedSOPClassUID:
            logger.warning("C-STORE from %s refused: the dataset is not of the class announced.", calling)
            return DOES_NOT_MATCH_CLASS
        if instance.sop_uid != event.request.AffectedSOPInstanceUID:
            logger.warning("C-STORE from %s refused: the dataset is not the instance announced.", calling)
            return DOES_NOT_MATCH_CLASS
        try:
            outcome = self._store.store(instance)
        except OSError as error:
            logger.error("Instance %s from %s was not stored: %s", instance.sop_uid, calling, error.strerror)  # noqa: TRY400
            return OUT_OF_RESOURCES if is_disk_full(error) else PROCESSING_FAILURE
        if outcome is Stored.CONFLICT:
            logger.warning("Instance %s came again from %s with other content: kept aside.", instance.sop_uid, calling)
        return SUCCESS


def _read(event: Any, calling: str, called: str) -> ReceivedInstance:
    """Read the UIDs of a received dataset and put file meta information before it. Raises Unreadable."""
    meta: FileMetaDataset = event.file_meta
    meta.SourceApplicationEntityTitle = calling[:16]
    meta.ReceivingApplicationEntityTitle = called[:16]
    encoded = b"".join((b"\0" * 128, b"DICM", encode_file_meta(meta), event.encoded_dataset(include_meta=False)))
    try:
        dataset = dcmread(BytesIO(encoded), stop_before_pixels=True, specific_tags=list(_IDENTIFYING))
        uids = {keyword: text(dataset, keyword) for keyword in _IDENTIFYING}
    except Exception as error:  # pydicom raises whatever it likes on garbage
        raise Unreadable(f"the dataset cannot be read ({error})") from error
    for keyword, uid in uids.items():
        if not is_uid(uid):
            raise Unreadable(f"{keyword} is {'missing' if not uid else 'not a valid UID'}")
    return ReceivedInstance(
        sop_class_uid=uids["SOPClassUID"],
        sop_uid=uids["SOPInstanceUID"],
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        content=encoded,
    )
