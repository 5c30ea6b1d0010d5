"""What the sweep looks at, and that nothing stops it: arrivals, the walk, and steps that fail."""

import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import UID
from sqlalchemy import select, update

from pacs.commitment import CommitmentResult, Reference
from pacs.spool import SpooledSeries
from tests.datasets import ct, write
from tests.plant import Plant
from worker.database import Database
from worker.states import State
from worker.sweep import Step
from worker.tables import AuditEvent, Series


@pytest.fixture
def plant(tmp_path: Path, database: Database) -> Plant:
    return Plant(tmp_path / "data", database)


def series_of(tmp_path: Path, number: int, slices: int = 3) -> list[Path]:
    datasets = [ct(each) for each in range(1, slices + 1)]
    for each, dataset in enumerate(datasets):
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.2.{number}", f"1.2.{number}.1"
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.{number}.1.{each}")
    return write(tmp_path / f"series-{number}", *datasets)


def age_marks(plant: Plant) -> None:
    for mark in (plant.app.spool.root / "arrivals").iterdir():
        os.utime(mark, (time.time() - 3600, time.time() - 3600))


def test_a_look_costs_what_came_and_not_what_is_there(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.receive(*series_of(tmp_path, 1), age=60)
    os.utime(plant.app.spool.folder("1.2.1", "1.2.1.1"), (time.time() - 3600, time.time() - 3600))
    age_marks(plant)
    for _ in range(3):
        plant.sweep.tick()
    assert list(plant.app.spool.arrivals()) == []
    walked: list[int] = []

    def series() -> Iterator[SpooledSeries]:
        walked.append(1)
        return iter(())

    monkeypatch.setattr(plant.app.spool, "series", series)
    first, *late = series_of(tmp_path, 2)
    plant.receive(first, age=60)
    plant.sweep.tick()
    assert plant.exam("1.2.2.1")["state"] == "queued"
    plant.receive(*late, age=60)
    plant.sweep.tick()
    assert (plant.exam("1.2.2.1")["state"], plant.exam("1.2.2.1")["slice_count"]) == ("queued", 3)
    assert walked == []


def test_what_lost_its_mark_is_found_by_the_walk(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.assembly._WALK_AT_ONCE_SECONDS", 0.0)
    for number in (1, 2, 3):
        plant.receive(*series_of(tmp_path, number), age=60)
    for mark in (plant.app.spool.root / "arrivals").iterdir():
        if "1.2.3" not in mark.name:
            mark.unlink()  # the power failed
    found = []
    for _ in range(4):
        plant.sweep.tick()
        with plant.database.read() as session:
            found.append(sorted(session.scalars(select(Series.series_uid))))
    assert found[0] == ["1.2.1.1", "1.2.3.1"], "what was announced comes first, and the walk goes on meanwhile"
    assert found[-1] == ["1.2.1.1", "1.2.2.1", "1.2.3.1"]


def test_what_the_walk_cannot_settle_is_looked_at_by_each_tick(plant: Plant, tmp_path: Path) -> None:
    first, *late = series_of(tmp_path, 1)
    plant.receive(first, age=60)
    plant.sweep.tick()
    with plant.database.write() as session:
        session.execute(update(Series).values(state=State.CLASSIFYING))
    plant.receive(*late, age=60)
    for mark in (plant.app.spool.root / "arrivals").iterdir():
        mark.unlink()  # the power failed
    sweep = plant.app.sweep()
    sweep.tick()
    with plant.database.write() as session:
        session.execute(update(Series).values(state=State.REPORTED))
    sweep.tick()
    assert (plant.exam("1.2.1.1")["revision"], plant.exam("1.2.1.1")["slice_count"]) == (2, 3)


def test_a_full_disk_ends_no_walk(plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that finds what is not settled marks it; where that fails it goes on to the others."""
    for number in (1, 2):
        plant.receive(*series_of(tmp_path, number))
    for mark in (plant.app.spool.root / "arrivals").iterdir():
        mark.unlink()

    def full(_study_uid: str, _series_uid: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plant.app.spool, "announce", full)
    plant.sweep.tick()
    assert {plant.exam(f"1.2.{number}.1")["state"] for number in (1, 2)} == {"receiving"}


def test_a_disk_in_trouble_costs_no_note(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.app.journal.note("ana", "exams listed", "worklist")

    def fails(_path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as trouble:
        trouble.setattr(Path, "read_bytes", fails)
        assert plant.app.journal.collect(plant.database) == 0
    assert plant.app.journal.collect(plant.database) == 1


def test_what_stops_one_step_stops_no_other(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Odd files in the mailboxes are set aside, once; a step that fails says so once, and when it works again."""
    for name in ("journal", "commitments/results"):
        folder = plant.settings.data_dir / name
        (folder / "0.json").mkdir(parents=True)  # what nobody can read as a file
        for number, content in enumerate(("[]", "{", '{"at": 5}', '{"transaction_uid": []}', "\xff"), start=1):
            (folder / f"{number}.json").write_bytes(content.encode("latin-1"))
    plant.app.journal.note("ana", "exams listed", "worklist")
    plant.app.commitments.put(CommitmentResult("1.2.3", (Reference("1.2", "1.2.4"),)))
    settled: list[str] = []

    def settle(_database: Database, result: CommitmentResult) -> bool:
        settled.append(result.transaction_uid)
        return True

    monkeypatch.setattr("worker.sweep.outbox.settle_commitment", settle)
    trouble = [OSError("the disk is away")] * 3

    def forget() -> None:
        if trouble:
            raise trouble.pop()

    monkeypatch.setattr(plant.app.broker, "tidy", forget)
    sweep = plant.app.sweep()
    sweep._steps = (Step("odd", plant.app.broker.tidy), *sweep._steps)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            sweep.tick()
    assert settled == ["1.2.3"]
    with plant.database.read() as session:
        assert session.scalar(select(AuditEvent.actor).where(AuditEvent.action == "exams listed")) == "ana"
    said = [record.getMessage() for record in caplog.records]
    assert sum("is no event of the audit trail: it is set aside" in line for line in said) == 6
    assert sum("is no result of a storage commitment: it is set aside" in line for line in said) == 6
    assert [line for line in said if "'odd'" in line] == [
        "The step 'odd' of the sweep failed; it is tried again.", "The step 'odd' of the sweep works again.",
    ]  # fmt: skip
    assert not list(plant.settings.data_dir.glob("*/*.json"))
