"""C-STORE to a PACS, with storage commitment where it is asked for."""

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pacs.commitment import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_COMMITMENT,
    CommitmentRequest,
    CommitmentResult,
    Reference,
    take_report,
)
from pacs.destinations.destination import Offer, Sent
from pacs.errors import DeliveryError, Refused, Retry, UnsupportedClass
from pacs.report import Document

_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_DUPLICATE_INSTANCE = 0x0111  # it has this very UID already: an earlier attempt arrived
_SOP_CLASS_NOT_SUPPORTED = 0x0122
_NOT_AUTHORISED = 0x0124  # a matter of configuration on the other side
_CONNECT_SECONDS = 10
# A PACS that commits at once does so on this association; one that does later opens its own.
_COMMITMENT_SECONDS = 2


class _Results:
    """Results of storage commitments that come on our association.

    The awaited one is handed over; `others` keeps those of earlier transactions, and what comes too late.
    """

    def __init__(self, awaited: str | None, others: Callable[[CommitmentResult], None]) -> None:
        self._awaited, self._others = awaited, others
        self._lock, self._arrived = threading.Lock(), threading.Event()
        self._found: CommitmentResult | None = None

    def take(self, result: CommitmentResult) -> None:
        """Hand a result over, or have it kept. Raises OSError."""
        with self._lock:
            if result.transaction_uid == self._awaited:
                self._found, self._awaited = result, None
                self._arrived.set()
                return
        self._others(result)

    def wait(self, seconds: float) -> CommitmentResult | None:
        """Return the awaited result; after None has been returned it goes to `others`."""
        self._arrived.wait(seconds)
        with self._lock:
            self._awaited = None
            return self._found


def _keep_nothing(_result: CommitmentResult) -> None:
    raise OSError("Nobody keeps results of storage commitments here.")


class DimseDestination:
    """A storage SCP at host and port. `timeout` in seconds holds for connecting and for each answer.

    commitment: whether a delivery counts only when the SCP has committed itself. keep: is given the results that come
    on our association and that no delivery waits for there; it returns when they are durable and raises OSError.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        ae_title: str,
        calling_ae: str,
        timeout: float = 30,
        tls: ssl.SSLContext | None = None,
        *,
        commitment: bool = False,
        keep: Callable[[CommitmentResult], None] = _keep_nothing,
    ) -> None:
        self.name = name
        self._host, self._port, self._ae_title, self._calling_ae = host, port, ae_title, calling_ae
        self._timeout, self._commitment, self._keep = timeout, commitment, keep
        self._tls = None if tls is None else (tls, host)

    def deliver(self, offer: Offer) -> Sent:
        """Propose every SOP class of the offer, send the first that is accepted, and ask for its commitment if set."""
        results = _Results(offer.transaction_uid, self._keep)
        proposed = [*offer.sop_classes, *([PUSH_MODEL] if offer.transaction_uid else [])]
        with self._associate(proposed, results) as association:
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
                if offer.transaction_uid is None:
                    return Sent(document)
                return Sent(document, self._commit(association, results, document, offer.transaction_uid))
        raise refusal or UnsupportedClass(f"{self.name} accepts none of the report's SOP classes.")

    def check(self) -> None:
        """Send a C-ECHO. Raises DeliveryError."""
        with self._associate([str(Verification), *([PUSH_MODEL] if self._commitment else [])]) as association:
            status = association.send_c_echo()
            if status.get("Status") != 0:
                raise DeliveryError(f"{self.name} did not answer the C-ECHO with success.")
            if self._commitment and PUSH_MODEL not in {each.abstract_syntax for each in association.accepted_contexts}:
                raise DeliveryError(f"{self.name} offers no storage commitment, which its settings ask for.")

    @contextmanager
    def _associate(self, sop_classes: Sequence[str], results: _Results | None = None) -> Iterator[Association]:
        def take_result(event: Any) -> tuple[int, Dataset | None]:
            return take_report(event, self.name, self._keep if results is None else results.take)

        entity = AE(self._calling_ae)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout
        entity.connection_timeout = min(_CONNECT_SECONDS, self._timeout)
        for sop_class in sop_classes:
            entity.add_requested_context(sop_class, _SYNTAXES)
        try:
            association = entity.associate(
                self._host,
                self._port,
                ae_title=self._ae_title,
                max_pdu=0,
                tls_args=self._tls,
                evt_handlers=[(evt.EVT_N_EVENT_REPORT, take_result)],
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

    def _commit(
        self,
        association: Association,
        results: _Results,
        document: Document,
        transaction_uid: str,
    ) -> bool:
        """Ask for the commitment; False where its result will come by another association."""
        if PUSH_MODEL not in {context.abstract_syntax for context in association.accepted_contexts}:
            raise Retry(f"{self.name} has the report, but offers no storage commitment, which its settings ask for.")
        reference = Reference(document.sop_class_uid, document.sop_uid)
        request = CommitmentRequest(transaction_uid, (reference,))
        try:
            status, _reply = association.send_n_action(
                request.dataset(), REQUEST_COMMITMENT, PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
        except (RuntimeError, ValueError) as error:
            raise Retry(f"{self.name}: the association ended before its commitment was asked for ({error}).") from error
        answer = status.get("Status")
        if answer != 0:
            said = "nothing" if answer is None else f"0x{answer:04X}"
            raise Retry(f"{self.name} has the report, but answered the request for its commitment with {said}.")
        result = results.wait(_COMMITMENT_SECONDS)
        if result is None:
            return False
        if reference.sop_uid in {each.sop_uid for each in result.committed}:
            return True
        reasons = ", ".join(f"0x{reason:04X}" for _reference, reason in result.failed)
        raise Retry(f"{self.name} did not commit itself to the report ({reasons or 'its answer does not name it'}).")


def _why(association: Association) -> str:
    """Why no association came about. A rejection is a matter of configuration on either side: it is tried again."""
    answer = association.acceptor.primitive
    if association.is_rejected and answer is not None:
        return f"association rejected: {answer.result_str.lower()}, {answer.reason_str.lower()}."
    return "no association could be made; is the PACS running and the address right?"
