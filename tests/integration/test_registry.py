"""Model versions: which one classifies, who made it so, and what happens when it does not open."""

import logging
from pathlib import Path

import pytest

from models.bundle import Bundle
from models.errors import BundleError
from tests.bundles import another_version, make_bundle
from tests.plant import Plant
from training.phantom import PhantomExam
from worker import audit
from worker.database import Database
from worker.errors import WorkerError
from worker.registry import as_json
from worker.tables import AuditEvent, Promotion


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    folder = tmp_path_factory.mktemp("bundles")
    first = make_bundle(folder / "1")
    second = another_version(first, folder / "2", "2", parent=first.sha256)
    return [first, second, another_version(first, folder / "3", "3", parent=second.sha256)]


@pytest.fixture
def plant(tmp_path: Path, database: Database, bundles: list[Bundle]) -> Plant:
    made = Plant(tmp_path / "data", database)
    for bundle in bundles:
        made.app.registry.import_bundle(str(bundle.folder), actor="ana")
    return made


def active(plant: Plant) -> str:
    rows = [version for version in plant.app.registry.all() if version.active]
    assert len(rows) == 1
    return rows[0].version


def damage(plant: Plant, version: str) -> None:
    with plant.database.read() as session:
        folder = plant.app.registry.folder(plant.app.registry.find(session, f"tiny {version}"))
    (folder / "network.bin").write_bytes(b"damaged")


def test_versions_say_where_they_come_from(plant: Plant, bundles: list[Bundle]) -> None:
    rows = {version.version: as_json(version) for version in plant.app.registry.all()}
    assert [rows[name]["parent"] for name in ("1", "2", "3")] == [None, "tiny 1", "tiny 2"]
    assert {row["imported_by"] for row in rows.values()} == {"ana"}
    assert rows["2"]["bundle_sha256"] == bundles[1].sha256
    assert rows["2"]["path"] == f"bundles/{bundles[1].sha256}"
    assert rows["2"]["metrics"]["patient"]["slices"]["accuracy"]["value"] >= 0
    assert active(plant) == "1"


def test_promotions_are_undone_one_after_the_other(plant: Plant) -> None:
    registry = plant.app.registry
    registry.promote("tiny 2", actor="ana")
    registry.promote("tiny 3", actor="bob", reason="better")
    registry.promote("tiny 3", actor="bob")  # again: nothing changes
    assert active(plant) == "3"
    assert registry.rollback(actor="ana").version == "2"
    assert active(plant) == "2"
    assert registry.rollback(actor="ana").version == "1"
    assert active(plant) == "1"
    with pytest.raises(WorkerError, match="nothing to go back to"):
        registry.rollback(actor="ana")
    registry.promote("tiny 3", actor="ana")
    assert registry.rollback(actor="ana").version == "1"
    with plant.database.read() as session:
        rows = session.query(Promotion).order_by(Promotion.id).all()
        assert [(row.promoted_by, row.reason, row.undone_at is None) for row in rows] == [
            ("ana", "the first model", True), ("ana", "", False), ("bob", "better", False), ("ana", "", False),
        ]  # fmt: skip
        actions = [event.action for event in session.query(AuditEvent).order_by(AuditEvent.id)]
    assert actions.count("model promoted") == 4
    assert actions.count("model rolled back") == 3
    assert audit.person()


def test_a_damaged_bundle_is_not_promoted_and_not_gone_back_to(plant: Plant) -> None:
    registry = plant.app.registry
    damage(plant, "2")
    with pytest.raises(BundleError, match="altered"):
        registry.promote("tiny 2", actor="ana")
    assert active(plant) == "1"
    registry.promote("tiny 3", actor="ana")
    damage(plant, "1")
    with pytest.raises(BundleError, match="altered"):
        registry.rollback(actor="ana")
    assert active(plant) == "3"


def test_a_plain_name_never_means_a_candidate_that_was_not_promoted(plant: Plant) -> None:
    registry = plant.app.registry
    with plant.database.read() as session:
        assert registry.find(session, "tiny").version == "1"
        assert registry.find(session, "tiny 3").version == "3"
    with pytest.raises(WorkerError, match="name the version"):
        registry.promote("tiny", actor="ana")
    registry.promote("tiny 2", actor="ana")
    with plant.database.read() as session:
        assert registry.find(session, "tiny").version == "2"


def test_a_candidate_is_promoted_only_after_the_model_that_it_was_compared_with(plant: Plant) -> None:
    registry = plant.app.registry
    versions = {version.version: version for version in registry.all()}
    assert not registry.promote_after(versions["3"], expected=versions["2"], actor="ana", reason="")
    assert active(plant) == "1"
    assert registry.promote_after(versions["3"], expected=versions["1"], actor="ana", reason="")
    assert active(plant) == "3"


def test_workers_take_a_new_model_up_and_keep_the_old_one_where_it_does_not_open(
    plant: Plant, phantoms: tuple[Path, list[PhantomExam]], caplog: pytest.LogCaptureFixture
) -> None:
    folder, exams = phantoms
    stage = plant.app.classification()
    for exam in exams:
        plant.receive(*sorted((folder / exam.folder).glob("*.dcm")), age=60)
    plant.sweep.tick()

    def classify() -> None:
        assert stage.run_one("worker")

    def models() -> list[str]:
        return [plant.exam(exam.series_uid)["model"] for exam in exams]

    classify()
    plant.app.registry.promote("tiny 2", actor="ana")
    classify()
    assert sorted(models()) == ["tiny 1", "tiny 2"]
    plant.app.registry.promote("tiny 3", actor="ana")
    damage(plant, "3")
    from worker import restart

    with caplog.at_level(logging.ERROR):
        for exam in exams:
            restart.reprocess(plant.database, plant.settings.data_dir, exam.series_uid, actor="ana")
            classify()
    assert models() == ["tiny 2", "tiny 2"]
    (complaint,) = (record.getMessage() for record in caplog.records if "tiny 3" in record.getMessage())
    assert complaint.endswith("The one before it goes on.")
    # A worker that starts now has nothing loaded: it takes the one that was active before.
    restart.reprocess(plant.database, plant.settings.data_dir, exams[0].series_uid, actor="ana")
    assert plant.app.classification().run_one("new worker")
    shown = plant.exam(exams[0].series_uid)
    assert shown["model"] == "tiny 2"
    assert shown["distance"] > 0
    assert (shown["verdict_reason"] is None) == (shown["verdict"] != "indeterminate")
