"""The listener over real sockets: DCMTK's clients, pynetdicom's, and bytes that no client sends."""

import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from pacs.acceptance import CT_TRANSFER_SYNTAXES
from pacs.errors import ListenError
from pacs.listener import Listener, Peer
from pacs.spool import ReceivedInstance, Spool, Stored
from tests.datasets import SERIES, ct, write
from tests.installation import send


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.prepare()
    return made


@pytest.fixture
def listener(spool: Spool) -> Iterator[Listener]:
    running = Listener(spool, ae_title="RETICULA", host="127.0.0.1", port=0)
    running.start()
    yield running
    running.stop()


def stored(spool: Spool) -> list[Path]:
    return sorted(path for path in spool.root.rglob("*.dcm"))


def store(port: int, dataset: Dataset, *, announce: str = CTImageStorage, called: str = "RETICULA") -> int | None:
    """Send a dataset as pynetdicom lets one announce it; return the status, None without an association."""
    entity = AE("TESTER")
    entity.add_requested_context(announce, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return None
    try:
        return int(association.send_c_store(dataset).Status)
    finally:
        association.release()


def serves(listener: Listener, spool: Spool, number: int = 900) -> bool:
    """Whether the next good instance is stored."""
    return store(listener.port, ct(number)) == 0 and any(
        path.name == f"{SERIES}.{number}.dcm" for path in stored(spool)
    )


def test_echo(listener: Listener, dcmtk: dict[str, str]) -> None:
    done = subprocess.run([dcmtk["echoscu"], "-aec", "RETICULA", "127.0.0.1", str(listener.port)], check=False)
    assert done.returncode == 0


def test_the_dataset_is_kept_byte_for_byte_with_its_sender(
    listener: Listener, spool: Spool, real_ct: Path, dcmtk: dict[str, str]
) -> None:
    source = next((real_ct / "A0002-B70f").glob("*.dcm"))
    done = send(dcmtk["storescu"], listener.port, source, calling="CT99", options=("-xe",))
    assert done.returncode == 0, done.stderr
    (path,) = stored(spool)
    kept = dcmread(path)
    assert kept.file_meta.SourceApplicationEntityTitle == "CT99"
    sent = dcmread(source)
    assert kept == sent
    # What follows the file meta information is what the client encoded.
    assert path.read_bytes().endswith(sent.PixelData)


@pytest.mark.parametrize("syntax", CT_TRANSFER_SYNTAXES)
@pytest.mark.parametrize("sop_class", [CTImageStorage, EnhancedCTImageStorage])
def test_every_transfer_syntax_is_accepted(listener: Listener, sop_class: str, syntax: str) -> None:
    entity = AE("TESTER")
    entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", listener.port, ae_title="RETICULA")
    assert association.is_established
    assert [context.transfer_syntax[0] for context in association.accepted_contexts] == [syntax]
    association.release()


def test_other_classes_are_laid_aside(listener: Listener, spool: Spool) -> None:
    report = ct(SOPClassUID=ComprehensiveSRStorage, Modality="SR")
    assert store(listener.port, report, announce=ComprehensiveSRStorage) == 0
    assert [path.relative_to(spool.root).parts[0] for path in stored(spool)] == ["aside"]
    assert list(spool.series()) == []


def test_garbage_on_the_port(listener: Listener, spool: Spool) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + os.urandom(300),
        b"\x00" * 4096,
        b"\x04\x00",
    ):
        with socket.create_connection(("127.0.0.1", listener.port), timeout=5) as connection:
            connection.sendall(garbage)
    assert serves(listener, spool)


def test_a_wrong_called_title_is_rejected(listener: Listener, spool: Spool) -> None:
    assert store(listener.port, ct(), called="ANOTHER") is None
    assert stored(spool) == []
    assert serves(listener, spool)


def test_only_peers_may_connect(spool: Spool) -> None:
    peers = [Peer("CT1", "127.0.0.1"), Peer("TESTER", "192.0.2.7")]
    listener = Listener(spool, ae_title="RETICULA", host="127.0.0.1", port=0, peers=peers)
    listener.start()
    try:
        assert store(listener.port, ct()) is None, "the title is known, but from another address"
        entity = AE("CT1")
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener.port, ae_title="RETICULA")
        assert association.is_established
        association.release()
    finally:
        listener.stop()


def test_an_abort_in_mid_transfer_leaves_nothing(listener: Listener, spool: Spool) -> None:
    entity = AE("TESTER")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", listener.port, ae_title="RETICULA", max_pdu=16382)
    assert association.is_established
    connection: Any = association.dul.socket.socket  # type: ignore[union-attr]
    # A P-DATA-TF that announces more than it holds, then nothing.
    connection.sendall(b"\x04\x00\x00\x10\x00\x00" + b"\x00\x0f\xff\xfc\x01\x03" + b"\x00" * 500)
    connection.shutdown(socket.SHUT_RDWR)
    connection.close()
    association.kill()
    assert stored(spool) == []
    assert list((spool.root / "incoming").iterdir()) == []
    assert serves(listener, spool)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"SOPInstanceUID": None}, 0xC000),
        ({"StudyInstanceUID": None}, 0xC000),
        ({"SeriesInstanceUID": "../../../../tmp/escape"}, 0xC000),
        ({"StudyInstanceUID": "1.2.3/../../.."}, 0xC000),
        ({"SOPInstanceUID": f"{SERIES}.77"}, 0xA900),
        ({"SOPClassUID": ComprehensiveSRStorage}, 0xA900),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_dataset_that_is_not_what_it_should_be(
    listener: Listener, spool: Spool, values: dict[str, Any], status: int, tmp_path: Path
) -> None:
    mode, config.settings.writing_validation_mode = config.settings.writing_validation_mode, config.IGNORE
    try:
        encoded = encode(ct(**values), is_implicit_vr=False, is_little_endian=True) or b""
        entity = AE("TESTER")
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = entity.associate("127.0.0.1", listener.port, ae_title="RETICULA")
        assert _send_as(association, encoded, CTImageStorage, f"{SERIES}.1") == status
        association.release()
    finally:
        config.settings.writing_validation_mode = mode
    assert stored(spool) == []
    assert serves(listener, spool)


def _send_as(association: Any, encoded: bytes, sop_class: str, sop_uid: str) -> int:
    """Send any bytes under any UIDs; pynetdicom's own client would refuse to."""
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, sop_uid
    request.DataSet = BytesIO(encoded)
    association._reactor_checkpoint.clear()  # the answer is ours, not the reactor's
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _context, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return int(answer.Status)


def test_a_dataset_of_noise_cannot_be_understood(listener: Listener, spool: Spool) -> None:
    entity = AE("TESTER")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", listener.port, ae_title="RETICULA")
    assert _send_as(association, os.urandom(5000), CTImageStorage, "1.2.3") == 0xC000
    association.release()
    assert stored(spool) == []
    assert serves(listener, spool)


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 0xA700), (errno.EDQUOT, 0xA700), (errno.EIO, 0x0110)])
def test_a_disk_that_does_not_take_it_has_its_status(number: int, status: int) -> None:
    class FullStore:
        def store(self, instance: ReceivedInstance) -> Stored:
            raise OSError(number, os.strerror(number))

        def objection(self) -> None:
            return None

    listener = Listener(FullStore(), ae_title="RETICULA", host="127.0.0.1", port=0)
    listener.start()
    try:
        assert store(listener.port, ct()) == status
    finally:
        listener.stop()


def test_many_associations_at_once(listener: Listener, spool: Spool, tmp_path: Path, dcmtk: dict[str, str]) -> None:
    folders = []
    for index in range(4):
        folder = tmp_path / str(index)
        write(folder, *(ct(number, SOPInstanceUID=f"{SERIES}.{number}") for number in range(index * 5, index * 5 + 10)))
        folders.append(folder)
    command = [dcmtk["storescu"], "-R", "+sd", "-aec", "RETICULA", "127.0.0.1", str(listener.port)]
    clients = [subprocess.Popen([*command, str(folder)]) for folder in folders]
    assert [client.wait(60) for client in clients] == [0, 0, 0, 0]
    assert len(stored(spool)) == 25, "what several senders bring is there once"


def test_a_taken_port_is_one_sentence(listener: Listener, spool: Spool) -> None:
    second = Listener(spool, ae_title="RETICULA", host="127.0.0.1", port=listener.port)
    with pytest.raises(ListenError, match=r"Cannot listen on 127\.0\.0\.1:\d+: .*listener\.port"):
        second.start()
