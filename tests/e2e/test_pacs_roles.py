"""An archive in both of its roles, driven by DCMTK alone: it sends to us, and is asked for what we made."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread

from pacs.report.reader import read_report
from pacs.report.rejection import read_rejection_note
from tests.installation import Installation, send
from tests.plant import files
from tests.report_checks import check_object_with_tools, check_with_tools
from tests.servers import Orthanc, free_port, wait_for
from training.phantom import PhantomExam

Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def pacs(tmp_path: Path, port: int) -> Iterator[Orthanc]:
    server = Orthanc(tmp_path / "pacs")
    server.modalities = {"reticula": ["RETICULA", "127.0.0.1", port], "reader": ["READER", "127.0.0.1", 4006]}
    server.start()
    yield server
    server.stop()


@pytest.fixture
def installation(tmp_path: Path, pacs: Orthanc, port: int) -> Iterator[Installation]:
    made = Installation(
        tmp_path / "site",
        f'\n[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {pacs.port}\n'
        'ae_title = "ORTHANC"\nobjects = ["sr", "summary"]\n',
        RETICULA_LISTENER__PORT=str(port),
    )
    made.prepare()
    made.start("up")
    yield made
    made.close()


class Reader:
    """A workstation that has DCMTK and knows nothing of us."""

    def __init__(self, dcmtk: dict[str, str], pacs: Orthanc) -> None:
        self._dcmtk, self._pacs = dcmtk, pacs

    def run(self, tool: str, *options: str) -> str:
        done = subprocess.run(
            [self._dcmtk[tool], "-v", "-aet", "READER", "-aec", "ORTHANC", *options, "127.0.0.1", str(self._pacs.port)],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def series(self, study_uid: str, modality: str) -> list[str]:
        """Ask for the series of a modality, as `findscu` prints them."""
        said = self.run("findscu", "-S", "-k", "QueryRetrieveLevel=SERIES", "-k", f"StudyInstanceUID={study_uid}",
                        "-k", f"Modality={modality}", "-k", "SeriesInstanceUID", "-k", "SeriesDescription")  # fmt: skip
        lines = [line for line in said.splitlines() if "(0020,000e)" in line and "[" in line]
        return list(dict.fromkeys(line.partition("[")[2].partition("]")[0].rstrip("\0 ") for line in lines))

    def fetch(self, folder: Path, study_uid: str, series_uid: str) -> list[Path]:
        folder.mkdir()
        self.run("getscu", "-S", "-od", str(folder), "-k", "QueryRetrieveLevel=SERIES",
                 "-k", f"StudyInstanceUID={study_uid}", "-k", f"SeriesInstanceUID={series_uid}")  # fmt: skip
        return sorted(folder.iterdir())


def test_moved_in_found_fetched_and_taken_back(
    installation: Installation, pacs: Orthanc, phantoms: Phantoms, dcmtk: dict[str, str], tmp_path: Path
) -> None:
    paths, reader = files(phantoms), Reader(dcmtk, pacs)
    head = dcmread(paths[0])
    study, series = str(head.StudyInstanceUID), str(head.SeriesInstanceUID)
    sent = send(dcmtk["storescu"], pacs.port, paths[0].parent, called="ORTHANC")
    assert sent.returncode == 0, sent.stderr
    assert installation.exams() == {}
    reader.run("movescu", "-S", "-aem", "RETICULA", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
    installation.wait_for_state(series, "reported")

    (reports,) = reader.series(study, "SR")
    (report,) = reader.fetch(tmp_path / "sr", study, reports)
    check_with_tools(report, paths)
    assert read_report(dcmread(report)).series_uids == {series}
    (pages,) = reader.series(study, "OT")
    assert len(reader.fetch(tmp_path / "page", study, pages)) == 1

    installation.run("exams", "retract", series, "--because", "quality", "--yes")
    wait_for(lambda: bool(reader.series(study, "KO")), "the rejection note", 60)
    (notes,) = reader.series(study, "KO")
    (note,) = reader.fetch(tmp_path / "ko", study, notes)
    check_object_with_tools(note, paths)
    read = read_rejection_note(dcmread(note))
    assert read is not None
    assert {each.series_uid for each in read.series} == {reports, pages}
