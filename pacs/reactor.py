"""Waits for what comes, where pynetdicom looks for it every millisecond: an image that waits twice is an image late.

An association has two threads. One reads and writes PDUs: `PromptSocket.ready` waits for the connection and for what is
to be sent. The other serves messages: `wake_up` lets it wait for the next one. Nothing else of pynetdicom is changed;
`pacs.inside` sees whether a new version still has the loops that this rests on.
"""

import os
import queue
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

# Timers and ends are looked at so often while nothing comes.
_WAIT_SECONDS = 0.05
_WAIT_MILLISECONDS = 50
# An association that has ended is not waited for.
_ENDING_SECONDS = 0.001
# Bytes that are read ahead at most: two PDUs of those who send the largest.
_AHEAD = 1 << 18
_NOTHING = (None, None)


class PromptSocket(AssociationSocket):
    """A connection that is waited for together with what is to be sent on it, and that is acknowledged at once.

    What has come is read as a whole, not header by header.
    """

    def __init__(self, association: Association, connection: Any) -> None:
        super().__init__(association, client_socket=connection)
        self._ahead = memoryview(bytearray(_AHEAD))
        self._taken = self._read = 0  # positions in it
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._waking = threading.Lock()
        self._retire = weakref.finalize(self, _close, self._woken, self._waker)
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def wake(self) -> None:
        """Let the thread that waits look what there is to send."""
        with self._waking, suppress(OSError):  # it is full of such calls
            if self._retire.alive:
                os.write(self._waker, b"\0")

    def retire(self) -> None:
        """Give back what waking takes; for the end of the thread that waits, and of no other."""
        with self._waking:
            self._retire()

    @property
    def ready(self) -> bool:
        """Whether something has come; waits for it a moment where nothing else is to be done."""
        connection: Any = self.socket
        service = self.assoc.dul
        if connection is None or not self._is_connected:
            time.sleep(_ENDING_SECONDS)
            return False
        if self.held:
            return True
        if isinstance(connection, ssl.SSLSocket) and connection.pending():
            return True
        busy = not self.event_queue.empty() or service.state_machine.current_state == "Sta13"
        poll = select.poll()  # select(2) knows no descriptor above 1023
        try:
            poll.register(self._woken, select.POLLIN)
            poll.register(connection, select.POLLIN)
            found = {descriptor for descriptor, _event in poll.poll(0 if busy else _WAIT_MILLISECONDS)}
        except (OSError, ValueError):
            self.event_queue.put("Evt17")
            return False
        if self._woken in found:
            os.read(self._woken, 4096)
            found.remove(self._woken)
        return bool(found)

    @property
    def held(self) -> int:
        """The number of bytes that were read and not yet taken."""
        return self._read - self._taken

    def look(self, size: int) -> memoryview:
        """Return so many bytes of those that were read, or all of them, and leave them."""
        return self._ahead[self._taken : min(self._read, self._taken + size)]

    def take(self, most: int) -> memoryview:
        """Return so many bytes of those that were read, or all of them; valid until more is read."""
        taken = self.look(most)
        self._taken += len(taken)
        return taken

    def fill(self, seconds: float) -> bool:
        """Read what has come, wait so long for it; False where the peer has closed the connection. Raises OSError."""
        connection: Any = self.socket
        left = self.held
        self._ahead[:left] = self.look(left)
        self._taken, self._read = 0, left
        connection.settimeout(seconds)
        count = connection.recv_into(self._ahead[left:])
        self._read += count
        if hasattr(socket, "TCP_QUICKACK"):  # a sender without TCP_NODELAY waits 40 ms for that, at every image
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return bool(count)


def wake_up(association: Association, connection: PromptSocket) -> None:
    """Let both threads of an association that has not begun wait for each other instead of looking."""
    service, messages = association.dul, association.dimse
    service._run_loop_delay = 0.0  # noqa: SLF001 – it waits for the connection
    run = service.run

    def run_and_retire() -> None:
        try:
            run()
        finally:
            connection.retire()

    service.run = run_and_retire  # type: ignore[method-assign]
    service.to_provider_queue = _ToldQueue(connection.wake)
    # The end of an association comes by another queue than its messages.
    service.to_user_queue = _ToldQueue(lambda: messages.msg_queue.put(_NOTHING))

    def next_message(block: bool = False) -> Any:
        timeout = messages.dimse_timeout if block else _WAIT_SECONDS
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                message = messages.msg_queue.get(timeout=left)
            except queue.Empty:
                return _NOTHING
            # Who waits for an answer is woken by an end only.
            if message != _NOTHING or not block or service.peek_next_pdu() is not None:
                return message

    messages.get_msg = next_message  # type: ignore[method-assign]


class _ToldQueue(queue.Queue[Any]):
    """A queue that tells of what is put into it."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item into the queue and tell of it."""
        super().put(item, block, timeout)
        self._tell()


def _close(*descriptors: int) -> None:
    for each in descriptors:
        os.close(each)
