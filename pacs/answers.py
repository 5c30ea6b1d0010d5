"""The answer to C-STORE (PS3.7 9.3.1.2) in its few bytes: pynetdicom builds a dataset for it, twice."""

import struct
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

_LAST_OF_COMMAND = b"\x03"  # PS3.8 E.2: a fragment of a command, the last one
_C_STORE_RSP, _NO_DATASET = 0x8001, 0x0101
# What a P-DATA-TF adds to a fragment: length, presentation context, control header (PS3.8 9.3.5).
_OVERHEAD = 6


def answer_at_once(association: Association) -> None:
    """Let an association send answers to C-STORE as they are encoded here; all else goes its way."""
    send: Callable[[Any, int], None] = association.dimse.send_msg

    def send_message(primitive: Any, context_id: int) -> None:
        if not _is_plain_answer(primitive):
            send(primitive, context_id)
            return
        command = encode_answer(primitive)
        longest = association.dimse.maximum_pdu_size
        if longest and len(command) + _OVERHEAD > longest:
            send(primitive, context_id)
            return
        data = P_DATA()
        data.presentation_data_value_list.append([context_id, _LAST_OF_COMMAND + command])  # type: ignore[arg-type]
        association.dul.send_pdu(data)

    association.dimse.send_msg = send_message  # type: ignore[method-assign]


def encode_answer(answer: C_STORE) -> bytes:
    """Return the command set of an answer, in Implicit VR Little Endian (PS3.7 6.3.1)."""
    elements = b"".join(
        (
            _element(0x0002, _padded(str(answer.AffectedSOPClassUID))),
            _element(0x0100, struct.pack("<H", _C_STORE_RSP)),
            _element(0x0120, struct.pack("<H", answer.MessageIDBeingRespondedTo)),
            _element(0x0800, struct.pack("<H", _NO_DATASET)),
            _element(0x0900, struct.pack("<H", answer.Status)),
            _element(0x1000, _padded(str(answer.AffectedSOPInstanceUID))),
        )
    )
    return _element(0x0000, struct.pack("<L", len(elements))) + elements


def _is_plain_answer(primitive: Any) -> bool:
    """Whether a message is an answer to C-STORE and says nothing but its status."""
    if not isinstance(primitive, C_STORE):
        return False
    said: Any = primitive  # typed without the None that each of these begins as
    needed = (said.Status, said.MessageIDBeingRespondedTo, said.AffectedSOPClassUID, said.AffectedSOPInstanceUID)
    if None in needed or said.ErrorComment is not None or said.OffendingElement is not None:
        return False
    return f"{said.AffectedSOPClassUID}{said.AffectedSOPInstanceUID}".isascii()  # a sender may have named anything


def _element(number: int, value: bytes) -> bytes:
    return struct.pack("<HHL", 0x0000, number, len(value)) + value


def _padded(uid: str) -> bytes:
    return uid.encode("ascii") + b"\0" * (len(uid) % 2)
