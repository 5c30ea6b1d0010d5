"""STOW-RS in: a running HTTP server, real clients, and bytes that no client sends."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from pacs.intake import Happening
from pacs.spool import OnConflict, Spool
from pacs.tls import Identity, client_context, server_context
from tests.datasets import SERIES, STUDY, ct
from tests.installation import Installation
from tests.plant import files
from tests.servers import Orthanc, free_port
from training.phantom import PhantomExam
from worker.web.access import Access
from worker.web.app import make_app
from worker.web.server import HttpServer
from worker.web.stow import StoreLimits, StoreService

MULTIPART = 'multipart/related; type="application/dicom"; boundary=cut'


class Running:
    """A server over a spool of its own."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.spool = Spool(folder / "spool", min_free=options.pop("min_free", 0),
                           on_conflict=options.pop("on_conflict", OnConflict.ASIDE))  # fmt: skip
        self.spool.prepare()
        self.told: list[Happening] = []
        limits = StoreLimits(
            instance=options.pop("instance", 4 << 20), receiving=options.pop("receiving", 16 << 20),
            requests=options.pop("requests", 4), idle=options.pop("idle", 5.0),
        )  # fmt: skip
        tls = options.pop("tls", None)
        access = Access(options.pop("tokens", {}), with_certificate=tls is not None)
        service = StoreService(self.spool, access, limits, "RETICULA", self.told.append)
        self.server = HttpServer(
            make_app(self.spool, service), host="127.0.0.1", port=0, connections=16, tls=tls,
            header_seconds=options.pop("header_seconds", 5.0),
        )  # fmt: skip
        assert not options
        self.server.start()
        self.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{self.server.port}"

    def post(self, *parts: bytes, study: str = "", kind: str = MULTIPART, **headers: str) -> requests.Response:
        return requests.post(
            f"{self.url}/dicom-web/studies{study}", data=body(*parts), timeout=20,
            headers={"Content-Type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )  # fmt: skip

    def stored(self) -> list[str]:
        return sorted(path.name for path in (self.spool.root / "series").rglob("*.dcm"))

    def serves(self, **headers: str) -> bool:
        return self.post(file(ct(999)), **headers).status_code == 200


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def begin(**options: Any) -> Running:
        started.append(Running(tmp_path / f"server-{len(started)}", **options))
        return started[-1]

    yield begin
    for running in started:
        running.server.stop()


def file(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def body(*parts: bytes) -> bytes:
    head = b"\r\n--cut\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + part for part in parts) + b"\r\n--cut--\r\n"


def reasons(answer: requests.Response, sequence: str) -> list[int]:
    items = answer.json().get(sequence, {}).get("Value", [])
    return [item["00081197"]["Value"][0] for item in items]


FAILED, OTHERS, REFERENCED = "00081198", "0008119A", "00081199"


def test_instances_are_stored_byte_for_byte_and_named(start: Callable[..., Running]) -> None:
    running = start()
    first, second = ct(1), ct(2)
    answer = running.post(file(first), file(second))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json")
    named = [item["00081155"]["Value"][0] for item in answer.json()[REFERENCED]["Value"]]
    assert named == [first.SOPInstanceUID, second.SOPInstanceUID]
    assert running.stored() == [f"{SERIES}.1.dcm", f"{SERIES}.2.dcm"]
    kept = dcmread(next(running.spool.root.rglob(f"{SERIES}.1.dcm")))
    assert kept.file_meta.SourceApplicationEntityTitle == "HTTP"
    assert kept.file_meta.ReceivingApplicationEntityTitle == "RETICULA"
    assert kept.PixelData == first.PixelData
    (told,) = running.told
    assert (told.kind, told.received) == ("received", {STUDY: 2})
    again = running.post(file(first))
    assert (again.status_code, len(running.stored())) == (200, 2)


def test_a_dicomweb_client_stores_and_reads_the_answer(start: Callable[..., Running]) -> None:
    running = start()
    client = DICOMwebClient(f"{running.url}/dicom-web")
    answer = client.store_instances([dcmread(BytesIO(file(ct(number)))) for number in (1, 2)], study_instance_uid=STUDY)
    assert len(answer.ReferencedSOPSequence) == 2
    single = running.post(study=f"/{STUDY}", kind="application/dicom")
    assert single.status_code == 409
    alone = requests.post(
        f"{running.url}/dicom-web/studies", data=file(ct(3)), timeout=20,
        headers={"Content-Type": "application/dicom", "Accept": "application/dicom+xml"},
    )  # fmt: skip
    assert alone.status_code == 200
    assert 'keyword="ReferencedSOPInstanceUID"' in alone.text
    assert f"{SERIES}.3" in alone.text


def test_orthanc_sends_by_stow_and_by_chunks(start: Callable[..., Running], tmp_path: Path) -> None:
    running = start(tokens={"pacs": "secret"})
    orthanc = Orthanc(tmp_path / "orthanc")
    orthanc.dicomweb_servers = {
        "reticula": {"Url": f"{running.url}/dicom-web", "HttpHeaders": {"Authorization": "Bearer secret"}}
    }
    orthanc.start()
    try:
        for number in range(1, 5):
            requests.post(
                f"http://127.0.0.1:{orthanc.http}/instances", data=file(ct(number)), timeout=20
            ).raise_for_status()
        sent = requests.post(
            f"http://127.0.0.1:{orthanc.http}/dicom-web/servers/reticula/stow",
            json={"Resources": orthanc.get("/studies"), "Synchronous": True}, timeout=60,
        )  # fmt: skip
        assert sent.ok, sent.text
    finally:
        orthanc.stop()
    assert len(running.stored()) == 4
    assert {each.calling for each in running.told} == {"pacs"}


@pytest.mark.parametrize("accept", ["", "*/*", "application/dicom+json", "text/html, application/dicom+xml;q=0.9"])
def test_the_answer_is_made_as_it_is_asked_for(start: Callable[..., Running], accept: str) -> None:
    answer = start().post(file(ct(1)), Accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"application/dicom+{'xml' if 'xml' in accept else 'json'}"


def test_what_is_not_stored_is_named_with_its_reason(start: Callable[..., Running]) -> None:
    running = start(on_conflict=OnConflict.REFUSE, instance=200_000)
    # The first place where a UID stands is the file meta information.
    unknown_class = file(ct(2)).replace(CTImageStorage.encode(), b"1.2.840.10008.5.1.4.9.9.9", 1)
    other_class = file(ct(4)).replace(CTImageStorage.encode(), MRImageStorage.encode(), 1)
    other_syntax = file(ct(5)).replace(ExplicitVRLittleEndian.encode(), b"1.2.840.10008.1.2.9", 1)
    other_study = ct(3)
    other_study.StudyInstanceUID = "1.2.9"
    big = ct(6, rows=512, columns=512)
    answer = running.post(
        file(ct(1)), unknown_class, file(other_study), other_class, other_syntax, file(big), b"no DICOM at all",
        study=f"/{STUDY}",
    )  # fmt: skip
    assert answer.status_code == 202
    assert reasons(answer, FAILED) == [0x0122, 0xA900, 0xA900, 0xC122]
    assert reasons(answer, OTHERS) == [0xC000, 0xC000]
    assert running.stored() == [f"{SERIES}.1.dcm"]
    changed = ct(1, WindowCenter="99")
    refused = running.post(file(changed))
    assert (refused.status_code, reasons(refused, FAILED)) == (409, [0x0111])
    assert [each.kind for each in running.told] == ["received", "conflict"]


@pytest.mark.parametrize(
    ("sent", "kind", "status"),
    [
        (b"", "text/plain", 415),
        (b"", "", 415),
        (b"", 'multipart/related; type="application/dicom+json"; boundary=cut', 415),
        (b"", 'multipart/related; type="application/dicom"', 400),
        (b"", f'multipart/related; type="application/dicom"; boundary={"x" * 201}', 400),
        (b"garbage without a boundary", MULTIPART, 400),
        (b"--cut\r\nContent-Type: application/dicom\r\n\r\nbut no end", MULTIPART, 400),
        (b"--cut\r\n" + b"X" * 100_000 + b"\r\n\r\n", MULTIPART, 400),
        (b"--cut--\r\n", MULTIPART, 400),
        (b"", MULTIPART, 400),
    ],
)
def test_what_is_no_request_is_refused(start: Callable[..., Running], sent: bytes, kind: str, status: int) -> None:
    running = start()
    answer = requests.post(
        f"{running.url}/dicom-web/studies", data=sent, headers={"Content-Type": kind}, timeout=20
    )  # fmt: skip
    assert answer.status_code == status, answer.text
    assert len(answer.json()["detail"].split()) > 3
    assert running.stored() == []
    assert running.serves()


def test_only_accounts_may_store(start: Callable[..., Running]) -> None:
    running = start(tokens={"pacs": "secret", "other": "hidden"})
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic c2VjcmV0"}):
        answer = running.post(file(ct(1)), **header)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert running.stored() == []
    unset = start(tokens={"nobody": ""})
    assert unset.post(file(ct(1))).status_code == 401
    assert unset.post(file(ct(1)), Authorization="Bearer ").status_code == 401
    assert running.serves(Authorization="bearer hidden")
    assert running.told[-1].calling == "other"
    assert requests.get(f"{running.url}/health", timeout=5).json() == {"status": "ok"}
    described = requests.get(f"{running.url}/openapi.json", timeout=5).json()
    assert set(described["paths"]) == {"/dicom-web/studies", "/dicom-web/studies/{study_uid}", "/health"}
    assert "202" in described["paths"]["/dicom-web/studies"]["post"]["responses"]


def test_mutual_tls_names_the_sender(start: Callable[..., Running], tmp_path: Path) -> None:
    authority = trustme.CA()
    theirs = authority.issue_cert("modality@hospital.example", common_name="CT 99 Röntgen")
    ours = authority.issue_cert("127.0.0.1")
    names = ("own.pem", "own.key", "authorities.pem", "client.pem")
    certificate, key, authorities, client = (tmp_path / name for name in names)
    ours.private_key_pem.write_to_path(key)
    ours.cert_chain_pems[0].write_to_path(certificate)
    authority.cert_pem.write_to_path(authorities)
    theirs.private_key_and_cert_chain_pem.write_to_path(client)
    running = start(tls=server_context(Identity(certificate, key, authorities)))
    with pytest.raises(requests.RequestException):
        requests.get(f"{running.url}/health", verify=str(authorities), timeout=5)
    answer = requests.post(
        f"{running.url}/dicom-web/studies", data=body(file(ct(1))), headers={"Content-Type": MULTIPART},
        verify=str(authorities), cert=str(client), timeout=20,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    assert running.told[-1].calling == "CT 99 R_ntgen"
    stranger = trustme.CA().issue_cert("127.0.0.1")
    stranger.private_key_and_cert_chain_pem.write_to_path(tmp_path / "stranger.pem")
    with pytest.raises(requests.RequestException):
        requests.get(f"{running.url}/health", verify=str(authorities), cert=str(tmp_path / "stranger.pem"), timeout=5)
    assert client_context(Identity(certificate, key, authorities)) is not None


def test_a_full_disk_is_said_before_and_in_the_middle(
    start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    nearly = start(min_free=1 << 60)
    answer = nearly.post(file(ct(1)))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
    assert requests.get(f"{nearly.url}/health", timeout=5).status_code == 503
    assert nearly.told[-1].kind == "rejected"
    running = start(min_free=1000)
    monkeypatch.setattr(Spool, "objection", lambda _spool: None)
    monkeypatch.setattr(Spool, "_free", lambda _spool: 0)
    full = running.post(file(ct(1)), file(ct(2)))
    assert (full.status_code, full.headers["retry-after"]) == (503, "60")
    assert reasons(full, FAILED) == [0xA700, 0xA700]
    monkeypatch.undo()
    assert running.serves()


def test_one_client_keeps_nobody_waiting(start: Callable[..., Running]) -> None:
    """Those that ask nothing, half a request, half a body, or more than their place."""
    running = start(header_seconds=1.0, idle=1.5, requests=3)
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {MULTIPART}\r\n"
    address = ("127.0.0.1", running.server.port)
    silent = [socket.create_connection(address) for _ in range(3)]
    for each, sent in zip(silent, ("", "POST /dicom", head), strict=True):
        each.sendall(sent.encode())
    slow = [socket.create_connection(address) for _ in range(3)]
    for each in slow:
        each.sendall(f"{head}Content-Length: 99999\r\n\r\n--cut\r\n".encode())
    time.sleep(0.3)
    busy = running.post(file(ct(1)))
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "60")
    for each in slow:
        each.settimeout(10)
        assert b" 408 " in each.recv(1000)
    for each in silent:
        each.settimeout(10)
        assert each.recv(1000) == b""
    for each in (*slow, *silent):
        each.close()
    assert running.serves()


def test_a_cut_request_keeps_what_had_come(start: Callable[..., Running]) -> None:
    running = start()
    sent = body(file(ct(1)), file(ct(2)))
    with socket.create_connection(("127.0.0.1", running.server.port)) as connection:
        head = (
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {MULTIPART}\r\nContent-Length: {len(sent)}"
        )
        connection.sendall(head.encode() + b"\r\n\r\n" + sent[:-500])
        time.sleep(1)
    time.sleep(0.5)
    assert running.stored() == [f"{SERIES}.1.dcm"]
    assert running.told[-1].received == {STUDY: 1}
    assert running.post(file(ct(1)), file(ct(2))).status_code == 200
    assert len(running.stored()) == 2


def test_several_senders_at_once(start: Callable[..., Running]) -> None:
    running = start(requests=8)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda start: running.post(*(file(ct(n)) for n in range(start, start + 5))),
                                range(1, 41, 5)))  # fmt: skip
    assert {answer.status_code for answer in answers} == {200}
    assert len(running.stored()) == 40


def test_memory_of_parts_under_way_is_bounded(start: Callable[..., Running]) -> None:
    running = start(instance=4 << 20, receiving=1 << 20)
    answer = running.post(file(ct(1, rows=1024, columns=1024)))
    assert answer.status_code == 503
    assert running.serves()


def test_reticula_serve_is_ready_stores_and_ends_in_good_order(tmp_path: Path) -> None:
    port = free_port()
    token = tmp_path / "token"
    token.write_text("secret\n", encoding="utf-8")
    token.chmod(0o600)
    installation = Installation(
        tmp_path / "installation",
        f'\n[http]\nenabled = true\nport = {port}\n[[http.accounts]]\nname = "pacs"\ntoken_file = "{token}"\n',
    )
    try:
        process = installation.start("serve")
        answer = requests.post(
            f"http://127.0.0.1:{port}/dicom-web/studies", data=body(file(ct(1))), timeout=20,
            headers={"Content-Type": MULTIPART, "Authorization": "Bearer secret"},
        )  # fmt: skip
        assert answer.status_code == 200
        assert len(list((installation.data / "spool" / "series").rglob("*.dcm"))) == 1
        second = installation.run("serve", check=False)
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert "http.port" in second.stderr
        assert installation.stop(process) == 0
        events = [json.loads(path.read_bytes()) for path in (installation.data / "journal").glob("*.json")]
        assert {event["action"] for event in events} >= {"association received", "application stopped"}
        assert "secret" not in installation.log("serve")
    finally:
        installation.close()


def test_up_serves_where_it_is_enabled_and_an_exam_goes_all_the_way(
    tmp_path: Path, phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    port = free_port()
    installation = Installation(tmp_path / "installation", f"\n[http]\nenabled = true\nport = {port}\n")
    try:
        installation.prepare()
        up = installation.start("up")
        url = f"http://127.0.0.1:{port}/dicom-web/studies"
        content = [path.read_bytes() for path in files(phantoms)]
        answer = requests.post(url, data=body(*content), headers={"Content-Type": MULTIPART}, timeout=30)
        assert answer.status_code == 200
        installation.run("drain", "--wait", "60")
        exam = installation.exams()[phantoms[1][0].series_uid]
        assert (exam["state"], exam["slice_count"]) == ("classified", len(content))
        closed = requests.post(url, data=body(*content), headers={"Content-Type": MULTIPART}, timeout=30)
        assert (closed.status_code, closed.json()["detail"]) == (503, "The intake is closed by an administrator.")
        assert installation.stop(up) == 0
    finally:
        installation.close()
