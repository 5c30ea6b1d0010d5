"""Labels are looked at before anything learns from them."""

from pathlib import Path

import pytest

from models.bundle import Bundle
from tests.bundles import make_bundle
from tests.integration.test_database import add_series
from tests.plant import Plant
from worker import labels, retraining
from worker.commands import learning
from worker.database import Database, now
from worker.errors import WorkerError
from worker.label_check import LabelCheck, check_labels
from worker.labels import GivenLabel
from worker.retraining import Options
from worker.tables import ChallengerResult, Classification, ModelVersion, TrainingRun

OTHER = {"UIP": "NSIP", "NSIP": "UIP"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "1")


@pytest.fixture
def plant(tmp_path: Path, database: Database, bundle: Bundle) -> Plant:
    made = Plant(tmp_path / "data", database)
    made.app.registry.import_bundle(str(bundle.folder), actor="ana")
    return made


def active(plant: Plant) -> ModelVersion:
    with plant.database.read() as session:
        found = plant.app.registry.active(session)
        assert found is not None
        return found


def classified(plant: Plant, uid: str, verdict: str, *, code: str = "", likeliest: str = "UIP", sure: float = 0.95,
               patient: str = "") -> int:  # fmt: skip
    """An exam of which the active model has said something."""
    series_id = add_series(plant.database, uid, patient_id=patient or uid)
    model_id = active(plant).id
    with plant.database.write() as session:
        row = Classification(
            series_id=series_id, model_id=model_id, software="0", precision="f32", operating_point={}, classes=[],
            verdict=verdict, stated=sure, probabilities={likeliest: sure, OTHER[likeliest]: 1 - sure}, called={},
            verdict_code=code, verdict_reason="", header={}, notes=[], slice_count=1, slices_classified=1, seconds=1.0,
            classified_at=now(),
        )  # fmt: skip
        session.add(row)
        session.flush()
        return row.id


def label(plant: Plant, uid: str, name: str, author: str = "ana") -> None:
    labels.store(plant.database, [GivenLabel(uid, name)], author=author)


def check(plant: Plant) -> LabelCheck:
    with plant.database.read() as session:
        return check_labels(session, active(plant))


def test_labels_that_are_all_inverted_are_not_learned_from_unless_a_person_confirms(plant: Plant) -> None:
    for number in range(24):
        name = ("UIP", "NSIP")[number % 2]
        classified(plant, f"1.2.{number + 10}", name, likeliest=name)
        label(plant, f"1.2.{number + 10}", OTHER[name])
    found = check(plant)
    assert (found.suspect, found.labelled, found.asked, found.too_many) == (24, 24, 24, True)
    assert {finding.kind for finding in found.findings} == {"against the model"}
    with pytest.raises(WorkerError, match=r"24 of 24 labelled series look wrong .*Nothing is trained"):
        retraining.checked(plant.app, active(plant), None)
    assert retraining.checked(plant.app, active(plant), "read twice").suspect == 24
    for number in range(22):
        label(plant, f"1.2.{number + 10}", ("UIP", "NSIP")[number % 2])
    assert check(plant).suspect == 2
    assert not check(plant).too_many  # 2 of 24
    retraining.checked(plant.app, active(plant), None)


def test_whoever_trains_on_labels_looks_at_them_first(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "application", lambda: plant.app)
    for number in range(4):
        classified(plant, f"1.2.{number + 10}", "UIP", likeliest="UIP")
        label(plant, f"1.2.{number + 10}", "NSIP")
    with pytest.raises(WorkerError, match="4 of 4 labelled series look wrong"):
        learning.labels_checked(Path(learning.LABELLED), None)
    learning.labels_checked(Path(learning.LABELLED), "read twice")
    learning.labels_checked(tmp_path, None)  # a folder of its own


def test_without_a_model_readers_are_compared_with_each_other(plant: Plant) -> None:
    classified(plant, "1.2.10", "UIP", likeliest="UIP")
    label(plant, "1.2.10", "UIP")
    label(plant, "1.2.10", "NSIP", author="bia")
    with plant.database.read() as session:
        found = check_labels(session, None)
    assert [finding.kind for finding in found.findings] == ["readers differ"]
    assert "A model says nothing sure of 1 of them" in found.summary()


def test_a_model_that_abstains_contradicts_nobody_and_the_check_says_so(plant: Plant) -> None:
    for number, (code, likeliest, sure) in enumerate(
        [("unfamiliar", "UIP", 0.99), ("demo_model", "UIP", 0.99), ("unguarded", "UIP", 0.99),
         ("undecided", "UIP", 0.95), ("too_few_patients", "UIP", 0.80), ("too_few_patients", "UIP", 0.95)], start=10,
    ):  # fmt: skip
        classified(plant, f"1.2.{number}", "indeterminate", code=code, likeliest=likeliest, sure=sure)
        label(plant, f"1.2.{number}", "NSIP")
    found = check(plant)
    assert [finding.series_uid for finding in found.findings] == ["1.2.15"]
    assert (found.asked, found.labelled) == (1, 6)
    assert "says nothing sure of 5 of them" in found.summary()


def test_what_the_active_model_said_as_a_challenger_counts(plant: Plant) -> None:
    classification = classified(plant, "1.2.3", "indeterminate", code="undecided")
    label(plant, "1.2.3", "NSIP")
    assert check(plant).findings == ()
    with plant.database.write() as session:
        older = ModelVersion(name="older", version="1", architecture="a", bundle_sha256="0" * 64, path="p", metrics={},
                             active=False, imported_at=now(), imported_by="ana")  # fmt: skip
        session.add(older)
        session.flush()
        session.get_one(Classification, classification).model_id = older.id
    assert check(plant).asked == 0
    with plant.database.write() as session:
        session.add(ChallengerResult(model_id=active(plant).id, classification_id=classification, attempts=1,
                                     verdict="UIP", verdict_code="", probabilities={"UIP": 0.9, "NSIP": 0.1},
                                     classified_at=now()))  # fmt: skip
    (finding,) = check(plant).findings
    assert "labelled NSIP, and tiny 1 says UIP" in finding.sentence


def test_readers_who_differ_and_one_who_stands_alone_are_listed(plant: Plant) -> None:
    for number in range(10, 20):
        add_series(plant.database, f"1.2.{number}", patient_id=f"P{number}")
    label(plant, "1.2.10", "NSIP", "ana")
    label(plant, "1.2.10", "UIP", "ana")  # who changes her mind differs from nobody
    label(plant, "1.2.11", "UIP", "ana")
    label(plant, "1.2.11", "NSIP", "bo")
    for number in range(12, 16):
        for author, name in (("ana", "UIP"), ("bo", "UIP"), ("cy", "NSIP")):
            label(plant, f"1.2.{number}", name, author)
    found = check(plant)
    kinds = {finding.series_uid: (finding.kind, finding.sentence) for finding in found.findings}
    assert set(kinds) == {f"1.2.{number}" for number in range(11, 16)}
    assert kinds["1.2.11"][0] == "readers differ"
    assert kinds["1.2.12"] == (
        "one reader against all others",
        "cy stands alone: ana says UIP, bo says UIP, cy says NSIP.",
    )
    assert found.readers == ("Reader cy differs from the others in 4 of 4 series that they share.",)
    assert len(list(found.sentences())) == 6


def test_one_patient_under_two_classes_is_listed(plant: Plant) -> None:
    for uid, patient in (("1.2.10", "A"), ("1.2.11", "A"), ("1.2.12", "B"), ("1.2.13", "B")):
        add_series(plant.database, uid, patient_id=patient)
    for uid, name in (("1.2.10", "UIP"), ("1.2.11", "NSIP"), ("1.2.12", "UIP"), ("1.2.13", "UIP")):
        label(plant, uid, name)
    found = check(plant)
    assert [finding.series_uid for finding in found.findings] == ["1.2.10", "1.2.11"]
    assert found.too_many


def test_the_confirmation_is_kept_in_the_run_and_options_of_before_are_read(plant: Plant) -> None:
    from worker import training_runs

    number = training_runs.request(plant.database, Options(confirm_labels="read twice").as_json(), actor="ana")
    with plant.database.read() as session:
        stored = session.get_one(TrainingRun, number).options
    assert Options.from_json(stored).confirm_labels == "read twice"
    assert Options.from_json({"dataset": None, "fine_tune": "last", "epochs": 3}) == Options(epochs=3)
