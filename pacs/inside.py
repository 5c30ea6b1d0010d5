"""What `transport`, `reactor` and `fragments` rest on inside pynetdicom, and whether it is still there.

They replace parts of its loops that it does not offer for that. A version whose loops have changed could lose images
without a word, so the listener does not start on one. Whoever adapts it reads the new loops before the texts here.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from pynetdicom import acse, association, dimse, dimse_messages, dul, fsm, pdu, transport

from pacs.errors import ListenError


@dataclass(frozen=True)
class Reliance:
    """A function and the texts that its source has, in their order."""

    name: str
    function: Callable[..., Any]
    texts: tuple[str, ...]

    def holds(self) -> bool:
        """Whether the source still has them."""
        try:
            source = inspect.getsource(self.function)
        except (OSError, TypeError):  # installed without its source: nobody can tell
            return False
        place = 0
        for text in self.texts:
            place = source.find(text, place)
            if place < 0:
                return False
        return True


def reliances() -> tuple[Reliance, ...]:
    """Return what is relied on, as it is now."""
    provider, messages = dul.DULServiceProvider, dimse.DIMSEServiceProvider
    of_message = dimse_messages.DIMSEMessage
    sources: tuple[tuple[Callable[..., Any], tuple[str, ...]], ...] = (
        # The loops that wait.
        (provider.run_reactor, ("self._process_recv_primitive()", "self._is_transport_event()")),
        (provider.run_reactor, ("time.sleep(self._run_loop_delay)",)),
        (provider._is_transport_event, ("self.socket.ready",)),  # noqa: SLF001
        (provider.send_pdu, ("self.to_provider_queue.put",)),
        (
            association.Association._run_reactor,  # noqa: SLF001
            ("self.dimse.get_msg(block=False)", "is_release_requested", "is_aborted"),
        ),
        (acse.ACSE.is_aborted, ("self.dul.peek_next_pdu()",)),
        (messages.get_msg, ("self.msg_queue.get",)),
        (transport.RequestHandler._create_association, ("assoc.set_socket(sock)",)),  # noqa: SLF001
        # How a message is put together.
        (provider._read_pdu_data, ("self.socket.recv(6)", "self.socket.recv(pdu_length)")),  # noqa: SLF001
        (provider._read_pdu_data, ("self._decode_pdu", "self.event_queue.put(event)", "_recv_pdu.put(")),  # noqa: SLF001
        (provider._is_transport_event, ("self._read_pdu_data()",)),  # noqa: SLF001
        (fsm.DT_2, ("dul._recv_pdu.get(False)",)),
        (messages.receive_primitive, ("self.message.message_to_primitive()", "self.message = None")),
        (of_message.decode_msg, ("self.__class__ = _MESSAGE_TYPES[",)),
        (of_message.decode_msg, ("self.data_set).write(data[1:])",)),
    )
    return tuple(Reliance(function.__qualname__, function, texts) for function, texts in sources)


def changes() -> list[str]:
    """Return the names of what is no longer as it was; empty where everything is."""
    return sorted({*(each.name for each in reliances() if not each.holds()), *_other_changes()})


def _other_changes() -> Iterator[str]:
    if not isinstance(inspect.getattr_static(transport.AssociationSocket, "ready", None), property):
        yield "AssociationSocket.ready"
    if getattr(dul, "_PDU_TYPES", {}).get(b"\x04") != (pdu.P_DATA_TF, "Evt10"):
        yield "dul._PDU_TYPES"
    if fsm.TRANSITION_TABLE.get(("Evt10", "Sta6")) != "DT-2":
        yield "fsm.TRANSITION_TABLE"
    try:
        makes = inspect.getsource(dimse_messages.DIMSEMessage.message_to_primitive).splitlines()
    except OSError:
        makes = []
    given = [line.split("=")[0].strip() for line in makes if "primitive._" in line]
    if given != ["primitive._context_id", "primitive._dataset_path", "primitive._dataset_file"]:
        yield "DIMSEMessage.message_to_primitive"


def check() -> None:
    """Raise ListenError where pynetdicom is not one that the listener knows from inside."""
    changed = changes()
    if changed:
        raise ListenError(
            f"The inside of pynetdicom {version('pynetdicom')} is not the one that this listener was tested with "
            f"({', '.join(changed)} changed): install the version that Reticula names "
            "(pip install 'pynetdicom>=3.0.4,<3.1')."
        )
