"""Labels, candidates, and the rule by which one of them is promoted."""

import dataclasses
import hashlib
import os
import threading
import time
from dataclasses import replace
from datetime import timedelta
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, seal_bundle
from tests.bundles import PASSED, SIZE, make_bundle, patients, tiny_data
from tests.integration.test_database import add_series
from tests.plant import Plant
from tests.slices import labelled_slices
from training.dataset import LabelledSlices
from training.errors import DatasetError, TrainingError
from training.phantom import PhantomExam
from training.promotion.decision import Question, decide_promotion
from training.recipe import Observer
from training.retraining import split, summary
from training.sides import Sides
from worker import labels, retraining, training_runs
from worker.commands import retrain as command
from worker.database import Database, now
from worker.errors import LeaseLostError, WorkerError
from worker.labels import GivenLabel
from worker.registry import as_json
from worker.retraining import Material, Options
from worker.tables import TrainingRun
from worker.training_runs import RunState

# What they show has nothing to do with the database, and training takes its time.
ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model that learned almost nothing."""
    return make_bundle(tmp_path_factory.mktemp("poor") / "bundle", epochs=1, rate=1e-6)


@pytest.fixture
def plant(tmp_path: Path, database: Database, poor: Bundle) -> Plant:
    made = Plant(tmp_path / "data", database)
    made.app.registry.import_bundle(str(poor.folder), actor="ana")
    return made


def _falls_to_the_test(name: str) -> bool:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % 20 < 4


def many() -> LabelledSlices:
    """The tiny data, and as many patients again whom no model knows, all of them held out."""
    counts = patients(("UIP", "NSIP"), 24)
    for name, known in counts.items():
        new = filter(_falls_to_the_test, (f"{name}-new-{number}" for number in count()))
        known.update(dict.fromkeys(islice(new, 42), 4))
    return labelled_slices(counts, size=SIZE)


MANY = many()


def material(plant: Plant) -> Material:
    with plant.database.read() as session:
        model = plant.app.registry.active(session)
        assert model is not None
    from models.bundle import open_bundle

    return Material(model, open_bundle(plant.app.registry.folder(model)), (), (), ())


def asked(data: LabelledSlices, bundle: Bundle) -> Question:
    return Question.about(data, Sides.of(bundle), [])


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every candidate passed its battery."""

    def answered(bundle: Bundle, **_asked: Any) -> Bundle:
        return seal_bundle(bundle.folder, replace(bundle.description, battery=PASSED))

    monkeypatch.setenv("RETICULA_TRAINING__BATTERY", "30")
    monkeypatch.setattr("training.recipe.ask_bundle", answered)


@ON_SQLITE
def test_a_better_candidate_is_promoted_and_names_its_parent(passed: None, plant: Plant, poor: Bundle) -> None:
    stages: list[str] = []
    settled: list[str] = []
    outcome = retraining.run(
        plant.app, material(plant), MANY, Options(epochs=30), Observer(on_stage=stages.append),
        name="r1", actor="ana", command="reticula retrain",
        also=lambda _session, decision, _model: settled.append(decision.sentence),
    )  # fmt: skip
    decision = outcome.decision
    assert decision.promote, decision.sentence
    assert settled == [decision.sentence]
    assert decision.gain is not None
    assert decision.gain[0] > decision.gain[1] > 0
    assert decision.moved is not None
    assert decision.moved[1] == 0
    assert decision.patients == sum(Sides.of(poor).side(name) == "test" for name in set(MANY.patients.tolist()))
    assert decision.patients >= 72
    versions = {version.version: version for version in plant.app.registry.all()}
    assert versions["1+r1"].active
    assert not versions["1"].active
    assert as_json(versions["1+r1"])["parent"] == "tiny 1"
    assert versions["1+r1"].imported_by == "ana"
    assert stages[-1] == "Comparing"
    held = poor.description.data["patients_by_side"]
    made = plant.app.registry.folder(versions["1+r1"])
    from models.bundle import open_bundle

    candidate = open_bundle(made).description
    assert candidate.parent == poor.sha256
    assert set(held["test"]) <= set(candidate.data["patients_by_side"]["test"])
    assert candidate.data["limits"] == poor.description.data["limits"]
    everyone = Sides.of(open_bundle(made))
    assert {name: everyone.side(name) for name in tiny_data().patients.tolist()} == {
        name: Sides.of(poor).side(name) for name in tiny_data().patients.tolist()
    }
    # Wrong labels make a worse candidate: it is kept, and stays what it is.
    data = MANY
    learned = np.array([Sides.of(poor).side(name) != "test" for name in data.patients.tolist()])
    misled = dataclasses.replace(data, labels=np.where(learned, 1 - data.labels, data.labels))
    again = retraining.run(
        plant.app, material(plant), misled, Options(epochs=30), Observer(),
        name="r2", actor="ana", command="reticula retrain",
    )  # fmt: skip
    assert not again.decision.promote
    assert "Not promoted: not shown to be safe:" in again.decision.sentence
    assert again.decision.moved is not None
    assert again.decision.moved[1] > 30
    assert {version.version for version in plant.app.registry.all() if version.active} == {"1+r1"}
    assert "1+r2" in {version.version for version in plant.app.registry.all()}


@ON_SQLITE
def test_a_model_that_was_promoted_meanwhile_is_not_pushed_aside(
    passed: None, plant: Plant, poor: Bundle, tmp_path: Path
) -> None:
    from tests.bundles import another_version

    other = another_version(poor, tmp_path / "other", "9")

    def meanwhile(stage: str) -> None:
        if stage == "Comparing":
            plant.app.registry.import_bundle(str(other.folder), actor="bob")
            plant.app.registry.promote("tiny 9", actor="bob")

    outcome = retraining.run(
        plant.app, material(plant), MANY, Options(), Observer(on_stage=meanwhile),
        name="r1", actor="ana", command="",
    )  # fmt: skip
    assert not outcome.decision.promote
    assert "another model was made active" in outcome.decision.sentence
    assert "1+r1" in {version.version for version in plant.app.registry.all()}
    assert {version.version for version in plant.app.registry.all() if version.active} == {"9"}


def apart(data: LabelledSlices) -> Sides:
    """Return the sides of a model that kept three patients of each class apart, and chose its epoch by as many."""
    known = dict[str, list[str]]()
    for name in data.classes:
        kept = [f"{name}-{number}" for number in range(24)]
        for side, part in (("test", kept[:3]), ("validation", kept[3:6]), ("training", kept[6:])):
            known.setdefault(side, []).extend(part)
    return Sides().including(known)


def test_no_patient_ever_changes_sides(poor: Bundle) -> None:
    everybody = set(tiny_data().patients.tolist())
    # The network that serves has learned from all whom the cross-validation tested.
    assert {Sides.of(poor).side(patient) for patient in everybody} == {"training"}
    sides = apart(tiny_data())
    old = {patient: sides.side(patient) for patient in everybody}
    assert [sum(side == name for side in old.values()) for name in ("training", "validation", "test")] == [36, 6, 6]
    new = {f"new-{number}": sides.side(f"new-{number}") for number in range(400)}
    assert {f"new-{number}": sides.side(f"new-{number}") for number in range(400)} == new
    parts = [sum(side == name for side in new.values()) / 400 for name in ("test", "validation", "training")]
    assert parts == pytest.approx([0.2, 0.15, 0.65], abs=0.06)
    grown = labelled_slices(
        {
            "UIP": {**patients(("UIP",), 24)["UIP"], **{f"new-{n}": 2 for n in range(200)}},
            "NSIP": {**patients(("NSIP",), 24)["NSIP"], **{f"new-{n}": 2 for n in range(200, 400)}},
        },
        size=4,
    )
    parted = split(grown, sides)
    names = [set(grown.patients[part].tolist()) for part in (parted.training, parted.validation, parted.test)]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert {patient for patient, side in old.items() if side == "test"} <= names[2]
    counted = summary(grown, sides)
    assert counted["test"]["UIP"]["slices"] + counted["test"]["NSIP"]["slices"] == len(parted.test)


def test_who_was_learned_from_once_is_never_held_out(poor: Bundle) -> None:
    """A study bundle has patients on both sides; a candidate remembers those of its parent."""
    study = Sides().including({"training": ["a", "b"], "validation": ["b", "c"], "test": ["a", "b", "c", "d"]})
    assert [study.side(name) for name in "abcd"] == ["training", "training", "validation", "test"]
    later = study.including({"training": ["x"], "test": ["a"]})
    assert [later.side(name) for name in "abcdx"] == ["training", "training", "validation", "test", "training"]
    assert later.learned_from(["a", "c", "d", "nobody"]) == 2
    assert later.including({"training": ["d"]}).side("d") == "training"
    accents = Sides().including({"training": ["Jo\u00e3o"]})
    assert accents.learned_from(["Joa\u0303o", "Jos\udce9"]) == 1
    assert "a" not in str(study.as_json()["training"]).strip("[']").split("', '")
    without = dataclasses.replace(
        poor, description=dataclasses.replace(poor.description, data={**poor.description.data, "patients_by_side": {}})
    )
    with pytest.raises(TrainingError, match="cannot be retrained"):
        Sides.of(without)


def test_without_enough_held_out_patients_nobody_is_promoted(poor: Bundle) -> None:
    data = tiny_data()
    few = np.flatnonzero(np.isin(data.patients, ["UIP-0", "NSIP-0"]))
    question = Question.about(data, apart(data), [])
    decision = decide_promotion(poor, poor, data, few, question)
    assert (decision.promote, decision.alpha) == (False, 0.0)
    assert "not shown to be safe: 6 patients" in decision.sentence
    assert "66 more are missing" in decision.sentence
    same = decide_promotion(poor, poor, data, np.arange(len(data)), question)
    assert (same.promote, same.gain, same.moved) == (False, (0.0, 0.0, 0.0), (0, 0))
    assert len(same.as_json()["asked"]["patients"]) == 6
    unasked = dataclasses.replace(poor, description=replace(poor.description, battery=None))
    enough = decide_promotion(poor, unasked, MANY, np.arange(len(MANY)), asked(MANY, poor))
    assert (enough.promote, enough.alpha > 0) == (False, True)
    assert "0 better off and 0 worse" in enough.sentence
    assert "it was not asked about unknowns" in enough.sentence


def test_nobody_to_hold_out_or_to_learn_from_is_refused(poor: Bundle) -> None:
    everybody = tiny_data().patients.tolist()
    learned_from_all = Sides().including({"training": everybody})
    with pytest.raises(DatasetError, match="No patient is held out"):
        split(tiny_data(), learned_from_all)
    all_held = Sides().including({"test": everybody})
    with pytest.raises(DatasetError, match="may be learned from"):
        split(tiny_data(), all_held)


def test_labels_are_checked_before_any_is_stored(database: Database, tmp_path: Path) -> None:
    for uid in ("1.2.3", "1.2.4"):
        add_series(database, uid)
    assert labels.store(database, [GivenLabel("1.2.3", "piu")], author="ana") == 1
    with pytest.raises(WorkerError, match="is none of UIP"):
        labels.store(database, [GivenLabel("1.2.4", "UIP"), GivenLabel("1.2.3", "COPD")], author="ana")
    table = tmp_path / "labels.csv"
    table.write_text("series_uid;label\n1.2.4;NSIP\n1.2.9;UIP\n", encoding="utf-8")
    with pytest.raises(WorkerError, match=r"line 3: There is no series 1\.2\.9"):
        labels.store(database, labels.read_table(table), author="ana")
    with database.read() as session:
        assert labels.current(session) == {"1.2.3": "UIP"}
    table.write_text("series_uid,label\n1.2.4,normal\n1.2.3,NSIP\n", encoding="utf-8-sig")
    assert labels.store(database, labels.read_table(table), author="bob") == 2
    with database.read() as session:
        assert labels.current(session) == {"1.2.3": "NSIP", "1.2.4": "normal"}
    for content in ("", "uid,label\n1,UIP\n"):
        table.write_text(content, encoding="utf-8")
        with pytest.raises(WorkerError, match="columns series_uid and label"):
            labels.read_table(table)


def test_labelled_exams_come_from_the_spool_with_their_patient(
    plant: Plant, phantoms: tuple[Path, list[PhantomExam]]
) -> None:
    folder, exams = phantoms
    for exam in exams:
        plant.receive(*sorted((folder / exam.folder).glob("*.dcm")), age=60)
    plant.sweep.tick()
    add_series(plant.database, "1.2.77")
    given = [*(GivenLabel(exam.series_uid, exam.label) for exam in exams), GivenLabel("1.2.77", "UIP")]
    labels.store(plant.database, given, author="ana")
    gathered = retraining.gather(plant.app, Options())
    assert {(source.label, source.patient) for source in gathered.labelled} == {
        (exam.label, exam.patient_id) for exam in exams
    }
    assert [uid for uid, _why in gathered.unusable] == ["1.2.77"]
    said: list[str] = []
    data = retraining.read(gathered, said.append)
    assert set(data.patients.tolist()) == {exam.patient_id for exam in exams}
    assert data.images.shape[1:] == (SIZE, SIZE)
    assert any("1.2.77" in sentence for sentence in said)


def test_without_labels_and_base_there_is_nothing_to_learn_from(plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="nothing to learn from"):
        retraining.gather(plant.app, Options())
    with pytest.raises(DatasetError, match="does not exist"):
        retraining.gather(plant.app, Options(dataset=tmp_path / "none"))


def test_runs_are_claimed_once_kept_and_taken_back(database: Database) -> None:
    options = Options(dataset=Path("/srv/base"))
    number = training_runs.request(database, options.as_json(), actor="ana")
    with pytest.raises(WorkerError, match="under way"):
        training_runs.request(database, options.as_json(), actor="bob")
    held = training_runs.claim(database, number, "me")
    assert held is not None
    assert Options.from_json(held.options) == options
    assert training_runs.claim(database, number, "you") is None
    training_runs.give_back(database, number, "you", "The loser ended.", counts=True)
    training_runs.progress(database, held, "By patient, epoch 3 done", 4, 9)
    assert training_runs.release_expired(database) == 0
    for attempt in range(2, training_runs.MAX_ATTEMPTS + 1):
        with database.write() as session:
            session.get_one(TrainingRun, number).lease_until = now()
        assert training_runs.release_expired(database) == 1
        with pytest.raises(LeaseLostError):
            training_runs.progress(database, held, "too late", None, None)
        again = training_runs.claim(database, number, "me")
        assert again is not None
        assert again.attempts == attempt
    training_runs.give_back(database, number, "me", "It was stopped.", counts=False)
    stopped = training_runs.claim(database, number, "me")
    assert stopped is not None
    assert stopped.attempts == training_runs.MAX_ATTEMPTS
    training_runs.give_back(database, number, "me", "The process ended with -9.", counts=True)
    with database.read() as session:
        (run,) = training_runs.listed(session)
        shown = training_runs.as_json(run)
    assert shown["state"] == RunState.FAILED
    assert "ended with -9" in shown["outcome"]
    assert dataclasses.is_dataclass(held)


@pytest.mark.parametrize("settles", [True, False])
def test_a_run_that_is_settled_is_kept_no_longer_and_a_lost_one_ends_at_once(
    plant: Plant, poor: Bundle, monkeypatch: pytest.MonkeyPatch, *, settles: bool
) -> None:
    """The lease ends with the run: whoever keeps it must not take that for a loss, and end after a promotion with 1."""
    number = training_runs.request(plant.database, Options().as_json(), actor="ana", owner="me")
    held = training_runs.claim(plant.database, number, "me")
    assert held is not None
    ended: list[int] = []
    settled = threading.Event()

    def end(code: int) -> None:
        ended.append(code)
        settled.set()  # the thread that keeps the run must not outlive this test

    monkeypatch.setattr(training_runs, "LEASE", timedelta(seconds=0.04))
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(command, "application", lambda: plant.app)
    model = material(plant).model
    decision = decide_promotion(poor, poor, tiny_data(), np.arange(0), asked(tiny_data(), poor))

    def run(*_given: Any, also: Any, **_named: Any) -> retraining.Outcome:
        with plant.database.write() as session:
            if settles:
                also(session, decision, model)
            else:
                session.get_one(TrainingRun, number).lease_owner = "you"
        if settles:
            time.sleep(0.3)  # as long as a folder is removed
        else:
            assert settled.wait(60)
        return retraining.Outcome(model, decision)

    monkeypatch.setattr(retraining, "run", run)
    command._do(held, material(plant), tiny_data(), Options(), Observer(), "", settled)
    assert bool(ended) != settles
    with plant.database.read() as session:
        assert session.get_one(TrainingRun, number).state == (RunState.DONE if settles else RunState.RUNNING)


def test_a_lease_that_ends_with_its_run_while_it_is_renewed_is_no_loss(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled, ended = threading.Event(), list[int]()

    def keep(*_given: Any) -> None:
        settled.set()
        raise LeaseLostError("The lease of retraining 1 was lost.")

    monkeypatch.setattr(training_runs, "LEASE", timedelta(seconds=0.04))
    monkeypatch.setattr(training_runs, "keep", keep)
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(command, "application", lambda: plant.app)
    command._keep(training_runs.HeldRun(1, "me", {}, "ana", 1), settled)
    assert ended == []
