"""An archive that is asked and fetched from: Orthanc by QIDO-RS and WADO-RS, by C-FIND with C-GET and with C-MOVE."""

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import requests
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from pacs.errors import PartlyRead, QueryError
from pacs.intake import Intake, Sender
from pacs.retrieval import DicomwebSource, DimseSource, FoundSeries, Receiver, Source, StudyQuery
from pacs.retrieval.query import read_all
from pacs.spool import Spool
from tests.datasets import SERIES, STUDY, ct
from tests.installation import Installation
from tests.integration.test_stow import file
from tests.plant import Plant, files
from tests.servers import Orthanc, free_port, wait_for
from training.phantom import PhantomExam
from worker.database import Database
from worker.expectation import Expectations
from worker.results import reported_exam
from worker.sections import DicomwebSourceSettings, ListenerSettings
from worker.tables import Series

OUR_PORT = free_port()
Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc that knows us, and whose C-MOVE leads to our listener's port."""
    server = Orthanc(tmp_path / "archive")
    server.modalities = {"reticula": ["RETICULA", "127.0.0.1", OUR_PORT]}
    server.start()
    yield server
    server.stop()


def fill(archive: Orthanc, *contents: bytes) -> None:
    for content in contents:
        requests.post(f"http://127.0.0.1:{archive.http}/instances", data=content, timeout=30).raise_for_status()


def dimse(archive: Orthanc, **values: Any) -> DimseSource:
    return DimseSource("archive", "127.0.0.1", archive.port, "ORTHANC", "RETICULA", **{"timeout": 20, **values})


def sources(archive: Orthanc) -> list[Source]:
    return [DicomwebSource("archive", archive.dicomweb), dimse(archive)]


def receiver(folder: Path, rate: float = 1000) -> tuple[Receiver, Spool]:
    spool = Spool(folder)
    spool.prepare()
    intake = Intake(spool, 1 << 28, lambda _happening: None)
    return Receiver(intake, Sender("archive", "archive"), "RETICULA", rate), spool


def digests(folder: Path) -> dict[str, str]:
    """What the instances of a folder are, whatever their file meta information says."""
    found = {}
    for path in folder.rglob("*.dcm"):
        dataset = dcmread(path)
        found[str(dataset.SOPInstanceUID)] = hashlib.sha256(dataset.PixelData).hexdigest()
    return found


def test_studies_are_found_by_each_way_alike(archive: Orthanc) -> None:
    other = ct(9, PatientID="P9", StudyDate="20200101", StudyDescription="TC ABDOME")
    other.StudyInstanceUID, other.SeriesInstanceUID = "1.2.9", "1.2.9.1"
    fill(archive, file(ct(1, AccessionNumber="B7", StudyDescription="TC TÓRAX")), file(ct(2)), file(other))
    for source in sources(archive):
        source.check()
        everything = source.studies(StudyQuery(modality="CT"))
        assert {study.study_uid for study in everything} == {STUDY, "1.2.9"}
        (found,) = source.studies(StudyQuery(accession_number="B7"))
        assert (found.study_uid, found.modalities) == (STUDY, ("CT",))
        assert [study.study_uid for study in source.studies(StudyQuery(dates="20191231-20200102"))] == ["1.2.9"]
        assert [study.study_uid for study in source.studies(StudyQuery(description="*ABDOM*"))] == ["1.2.9"]
        assert source.studies(StudyQuery(patient_id="nobody")) == []
        (series,) = source.series(STUDY)
        assert (series.series_uid, series.modality, series.instances) == (SERIES, "CT", 2)


def test_fewer_objects_than_the_archive_has_are_a_part(tmp_path: Path) -> None:
    """Some archives end a retrieval with success whatever they left out; one too long to be ours is no loss."""
    content = file(ct(1))
    series = FoundSeries("1.2", "1.2.1", "SR", "", 2)
    with pytest.raises(PartlyRead, match="1 of 2 objects came") as caught:
        read_all([content], series)
    assert len(caught.value.datasets) == 1
    assert len(read_all([content, None], series)) == 1
    assert len(read_all([content], replace(series, instances=None))) == 1
    with pytest.raises(PartlyRead, match="1 objects cannot be read") as caught:
        read_all([content, b"garbage"], series)
    assert len(caught.value.datasets) == 1


def test_a_study_that_comes_between_two_pages_costs_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sorts to the front, so the second page begins with the last study of the first one."""
    monkeypatch.setattr("pacs.retrieval.dicomweb._PAGE", 2)
    kept = [f"1.2.{number}" for number in range(5)]
    asked = 0

    def answer(_path: str, parameters: list[tuple[str, Any]]) -> tuple[list[Dataset], bool]:
        nonlocal asked
        asked += 1
        if asked == 2:
            kept.insert(0, "1.2.99")
        offset = int(dict(parameters)["offset"])
        page = []
        for uid in kept[offset : offset + 2]:
            page.append(Dataset())
            page[-1].StudyInstanceUID = uid
        return page, False

    source = DicomwebSource("archive", "http://127.0.0.1:1")
    monkeypatch.setattr(source, "_ask", answer)
    assert [study.study_uid for study in source.studies(StudyQuery())] == [f"1.2.{number}" for number in range(5)]


@contextmanager
def without_offset(archive: Orthanc, cap: int | None) -> Iterator[str]:
    """Orthanc behind a server that knows no offset, and hands over `cap` studies at most; yield its DICOMweb root."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            given = dict(parse_qsl(address.query))
            asked = [(key, value) for key, value in given.items() if key not in ("offset", "limit", "includefield")]
            limits = [int(given[key]) for key in ("limit",) if key in given] + ([] if cap is None else [cap])
            asked += [("limit", str(min(limits)))] if limits else []
            answer = requests.get(f"{archive.dicomweb}{address.path}?{urlencode(asked)}", timeout=20)
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *_said: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_that_knows_no_offset_leaves_nothing_out_in_silence(
    archive: Orthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacs.retrieval.dicomweb._PAGE", 2)
    for number in range(5):
        other = ct(number, StudyDate=f"2020010{number + 1}")
        other.StudyInstanceUID, other.SeriesInstanceUID = f"1.2.{number}", f"1.2.{number}.1"
        fill(archive, file(other))
    assert len(DicomwebSource("a", archive.dicomweb).studies(StudyQuery())) == 5
    with without_offset(archive, cap=None) as url:
        assert len(DicomwebSource("a", url).studies(StudyQuery())) == 5
    with without_offset(archive, cap=2) as url:
        source = DicomwebSource("a", url)
        with pytest.raises(QueryError, match=r"does not know the parameter 'offset'.*ask for fewer days"):
            source.studies(StudyQuery())
        assert len(source.studies(StudyQuery(dates="20200103"))) == 1


@pytest.mark.parametrize("way", [0, 1])
def test_real_series_are_fetched_as_they_are(archive: Orthanc, tmp_path: Path, real_ct: Path, way: int) -> None:
    folder = real_ct / "A0002-B70f"
    fill(archive, *(path.read_bytes() for path in sorted(folder.glob("*.dcm"))[:12]))
    source = sources(archive)[way]
    (study,) = source.studies(StudyQuery(modality="CT"))
    (series,) = source.series(study.study_uid)
    taker, spool = receiver(tmp_path / "spool")
    source.fetch(series, taker)
    assert (taker.stored, taker.refused) == (12, 0)
    expected = {uid: digest for uid, digest in digests(folder).items() if uid in digests(spool.root)}
    assert digests(spool.root) == expected
    assert len(expected) == 12
    kept = dcmread(next(spool.root.rglob("*.dcm")))
    assert kept.file_meta.SourceApplicationEntityTitle == "archive"


def test_an_archive_that_is_away_or_refuses_is_said_in_a_sentence(archive: Orthanc, tmp_path: Path) -> None:
    away = free_port()
    silent: list[Source] = [
        DicomwebSource("a", f"http://127.0.0.1:{away}/dicom-web"),
        DicomwebSource("a", f"http://127.0.0.1:{archive.http}/nowhere"),
        DimseSource("a", "127.0.0.1", away, "ORTHANC", "RETICULA", timeout=3),
        DimseSource("a", "127.0.0.1", archive.port, "WRONG", "RETICULA", timeout=3),
    ]
    taker, _spool = receiver(tmp_path / "spool")
    for source in silent:
        asked: list[Callable[[], Any]] = [
            source.check,
            partial(source.studies, StudyQuery(modality="CT")),
            partial(source.fetch, FoundSeries("1.2", "1.2.3", "CT", "", 1), taker),
        ]
        for ask in asked:
            with pytest.raises(QueryError) as caught:
                ask()
            assert str(caught.value).endswith(".")
    nowhere = dimse(archive, retrieve="move")
    with pytest.raises(QueryError):
        nowhere.fetch(FoundSeries("1.2", "1.2.3", "CT", "", 1), taker)


def test_the_pace_is_kept(tmp_path: Path) -> None:
    taker, _spool = receiver(tmp_path / "spool", rate=20)
    started = time.monotonic()
    for number in range(1, 11):
        taker.take_file(file(ct(number)))
    taker.take_file(b"garbage")
    taker.take_file(None)
    assert (taker.stored, taker.refused) == (10, 2)
    assert 0.5 <= time.monotonic() - started < 3


@pytest.mark.parametrize("way", ["dicomweb", "get", "move"])
def test_pull_fetches_what_is_missing_and_goes_on_where_it_stopped(
    archive: Orthanc, tmp_path: Path, phantoms: Phantoms, way: str
) -> None:
    first, second = files(phantoms, 0), files(phantoms, 1)
    fill(archive, *(path.read_bytes() for path in (*first, *second)))
    fill(archive, file(ct(1, Modality="MR")))
    where = (
        f'kind = "dicomweb"\nurl = "{archive.dicomweb}"'
        if way == "dicomweb"
        else f'kind = "dimse"\nhost = "127.0.0.1"\nport = {archive.port}\nae_title = "ORTHANC"\nretrieve = "{way}"'
    )
    installation = Installation(tmp_path / "installation", f'\n[[sources]]\nname = "archive"\n{where}\n')
    installation.port = OUR_PORT
    installation.write(f'\n[[sources]]\nname = "archive"\n{where}\n')
    try:
        installation.prepare()
        installation.start("up")
        patients = [str(dcmread(paths[0]).PatientID) for paths in (first, second)]
        day = str(dcmread(first[0]).StudyDate)
        asked = ("pull", "archive", "--patient", patients[0])
        shown = installation.json(*asked, "--dry-run")
        assert [(row["instances"], row["taken"]) for row in shown] == [(len(first), True)]
        assert installation.exams() == {}
        installation.run(*asked)
        exam = installation.wait_for_state(phantoms[1][0].series_uid, "classified")
        assert exam["slice_count"] == len(first)
        (again,) = installation.json(*asked)
        assert (again["taken"], again["reason"]) == (False, "here already")
        # Half of it lies here: the rest is fetched, and what was here stays what it is.
        spool = installation.data / "spool" / "series"
        year = f"{day[:4]}-01-01", f"{day[:4]}-12-31"
        rest = installation.run("pull", "archive", "--from", year[0], "--to", year[1], check=False)
        assert rest.returncode == 0, rest.stderr
        assert digests(spool).keys() >= digests(phantoms[0] / phantoms[1][0].folder).keys()
        everything = installation.run("pull", "archive", check=False)
        assert (everything.returncode, "not the whole archive" in everything.stderr) == (2, True)
        wrong = installation.run("pull", "nowhere", "--patient", "x", check=False)
        assert (wrong.returncode, "known: archive" in wrong.stderr) == (1, True)
        bad_day = installation.run("pull", "archive", "--from", "31.12.2024", check=False)
        assert (bad_day.returncode, "write YYYY-MM-DD" in bad_day.stderr) == (2, True)
        assert "ok    source archive" in installation.run("check", check=False).stdout
    finally:
        installation.close()


def test_a_pull_that_was_cut_goes_on(archive: Orthanc, tmp_path: Path, phantoms: Phantoms) -> None:
    paths = files(phantoms)
    fill(archive, *(path.read_bytes() for path in paths))
    installation = Installation(
        tmp_path / "installation", f'\n[[sources]]\nname = "archive"\nkind = "dicomweb"\nurl = "{archive.dicomweb}"\n'
    )
    try:
        installation.prepare()
        patient = str(dcmread(paths[0]).PatientID)
        slow = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.main", "pull", "archive", "--patient", patient, "--rate", "4"],
            env=installation.environment, cwd=installation.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        spool = installation.data / "spool" / "series"
        try:
            wait_for(lambda: len(list(spool.rglob("*.dcm"))) >= 3, "some instances", 20)
        finally:
            slow.kill()
            slow.wait(10)
        here = len(list(spool.rglob("*.dcm")))
        assert here < len(paths)
        installation.run("pull", "archive", "--patient", patient)
        assert digests(spool) == digests(phantoms[0] / phantoms[1][0].folder)
    finally:
        installation.close()


class Counting:
    """An archive whose series grows."""

    name = "growing"

    def __init__(self) -> None:
        self.answers: list[int | None] = []
        self.error: str | None = None

    def series(self, study_uid: str) -> list[FoundSeries]:
        if self.error is not None:
            raise QueryError(self.error)
        count = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [FoundSeries(study_uid, "1.2.3", "CT", "", count), FoundSeries(study_uid, "1.2.4", "CT", "", 999)]

    def studies(self, query: StudyQuery) -> Any:
        raise NotImplementedError

    def fetch(self, series: FoundSeries, receiver: Receiver) -> None:
        raise NotImplementedError

    def read(self, series: FoundSeries) -> list[Dataset]:
        raise NotImplementedError

    def check(self) -> None:
        raise NotImplementedError


def test_two_equal_answers_are_needed() -> None:
    source = Counting()
    source.answers = [5, 9, 12, 12, 12]
    expected = Expectations(source, apart_seconds=0.05)
    seen: list[None] = []
    deadline = time.monotonic() + 10
    while (count := expected.count("1.2", "1.2.3")) is None and time.monotonic() < deadline:
        seen.append(count)
        time.sleep(0.01)
    assert count == 12
    assert len(seen) > 10
    source.error = "It is away."
    wait_for(lambda: expected.count("1.2", "1.2.3") is None, "the answer to be dropped", 5)
    expected.forget()


def test_a_complete_series_does_not_wait_out_the_quiet_period(
    archive: Orthanc, tmp_path: Path, database: Database, phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    fill(archive, *(path.read_bytes() for path in paths))
    plant = Plant(
        tmp_path / "data", database,
        more={"sources": (DicomwebSourceSettings(name="archive", kind="dicomweb", url=archive.dicomweb),)},
        expected_from="archive", settled_seconds=1, quiet_seconds=600,
    )  # fmt: skip
    assert isinstance(plant.settings.listener, ListenerSettings)
    uid = phantoms[1][0].series_uid
    plant.receive(*paths[:-1], age=5)

    def state() -> dict[str, Any]:
        plant.sweep.tick()
        return plant.exam(uid)

    deadline = time.monotonic() + 6
    while time.monotonic() < deadline:
        assert state()["state"] == "receiving", "one is missing"
        time.sleep(0.2)
    plant.receive(paths[-1], age=2)
    wait_for(lambda: state()["state"] == "queued", "the series to be complete", 10)
    assert plant.exam(uid)["completeness"] == "expected_count"


def test_an_incomplete_series_is_named_so_in_the_report(
    archive: Orthanc, tmp_path: Path, database: Database, phantoms: Phantoms
) -> None:
    paths = files(phantoms)
    fill(archive, *(path.read_bytes() for path in paths))
    plant = Plant(
        tmp_path / "data", database,
        more={"sources": (DicomwebSourceSettings(name="archive", kind="dicomweb", url=archive.dicomweb),)},
        expected_from="archive", settled_seconds=1, quiet_seconds=8,
    )  # fmt: skip
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*paths[:-2], age=1)
    uid = phantoms[1][0].series_uid

    def queued() -> bool:
        plant.sweep.tick()
        return bool(plant.exam(uid)["state"] == "queued")

    wait_for(queued, "the quiet period", 20)
    assert plant.exam(uid)["completeness"] == "quiet_period"
    assert plant.exam(uid)["expected_count"] == len(paths)
    assert plant.app.classification().run_one("worker")
    with database.read() as session:
        series = session.query(Series).one()
        exam, series_id = reported_exam(session, series, language="en", final=False), series.id
    assert (exam.completeness, exam.instance_count, exam.expected_count) == ("incomplete", len(paths) - 2, len(paths))
    made = plant.app.reports().document(series_id, Comprehensive3DSRStorage)
    report: Dataset = dcmread(BytesIO(made.content))
    said = {str(element.value) for element in report.iterall() if element.keyword in ("TextValue", "CodeMeaning")}
    assert "Fewer instances came than the PACS has" in said
    assert f"{len(paths) - 2} of {len(paths)} instances came" in said
