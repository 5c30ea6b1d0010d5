"""Challengers: they classify in shadow, nothing of it is reported, and a person who promotes one says why."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from models.bundle import Bundle
from pacs.archive import Archive
from pacs.listener import Listener
from tests.bundles import another_version, make_bundle
from tests.plant import Plant, files
from training.phantom import PhantomExam
from worker import challengers, exams, model_comparison, retention, training_runs
from worker.challenge import ChallengeStage
from worker.database import Database, now
from worker.errors import WorkerError
from worker.tables import (
    AuditEvent,
    ChallengerResult,
    Classification,
    Delivery,
    ModelVersion,
    Promotion,
    Report,
    Series,
    TrainingRun,
)
from worker.training_runs import RunState

Phantoms = tuple[Path, list[PhantomExam]]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """A model and two that were trained on from it."""
    folder = tmp_path_factory.mktemp("bundles")
    first = make_bundle(folder / "1")
    return [first, *(another_version(first, folder / name, name, parent=first.sha256) for name in ("2", "3"))]


@pytest.fixture
def plant(tmp_path: Path, database: Database, bundles: list[Bundle]) -> Plant:
    """An installation whose retrainings have made the versions 2 and 3 from 1, and shown neither to be safe."""
    made = Plant(tmp_path / "data", database)
    for bundle in bundles:
        version = made.app.registry.import_bundle(str(bundle.folder), actor="ana")
        if not version.active:
            retrained(database, version)
    return made


def retrained(database: Database, version: ModelVersion, *, promote: bool = False) -> None:
    """As if a retraining had made a version, on twelve held-out patients."""
    figures = {"promote": promote, "patients": 12, "group": 1, "alpha": 0.0, "asked": {"salt": "s", "patients": ["a"]}}
    with database.write() as session:
        session.add(TrainingRun(state=RunState.DONE, options={}, requested_by="ana", requested_at=now(), stage="done",
                                outcome="Not promoted.", figures=figures, model_id=version.id))  # fmt: skip


def receive(plant: Plant, phantoms: Phantoms) -> None:
    for index in range(len(phantoms[1])):
        plant.receive(*files(phantoms, index), age=60)
    plant.sweep.tick()


def rows(plant: Plant) -> list[ChallengerResult]:
    with plant.database.read() as session:
        return list(session.scalars(select(ChallengerResult).order_by(ChallengerResult.id)))


def count(plant: Plant, table: Any) -> int:
    with plant.database.read() as session:
        return int(session.scalar(select(func.count()).select_from(table)) or 0)


def challenging(plant: Plant) -> list[str]:
    with plant.database.read() as session:
        return [each.version for each in challengers.challengers(session, plant.app.registry.active(session))]


def test_the_newest_challenger_classifies_in_shadow_when_no_exam_waits(plant: Plant, phantoms: Phantoms) -> None:
    assert challenging(plant) == ["3", "2"]
    receive(plant, phantoms)
    stage = plant.app.classification()
    for _exam in phantoms[1]:  # exams come first
        assert stage.run_one("worker")
        assert not rows(plant)
    shown = [plant.exam(exam.series_uid) for exam in phantoms[1]]
    reports = count(plant, Report), count(plant, Delivery)
    assert stage.run_one("worker")
    assert stage.run_one("worker")
    assert not stage.run_one("worker")
    said = rows(plant)
    with plant.database.read() as session:
        newest = plant.app.registry.find(session, "tiny 3")
        own = {row.id: row for row in session.scalars(select(Classification))}
    assert {row.model_id for row in said} == {newest.id}
    assert {row.classification_id for row in said} == set(own)
    for row in said:
        theirs = own[row.classification_id]  # the same network: it must say the same
        assert (row.verdict, row.verdict_code) == (theirs.verdict, theirs.verdict_code)
        assert row.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
        assert (row.lease_owner, row.attempts, row.classified_at is not None) == (None, 1, True)
    assert [plant.exam(exam.series_uid) for exam in phantoms[1]] == shown
    assert (count(plant, Report), count(plant, Delivery)) == reports


def test_a_challenger_stands_back_for_an_exam_and_does_it_again_later(plant: Plant, phantoms: Phantoms) -> None:
    plant.receive(*files(phantoms, 0), age=60)
    plant.sweep.tick()
    assert plant.app.classification().run_one("worker")

    def arrives() -> None:
        with plant.database.read() as session:
            if session.scalar(select(func.count()).select_from(Series)) == 1:
                plant.receive(*files(phantoms, 1), age=60)
                plant.sweep.tick()

    def shadow(alive: Any = lambda: None, lease: Any = exams.LEASE) -> ChallengeStage:
        return ChallengeStage(plant.database, plant.app.registry, plant.settings.data_dir, min_slices=10, days=30,
                              alive=alive, lease=lease)  # fmt: skip

    assert shadow(arrives, exams.LEASE / 1e9).run_one("worker")
    (row,) = rows(plant)
    assert (row.classified_at, row.lease_owner, row.attempts) == (None, None, 0)
    plant.run()
    assert all(each.classified_at for each in rows(plant))
    assert len(rows(plant)) == 2


def test_what_a_dead_worker_held_is_done_again_and_not_for_ever(plant: Plant, phantoms: Phantoms) -> None:
    plant.receive(*files(phantoms, 0), age=60)
    plant.sweep.tick()
    stage = plant.app.classification()
    assert stage.run_one("worker")
    with plant.database.write() as session:
        classification = session.scalars(select(Classification)).one()
        newest = plant.app.registry.find(session, "tiny 3")
        session.add(ChallengerResult(model_id=newest.id, classification_id=classification.id, attempts=1,
                                     lease_owner="dead", lease_until=now() + exams.LEASE))  # fmt: skip
    assert not stage.run_one("worker"), "its lease holds"

    def expire(attempts: int) -> None:
        with plant.database.write() as session:
            session.execute(update(ChallengerResult).values(lease_until=now(), attempts=attempts))

    expire(exams.MAX_ATTEMPTS)
    assert not stage.run_one("worker"), "it killed its worker too often"
    expire(exams.MAX_ATTEMPTS - 1)
    assert stage.run_one("worker")
    (row,) = rows(plant)
    assert (row.verdict is not None, row.attempts) == (True, exams.MAX_ATTEMPTS)


def test_an_exam_without_files_is_told_once(plant: Plant, phantoms: Phantoms) -> None:
    plant.receive(*files(phantoms, 0), age=60)
    plant.sweep.tick()
    stage = plant.app.classification()
    assert stage.run_one("worker")
    next(iter((plant.app.spool.root / "series").glob("*/*/*.dcm"))).unlink()
    assert stage.run_one("worker")
    (row,) = rows(plant)
    assert (row.verdict, row.verdict_code) == (None, "missing_files")
    assert not stage.run_one("worker")


def test_what_a_challenger_said_goes_with_the_exam(plant: Plant, phantoms: Phantoms, tmp_path: Path) -> None:
    archive = Listener(Archive(tmp_path / "archive"), ae_title="ARCHIVE", host="127.0.0.1", port=0)
    archive.start()
    try:
        reporting = Plant(tmp_path / "data", plant.database, archive.port)
        reporting.receive(*files(phantoms, 0), age=60)
        reporting.run()
    finally:
        archive.stop()
    assert len(rows(plant)) == 1
    retention.forget(plant.database, plant.settings.data_dir, phantoms[1][0].series_uid, actor="ana")
    assert rows(plant) == []


def test_a_person_who_promotes_a_challenger_says_why(plant: Plant) -> None:
    registry = plant.app.registry

    def promote(name: str, because: str | None = None) -> str:
        return challengers.promote(plant.database, registry, name, actor="bo", because=because).version

    for because in (None, " "):
        with pytest.raises(WorkerError, match=r"Not shown to be safe: 12 patients\. Say why"):
            promote("tiny 2", because)
    assert challenging(plant) == ["3", "2"]
    assert promote("tiny 2", "Read beside it for a month.") == "2"
    with plant.database.read() as session:
        row = session.scalars(select(Promotion).order_by(Promotion.id.desc()).limit(1)).one()
        assert row.reason == "Read beside it for a month. (Not shown to be safe: 12 patients.)"
        event = session.scalars(select(AuditEvent).order_by(AuditEvent.id.desc()).limit(1)).one()
        assert (event.actor, event.detail["reason"]) == ("bo", row.reason)
        carried = challengers.safety(session, registry.find(session, "tiny 2"))
    assert carried == "Not shown to be safe: 12 patients."
    assert challenging(plant) == []  # they challenged version 1
    registry.rollback(actor="bo")
    assert challenging(plant) == ["3"]  # 2 had its turn
    with plant.database.read() as session:
        salt, decisions = training_runs.decisions(session)
        assert salt == "s"
        assert [each.served for each in decisions] == [True, False]
        assert challengers.safety(session, registry.find(session, "tiny 1")) is None
    assert promote("tiny 1") == "1"


def test_what_a_retraining_has_promoted_needs_no_reason(
    tmp_path: Path, database: Database, bundles: list[Bundle]
) -> None:
    plant = Plant(tmp_path / "data", database)
    plant.app.registry.import_bundle(str(bundles[0].folder), actor="ana")
    version = plant.app.registry.import_bundle(str(bundles[1].folder), actor="ana")
    retrained(database, version, promote=True)
    assert challengers.promote(database, plant.app.registry, "tiny 2", actor="bo", because=None).version == "2"


def test_two_versions_are_compared_by_class_scanner_and_month(plant: Plant, phantoms: Phantoms) -> None:
    receive(plant, phantoms)
    plant.run()
    first, second = phantoms[1]
    with plant.database.write() as session:
        one, two = (plant.app.registry.find(session, f"tiny {name}") for name in ("1", "3"))
        own = {row.series.series_uid: row for row in session.scalars(select(Classification))}
        own[first.series_uid].verdict, own[second.series_uid].verdict = "UIP", "NSIP"
        for uid, verdict in ((first.series_uid, "UIP"), (second.series_uid, "indeterminate")):
            its = ChallengerResult.classification_id == own[uid].id
            session.execute(update(ChallengerResult).where(its).values(verdict=verdict, verdict_code="undecided"))
    with plant.database.read() as session:
        found = model_comparison.pairs(session, one, two)
    result = model_comparison.as_json(found, one, two)
    assert (result["exams"], result["differ"]) == (2, 1)
    assert {(row["first"], row["second"]): row["exams"] for row in result["verdicts"]} == {
        ("UIP", "UIP"): 1, ("NSIP", "indeterminate"): 1,
    }  # fmt: skip
    assert result["by_class"] == [{"group": "NSIP", "exams": 1, "differ": 1}, {"group": "UIP", "exams": 1, "differ": 0}]
    assert [row["exams"] for row in result["by_month"]] == [2]
    assert result["by_month"][0]["group"] == f"{now():%Y-%m}"
    assert all(" / " in row["group"] for row in result["by_scanner"])
    assert [row["series_uid"] for row in result["differing"]] == [second.series_uid]
    assert result["differing"][0]["second"]["verdict"] == "indeterminate"
    with plant.database.read() as session:
        swapped = model_comparison.pairs(session, two, one)
    assert [(pair.first, pair.second) for pair in swapped] == [(pair.second, pair.first) for pair in found]
