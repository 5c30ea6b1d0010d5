"""What `transport`, `reactor` and `fragments` rest on inside pynetdicom, and whether it is still there.

They replace parts of its loops that it does not offer for that. A version whose loops have changed could lose images
without a word, so the listener does not start on one. Whoever adapts it reads the new loops before the texts here.
"""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pynetdicom import acse, association, dimse, dimse_messages, dul, fsm, pdu, transport

from pacs.errors import ListenError


@dataclass(frozen=True)
class Reliance:
    """A function of `owner`, and the texts that its source has, in their order."""

    owner: Any
    name: str
    texts: tuple[str, ...]

    def holds(self) -> bool:
        """Whether the function is there, and its source still has the texts."""
        try:
            source = inspect.getsource(getattr(self.owner, self.name))
        except (AttributeError, OSError, TypeError):  # gone, or installed without its source: nobody can tell
            return False
        place = 0
        for text in self.texts:
            place = source.find(text, place)
            if place < 0:
                return False
        return True


_PROVIDER, _MESSAGES = dul.DULServiceProvider, dimse.DIMSEServiceProvider
_MESSAGE = dimse_messages.DIMSEMessage
RELIANCES = (
    # The loops that wait.
    Reliance(_PROVIDER, "run_reactor", ("self._process_recv_primitive()", "self._is_transport_event()")),
    Reliance(_PROVIDER, "run_reactor", ("time.sleep(self._run_loop_delay)",)),
    Reliance(_PROVIDER, "_is_transport_event", ("self.socket.ready",)),
    Reliance(_PROVIDER, "send_pdu", ("self.to_provider_queue.put",)),
    Reliance(
        association.Association, "_run_reactor",
        ("self.dimse.get_msg(block=False)", "is_release_requested", "is_aborted"),
    ),
    Reliance(acse.ACSE, "is_aborted", ("self.dul.peek_next_pdu()",)),
    Reliance(_MESSAGES, "get_msg", ("self.msg_queue.get",)),
    Reliance(transport.RequestHandler, "_create_association", ("assoc.set_socket(sock)",)),
    # How a message is put together.
    Reliance(_PROVIDER, "_read_pdu_data", ("self.socket.recv(6)", "self.socket.recv(pdu_length)")),
    Reliance(_PROVIDER, "_read_pdu_data", ("self._decode_pdu", "self.event_queue.put(event)", "_recv_pdu.put(")),
    Reliance(_PROVIDER, "_is_transport_event", ("self._read_pdu_data()",)),
    Reliance(fsm, "DT_2", ("dul._recv_pdu.get(False)",)),
    Reliance(_MESSAGES, "receive_primitive", ("self.message.message_to_primitive()", "self.message = None")),
    Reliance(_MESSAGE, "decode_msg", ("self.__class__ = _MESSAGE_TYPES[",)),
    Reliance(_MESSAGE, "decode_msg", ("self.data_set).write(data[1:])",)),
)  # fmt: skip


def changes() -> list[str]:
    """Return the names of the parts that have changed."""
    return sorted({*(each.name for each in RELIANCES if not each.holds()), *_other_changes()})


def _other_changes() -> Iterator[str]:
    if not isinstance(inspect.getattr_static(transport.AssociationSocket, "ready", None), property):
        yield "AssociationSocket.ready"
    if getattr(dul, "_PDU_TYPES", {}).get(b"\x04") != (pdu.P_DATA_TF, "Evt10"):
        yield "dul._PDU_TYPES"
    if fsm.TRANSITION_TABLE.get(("Evt10", "Sta6")) != "DT-2":
        yield "fsm.TRANSITION_TABLE"
    try:
        makes = inspect.getsource(dimse_messages.DIMSEMessage.message_to_primitive).splitlines()
    except (AttributeError, OSError):
        makes = []
    given = [line.split("=")[0].strip() for line in makes if "primitive._" in line]
    if given != ["primitive._context_id", "primitive._dataset_path", "primitive._dataset_file"]:
        yield "DIMSEMessage.message_to_primitive"


def check() -> None:
    """Raise ListenError where pynetdicom is not one that the listener knows from inside."""
    changed = changes()
    if changed:
        raise ListenError(
            f"The internals of pynetdicom {version('pynetdicom')} are not those that this listener was tested with "
            f"({', '.join(changed)} changed): install the version that Reticula names "
            "(pip install 'pynetdicom>=3.0.4,<3.1')."
        )
