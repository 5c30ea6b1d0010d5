"""The audit trail at a repository: DICOM audit messages by syslog over UDP and TLS, in order, none left out."""

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import trustme

from pacs.errors import Retry
from pacs.intake import Happening
from pacs.syslog import Syslog
from pacs.tls import Identity, client_context
from tests.plant import Plant, files
from tests.servers import free_port
from training.phantom import PhantomExam
from worker import audit, audit_relay, retention
from worker.audit_relay import AuditRelay
from worker.database import Database, now
from worker.tables import AuditEvent

Phantoms = tuple[Path, list[PhantomExam]]


class Datagrams:
    """A syslog server for UDP."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.socket.settimeout(0.3)

    def messages(self) -> list[ET.Element]:
        found = []
        while True:
            try:
                found.append(parsed(self.socket.recv(65536)))
            except TimeoutError:
                return found


def parsed(message: bytes) -> ET.Element:
    """Look at the header (RFC 5424) and return the XML behind it."""
    header, _mark, xml = message.partition(b"\xef\xbb\xbf")
    fields = header.decode("ascii").split(" ")
    assert (fields[0], fields[3], fields[5], fields[6]) == ("<85>1", "reticula", "DICOM+RFC3881", "-")
    root = ET.fromstring(xml)
    assert root.tag == "AuditMessage"
    assert [child.tag for child in root][:2] == ["EventIdentification", "ActiveParticipant"]
    assert root.find("AuditSourceIdentification") is not None
    for participant in root.iter("ActiveParticipant"):
        assert participant.get("UserID")
    return root


def event(root: ET.Element) -> tuple[str, str, str]:
    identification = root.find("EventIdentification")
    assert identification is not None
    code = identification.find("EventID")
    assert code is not None
    return (
        code.get("csd-code", ""),
        identification.get("EventActionCode", ""),
        identification.get("EventOutcomeIndicator", ""),
    )


@pytest.fixture
def repository() -> Iterator[Datagrams]:
    server = Datagrams()
    yield server
    server.socket.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_relay, "SETTLED", timedelta(0))


def test_the_way_of_an_exam_is_told(
    tmp_path: Path, database: Database, phantoms: Phantoms, repository: Datagrams
) -> None:
    exam = phantoms[1][0]
    plant = Plant(tmp_path / "data", database)
    relay = AuditRelay(database, Syslog("127.0.0.1", repository.port), "RETICULA")
    plant.app.registry.import_bundle("demo", actor="ana")
    journal = plant.app.journal
    journal.application("root", "started", "listener")
    journal.witness(Happening("rejected", "EVIL", "192.0.2.1", "not among the peers"))
    journal.witness(Happening("received", "CT1", "192.0.2.2", received={exam.study_uid: 14}))
    plant.receive(*files(phantoms), age=60)
    plant.run()
    with database.write() as session:
        audit.record(session, "exam shown", exam.series_uid, actor="ana")
    plant.sweep.tick()
    while relay.send_new():
        pass
    messages = repository.messages()
    by_event = [event(message) for message in messages]
    for expected in (
        ("110113", "E", "0"),  # a model was imported and promoted
        ("110100", "E", "0"),  # the listener started
        ("110113", "E", "4"),  # somebody was rejected
        ("110104", "C", "0"),  # instances came
        ("110103", "R", "0"),  # they were read, and looked at
        ("110104", "R", "4"),  # the report did not arrive
    ):
        assert expected in by_event
    received = messages[by_event.index(("110104", "C", "0"))]
    source, destination = received.findall("ActiveParticipant")
    assert (source.get("UserID"), source.get("NetworkAccessPointID")) == ("CT1", "192.0.2.2")
    assert source.get("UserIsRequestor") == "true"
    assert destination.get("UserID") == "RETICULA"
    study = received.find("ParticipantObjectIdentification")
    assert study is not None
    assert study.get("ParticipantObjectID") == exam.study_uid
    shown = [message for message in messages if message.find("ActiveParticipant[@UserID='ana']") is not None]
    assert event(shown[-1]) == ("110103", "R", "0")
    assert b"PHANTOM" not in b"".join(ET.tostring(message) for message in messages)
    assert relay.send_new() == 0
    retention.forget(database, plant.settings.data_dir, exam.series_uid, actor="ana")
    assert relay.send_new() == 1
    (erased,) = repository.messages()
    assert event(erased) == ("110105", "D", "0")
    study = erased.find("ParticipantObjectIdentification")
    assert study is not None
    assert study.get("ParticipantObjectID") == exam.study_uid


def test_what_a_repository_did_not_take_comes_later_and_in_order(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_relay, "_PAUSE_SECONDS", 0.0)
    authority = trustme.CA()
    with authority.cert_pem.tempfile(str(tmp_path)) as believed:
        ours, theirs = authority.issue_cert("reticula.local"), authority.issue_cert("127.0.0.1")
        key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
        ours.private_key_pem.write_to_path(key)
        ours.cert_chain_pems[0].write_to_path(chain)
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        theirs.configure_cert(server)
        server.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(server)
        port = free_port()
        syslog = Syslog("127.0.0.1", port, client_context(Identity(chain, key, Path(believed))))
        relay = AuditRelay(database, syslog, "RETICULA")
        for number in range(3):
            with database.write() as session:
                audit.record(session, "exam shown", f"1.2.{number}", actor="ana")
        with pytest.raises(Retry, match="takes no messages"):
            syslog.send([b"x"])
        assert relay.send_new() == 0
        taken: list[bytes] = []
        thread = threading.Thread(target=serve_once, args=(server, port, taken))
        thread.start()
        while not relay.send_new():
            pass
        thread.join(10)
    assert relay.send_new() == 0
    subjects = []
    content = b"".join(taken)
    while content:
        length, _space, rest = content.partition(b" ")
        message, content = rest[: int(length)], rest[int(length) :]
        found = parsed(message).find("ParticipantObjectIdentification")
        assert found is not None
        subjects.append(found.get("ParticipantObjectID"))
    assert subjects == ["1.2.0", "1.2.1", "1.2.2"]


def serve_once(context: ssl.SSLContext, port: int, taken: list[bytes]) -> None:
    """Take one connection to its end."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        connection, _address = listening.accept()
        with context.wrap_socket(connection, server_side=True) as secured:
            while piece := secured.recv(65536):
                taken.append(piece)
            # It says no goodbye, as many do.


def test_an_event_whose_transaction_may_still_be_open_waits(
    database: Database, repository: Datagrams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_relay, "SETTLED", timedelta(seconds=30))
    relay = AuditRelay(database, Syslog("127.0.0.1", repository.port), "RETICULA")
    with database.write() as session:
        audit.record(session, "exam shown", "1.2.3", actor="ana")
        # By another machine, whose clock is behind.
        session.add(AuditEvent(at=now(), stored_at=now() - timedelta(minutes=1), actor="bo", action="exam shown",
                               subject="1.2.4", detail={}))  # fmt: skip
    assert relay.send_new() == 0
    monkeypatch.setattr(audit_relay, "SETTLED", timedelta(0))
    assert relay.send_new() == 2


def test_many_studies_by_one_association_fit_into_datagrams(
    tmp_path: Path, database: Database, repository: Datagrams
) -> None:
    relay = AuditRelay(database, Syslog("127.0.0.1", repository.port), "RETICULA")
    plant = Plant(tmp_path / "data", database)
    studies = {f"1.2.840.113619.2.55.3.604688119.971.1449.{number:020d}": 1 for number in range(400)}
    plant.app.journal.witness(Happening("received", "CT1", "192.0.2.2", received=studies))
    plant.sweep.tick()
    assert relay.send_new() >= 1
    named = {
        part.get("ParticipantObjectID")
        for message in repository.messages()
        for part in message.iter("ParticipantObjectIdentification")
    }
    assert named == set(studies)
