"""The result of a storage commitment on the association by which it was asked for, between what the peer does there.

pynetdicom's own `send_n_event_report` stops everything else on its association and takes the next message, whatever it
is, for the answer; a peer that goes on storing would wait in vain.
"""

import queue
import threading
from io import BytesIO
from typing import Any

from pydicom.uid import UID
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode

from pacs.commitment.messages import PUSH_MODEL, PUSH_MODEL_INSTANCE, CommitmentResult


class Outlet:
    """Sends from the association's own thread, when no message of the peer's is there to be served."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._get = association.dimse.get_msg
        self._waiting: queue.SimpleQueue[tuple[CommitmentResult, threading.Event]] = queue.SimpleQueue()
        self._asked: dict[int, threading.Event] = {}
        self._number = 0
        association.dimse.get_msg = self._next  # type: ignore[method-assign]

    @classmethod
    def of(cls, association: Association) -> "Outlet":
        """Return the outlet of an association; it has one at most."""
        own = getattr(association.dimse.get_msg, "__self__", None)
        return own if isinstance(own, cls) else cls(association)

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        return bool(self._association.is_established)

    def send(self, result: CommitmentResult, seconds: float) -> bool:
        """Send a result; whether it was answered with success within so many seconds."""
        answered = threading.Event()
        self._waiting.put((result, answered))
        return answered.wait(seconds)

    def _next(self, block: bool = False) -> Any:
        """Return the peer's next message, as pynetdicom does; answers to ours are taken out."""
        context_id, message = self._get(block)
        if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is not None:
            answered = self._asked.pop(message.MessageIDBeingRespondedTo, None)
            if answered is not None and message.Status == 0:
                answered.set()
            return None, None
        if message is None:
            self._send_next()
        return context_id, message

    def _send_next(self) -> None:
        try:
            result, answered = self._waiting.get_nowait()
        except queue.Empty:
            return
        contexts = [each for each in self._association.accepted_contexts if each.abstract_syntax == PUSH_MODEL]
        syntax = contexts[0].transfer_syntax[0]
        encoded = encode(result.dataset(), syntax.is_implicit_VR, syntax.is_little_endian)
        self._number = self._number % 65535 + 1
        request = N_EVENT_REPORT()
        request.MessageID, request.EventTypeID = self._number, result.event_type
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(PUSH_MODEL), UID(PUSH_MODEL_INSTANCE)
        request.EventInformation = BytesIO(encoded or b"")
        self._asked[self._number] = answered
        self._association.dimse.send_msg(request, contexts[0].context_id or 0)
