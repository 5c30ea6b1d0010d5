"""What is counted of all peers: associations, connections, and bytes of messages under way.

Of one process in its own memory; of several that share a port in memory that all of them map, and no disk can fill.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

Peer = tuple[str, str]  # calling AE title and address


class Counts(Protocol):
    """What the listener counts. A ticket stands for an association."""

    def admit(self, peer: Peer, most: int, most_of_peer: int) -> int | str:
        """Count an association and return its ticket, or say how many there are already."""
        ...

    def dismiss(self, ticket: int) -> None:
        """Count an association no longer."""
        ...

    def connections(self, own: int) -> int:
        """Tell how many connections this process has; return how many there are."""
        ...

    def lead(self, own: int) -> int:
        """Return how many connections this process, which has so many, has more than the one that has the fewest."""
        ...

    def reserve(self, size: int, most: int) -> bool:
        """Count bytes under way (fewer, where negative); False where that would be too many."""
        ...


class LocalCounts:
    """The counts of a process that has the port to itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._peers: dict[int, Peer] = {}
        self._next = 0
        self._receiving = 0

    def admit(self, peer: Peer, most: int, most_of_peer: int) -> int | str:
        """Count an association and return its ticket, or say how many there are already."""
        with self._lock:
            reason = _too_many(Counter(self._peers.values())[peer], len(self._peers), most, most_of_peer)
            if reason is not None:
                return reason
            self._next += 1
            self._peers[self._next] = peer
            return self._next

    def dismiss(self, ticket: int) -> None:
        """Count an association no longer."""
        with self._lock:
            self._peers.pop(ticket, None)

    def connections(self, own: int) -> int:
        """Return how many connections there are: its own."""
        return own

    def lead(self, own: int) -> int:
        """Return 0: there is no other process."""
        return 0

    def reserve(self, size: int, most: int) -> bool:
        """Count bytes under way (fewer, where negative); False where that would be too many."""
        with self._lock:
            if size > 0 and self._receiving + size > most:
                return False
            self._receiving += size
            return True


_ROW = struct.Struct("=qq")  # of a process: connections, bytes under way
_SLOT = struct.Struct("=q32s")  # of an association: 1 + the number of its process, 0 where it is free; hash of the peer
_FREE = 0


class SharedCounts:
    """The counts of `processes` that share a port, of which this is number `part`, in `memory` that they inherit.

    A process that begins forgets what the one before it with its number had counted: that one is dead.
    """

    def __init__(self, memory: int, *, part: int, processes: int, slots: int) -> None:
        self._part, self._processes, self._slots = part, processes, slots
        self._memory = os.dup(memory)
        weakref.finalize(self, os.close, self._memory)
        self._lock = threading.Lock()
        self._map = mmap.mmap(self._memory, _size(processes, slots))
        with self._locked():
            _ROW.pack_into(self._map, _ROW.size * part, 0, 0)
            for slot, (owner, _peer) in enumerate(self._owners()):
                if owner == part + 1:
                    self._write(slot, _FREE, b"")

    @staticmethod
    def allocate(processes: int, slots: int) -> int:
        """Return the descriptor of memory for the counts of so many processes and associations."""
        memory = os.memfd_create("counts of the listeners")
        os.ftruncate(memory, _size(processes, slots))
        return memory

    def admit(self, peer: Peer, most: int, most_of_peer: int) -> int | str:
        """Count an association and return its ticket, or say how many there are already."""
        digest = hashlib.sha256("\0".join(peer).encode()).digest()
        with self._locked():
            owners = self._owners()
            taken = [known for owner, known in owners if owner != _FREE]
            reason = _too_many(taken.count(digest), len(taken), min(most, self._slots), most_of_peer)
            if reason is not None:
                return reason
            slot = next(index for index, (owner, _known) in enumerate(owners) if owner == _FREE)
            self._write(slot, self._part + 1, digest)
            return slot

    def dismiss(self, ticket: int) -> None:
        """Count an association no longer."""
        with self._locked():
            self._write(ticket, _FREE, b"")

    def connections(self, own: int) -> int:
        """Tell how many connections this process has; return how many all have."""
        with self._locked():
            _own, receiving = self._row(self._part)
            _ROW.pack_into(self._map, _ROW.size * self._part, own, receiving)
            return sum(self._row(part)[0] for part in range(self._processes))

    def lead(self, own: int) -> int:
        """Return how many connections this process, which has so many, has more than the one that has the fewest."""
        with self._locked():
            others = [self._row(part)[0] for part in range(self._processes) if part != self._part]
        return max(0, own - min(others, default=own))

    def reserve(self, size: int, most: int) -> bool:
        """Count bytes under way (fewer, where negative); False where that would be too many."""
        with self._locked():
            if size > 0 and sum(self._row(part)[1] for part in range(self._processes)) + size > most:
                return False
            own, receiving = self._row(self._part)
            _ROW.pack_into(self._map, _ROW.size * self._part, own, receiving + size)
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep out the other threads of this process, and the other processes."""
        with self._lock:
            # Not flock(2): who inherits a descriptor holds its locks too.
            fcntl.lockf(self._memory, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._memory, fcntl.LOCK_UN)

    def _row(self, part: int) -> tuple[int, int]:
        connections, receiving = _ROW.unpack_from(self._map, _ROW.size * part)
        return connections, receiving

    def _owners(self) -> list[tuple[int, bytes]]:
        first = _ROW.size * self._processes
        found = (_SLOT.unpack_from(self._map, first + _SLOT.size * slot) for slot in range(self._slots))
        return [(owner, peer) for owner, peer in found]

    def _write(self, slot: int, owner: int, peer: bytes) -> None:
        _SLOT.pack_into(self._map, _ROW.size * self._processes + _SLOT.size * slot, owner, peer)


def _size(processes: int, slots: int) -> int:
    return _ROW.size * processes + _SLOT.size * slots


def _too_many(of_peer: int, of_all: int, most: int, most_of_peer: int) -> str | None:
    if of_peer >= most_of_peer:
        return f"this peer has {of_peer} already"
    if of_all >= most:
        return f"there are {of_all} already"
    return None
