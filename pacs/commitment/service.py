"""Storage commitment on an association: requests of others to us, and their answers to ours (PS3.4 J.3.2 and J.3.3)."""

import logging
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt

from pacs.commitment.messages import (
    ALL_COMMITTED,
    PUSH_MODEL_INSTANCE,
    REQUEST_COMMITMENT,
    SOME_FAILED,
    CommitmentRequest,
    CommitmentResult,
)
from pacs.commitment.provider import CommitmentProvider, Requestor
from pacs.discreet import said

logger = logging.getLogger(__name__)

# Statuses (PS3.7 C).
_SUCCESS = 0x0000
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_INSTANCE = 0x0112
_NO_SUCH_EVENT = 0x0113
_NO_SUCH_ACTION = 0x0123
_INVALID_ARGUMENT = 0x0115
_RESOURCE_LIMITATION = 0x0213

# Some twenty thousand instances: more than a study has.
_LONGEST_MESSAGE = 2 << 20


class CommitmentService:
    """What a listener does with N-ACTION and N-EVENT-REPORT.

    `arrived` is given the results of requests that were ours; it returns when they are durable and raises OSError.
    """

    def __init__(self, provider: CommitmentProvider, arrived: Callable[[CommitmentResult], None]) -> None:
        self.provider = provider
        self._arrived = arrived

    def handlers(self) -> list[tuple[Any, Callable[[Any], tuple[int, Dataset | None]]]]:
        """Return what a listener binds."""
        return [(evt.EVT_N_ACTION, self._on_action), (evt.EVT_N_EVENT_REPORT, self._on_report)]

    def _on_action(self, event: Any) -> tuple[int, Dataset | None]:
        requestor = event.assoc.requestor
        calling = str(requestor.ae_title).strip()
        if event.request.RequestedSOPInstanceUID != PUSH_MODEL_INSTANCE:
            return _NO_SUCH_INSTANCE, None
        if event.action_type != REQUEST_COMMITMENT:
            return _NO_SUCH_ACTION, None
        information = event.request.ActionInformation
        if information is not None and len(information.getvalue()) > _LONGEST_MESSAGE:
            return _RESOURCE_LIMITATION, None
        try:
            request = CommitmentRequest.read(event.action_information)
        except Exception as error:  # pydicom raises whatever it likes on garbage
            logger.warning("Storage commitment asked by %s refused: %s.", calling, said(error))
            return _INVALID_ARGUMENT, None
        try:
            taken = self.provider.take(Requestor(calling, str(requestor.address)), request, event.assoc)
        except OSError as error:
            logger.error("Storage commitment asked by %s was not kept: %s", calling, error.strerror)  # noqa: TRY400
            return _PROCESSING_FAILURE, None
        return (_SUCCESS if taken else _RESOURCE_LIMITATION), None

    def _on_report(self, event: Any) -> tuple[int, Dataset | None]:
        return take_report(event, str(event.assoc.requestor.ae_title).strip(), self._arrived)


def take_report(event: Any, sender: str, arrived: Callable[[CommitmentResult], None]) -> tuple[int, Dataset | None]:
    """Answer an N-EVENT-REPORT: with success only after `arrived`, which raises OSError, has kept its result."""
    if event.event_type not in (ALL_COMMITTED, SOME_FAILED):
        return _NO_SUCH_EVENT, None
    try:
        result = CommitmentResult.read(event.event_information)
    except Exception as error:  # pydicom raises exceptions of any kind on garbage
        logger.warning("The result of a storage commitment from %s refused: %s.", sender, said(error))
        return _INVALID_ARGUMENT, None
    try:
        arrived(result)
    except OSError as error:
        logger.error("The result of a storage commitment was not kept: %s", error.strerror or error)  # noqa: TRY400
        return _PROCESSING_FAILURE, None
    return _SUCCESS, None
