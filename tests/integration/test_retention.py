"""Pixels of reported exams go after a time, never anything undelivered; an exam goes altogether on request."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage
from sqlalchemy import func, select, text, update

from pacs.archive import Archive
from pacs.listener import Listener
from pacs.spool import ReceivedInstance
from tests.datasets import write
from tests.plant import Plant, files
from training.phantom import PhantomExam
from worker import exams, labels, restart, retention
from worker.database import Database, now
from worker.errors import NotFoundError, WorkerError
from worker.liveness import Watch
from worker.states import State
from worker.table_base import Base
from worker.tables import AuditEvent, Delivery, Series

Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(Archive(tmp_path / "archive"), ae_title="ARCHIVE", host="127.0.0.1", port=0)
    listener.start()
    yield listener
    listener.stop()


@pytest.fixture
def plant(tmp_path: Path, database: Database, archive: Listener) -> Plant:
    made = Plant(tmp_path / "data", database, archive.port)
    made.app.registry.import_bundle("demo", actor="test")
    return made


def report(plant: Plant, phantoms: Phantoms, index: int = 0, *, days_ago: int = 20) -> PhantomExam:
    """Take an exam all the way, and let it be so many days ago."""
    exam = phantoms[1][index]
    plant.receive(*files(phantoms, index), age=max(60, 86400 * days_ago))
    plant.run()
    with plant.database.write() as session:
        row = exams.latest(session, exam.series_uid)
        if row.reported_at is not None:
            row.reported_at = now() - timedelta(days=days_ago)
    return exam


def pixels(plant: Plant, exam: PhantomExam) -> list[Path]:
    return sorted((plant.app.spool.root / "series" / exam.study_uid / exam.series_uid).glob("*.dcm"))


def expire(plant: Plant, days: int = 14) -> int:
    return retention.expire_pixels(plant.database, plant.app.spool, plant.settings.data_dir, days)


def test_pixels_of_a_reported_exam_go_and_its_result_stays(plant: Plant, phantoms: Phantoms) -> None:
    exam = report(plant, phantoms)
    assert expire(plant, days=30) == 0
    assert expire(plant) == 1
    assert pixels(plant, exam) == []
    shown = plant.exam(exam.series_uid)
    assert (shown["state"], shown["verdict"], len(shown["slices"])) == ("reported", exam.label, exam.slices)
    assert expire(plant) == 0
    plant.run()
    assert plant.exam(exam.series_uid)["revision"] == 1
    with pytest.raises(WorkerError, match="send the series again"):
        restart.reprocess(plant.database, plant.settings.data_dir, exam.series_uid, actor="test")
    plant.receive(*files(phantoms))
    restart.reprocess(plant.database, plant.settings.data_dir, exam.series_uid, actor="test")
    plant.run()
    again = plant.exam(exam.series_uid)
    assert (again["state"], again["revision"], again["verdict"]) == ("reported", 2, exam.label)
    assert len(pixels(plant, exam)) == exam.slices, "what was sent again stays for its time"


@pytest.mark.parametrize("state", ["pending", "labelled", "classified"])
def test_what_is_undelivered_or_labelled_is_kept(plant: Plant, phantoms: Phantoms, state: str) -> None:
    exam = report(plant, phantoms)
    with plant.database.write() as session:
        if state == "pending":
            session.execute(text("UPDATE deliveries SET state = 'pending'"))
        elif state == "classified":
            exams.latest(session, exam.series_uid).state = State.CLASSIFIED
    if state == "labelled":
        labels.store(plant.database, [labels.GivenLabel(exam.series_uid, "UIP")], author="test")
    assert expire(plant) == 0
    assert len(pixels(plant, exam)) == exam.slices


def test_a_late_slice_after_the_pixels_went_replaces_no_report(plant: Plant, phantoms: Phantoms) -> None:
    exam, paths = phantoms[1][0], files(phantoms)
    plant.receive(*paths[:-1], age=86400 * 20)
    plant.run()
    with plant.database.write() as session:
        exams.latest(session, exam.series_uid).reported_at = now() - timedelta(days=20)
    assert expire(plant) == 1
    plant.receive(paths[-1], age=60)
    plant.run()
    late = plant.exam(exam.series_uid)
    assert (late["state"], late["reason_code"], late["revision"]) == ("rejected", "missing_files", 2)
    plant.receive(*paths, age=60)
    restart.retry(plant.database, exam.series_uid, actor="test")
    plant.run()
    whole = plant.exam(exam.series_uid)
    assert (whole["state"], whole["slice_count"]) == ("reported", exam.slices)


def test_a_forgotten_exam_leaves_nothing_but_the_audit_trail(plant: Plant, phantoms: Phantoms, tmp_path: Path) -> None:
    exam, other = report(plant, phantoms, 0), report(plant, phantoms, 1)
    labels.store(plant.database, [labels.GivenLabel(exam.series_uid, "UIP")], author="test")
    aside = plant.app.spool.root / "conflicts" / "20260101"
    aside.mkdir()
    kept = pixels(plant, exam)[0]
    (aside / f"{kept.stem}~abc.dcm").write_bytes(kept.read_bytes())
    dose = dcmread(kept)
    dose.SOPClassUID, dose.SeriesInstanceUID = ComprehensiveSRStorage, "1.2.3.77"
    (path,) = write(tmp_path / "dose", dose)
    plant.app.spool.store(
        ReceivedInstance(ComprehensiveSRStorage, "1.2.3.78", exam.study_uid, "1.2.3.77", path.read_bytes())
    )
    (laid_aside,) = (plant.app.spool.root / "aside").glob("*/*.dcm")
    with plant.database.write() as session:
        exams.latest(session, exam.series_uid).state = State.CLASSIFYING
    with pytest.raises(WorkerError, match="wait until it is done"):
        retention.forget(plant.database, plant.settings.data_dir, exam.series_uid, actor="test")
    with plant.database.write() as session:
        exams.latest(session, exam.series_uid).state = State.REPORTED
        session.execute(update(Delivery).values(lease_until=now() + timedelta(minutes=1)))
    with pytest.raises(WorkerError, match="is being sent"):
        retention.forget(plant.database, plant.settings.data_dir, exam.series_uid, actor="test")
    with plant.database.write() as session:
        session.execute(update(Delivery).values(lease_until=None))
    assert retention.forget(plant.database, plant.settings.data_dir, exam.series_uid, actor="ana") == exam.slices + 2
    assert not laid_aside.exists()
    with pytest.raises(NotFoundError):
        retention.forget(plant.database, plant.settings.data_dir, exam.series_uid, actor="ana")
    left = [path for path in plant.settings.data_dir.rglob("*") if path.is_file() and path.suffix == ".dcm"]
    assert not [path for path in left if exam.series_uid in str(path) or kept.stem in path.name]
    with plant.database.read() as session:
        counts = {
            table.name: session.scalar(select(func.count()).select_from(table)) for table in Base.metadata.sorted_tables
        }
        (event,) = session.scalars(select(AuditEvent).where(AuditEvent.action == "exam erased"))
        assert (event.actor, event.subject) == ("ana", exam.series_uid)
        assert session.scalars(select(Series.series_uid)).all() == [other.series_uid]
    assert (counts["studies"], counts["labels"], counts["reports"], counts["deliveries"]) == (1, 0, 1, 1)
    assert plant.exam(other.series_uid)["state"] == "reported"
    plant.run()
    assert len(pixels(plant, other)) == other.slices


def test_a_deliverer_that_makes_no_reports_is_seen_to_be_stuck(plant: Plant, phantoms: Phantoms) -> None:
    exam = phantoms[1][0]
    plant.receive(*files(phantoms), age=60)
    plant.sweep.tick()
    while plant.app.classification().run_one("worker"):
        pass
    watch = Watch(plant.app, ["deliver"], 0.0)
    with plant.database.write() as session:
        row = exams.latest(session, exam.series_uid).classification
        assert row is not None
        row.classified_at = now() - timedelta(hours=1)
    assert watch.is_stuck()
    while plant.app.delivery().run_one("worker"):
        pass
    assert not watch.is_stuck()


def test_the_room_of_the_disk_is_told_in_days(plant: Plant, phantoms: Phantoms) -> None:
    with plant.database.read() as session:
        assert "days" not in retention.room(session, plant.settings.data_dir)
    report(plant, phantoms, days_ago=0)
    with plant.database.read() as session:
        rate = retention.bytes_per_day(session)
        assert "days at the rate of the last week" in retention.room(session, plant.settings.data_dir)
    size = sum(path.stat().st_size for path in pixels(plant, phantoms[1][0]))
    assert rate == pytest.approx(size)
