"""The same instance in fragments of every kind is the same instance; what ends in the middle is none."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.dsutils import decode, encode

from pacs.listener import Listener
from pacs.spool import Spool
from pacs.transport import DEFAULT_LIMITS
from tests.datasets import ct
from tests.fuzz.corpus import association_request, c_store_command
from tests.servers import wait_for

CONTEXT, SOP_UID = 1, "1.2.3.4.5.1"
COMMAND, DATA, LAST = 0x01, 0x00, 0x02


def item(control: int, value: bytes) -> bytes:
    return struct.pack(">LBB", len(value) + 2, CONTEXT, control) + value


def pdu(*items: bytes) -> bytes:
    body = b"".join(items)
    return struct.pack(">BxL", 4, len(body)) + body


def pieces(value: bytes, size: int, kind: int) -> Iterator[bytes]:
    for start in range(0, len(value), size):
        last = LAST if start + size >= len(value) else 0
        yield item(kind | last, value[start : start + size])


def in_one_each(command: bytes, dataset: bytes) -> bytes:
    return pdu(item(COMMAND | LAST, command)) + pdu(item(DATA | LAST, dataset))


def command_in_pieces(command: bytes, dataset: bytes) -> bytes:
    return b"".join(map(pdu, pieces(command, 10, COMMAND))) + pdu(item(DATA | LAST, dataset))


def dataset_in_pieces(command: bytes, dataset: bytes) -> bytes:
    return pdu(item(COMMAND | LAST, command)) + b"".join(map(pdu, pieces(dataset, 9001, DATA)))


def all_in_one_pdu(command: bytes, dataset: bytes) -> bytes:
    return pdu(item(COMMAND | LAST, command), *pieces(dataset, 100_000, DATA))


def some_with_two_items(command: bytes, dataset: bytes) -> bytes:
    first, *others = pieces(dataset, 50_000, DATA)
    return pdu(item(COMMAND | LAST, command)) + pdu(first) + pdu(others[0], others[1]) + b"".join(map(pdu, others[2:]))


def last_without_bytes(command: bytes, dataset: bytes) -> bytes:
    return pdu(item(COMMAND | LAST, command)) + pdu(item(DATA, dataset)) + pdu(item(DATA | LAST, b""))


def unused_bits_set(command: bytes, dataset: bytes) -> bytes:
    """PS3.8 E.2: only the two lowest bits of the control header count."""
    return pdu(item(0xF0 | COMMAND | LAST, command)) + pdu(item(0xF0 | DATA | LAST, dataset))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


@pytest.fixture
def listener(spool: Spool) -> Iterator[Listener]:
    # There is room for one instance under way.
    limits = replace(DEFAULT_LIMITS, receiving=1 << 20)
    made = Listener(spool, ae_title="RETICULA", host="127.0.0.1", port=0, limits=limits)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def connection(listener: Listener) -> Iterator[socket.socket]:
    with connect(listener) as made:
        yield made


@pytest.fixture(scope="module")
def dataset() -> bytes:
    pixels = np.random.default_rng(1).integers(0, 2000, (512, 512), dtype=np.int16)
    return encode(ct(1, pixels=pixels, SOPInstanceUID=SOP_UID), False, True) or b""


@pytest.fixture(scope="module")
def command() -> bytes:
    return c_store_command(SOP_UID)


def connect(listener: Listener) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", listener.port), 10)
    made.sendall(association_request(syntaxes=[ExplicitVRLittleEndian]))
    kind, _body = receive(made)
    assert kind == 2, "the association is accepted"
    return made


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Return the type of the next PDU and what follows its header; type 0 where the connection is closed."""
    head = exactly(connection, 6)
    if len(head) < 6:
        return 0, b""
    kind, length = struct.unpack(">BxL", head)
    return kind, exactly(connection, length)


def exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        try:
            part = connection.recv(size - len(received))
        except ConnectionResetError:
            break
        if not part:
            break
        received += part
    return received


def status(connection: socket.socket) -> int:
    kind, body = receive(connection)
    assert kind == 4, "an answer comes"
    return int(decode(BytesIO(body[6:]), True, True).Status)


def ends(connection: socket.socket) -> bool:
    """Whether it is aborted or closed by the other side, and then, when this one has closed it, at its end."""
    kind, _body = receive(connection)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    return kind in (0, 7) and not exactly(connection, 1)


def stored(spool: Spool) -> list[Path]:
    return sorted((spool.root / "series").rglob("*.dcm"))


@pytest.mark.parametrize(
    "fragmented",
    [
        in_one_each, command_in_pieces, dataset_in_pieces, all_in_one_pdu, some_with_two_items, last_without_bytes,
        unused_bits_set,
    ],
)  # fmt: skip
@pytest.mark.parametrize("written", [1 << 20, 4099, 301])
def test_the_instance_is_what_was_sent(
    connection: socket.socket, spool: Spool, command: bytes, dataset: bytes,
    fragmented: Callable[[bytes, bytes], bytes], written: int,
) -> None:  # fmt: skip
    sent = fragmented(command, dataset)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(sent), written):
        connection.sendall(sent[start : start + written])
    assert status(connection) == 0
    (path,) = stored(spool)
    assert path.read_bytes().endswith(dataset)
    assert dcmread(path).file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert len(path.read_bytes()) < len(dataset) + 1000


def test_the_next_request_may_come_before_the_answer(connection: socket.socket, spool: Spool, dataset: bytes) -> None:
    uids = [f"{SOP_UID[:-1]}{number}" for number in (1, 2)]
    sent = [dataset_in_pieces(c_store_command(uid), dataset.replace(SOP_UID.encode(), uid.encode())) for uid in uids]
    connection.sendall(b"".join(sent))
    assert [status(connection), status(connection)] == [0, 0]
    assert [path.stem for path in stored(spool)] == uids


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI:UserWarning")
@pytest.mark.parametrize("uid", [b"1.2.3.4.\xe95.", b"not.a.uid.1", b"1.2.3.4.6.1"])
def test_a_name_that_cannot_be_is_answered_and_the_next_instance_taken(
    connection: socket.socket, spool: Spool, command: bytes, dataset: bytes, uid: bytes
) -> None:
    connection.sendall(in_one_each(command.replace(SOP_UID.encode(), uid), dataset))
    assert status(connection) >> 12 in (0xA, 0xC)
    connection.sendall(in_one_each(command, dataset))
    assert status(connection) == 0
    assert [path.stem for path in stored(spool)] == [SOP_UID]


ABORT = struct.pack(">BxLxxBB", 7, 4, 0, 0)


@pytest.mark.parametrize(
    "cut",
    [
        lambda command, dataset: in_one_each(command, dataset)[:-1000],
        lambda command, dataset: dataset_in_pieces(command, dataset)[: len(dataset) // 2],
        lambda command, dataset: pdu(item(COMMAND | LAST, command)) + pdu(item(DATA, dataset)) + ABORT,
        lambda command, dataset: pdu(item(COMMAND | LAST, command)) + pdu(item(DATA, dataset)) + b"\x04\0\0\0\0\x07\0",
        lambda command, _data: pdu(item(COMMAND | LAST, command))[:-3],
    ],
    ids=["in a fragment", "between", "by an abort", "in a header", "in the command"],
)
def test_an_end_in_the_middle_leaves_nothing(
    listener: Listener, connection: socket.socket, spool: Spool, command: bytes, dataset: bytes,
    cut: Callable[[bytes, bytes], bytes],
) -> None:  # fmt: skip
    connection.sendall(cut(command, dataset))
    connection.shutdown(socket.SHUT_WR)
    assert ends(connection)
    assert not stored(spool)
    assert not list((spool.root / "incoming").iterdir())
    again = connect(listener)
    again.sendall(in_one_each(command, dataset))
    assert status(again) == 0
    again.close()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda _command, dataset: pdu(item(DATA | LAST, dataset)),
        lambda command, dataset: pdu(item(COMMAND | LAST, command)) + pdu(struct.pack(">LBB", 9, CONTEXT, DATA)),
        lambda command, dataset: pdu(item(COMMAND | LAST, command)) + pdu(item(DATA, dataset), b"\0\0"),
        lambda command, dataset: pdu(item(COMMAND | LAST, command)) + pdu(b"\0\0\0\1\1"),
        lambda command, dataset: pdu(item(COMMAND | LAST, command)) + b"\x09\0\0\0\0\x02\0\0",
    ],
    ids=["no command", "a length too long", "a rest", "no control header", "an unknown PDU"],
)
def test_what_is_no_fragment_ends_the_association(
    listener: Listener, connection: socket.socket, spool: Spool, command: bytes, dataset: bytes,
    wrong: Callable[[bytes, bytes], bytes],
) -> None:  # fmt: skip
    connection.sendall(wrong(command, dataset))
    started = time.monotonic()
    assert ends(connection)
    assert time.monotonic() - started < 10
    assert not stored(spool)
    again = connect(listener)
    again.sendall(in_one_each(command, dataset))
    assert status(again) == 0
    again.close()
    wait_for(lambda: len(stored(spool)) == 1, "the instance after it")
