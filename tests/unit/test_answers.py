"""Answers to C-STORE are those that pynetdicom would send, byte for byte."""

import pytest
from pynetdicom.dimse_messages import C_STORE_RSP
from pynetdicom.dimse_primitives import C_STORE

from pacs.answers import encode_answer


@pytest.mark.parametrize("status", [0x0000, 0x0110, 0x0111, 0xA700, 0xA900, 0xC000])
@pytest.mark.parametrize("uid", ["1.2.3", "1.2.34", "2.25." + "9" * 38])
def test_answers_are_those_of_the_library(status: int, uid: str) -> None:
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo = 65535
    answer.AffectedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    answer.AffectedSOPInstanceUID = uid
    answer.Status = status
    message = C_STORE_RSP()
    message.primitive_to_message(answer)
    ((_context, fragment),) = next(message.encode_msg(1, 16384)).presentation_data_value_list
    assert bytes(fragment) == b"\x03" + encode_answer(answer)
