"""The fragments of an instance go into its message as they come: pynetdicom copies each of them five times on its way.

All else goes pynetdicom's way: the command before them, a PDU of several items, and the end of the message, which is
handed on as a last fragment without bytes. `pacs.inside` sees whether pynetdicom still does so.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pynetdicom.association import Association
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_items import PresentationDataValueItem

# PS3.8 9.3.1: type, reserved, length of what follows.
PDU_HEADER = 6
_PDU = struct.Struct(">BxL")
# PS3.8 9.3.5.1 and E.2, of the first item: length of what follows, presentation context, message control header.
_ITEM = struct.Struct(">LBB")
_P_DATA_TF = 0x04
_COMMAND, _LAST = 0x01, 0x02
# PS3.7 9.3.1.1, of the command set.
_NUMBERS = {"MessageID": 0x00000110, "Priority": 0x00000700}
_UIDS = {"AffectedSOPClassUID": 0x00000002, "AffectedSOPInstanceUID": 0x00001000}
_MOVE_ORIGINATOR = 0x00001030
_NUMBER = struct.Struct("<H")
_ESTABLISHED = "Sta6"  # PS3.8 9.2.1


class Source(Protocol):
    """Where PDUs come from. All raise OSError beyond a limit."""

    def peek(self, size: int) -> memoryview:
        """Return the next bytes and leave them; fewer where there is nothing more."""
        ...

    def expect(self, size: int) -> None:
        """Count a PDU of so many bytes, which begins."""
        ...

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield so many bytes as they come; fewer where there is nothing more."""
        ...


@dataclass(frozen=True)
class _Fragment:
    """Of a PDU with one item, which holds a part of a dataset. size: bytes of the dataset."""

    context_id: int
    size: int
    last: bool


def take_fragments(association: Association, source: Source) -> None:
    """Let the fragments of instances that an association receives go straight into their message."""
    service = association.dul
    read_other = service._read_pdu_data  # noqa: SLF001

    def read() -> None:
        message = association.dimse.message
        if not isinstance(message, C_STORE_RQ) or service.state_machine.current_state != _ESTABLISHED:
            read_other()
            return
        try:
            fragment = _next_fragment(source)
            missing = 0 if fragment is None else _take(fragment, source, message)
        except (OSError, MemoryError):
            missing = 1
        if missing:
            service.event_queue.put("Evt17")  # the connection is closed
        elif fragment is None:
            read_other()
        elif fragment.last:
            message.message_to_primitive = partial(  # type: ignore[method-assign]
                _request, message, message.message_to_primitive
            )
            service._recv_pdu.put(_end(fragment.context_id))  # noqa: SLF001
            service.event_queue.put("Evt10")  # a P-DATA-TF has come

    service._read_pdu_data = read  # type: ignore[method-assign]  # noqa: SLF001


def _next_fragment(source: Source) -> _Fragment | None:
    """Return what comes, where it is a fragment of a dataset and nothing else."""
    start = source.peek(PDU_HEADER)
    if len(start) < PDU_HEADER:
        return None
    kind, length = _PDU.unpack(start)
    if kind != _P_DATA_TF or length < _ITEM.size:
        return None
    start = source.peek(PDU_HEADER + _ITEM.size)
    if len(start) < PDU_HEADER + _ITEM.size:
        return None
    item, context_id, control = _ITEM.unpack(start[PDU_HEADER:])
    if item != length - 4 or control & _COMMAND:
        return None
    return _Fragment(context_id, length - _ITEM.size, bool(control & _LAST))


def _take(fragment: _Fragment, source: Source, message: C_STORE_RQ) -> int:
    """Write a fragment into its message; return how many bytes of it did not come."""
    source.expect(_ITEM.size + fragment.size)
    missing = PDU_HEADER + _ITEM.size + fragment.size
    for piece in source.pieces(PDU_HEADER + _ITEM.size):
        missing -= len(piece)
    dataset: Any = message.data_set  # typed with the None that it is before the message begins
    for piece in source.pieces(fragment.size):
        missing -= dataset.write(piece)
    return missing


def _request(message: C_STORE_RQ, otherwise: Callable[[], Any]) -> Any:
    """Return the request that a message is, as pynetdicom does, which converts each element of it twice.

    otherwise: that, for what a plain request does not say.
    """
    command = message.command_set
    if _MOVE_ORIGINATOR in command:
        return otherwise()
    request = C_STORE()
    try:
        for keyword, tag in _NUMBERS.items():
            setattr(request, keyword, _NUMBER.unpack(command.get_item(tag).value)[0])
        for keyword, tag in _UIDS.items():
            setattr(request, keyword, command.get_item(tag).value.decode("ascii").rstrip("\0 "))
    except Exception:  # pynetdicom and pydicom raise whatever they like on garbage
        return otherwise()
    request.DataSet = message.data_set
    request._context_id = message.context_id  # noqa: SLF001
    return request


def _end(context_id: int) -> P_DATA_TF:
    item = PresentationDataValueItem()
    item.presentation_context_id, item.presentation_data_value = context_id, bytes([_LAST])
    pdu = P_DATA_TF()
    pdu.presentation_data_value_items.append(item)
    return pdu
