"""C-STORE to a PACS."""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pacs.destinations.destination import Offer
from pacs.errors import DeliveryError, Refused, Retry, UnsupportedClass
from pacs.report import Document

_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_DUPLICATE_INSTANCE = 0x0111  # it has this very UID already: an earlier attempt arrived
_SOP_CLASS_NOT_SUPPORTED = 0x0122
_NOT_AUTHORISED = 0x0124  # a matter of configuration on the other side
_CONNECT_SECONDS = 10


class DimseDestination:
    """A storage SCP at host and port. `timeout` in seconds holds for connecting and for each answer."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        ae_title: str,
        calling_ae: str,
        timeout: float = 30,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self._host, self._port, self._ae_title, self._calling_ae = host, port, ae_title, calling_ae
        self._timeout = timeout
        self._tls = None if tls is None else (tls, host)

    def deliver(self, offer: Offer) -> Document:
        """Propose every SOP class of the offer and send the first that is accepted."""
        with self._associate(offer.sop_classes) as association:
            accepted = {str(context.abstract_syntax) for context in association.accepted_contexts}
            refusal: Refused | None = None
            for sop_class in offer.sop_classes:
                if sop_class not in accepted:
                    continue
                document = offer.document(sop_class)
                try:
                    self._store(association, document)
                except UnsupportedClass as error:
                    refusal = error
                    continue
                return document
        raise refusal or UnsupportedClass(f"{self.name} accepts none of the report's SOP classes.")

    def check(self) -> None:
        """Send a C-ECHO. Raises DeliveryError."""
        with self._associate([str(Verification)]) as association:
            status = association.send_c_echo()
            if status.get("Status") != 0:
                raise DeliveryError(f"{self.name} did not answer the C-ECHO with success.")

    @contextmanager
    def _associate(self, sop_classes: Sequence[str]) -> Iterator[Association]:
        entity = AE(self._calling_ae)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout
        entity.connection_timeout = min(_CONNECT_SECONDS, self._timeout)
        for sop_class in sop_classes:
            entity.add_requested_context(sop_class, _SYNTAXES)
        try:
            association = entity.associate(
                self._host, self._port, ae_title=self._ae_title, max_pdu=0, tls_args=self._tls
            )
        except OSError as error:
            raise Retry(f"{self.name} ({self._host}:{self._port}): {error.strerror or error}.") from error
        if not association.is_established:
            answer = association.acceptor.primitive
            if answer is not None and answer.result == 0 and not association.accepted_contexts:
                # pynetdicom aborts an association in which nothing was accepted.
                raise UnsupportedClass(f"{self.name} accepts none of the SOP classes proposed to it.")
            raise Retry(f"{self.name} ({self._host}:{self._port}): {_why(association)}")
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _store(self, association: Association, document: Document) -> None:
        try:
            answer = association.send_c_store(dcmread(BytesIO(document.content)))
        except (RuntimeError, ValueError) as error:
            raise Retry(f"{self.name}: the association ended before the report was sent ({error}).") from error
        status = answer.get("Status")
        if status is None:
            raise Retry(f"{self.name}: no answer to the C-STORE within {self._timeout:g} s.")
        # Success, or a warning: stored, perhaps with elements coerced (PS3.4 table B.2-1).
        if status in (0x0000, 0x0001, _DUPLICATE_INSTANCE) or status >> 12 == 0xB:
            return
        comment = str(answer.get("ErrorComment", "")).strip()
        reason = f"{self.name} answered 0x{status:04X}" + (f" ({comment})." if comment else ".")
        if status >> 8 == 0xA7 or status in (0x0110, _NOT_AUTHORISED) or 0x0211 <= status <= 0x0213:
            raise Retry(reason)
        if status == _SOP_CLASS_NOT_SUPPORTED or status >> 8 == 0xA9:
            raise UnsupportedClass(reason)
        raise Refused(reason)


def _why(association: Association) -> str:
    """Why no association came about. A rejection is a matter of configuration on either side: it is tried again."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"association rejected: {answer.result_str.lower()}, {answer.reason_str.lower()}."
    return "no association could be made; is the PACS running and the address right?"
