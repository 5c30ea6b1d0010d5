"""What is kept of who a patient is, and that no log says it."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from pacs.archive import Archive
from pacs.listener import Listener
from pacs.series import Patient
from tests.datasets import ct, write
from tests.installation import Installation, send
from tests.plant import Plant, files
from tests.servers import wait_for
from training.phantom import PhantomExam
from worker import restart
from worker.database import Database
from worker.errors import SettingsError
from worker.logs import DiscreetFormatter
from worker.privacy import Identities
from worker.sections import PrivacySettings
from worker.table_base import Base
from worker.tables import Series

Phantoms = tuple[Path, list[PhantomExam]]

# In the name, the number, the accession number, and where numbers and dates should stand.
SECRET = "Geheim"


@pytest.fixture
def secret_exam(phantoms: Phantoms, tmp_path: Path) -> tuple[Path, PhantomExam]:
    """An exam whose every text holds the secret, with slices that are broken in their own ways."""
    folder = tmp_path / "sent"
    folder.mkdir()
    paths = files(phantoms)
    for path in paths:
        dataset = dcmread(path)
        dataset.PatientName, dataset.PatientID = f"{SECRET}^Ana", f"{SECRET}-1"
        dataset.AccessionNumber, dataset.StudyID = f"{SECRET}-2", f"{SECRET}-3"
        dataset.ReferringPhysicianName = f"{SECRET}^Doctor"
        dataset.PatientComments = f"{SECRET} comes for the third time"
        dataset.save_as(folder / path.name)
    return folder, phantoms[1][0]


def garbled(tmp_path: Path) -> Path:
    """A series whose numbers, dates and pixels are no such things, and whose text is longer than allowed."""
    for number in range(1, 13):
        dataset = ct(number, PatientName=f"{SECRET}^Ana", PatientID=f"{SECRET}-9")
        (path,) = write(tmp_path / "garbled" / str(number), dataset)
        content = path.read_bytes().replace(b"19600101", b"GeheimGe").replace(b"\\0.8", b"\\Geh")
        content = content.replace(b"ORIGINAL", b"GeheimGe").replace(b"20240101", b"Geheim  ")
        path.write_bytes(content if number % 3 else content[: -64 * 64])
    return tmp_path / "garbled"


def test_with_a_key_sql_holds_no_patient_and_the_report_does(
    database: Database, tmp_path: Path, secret_exam: tuple[Path, PhantomExam], caplog: pytest.LogCaptureFixture
) -> None:
    folder, exam = secret_exam
    key_file = tmp_path / "key"
    key_file.write_text("0123456789abcdef0123456789abcdef\n")
    archive = Archive(tmp_path / "archive")
    listener = Listener(archive, ae_title="ARCHIVE", host="127.0.0.1", port=0)
    listener.start()
    caplog.handler.setFormatter(DiscreetFormatter())
    try:
        with caplog.at_level(logging.DEBUG, logger="worker"):
            plant = Plant(tmp_path / "data", database, listener.port, privacy=PrivacySettings(key_file=key_file))
            plant.app.registry.import_bundle("demo", actor="test")
            plant.receive(*sorted(folder.iterdir()), age=60)
            plant.receive(*sorted(garbled(tmp_path).glob("*/*.dcm")), age=60)
            plant.run()
    finally:
        listener.stop()
    assert plant.exam(exam.series_uid)["state"] == "reported"
    with database.read() as session:
        for table in Base.metadata.sorted_tables:
            for row in session.execute(select(table)):
                assert SECRET.casefold() not in str(tuple(row)).casefold(), table.name
        patients = set(session.scalars(select(Series.patient_id)))
    assert len(patients) == 2
    assert all(patient.startswith("hmac:") for patient in patients)
    ((_path, report),) = archive.reports(exam.study_uid)
    assert (report.PatientID, report.PatientName) == (f"{SECRET}-1", f"{SECRET}^Ana")
    assert report.AccessionNumber == f"{SECRET}-2"
    assert SECRET.casefold() not in caplog.text.casefold()


def test_two_patients_under_one_study_are_seen_through_the_hash(tmp_path: Path) -> None:
    identities = Identities(b"k" * 32)
    one, two = Patient("1", "", "A^B", "", ""), Patient("2", "", "A^B", "", "")
    unnumbered, spelt = Patient("", "", "A^B", "19600101", "F"), Patient("", "", "a b", "", "")
    assert identities.patient(one).is_same_as(identities.patient(one))
    assert not identities.patient(one).is_same_as(identities.patient(two))
    assert identities.patient(unnumbered).is_same_as(identities.patient(spelt))
    assert not identities.patient(Patient("", "", "", "", "")).patient_id
    assert Identities().patient(one) == one


def test_what_was_stored_before_the_key_is_no_other_patient(
    database: Database, tmp_path: Path, phantoms: Phantoms
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("0123456789abcdef0123456789abcdef")
    clear = Plant(tmp_path / "data", database)
    clear.app.registry.import_bundle("demo", actor="test")
    clear.receive(*files(phantoms), age=60)
    clear.run()
    hashed = Plant(tmp_path / "data", database, privacy=PrivacySettings(key_file=key_file))
    uid = phantoms[1][0].series_uid
    restart.reprocess(database, clear.settings.data_dir, uid, actor="test")
    hashed.run()
    assert hashed.exam(uid)["state"] == "classified"
    assert hashed.exam(uid)["revision"] == 2


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b"short", "too short")])
def test_a_key_that_is_none_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        Identities.from_file(tmp_path / "key")


def test_a_traceback_quotes_no_library() -> None:
    try:
        try:
            float(SECRET)
        except ValueError as error:
            raise SettingsError("Our own sentence.") from error
    except SettingsError:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "It failed.", None, None)
        record.exc_info = sys.exc_info()
    text = DiscreetFormatter("%(message)s").format(record)
    assert SECRET not in text.replace("float(SECRET)", "")
    assert "ValueError" in text
    assert "SettingsError: Our own sentence." in text


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "installation")
    made.prepare()
    yield made
    made.close()


def test_no_log_message_or_event_of_a_real_installation_names_a_patient(
    installation: Installation,
    secret_exam: tuple[Path, PhantomExam],
    tmp_path: Path,
    dcmtk: dict[str, str],
) -> None:
    folder, exam = secret_exam
    installation.start("up")
    assert send(dcmtk["storescu"], installation.port, folder).returncode == 0
    send(dcmtk["storescu"], installation.port, garbled(tmp_path))
    installation.wait_for_state(exam.series_uid, "classified", "reported")
    wait_for(lambda: all(each["state"] not in ("receiving", "queued") for each in installation.exams().values()), "all")
    for path in installation.folder.rglob("*"):
        if path.is_file() and "spool" not in path.parts and "sqlite" not in path.name and path.suffix != ".dcm":
            assert SECRET.lower().encode() not in path.read_bytes().lower(), path
    assert "Series" in installation.log("up")
