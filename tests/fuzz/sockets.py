"""Hostile bytes through real sockets to a running listener, and good instances in between."""

import random
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydicom.uid import CTImageStorage
from pynetdicom import AE

from tests.datasets import SERIES, ct
from tests.fuzz import corpus
from tests.installation import Installation

_PATIENCE_SECONDS = 3.0
_AT_ONCE = 6
_GOOD_EVERY = 250
_REQUEST, _DATASETS = corpus.association_request(), tuple(corpus.datasets())


@dataclass
class SocketCount:
    """What came of it. peak: of the listener's memory in bytes."""

    inputs: int = 0
    answered: int = 0
    good: int = 0
    peak: int = 0


def run(folder: Path, inputs: int, seed: int) -> SocketCount:
    """Send so many inputs. Raises AssertionError where a good instance is not served or memory grows too large."""
    installation = Installation(folder)
    installation.environment["RETICULA_LISTENER__NEGOTIATION_SECONDS"] = "3"
    installation.environment["RETICULA_LISTENER__IDLE_SECONDS"] = "3"
    process = installation.start("listen")
    listener = psutil.Process(process.pid)
    count, lock = SocketCount(), threading.Lock()

    def one(number: int) -> None:
        answered = _send(installation.port, random.Random(f"{seed} {number}"))
        with lock:
            count.inputs += 1
            count.answered += answered

    try:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for start in range(0, inputs, _GOOD_EVERY):
                list(pool.map(one, range(start, min(inputs, start + _GOOD_EVERY))))
                assert process.poll() is None, installation.log("listen")[-2000:]
                _serve_good(installation.port, count)
                count.peak = max(count.peak, listener.memory_info().rss)
                assert count.peak < 1 << 30, f"the listener takes {count.peak >> 20} MB"
        stored = list((installation.data / "spool" / "series").rglob("*.dcm"))
        assert {f"{SERIES}.{number}.dcm" for number in range(1, count.good + 1)} <= {path.name for path in stored}
        assert "Traceback" not in installation.log("listen"), installation.log("listen")[-4000:]
    finally:
        installation.close()
    return count


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change a few places: bytes, lengths, pieces left out, doubled or put in."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(data) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at : at + chance.randrange(16)] = chance.randbytes(chance.randrange(16))
        elif kind == 2:
            data[at:at] = chance.choice(corpus.DICTIONARY)
        elif kind == 3:
            del data[at : at + chance.randrange(64)]
        else:
            data[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1"))
    return bytes(data)


def _send(port: int, chance: random.Random) -> bool:
    """Send one input; whether anything was answered."""
    kinds: tuple[Callable[[], tuple[bytes, ...]], ...] = (
        lambda: (mutate(_REQUEST, chance),),
        lambda: (_REQUEST, mutate(_store(chance), chance)),
        lambda: (_REQUEST, _store(chance)[: chance.randrange(400)]),
        lambda: (_REQUEST, corpus.c_store(mutate(_dataset(chance), chance), "1.2.3.4.5.1")),
        lambda: (chance.randbytes(chance.randrange(1, 2000)),),
    )
    answered = False
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS) as connection:
        connection.settimeout(_PATIENCE_SECONDS)
        parts = chance.choice(kinds)()
        for index, part in enumerate(parts):
            connection.sendall(part)
            if index < len(parts) - 1:
                answered |= bool(connection.recv(4096))
        # It has to end by our closing, an abort or an answer; whoever waits for more is cut by the limits.
        connection.shutdown(socket.SHUT_WR)
        answered |= bool(connection.recv(4096))
    return answered


def _dataset(chance: random.Random) -> bytes:
    return chance.choice(_DATASETS)[1:]


def _store(chance: random.Random) -> bytes:
    return corpus.c_store(_dataset(chance), "1.2.3.4.5.1") + corpus.release()


def _serve_good(port: int, count: SocketCount) -> None:
    entity = AE("GOOD")
    entity.add_requested_context(CTImageStorage)
    association = entity.associate("127.0.0.1", port, ae_title="RETICULA")
    assert association.is_established, "the next good sender is not taken"
    status = association.send_c_store(ct(count.good + 1))
    association.release()
    assert status.get("Status") == 0, f"the next good instance is answered with {status.get('Status')}"
    count.good += 1
