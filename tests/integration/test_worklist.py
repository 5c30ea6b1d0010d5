"""The worklist, read back from a real PACS: order, replaced reports, other people's reports, and the page."""

import dataclasses
import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pacs import codes
from pacs.report import SR_CLASSES, Predecessor, build_report
from pacs.report.exam import ReportedExam
from pacs.report.reader import ReadReport, read_report
from pacs.report.rejection import Grounds, SentObject, build_rejection_note
from pacs.retrieval import DicomwebSource, DimseSource, FoundSeries, Source
from tests.installation import Installation
from tests.servers import DcmtkArchive, Orthanc
from tests.unit.test_report import reported
from worker.worklist import Entry, Worklist, as_json, gather
from worker.worklist.entries import ordered
from worker.worklist.page import draw_page, write_page

TODAY = datetime.now(UTC)
WINDOW = (date(2026, 1, 2), date(2026, 2, 3))


@pytest.fixture
def pacs(tmp_path: Path) -> Iterator[Orthanc]:
    server = Orthanc(tmp_path / "pacs")
    server.modalities = {"reticula": ["RETICULA", "127.0.0.1", 11112]}
    server.start()
    yield server
    server.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[DcmtkArchive]:
    server = DcmtkArchive(tmp_path / "archive")
    server.start()
    yield server
    server.stop()


def exam(tmp_path: Path, number: int, verdict: str, days: int, **values: Any) -> ReportedExam:
    """An exam of a study of its own, reported so many days ago."""
    folder = tmp_path / f"exam-{number}"
    made = reported(folder)
    patient = dataclasses.replace(made.header.patient, patient_id=f"P{number}", name=f"Souza^João {number}")
    header = dataclasses.replace(
        made.header, study_uid=f"1.2.{number}", series_uid=f"1.2.{number}.1", patient=patient,
        study_date=(TODAY - timedelta(days=days)).strftime("%Y%m%d"),
    )  # fmt: skip
    reason = "undecided" if verdict == "indeterminate" else ""
    return dataclasses.replace(
        made, header=header, verdict=verdict, reason_code=reason, certainty=None if reason else 0.93,
        classified_at=(TODAY - timedelta(days=days)).replace(microsecond=0), **values,
    )  # fmt: skip


def store(pacs: Orthanc, exam: ReportedExam) -> str:
    document = build_report(exam, SR_CLASSES[0])
    send(pacs, document.content)
    return document.sop_uid


def send(pacs: Orthanc, content: bytes) -> None:
    requests.post(f"http://127.0.0.1:{pacs.http}/instances", data=content, timeout=30).raise_for_status()


def somebody_elses(tmp_path: Path) -> bytes:
    """A report without our group, as other programs make them."""
    dataset: Dataset = dcmread(BytesIO(build_report(exam(tmp_path, 99, "UIP", 1), SR_CLASSES[0]).content))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.99")
    del dataset.ContentSequence[-1]
    buffer = BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def test_the_most_urgent_stands_first_by_each_way(pacs: Orthanc, tmp_path: Path) -> None:
    old_nsip = exam(tmp_path, 1, "NSIP", 5)
    store(pacs, old_nsip)
    store(pacs, exam(tmp_path, 2, "UIP", 1))
    store(pacs, exam(tmp_path, 3, "UIP", 3))
    store(pacs, exam(tmp_path, 4, "indeterminate", 9))
    first = exam(tmp_path, 5, "UIP", 8)
    uid = store(pacs, first)
    later = dataclasses.replace(
        first, revision=2, verdict="NSIP", classified_at=first.classified_at + timedelta(days=7),
        predecessor=Predecessor(SR_CLASSES[0], uid, first.header.series_uid),
    )  # fmt: skip
    store(pacs, later)
    store(pacs, exam(tmp_path, 6, "UIP", 400))
    send(pacs, somebody_elses(tmp_path))
    lists = [gather(source, since(30), "https://viewer/?s={study_uid}") for source in both(pacs)]
    assert lists[0] == lists[1]
    entries = lists[0].entries
    assert lists[0].left_out == ()
    found = [(entry.verdict, entry.report.patient_id) for entry in entries]
    assert found == [("UIP", "P3"), ("UIP", "P2"), ("NSIP", "P1"), ("NSIP", "P5"), ("indeterminate", "P4")]
    row = as_json(entries[0])
    assert (row["urgency"], row["link"]) == (1, "https://viewer/?s=1.2.3")
    assert row["patient_name"] == "Souza^João 3"
    assert row["reported_at"] == (TODAY - timedelta(days=3)).replace(microsecond=0).isoformat()
    assert row["probabilities"].keys() == {"UIP", "NSIP"}
    assert (row["reason_code"], row["verified"]) == (None, False)
    silent = as_json(entries[-1])
    assert (silent["certainty"], silent["probabilities"], silent["reason_code"]) == (None, {}, "undecided")
    assert silent["reason"] == "No pattern is probable enough"


def both(pacs: Orthanc) -> list[Source]:
    return [
        DicomwebSource("pacs", pacs.dicomweb),
        DimseSource("pacs", "127.0.0.1", pacs.port, "ORTHANC", "RETICULA", timeout=20),
    ]


def since(days: int) -> str:
    return f"{TODAY - timedelta(days=days):%Y%m%d}-"


@pytest.mark.parametrize("way", [0, 1], ids=["dicomweb", "dimse"])
def test_what_was_taken_back_stands_in_no_list(pacs: Orthanc, tmp_path: Path, way: int) -> None:
    taken_back, kept = exam(tmp_path, 1, "UIP", 1), exam(tmp_path, 2, "NSIP", 1)
    report = build_report(taken_back, SR_CLASSES[0])
    send(pacs, report.content)
    store(pacs, kept)
    dataset = dcmread(BytesIO(report.content))
    sent = SentObject(dataset.SeriesInstanceUID, report.sop_class_uid, report.sop_uid)
    note = build_rejection_note(dataset, [sent], Grounds.QUALITY, TODAY, "0", "en")
    send(pacs, note.content)
    found = gather(both(pacs)[way], since(30), None)
    assert [entry.report.patient_id for entry in found.entries] == ["P2"]
    assert found.left_out == ()


def lose(pacs: Orthanc, patient_id: str) -> None:
    """Take the only object of a patient from the PACS's disk; its index still has it."""
    found = {"Level": "Instance", "Query": {"PatientID": patient_id}}
    (instance,) = requests.post(f"http://127.0.0.1:{pacs.http}/tools/find", json=found, timeout=30).json()
    uuid = pacs.get(f"/instances/{instance}/attachments/dicom/info")["Uuid"]
    (file,) = (pacs.folder / "storage").rglob(uuid)
    file.unlink()
    pacs.stop()
    pacs.start()  # without what it remembered of the file


@pytest.mark.parametrize("way", [0, 1], ids=["dicomweb", "dimse"])
def test_what_the_pacs_did_not_hand_over_is_missed(pacs: Orthanc, tmp_path: Path, way: int) -> None:
    store(pacs, exam(tmp_path, 1, "UIP", 1))
    store(pacs, exam(tmp_path, 2, "NSIP", 1))
    source = both(pacs)[way]
    listed, everything = source.series, gather(source, since(30), None)
    assert (len(everything.entries), everything.left_out) == (2, ())

    def series(study_uid: str) -> list[FoundSeries]:
        """Orthanc reads the file for what its index lacks, so it is lost after it was listed."""
        found = listed(study_uid)
        if study_uid == "1.2.1":
            lose(pacs, "P1")
        return found

    source.series = series  # type: ignore[method-assign]
    found = gather(source, since(30), None)
    assert [entry.report.patient_id for entry in found.entries] == ["P2"]
    (unread,) = found.left_out
    assert (unread.study_uid, bool(unread.why)) == ("1.2.1", True)


def test_a_list_that_was_not_read_whole_says_so(archive: DcmtkArchive, tmp_path: Path) -> None:
    for number, verdict in ((1, "UIP"), (2, "NSIP")):
        file = tmp_path / f"{number}.dcm"
        file.write_bytes(build_report(exam(tmp_path, number, verdict, 1), SR_CLASSES[0]).content)
        archive.store(file)
    archive.lose("P1")
    installation = Installation(
        tmp_path / "installation",
        f'\n[[sources]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {archive.port}\n'
        'ae_title = "ARCHIVE"\n',
    )
    done = installation.run("worklist", "--json", check=False)
    assert done.returncode == 1
    assert "This list is not complete: 1 series could not be read" in done.stderr
    entry_row, unread_row = json.loads(done.stdout)
    assert (entry_row["patient_id"], entry_row["unreadable"]) == ("P2", None)
    assert unread_row.keys() == entry_row.keys()
    assert (unread_row["verdict"], unread_row["study_uid"]) == (None, "1.2.1")
    page = tmp_path / "list.html"
    assert installation.run("worklist", "--html", str(page), check=False).returncode == 1
    assert "This list is not complete" in page.read_text(encoding="utf-8")
    table = installation.run("worklist", check=False)
    assert table.returncode == 1
    assert "P2" in table.stdout
    assert unread_row["series_uids"][0] in table.stderr.replace("\n", "")


def entry(number: int, verdict: str, urgency: int, **values: Any) -> Entry:
    report = ReadReport(
        sop_uid=f"1.{number}", study_uid="1.2", patient_id="P1", patient_name="Silva^Ana", accession_number="A1",
        study_date="20260102", description="CT", reported_at=TODAY - timedelta(hours=number), preliminary=True,
        verified=False, replaces=frozenset(), impression=("", "", ""), certainty=0.931, reason_code="", reason="",
        probabilities={}, series_uids=frozenset(),
        sop_uids=frozenset(),
    )  # fmt: skip
    return Entry(dataclasses.replace(report, **values), verdict, urgency, None)


def test_of_each_the_oldest_stands_first_and_what_has_no_time_last() -> None:
    mixed = [entry(1, "NSIP", 2), entry(5, "UIP", 1), entry(9, "UIP", 1), entry(3, "UIP", 1, reported_at=None)]
    assert [each.report.sop_uid for each in ordered(mixed)] == ["1.9", "1.5", "1.3", "1.1"]


class Cells(HTMLParser):
    """Collects the texts of a page and the tags that it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("language", codes.LANGUAGES)
def test_the_page_needs_nothing_else_and_believes_nobody(language: Any) -> None:
    attack = '<script>alert("x")</script>'
    entries = [
        entry(1, "UIP", 1, patient_name=attack, accession_number='"><img src=x>'),
        dataclasses.replace(
            entry(50, "indeterminate", 3, study_date="?", certainty=None, reason_code="incomplete", verified=True),
            link='https://v/?s=1"onclick="x',
        ),
    ]
    page = draw_page(Worklist(tuple(entries)), language, TODAY, WINDOW)
    read = Cells()
    read.feed(page)
    assert attack in "".join(read.texts)
    assert not read.tags & {"script", "img", "link", "iframe"}
    assert not re.search(r"(src|href)=\"(?!https://v/)", page)
    assert 'onclick="x' not in page
    assert {"en": "UIP", "pt-BR": "PIU", "es": "NIU"}[language] in read.texts
    assert {"en": "93.1%", "pt-BR": "93,1%", "es": "93,1%"}[language] in read.texts
    assert "2" in "".join(text for text in read.texts if text.startswith("2 "))
    assert sum(text.endswith("%") for text in read.texts) == 1, "an abstention has no percentage"
    assert codes.meaning("too_little_lung", "99RETICULA", language) in read.texts
    assert read.texts.count({"en": "new", "pt-BR": "novo", "es": "nuevo"}[language]) == 1
    window = [text for text in read.texts if {"en": "2026-01-02"}.get(language, "02/01/2026") in text]
    assert any({"en": "2026-02-03"}.get(language, "03/02/2026") in text for text in window)
    empty = Cells()
    empty.feed(draw_page(Worklist(()), language, TODAY, WINDOW))
    assert "table" not in empty.tags


def test_the_page_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "worklist.html"
    write_page(path, Worklist((entry(1, "UIP", 1),)), "en", WINDOW)
    before = path.read_text(encoding="utf-8")
    write_page(path, Worklist(()), "en", WINDOW)
    assert path.read_text(encoding="utf-8") != before
    assert [each.name for each in tmp_path.iterdir()] == ["worklist.html"]
    with pytest.raises(OSError, match="No such file"):
        write_page(tmp_path / "nowhere" / "x.html", Worklist(()), "en", WINDOW)


def test_the_command_lists_what_the_pacs_has(pacs: Orthanc, tmp_path: Path) -> None:
    store(pacs, exam(tmp_path, 1, "NSIP", 2))
    store(pacs, exam(tmp_path, 2, "UIP", 1))
    installation = Installation(
        tmp_path / "installation",
        'language = "pt-BR"\n[worklist]\nviewer = "https://viewer/{study_uid}"\n'
        f'[[sources]]\nname = "pacs"\nkind = "dicomweb"\nurl = "{pacs.dicomweb}"\n',
    )
    rows = installation.json("worklist")
    assert [(row["verdict"], row["patient_id"]) for row in rows] == [("UIP", "P2"), ("NSIP", "P1")]
    shown = installation.run("worklist", "pacs").stdout
    assert shown.index("PIU") < shown.index("PINE")
    assert "https://viewer/1.2.2" in shown.replace("\n", "")
    told = (TODAY - timedelta(days=1)).strftime("%d/%m/%Y")
    assert told in shown
    assert len(re.findall(r"\d\d:\d\d", shown)) == 2, "each time once"
    assert "data do estudo" in shown
    page = tmp_path / "list.html"
    installation.run("worklist", "--html", str(page))
    assert "Souza João 2" in page.read_text(encoding="utf-8")
    wrong = installation.run("worklist", "nowhere", check=False)
    assert (wrong.returncode, "known: pacs" in wrong.stderr) == (1, True)
    assert not (installation.data / "reticula.sqlite3").exists(), "it asks the PACS, not our database"
    found = read_report(dcmread(BytesIO(build_report(exam(tmp_path, 7, "UIP", 1), SR_CLASSES[1]).content)))
    assert (found.preliminary, found.replaces) == (True, frozenset())
