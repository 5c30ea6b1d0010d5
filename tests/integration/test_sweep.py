"""Assembly and the way through the stages, in one process, on SQLite and PostgreSQL."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from sqlalchemy import update

from pacs.archive import Archive
from pacs.listener import Listener
from pacs.report.reader import read_report
from pacs.spool import Spool
from tests.datasets import SERIES, STUDY, ct, write
from tests.integration.test_rules import reconstruction
from tests.plant import Plant, files
from training.phantom import PhantomExam
from worker import assembly, restart
from worker.broker import Broker
from worker.database import Database, now
from worker.listing import list_exams
from worker.states import State
from worker.tables import Series


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Archive, Listener]]:
    store = Archive(tmp_path / "archive")
    listener = Listener(store, ae_title="ARCHIVE", host="127.0.0.1", port=0)
    listener.start()
    yield store, listener
    listener.stop()


@pytest.fixture
def plant(tmp_path: Path, database: Database, archive: tuple[Archive, Listener]) -> Plant:
    return Plant(tmp_path / "data", database, archive[1].port)


def test_a_series_is_complete_when_nothing_came_for_the_quiet_period(plant: Plant, tmp_path: Path) -> None:
    paths = write(tmp_path / "in", *(ct(number) for number in range(1, 4)))
    plant.receive(*paths[:2], age=40)
    plant.receive(paths[2], age=5)
    plant.sweep.tick()
    exam = plant.exam(SERIES)
    assert (exam["state"], exam["slice_count"], exam["completeness"]) == ("receiving", 3, None)
    plant.receive(paths[2], age=0)
    os.utime(plant.app.spool.root / "series" / STUDY / SERIES / f"{SERIES}.3.dcm", (time.time() - 31,) * 2)
    plant.sweep.tick()
    exam = plant.exam(SERIES)
    assert (exam["state"], exam["slice_count"], exam["completeness"]) == ("queued", 3, "quiet_period")


def test_the_maximum_wait_closes_a_series_that_never_ends(plant: Plant, tmp_path: Path) -> None:
    paths = write(tmp_path / "in", *(ct(number) for number in range(1, 4)))
    plant.receive(*paths[:2], age=1801)
    plant.receive(paths[2], age=1)
    plant.sweep.tick()
    assert plant.exam(SERIES)["completeness"] == "maximum_wait"


def test_a_series_whose_files_are_gone_keeps_nobody_waiting(plant: Plant, tmp_path: Path) -> None:
    plant.receive(*write(tmp_path / "ct", *[ct(number) for number in range(1, 4)]))
    plant.sweep.tick()
    (series,) = plant.app.spool.series()
    assert plant.exam(series.series_uid)["state"] == "receiving"
    shutil.rmtree(series.folder)
    plant.sweep.tick()
    assert plant.exam(series.series_uid)["state"] == "receiving", "it may be the disk that is away for a moment"
    with plant.database.write() as session:
        session.execute(update(Series).values(last_instance_at=now() - timedelta(days=1)))
    plant.sweep.tick()
    gone = plant.exam(series.series_uid)
    assert (gone["state"], gone["reason_code"]) == ("rejected", "missing_files")
    plant.receive(*write(tmp_path / "again", *[ct(number) for number in range(1, 4)]), age=60)
    plant.sweep.tick()
    assert plant.exam(series.series_uid)["state"] == "queued"


def test_a_series_whose_files_are_gone_lets_another_one_speak(
    plant: Plant, tmp_path: Path, phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    whole = files(phantoms)
    plant.app.registry.import_bundle("demo", actor="test")
    other = reconstruction(tmp_path, whole[:-2], 5)
    plant.receive(*whole)
    plant.sweep.tick()
    plant.receive(*other, age=4000)
    plant.sweep.tick()

    def age() -> None:
        with plant.database.write() as session:
            session.execute(update(Series).values(last_instance_at=now() - timedelta(days=1)))

    age()
    plant.app.classification().run_one("worker")
    aside = str(dcmread(other[0]).SeriesInstanceUID)
    assert plant.exam(aside)["reason_code"] == "not_preferred"
    shutil.rmtree(plant.app.spool.folder(str(dcmread(whole[0]).StudyInstanceUID), phantoms[1][0].series_uid))
    age()
    plant.run()
    plant.run()
    assert plant.exam(phantoms[1][0].series_uid)["reason_code"] == "missing_files"
    assert plant.exam(aside)["state"] == "reported"


def test_a_new_sweep_finds_everything_in_the_spool_again(plant: Plant, tmp_path: Path, database: Database) -> None:
    plant.receive(*write(tmp_path / "in", *(ct(number) for number in range(1, 4))), age=60)
    plant.sweep.tick()
    database.downgrade("base")
    database.upgrade()
    again = plant.app.sweep()
    again.tick()
    exam = plant.exam(SERIES)
    assert (exam["state"], exam["slice_count"], exam["patient_id"]) == ("queued", 3, "P1")


def test_without_a_model_exams_wait(plant: Plant, tmp_path: Path) -> None:
    plant.receive(*write(tmp_path / "in", *(ct(number) for number in range(1, 4))), age=60)
    plant.run()
    assert plant.exam(SERIES)["state"] == "queued"


def test_a_phantom_goes_all_the_way(
    plant: Plant, archive: tuple[Archive, Listener], phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    plant.app.registry.import_bundle("demo", actor="test")
    for index, truth in enumerate(phantoms[1]):
        plant.receive(*files(phantoms, index), age=60)
        plant.run()
        exam = plant.exam(truth.series_uid)
        assert (exam["state"], exam["verdict"], exam["revision"]) == ("reported", truth.label, 1)
        assert exam["slice_count"] == truth.slices
        assert exam["received_at"] < exam["classified_at"] < exam["reported_at"]
        ((_path, report),) = archive[0].reports(truth.study_uid)
        assert read_report(report).certainty == pytest.approx(exam["certainty"], abs=1e-4)
        ranks = [image["key_rank"] for image in exam["slices"] if image["key_rank"]]
        assert sorted(ranks) == list(range(1, len(ranks) + 1))
        plant.run()
        assert len(archive[0].reports(truth.study_uid)) == 1


def test_late_slices_open_a_revision_whose_report_names_the_one_before(
    plant: Plant, archive: tuple[Archive, Listener], phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    plant.app.registry.import_bundle("demo", actor="test")
    truth, paths = phantoms[1][0], files(phantoms)
    plant.receive(*paths[:-2], age=60)
    plant.run()
    first = plant.exam(truth.series_uid)
    assert (first["state"], first["slice_count"]) == ("reported", truth.slices - 2)
    plant.receive(paths[0], age=0)
    plant.run()
    assert plant.exam(truth.series_uid)["revision"] == 1, "the same instance again changes nothing"
    plant.receive(*paths[-2:], age=60)
    plant.run()
    second = plant.exam(truth.series_uid)
    assert (second["state"], second["revision"], second["slice_count"]) == ("reported", 2, truth.slices)
    reports = [dataset for _path, dataset in archive[0].reports(truth.study_uid)]
    assert len(reports) == 2
    later = next(report for report in reports if report.InstanceNumber == 2)
    named = later.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == first["deliveries"][0]["sop_uid"]
    with plant.database.read() as session:
        assert len(list_exams(session)) == 1


def test_corrected_slices_open_a_revision_where_that_is_the_rule(
    tmp_path: Path, database: Database, archive: tuple[Archive, Listener], phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    plant = Plant(tmp_path / "data", database, archive[1].port, conflicts="revise")
    plant.app.registry.import_bundle("demo", actor="test")
    truth, paths = phantoms[1][0], files(phantoms)
    plant.receive(*paths, age=60)
    plant.run()
    corrected = dcmread(paths[3])
    corrected.InstanceNumber = "900"
    plant.receive(*write(tmp_path / "corrected", corrected))
    stored = plant.app.spool.root / "series" / truth.study_uid / truth.series_uid
    (version,) = stored.glob("*~*.dcm")
    os.utime(version, (time.time() - 60, time.time() - 60))
    plant.run()
    plant.run()
    exam = plant.exam(truth.series_uid)
    assert (exam["state"], exam["revision"], exam["slice_count"]) == ("reported", 2, truth.slices)
    assert sum(image["instance_number"] == 900 for image in exam["slices"]) == 1
    assert len(archive[0].reports(truth.study_uid)) == 2


def test_slices_that_come_before_anyone_looked_belong_to_the_same_revision(
    plant: Plant, phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    truth, paths = phantoms[1][0], files(phantoms)
    plant.receive(*paths[:-1], age=60)
    plant.sweep.tick()
    assert plant.exam(truth.series_uid)["state"] == "queued"
    plant.receive(paths[-1], age=1)
    plant.sweep.tick()
    exam = plant.exam(truth.series_uid)
    assert (exam["state"], exam["revision"], exam["slice_count"]) == ("receiving", 1, truth.slices)


def test_two_sweeps_and_two_workers_make_one_exam(
    plant: Plant, archive: tuple[Archive, Listener], phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)

    def sweep() -> None:
        mine = plant.app.sweep()
        for _ in range(20):
            mine.tick()

    def work(name: str) -> None:
        classify, deliver = plant.app.classification(), plant.app.delivery()
        for _ in range(40):
            classify.run_one(name)
            deliver.run_one(name)
            time.sleep(0.05)

    threads = [threading.Thread(target=sweep), threading.Thread(target=sweep)]
    threads += [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    truth = phantoms[1][0]
    exam = plant.exam(truth.series_uid)
    assert (exam["state"], exam["revision"]) == ("reported", 1)
    assert len(archive[0].reports(truth.study_uid)) == 1


def test_a_sweep_that_looked_too_early_opens_no_second_revision(
    plant: Plant,
    archive: tuple[Archive, Listener],
    phantoms: tuple[Path, list[PhantomExam]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between its look and its lock, another sweep closes the series and a worker finishes it."""
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)
    look = assembly._known
    looks: list[bool] = []

    def overtaken(session: Any, spooled: Any, *, lock: bool) -> Any:
        known = look(session, spooled, lock=lock)
        looks.append(lock)
        if looks == [False]:
            Plant.run(plant)
        return known

    monkeypatch.setattr(assembly, "_known", overtaken)
    plant.app.sweep().tick()
    plant.run()
    truth = phantoms[1][0]
    assert plant.exam(truth.series_uid)["revision"] == 1
    assert len(archive[0].reports(truth.study_uid)) == 1


def test_one_odd_series_does_not_keep_the_others_waiting(plant: Plant, tmp_path: Path) -> None:
    folder = plant.app.spool.root / "series" / "1.9" / "1.9.1"
    folder.mkdir(parents=True)
    (folder / "1.9.1.1.dcm").write_bytes(b"\x00" * 300)
    odd = ct(1, SeriesInstanceUID="1.9.2", StudyInstanceUID="1.9", SOPInstanceUID="1.9.2.1")
    (path,) = write(tmp_path / "odd", odd)
    path.write_bytes(path.read_bytes().replace(b"Silva^Ana", b"Si\x00va\x00Ana"))
    plant.receive(path, age=60)
    plant.receive(*write(tmp_path / "in", *(ct(number) for number in range(1, 4))), age=60)
    plant.sweep.tick()
    assert plant.exam(SERIES)["state"] == "queued"
    assert plant.exam("1.9.2")["state"] == "queued"


def test_series_that_cannot_be_classified_are_rejected_with_their_reason(plant: Plant, tmp_path: Path) -> None:
    plant.app.registry.import_bundle("demo", actor="test")
    cases: dict[str, list[Any]] = {
        "too_few_slices": [ct(1)],
        "mixed_patients": [ct(number, PatientID=f"P{number % 2}") for number in range(1, 13)],
        "localizer": [ct(number, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]) for number in range(1, 13)],
        "no_lungs": [ct(number) for number in range(1, 13)],
        "undecodable": [ct(number, PixelData=b"12") for number in range(1, 13)],
    }
    for index, (code, datasets) in enumerate(cases.items(), start=1):
        series = f"1.7.{index}"
        for number, dataset in enumerate(datasets):
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"1.6.{index}", series
            dataset.SOPInstanceUID = f"{series}.{number}"
        plant.receive(*write(tmp_path / code, *datasets), age=60)
    plant.run()
    for index, code in enumerate(cases, start=1):
        exam = plant.exam(f"1.7.{index}")
        assert (exam["state"], exam["reason_code"]) == ("rejected", code)
        assert exam["reason"].endswith(".")
        assert exam["deliveries"] == []


def test_two_patients_under_one_study_are_settled_by_people(
    plant: Plant, archive: tuple[Archive, Listener], phantoms: tuple[Path, list[PhantomExam]], tmp_path: Path
) -> None:
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*files(phantoms), age=60)
    stranger = []
    for number, path in enumerate(files(phantoms, 1), start=1):
        dataset = dcmread(path)
        dataset.StudyInstanceUID = phantoms[1][0].study_uid
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        target = tmp_path / f"{number}.dcm"
        dataset.save_as(target)
        stranger.append(target)
    plant.receive(*stranger, age=60)
    plant.run()
    for truth in phantoms[1]:
        exam = plant.exam(truth.series_uid)
        assert (exam["state"], exam["reason_code"]) == ("rejected", "patient_conflict")
    assert archive[0].reports(phantoms[1][0].study_uid) == []


def test_an_exam_is_classified_again_on_request(
    plant: Plant, archive: tuple[Archive, Listener], phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    plant.app.registry.import_bundle("demo", actor="test")
    truth = phantoms[1][0]
    plant.receive(*files(phantoms), age=60)
    plant.run()
    restart.reprocess(plant.database, plant.settings.data_dir, truth.series_uid, actor="test")
    plant.run()
    exam = plant.exam(truth.series_uid)
    assert (exam["state"], exam["revision"], exam["completeness"]) == ("reported", 2, "reprocess")
    assert len(archive[0].reports(truth.study_uid)) == 2
    restart.resend(plant.database, truth.series_uid, actor="test")
    assert plant.exam(truth.series_uid)["state"] == "classified"
    plant.run()
    assert plant.exam(truth.series_uid)["state"] == "reported"
    assert len(archive[0].reports(truth.study_uid)) == 2, "sending it twice is harmless"


def test_a_lost_message_is_sent_again(plant: Plant, tmp_path: Path) -> None:
    plant.app.registry.import_bundle("demo", actor="test")
    plant.receive(*write(tmp_path / "in", *(ct(number) for number in range(1, 4))), age=60)
    messages = plant.settings.data_dir / "broker" / "messages"
    plant.sweep.tick()
    assert len(list(messages.glob("*.classify.msg"))) == 1
    shutil.rmtree(messages)
    plant.sweep.tick()
    assert not list(messages.glob("*")) if messages.exists() else True
    with plant.database.write() as session:
        session.query(Series).one().woken_at = now() - timedelta(minutes=1)
    plant.sweep.tick()
    assert len(list(messages.glob("*.classify.msg"))) == 1


def test_messages_do_not_pile_up(plant: Plant) -> None:
    broker = Broker(plant.settings)
    for _ in range(5):
        broker.wake("classify", 10)
    assert len(list((plant.settings.data_dir / "broker" / "messages").glob("*.classify.msg"))) == 16


def test_states_are_those_of_the_contract() -> None:
    assert [state.value for state in State] == [
        "receiving", "queued", "classifying", "classified", "reported", "rejected", "failed",
    ]  # fmt: skip


def test_a_spool_that_is_empty_is_no_trouble(tmp_path: Path) -> None:
    assert list(Spool(tmp_path / "nothing").series()) == []
