"""Destinations that take, fall back, refuse, and come back: real sockets on the other side."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ComprehensiveSRStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from pacs.destinations import Destination, DicomwebDestination, DimseDestination, Offer
from pacs.errors import DeliveryError, Refused, Retry, UnsupportedClass
from pacs.report import SR_CLASSES, Document, build_report
from tests.servers import Orthanc, free_port
from tests.unit.test_report import reported

SR3D, SR = SR_CLASSES


@pytest.fixture
def offer(tmp_path: Path) -> Offer:
    exam = reported(tmp_path)
    return Offer(SR_CLASSES, lambda sop_class: build_report(exam, sop_class))


@contextmanager
def scp(classes: tuple[str, ...], status: int | Callable[[str], int] = 0x0000) -> Iterator[tuple[int, list[str]]]:
    """A storage SCP that accepts some classes and answers with a status; yields its port and what it took."""
    taken: list[str] = []

    def on_store(event: Any) -> int:
        uid = str(event.request.AffectedSOPClassUID)
        answer = status(uid) if callable(status) else status
        if answer == 0:
            taken.append(uid)
        return answer

    entity = AE("PACS")
    entity.require_called_aet = True
    for uid in (*classes, str(Verification)):
        entity.add_supported_context(uid)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    assert server is not None
    try:
        yield server.server_address[1], taken
    finally:
        server.shutdown()


def dimse(port: int, ae_title: str = "PACS") -> DimseDestination:
    return DimseDestination("pacs", "127.0.0.1", port, ae_title, "RETICULA", timeout=5)


def test_the_better_class_is_sent(offer: Offer) -> None:
    with scp((SR, SR3D)) as (port, taken):
        assert dimse(port).deliver(offer).document.sop_class_uid == SR3D
        assert taken == [SR3D]
        dimse(port).check()


def test_a_pacs_without_3d_gets_the_same_content_under_its_own_uid(offer: Offer) -> None:
    with scp((SR,)) as (port, taken):
        sent = dimse(port).deliver(offer).document
    assert taken == [ComprehensiveSRStorage]
    assert sent.sop_uid != offer.document(SR3D).sop_uid


def test_a_pacs_that_accepts_3d_and_then_refuses_it_gets_the_other(offer: Offer) -> None:
    with scp((SR, SR3D), lambda uid: 0x0122 if uid == SR3D else 0) as (port, taken):
        assert dimse(port).deliver(offer).document.sop_class_uid == SR
        assert taken == [SR]


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (0xB000, None), (0xB007, None), (0x0111, None),
        (0xA700, Retry), (0xA702, Retry), (0x0110, Retry), (0x0124, Retry), (0x0213, Retry),
        (0xA900, UnsupportedClass), (0x0122, UnsupportedClass), (0xC000, Refused), (0xC123, Refused), (0x0117, Refused),
    ],
)  # fmt: skip
def test_each_status_is_understood(offer: Offer, status: int, outcome: type[Exception] | None) -> None:
    with scp((SR3D,), status) as (port, _taken):
        if outcome is None:
            assert dimse(port).deliver(offer).document.sop_class_uid == SR3D
        else:
            with pytest.raises(outcome, match=f"0x{status:04X}"):
                dimse(port).deliver(offer)


def test_a_pacs_that_takes_no_reports_refuses_for_good(offer: Offer) -> None:
    with scp(()) as (port, _taken), pytest.raises(UnsupportedClass, match="accepts none"):
        dimse(port).deliver(offer)


def test_a_pacs_that_is_away_or_misconfigured_is_tried_again(offer: Offer) -> None:
    with pytest.raises(Retry, match="is the PACS running"):
        dimse(free_port()).deliver(offer)
    with scp((SR3D,)) as (port, _taken):
        with pytest.raises(Retry, match="called ae title not recognised"):
            dimse(port, "WRONG").deliver(offer)
        with pytest.raises(DeliveryError):
            dimse(port, "WRONG").check()
    nowhere = DimseDestination("pacs", "no.such.host.invalid", 104, "PACS", "RETICULA", timeout=5)
    with pytest.raises(Retry):
        nowhere.deliver(offer)


Answer = Callable[[str, str], tuple[int, str, str]]


@contextmanager
def web(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server; `answer` is given the SOP class and instance and gives status, content type and body."""
    posted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            sop_class = SR3D if SR3D.encode() in content else SR
            uid = next(uid for uid in documents if uid.encode() in content)
            posted.append(sop_class)
            status, kind, body = answer(sop_class, uid)
            self.send_response(status)
            if kind == "Location":
                self.send_header("Location", body)
                body = ""
            else:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"login")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    documents: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    posted_documents[id(posted)] = documents
    try:
        yield f"http://127.0.0.1:{server.server_port}", posted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


posted_documents: dict[int, list[str]] = {}


def deliver(url: str, posted: list[str], offer: Offer) -> Document:
    posted_documents[id(posted)].extend(offer.document(sop_class).sop_uid for sop_class in SR_CLASSES)
    return DicomwebDestination("web", url, timeout=5).deliver(offer).document


def stored(uid: str) -> str:
    return json.dumps({"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": [uid]}}]}})


def failed(uid: str, reason: int, tag: str = "00081198") -> str:
    item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({tag: {"vr": "SQ", "Value": [item]}})


JSON = "application/dicom+json"


def test_stow_believes_only_an_answer_that_names_the_report(offer: Offer) -> None:
    with web(lambda _class, uid: (200, JSON, stored(uid))) as (url, posted):
        assert deliver(url, posted, offer).sop_class_uid == SR3D
    for body, kind in (
        ("<html>ok</html>", "text/html"),
        ("", "text/plain"),
        ('"x"', JSON),
        ("[{}]", JSON),
        ("{", JSON),
    ):
        odd = (200, kind, body)
        with (
            web(lambda _class, _uid, odd=odd: odd) as (url, posted),  # type: ignore[misc]
            pytest.raises(Retry, match="does not say that it stored"),
        ):
            deliver(url, posted, offer)


def test_stow_does_not_take_a_redirect_for_success(offer: Offer) -> None:
    with (
        web(lambda _class, _uid: (302, "Location", "/login")) as (url, posted),
        pytest.raises(Retry, match="redirects"),
    ):
        deliver(url, posted, offer)


def test_stow_answers_in_xml_too(offer: Offer) -> None:
    def body(uid: str) -> str:
        return (
            '<NativeDicomModel><DicomAttribute tag="00081199" vr="SQ" keyword="ReferencedSOPSequence"><Item number="1">'
            '<DicomAttribute tag="00081155" vr="UI" keyword="ReferencedSOPInstanceUID">'
            f'<Value number="1">{uid}</Value></DicomAttribute></Item></DicomAttribute></NativeDicomModel>'
        )

    with web(lambda _class, uid: (200, "application/dicom+xml", body(uid))) as (url, posted):
        assert deliver(url, posted, offer).sop_class_uid == SR3D


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [
        (202, 0x0122, UnsupportedClass), (409, 0x0122, UnsupportedClass), (409, 0xA900, UnsupportedClass),
        (202, 0xC000, Refused), (409, 0xC000, Refused), (202, 0xA700, Retry), (409, 0x0110, Retry),
        (409, 0x0111, None),
    ],
)  # fmt: skip
def test_a_failed_sop_sequence_is_a_failure(
    offer: Offer, status: int, reason: int, outcome: type[Exception] | None
) -> None:
    with web(lambda _class, uid: (status, JSON, failed(uid, reason))) as (url, posted):
        if outcome is None:
            deliver(url, posted, offer)
        else:
            with pytest.raises(outcome, match=f"0x{reason:04X}"):
                deliver(url, posted, offer)


def test_stow_falls_back_to_the_other_class(offer: Offer) -> None:
    def answer(sop_class: str, uid: str) -> tuple[int, str, str]:
        return (200, JSON, stored(uid)) if sop_class == SR else (409, JSON, failed(uid, 0x0122))

    with web(answer) as (url, posted):
        assert deliver(url, posted, offer).sop_class_uid == SR
        assert posted == [SR3D, SR]


@pytest.mark.parametrize(
    ("status", "outcome"), [(503, Retry), (500, Retry), (429, Retry), (401, Retry), (404, Retry), (400, Refused)]
)
def test_http_statuses(offer: Offer, status: int, outcome: type[Exception]) -> None:
    with (
        web(lambda _class, _uid: (status, "text/plain", "no")) as (url, posted),
        pytest.raises(outcome, match=str(status)),
    ):
        deliver(url, posted, offer)


def test_a_server_that_is_away_is_tried_again(offer: Offer) -> None:
    with pytest.raises(Retry, match="cannot be reached"):
        DicomwebDestination("web", f"http://127.0.0.1:{free_port()}", timeout=5).deliver(offer)
    with pytest.raises(DeliveryError):
        DicomwebDestination("web", f"http://127.0.0.1:{free_port()}", timeout=5).check()


def test_sending_twice_is_harmless_at_a_real_pacs(offer: Offer, orthanc: Orthanc) -> None:
    destinations: list[Destination] = [
        DimseDestination("pacs", "127.0.0.1", orthanc.port, "ORTHANC", "RETICULA"),
        DicomwebDestination("web", orthanc.dicomweb),
    ]
    for destination in destinations * 2:
        destination.check()
        destination.deliver(offer)
    assert len(orthanc.get("/instances")) == 1
