"""What one peer does or fails to do costs nobody else anything: limits on number, size and time."""

import gc
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from pacs.counts import LocalCounts
from pacs.intake import Happening
from pacs.listener import Listener
from pacs.spool import Spool
from pacs.transport import DEFAULT_LIMITS, Limits, Server
from tests.datasets import ct
from tests.fuzz.corpus import association_request
from tests.servers import wait_for

TIGHT = replace(
    DEFAULT_LIMITS, negotiation=1.0, idle=1.5, pdu_seconds=1.5, pdu=1 << 16, instance=300_000, connections=8
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


@pytest.fixture
def seen() -> list[Happening]:
    return []


@pytest.fixture
def start(spool: Spool, seen: list[Happening]) -> Iterator[Callable[..., Listener]]:
    running = []

    def run(limits: Limits = TIGHT, **options: object) -> Listener:
        listener = Listener(
            spool, ae_title="RETICULA", host="127.0.0.1", port=0, limits=limits, witness=seen.append, **options,  # type: ignore[arg-type]
        )  # fmt: skip
        listener.start()
        running.append(listener)
        return listener

    yield run
    for listener in running:
        listener.stop()


def associate(listener: Listener, title: str = "TESTER", *, called: str = "RETICULA") -> Association:
    entity = AE(title)
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    return entity.associate("127.0.0.1", listener.port, ae_title=called)


def stores(listener: Listener, number: int) -> int | None:
    association = associate(listener)
    if not association.is_established:
        return None
    try:
        return int(association.send_c_store(ct(number)).Status)
    finally:
        association.release()


def closed(connection: socket.socket, seconds: float) -> bool:
    """Whether the other side closes the connection within so many seconds."""
    connection.settimeout(seconds)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_a_connection_that_says_nothing_is_closed_and_disturbs_nobody(start: Callable[..., Listener]) -> None:
    listener = start()
    with socket.create_connection(("127.0.0.1", listener.port)) as silent:
        assert stores(listener, 1) == 0
        assert closed(silent, 5)


def test_half_a_pdu_is_not_waited_for(start: Callable[..., Listener]) -> None:
    listener = start()
    with socket.create_connection(("127.0.0.1", listener.port)) as slow:
        slow.sendall(struct.pack(">BBL", 1, 0, 5000) + b"\0" * 10)
        started = time.monotonic()
        for _ in range(12):  # a byte now and then keeps no connection open
            time.sleep(0.25)
            try:
                slow.sendall(b"\0")
            except OSError:
                break
        assert closed(slow, 3)
        assert time.monotonic() - started < 5
    assert stores(listener, 1) == 0


def test_the_time_for_a_pdu_begins_once(start: Callable[..., Listener]) -> None:
    listener = start()
    with socket.create_connection(("127.0.0.1", listener.port)) as slow:
        started = time.monotonic()
        slow.sendall(struct.pack(">BBL", 1, 0, 5000))
        time.sleep(1.2)  # of 1.5
        slow.sendall(b"\0" * 4000)
        assert closed(slow, 3)
        assert time.monotonic() - started < 2.4


def test_who_asks_and_goes_at_once_keeps_no_place(start: Callable[..., Listener]) -> None:
    counts = LocalCounts()
    listener = start(associations=64, associations_per_peer=64, counts=counts)
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", listener.port)) as hasty:
            hasty.sendall(association_request())
    wait_for(lambda: not listener._open, "the ends of the associations")
    assert [counts.admit(("FUZZ", "127.0.0.1"), 64, 64) for _ in range(64)][-1] is not None
    assert isinstance(counts.admit(("FUZZ", "127.0.0.1"), 65, 65), int)
    assert counts.admit(("FUZZ", "127.0.0.1"), 65, 65) == "this peer has 65 already"


def test_an_idle_association_ends(start: Callable[..., Listener]) -> None:
    association = associate(start())
    assert association.is_established
    wait_for(lambda: not association.is_established, "the end of the association", 8)


@pytest.mark.parametrize("length", [1 << 20, 0xFFFFFFFF])
def test_a_pdu_of_absurd_length_is_not_read(start: Callable[..., Listener], length: int) -> None:
    listener = start()
    with socket.create_connection(("127.0.0.1", listener.port)) as liar:
        liar.sendall(struct.pack(">BBL", 4, 0, length))
        assert closed(liar, 1.4), "at once, not after the time for a PDU"
    assert stores(listener, 1) == 0


def test_an_instance_beyond_the_limit_ends_its_association_only(start: Callable[..., Listener], spool: Spool) -> None:
    listener = start()
    other = associate(listener, "OTHER")
    association = associate(listener)
    status = association.send_c_store(ct(1, rows=512, columns=512)).get("Status")
    assert status is None
    assert other.send_c_store(ct(2)).get("Status") == 0
    other.release()
    for number in range(3, 12):  # what was counted for the one that ended is free again
        assert stores(listener, number) == 0
    assert len(list(spool.root.rglob("*.dcm"))) == 10


def test_associations_are_limited_in_all_and_for_each_peer(
    start: Callable[..., Listener], seen: list[Happening]
) -> None:
    listener = start(replace(TIGHT, idle=30.0), associations=3, associations_per_peer=2)
    first, second = associate(listener, "ONE"), associate(listener, "ONE")
    third = associate(listener, "ONE")
    assert (first.is_established, second.is_established, third.is_rejected) == (True, True, True)
    other = associate(listener, "TWO")
    assert other.is_established
    assert associate(listener, "THREE").is_rejected
    first.release()
    wait_for(lambda: associate(listener, "THREE").is_established, "a place that is free again", 5)
    reasons = ["this peer has 2 already", "there are 3 already"]
    wait_for(lambda: [each.reason for each in seen if each.kind == "rejected"][:2] == reasons, "both in the trail", 5)
    for association in (second, other):
        association.abort()


def test_connections_are_limited_before_they_say_who_they_are(start: Callable[..., Listener]) -> None:
    listener = start(replace(TIGHT, negotiation=3.0))
    connections = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(12)]
    try:
        wait_for(lambda: sum(closed(connection, 0.02) for connection in connections) >= 3, "an end of the excess", 2)
        wait_for(lambda: stores(listener, 1) == 0, "the next good instance", 10)
    finally:
        for connection in connections:
            connection.close()


def test_each_rejection_says_why(start: Callable[..., Listener], seen: list[Happening]) -> None:
    listener = start()
    assert associate(listener, called="ANOTHER").is_rejected
    wait_for(lambda: seen, "the happening", 5)
    assert [(each.kind, each.calling, each.reason) for each in seen] == [
        ("rejected", "TESTER", "it calls 'ANOTHER', which is not our AE title")
    ]


def test_what_came_is_told_when_the_association_ends(start: Callable[..., Listener], seen: list[Happening]) -> None:
    listener = start()
    assert stores(listener, 1) == 0
    wait_for(lambda: seen, "the happening", 5)
    assert [(each.kind, each.calling, list(each.received.values())) for each in seen] == [("received", "TESTER", [1])]


def test_below_the_watermark_nobody_begins_and_who_has_begun_gets_a700(
    start: Callable[..., Listener], spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10_000_000]
    monkeypatch.setattr(spool, "_min_free", 1_000_000)
    monkeypatch.setattr(spool, "_free", lambda: free[0])
    listener = start(replace(TIGHT, idle=30.0))
    association = associate(listener)
    free[0] = 900_000
    assert associate(listener).is_rejected
    assert association.send_c_store(ct(1)).get("Status") == 0
    free[0] = 505_000
    assert association.send_c_store(ct(2)).get("Status") == 0xA700
    association.release()
    free[0] = 2_000_000
    assert stores(listener, 2) == 0
    assert list((spool.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x01\x00\x00\x00\x00\x44\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_connection_that_closes_without_asking_anything_is_gone_at_once(
    start: Callable[..., Listener], content: bytes
) -> None:
    listener = start(replace(TIGHT, negotiation=60))
    before = threading.active_count()
    for _ in range(3 * TIGHT.connections):
        with suppress(OSError), socket.create_connection(("127.0.0.1", listener.port), timeout=5) as connection:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(100)
    wait_for(lambda: threading.active_count() <= before, "the end of their threads", 5)
    assert stores(listener, 1) == 0


def test_connections_that_came_and_went_leave_no_descriptor(start: Callable[..., Listener]) -> None:
    """Without waiting for the interpreter to collect what refers to itself."""
    listener = start()
    associate(listener).release()
    gc.collect()
    gc.disable()
    try:
        before = psutil.Process().num_fds()
        for _ in range(20):
            associate(listener).release()
            socket.create_connection(("127.0.0.1", listener.port), 5).close()
        wait_for(lambda: psutil.Process().num_fds() <= before, "the descriptors of connections that are gone", 20)
    finally:
        gc.enable()


def test_a_command_that_is_none_ends_its_association_and_leaves_nothing(
    start: Callable[..., Listener], seen: list[Happening]
) -> None:
    listener = start(replace(TIGHT, negotiation=60, idle=60))
    before = threading.active_count()
    for number in range(3):
        association = associate(listener, "ODD")
        assert association.send_c_store(ct(number + 1)).Status == 0
        # A command set with a message ID and nothing else.
        element = struct.pack("<HHLH", 0, 0x0110, 2, 1)
        fragment = struct.pack(">LBB", len(element) + 2, 1, 3) + element
        association.dul.socket.send(struct.pack(">BBL", 4, 0, len(fragment)) + fragment)  # type: ignore[union-attr]
        deadline = time.monotonic() + 5
        while association.is_established and time.monotonic() < deadline:
            time.sleep(0.05)
        assert association.is_aborted
    wait_for(lambda: threading.active_count() <= before, "the end of their threads", 5)
    assert [happening.kind for happening in seen] == ["received"] * 3
    assert stores(listener, 9) == 0


def test_a_copy_of_a_context_shares_nothing_that_changes(start: Callable[..., Listener]) -> None:
    """pynetdicom copies the contexts for each association; ours are copied faster and must be as independent."""
    listener = start()
    server = listener._server
    assert server is not None
    (original, *_others) = server.contexts
    copied = deepcopy(original)
    assert copied == original
    assert vars(copied).keys() == vars(original).keys()
    assert not {
        name
        for name, value in vars(original).items()
        if isinstance(value, list | dict | set) and value is vars(copied)[name]
    }
    copied.transfer_syntax = [ExplicitVRLittleEndian]
    copied.scu_role = not original.scu_role
    assert copied != original
    assert len(original.transfer_syntax) > 1


def test_without_descriptors_a_connection_waits_and_is_not_asked_for_without_a_pause(
    start: Callable[..., Listener], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    accept = Server.get_request

    def ask(server: Server) -> tuple[Any, Any]:
        asked.append(time.monotonic())
        return accept(server)

    monkeypatch.setattr(Server, "get_request", ask)
    listener = start()
    with socket.socket() as waiting:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(waiting.fileno())  # that is free
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            waiting.connect(("127.0.0.1", listener.port))
            wait_for(lambda: len(asked) >= 6, "that the connection is asked for again", 10)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert asked[5] - asked[0] >= 0.45
        said = [record.getMessage() for record in caplog.records if "may open no more files" in record.getMessage()]
        assert len(said) == 1
        waiting.sendall(association_request())
        assert waiting.recv(1) == b"\x02"  # A-ASSOCIATE-AC (PS3.8 9.3.3)
    assert stores(listener, 1) == 0x0000
