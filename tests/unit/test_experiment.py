"""A protocol measured: no patient helps to calibrate the model that is asked about this patient."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from models.familiarity import Familiarity
from models.guard import Guard
from models.verdict import OperatingPoint
from tests.slices import labelled_slices
from training import experiment
from training.calibration import Calibration, calibrate
from training.dataset import LabelledSlices
from training.experiment import Inherited, best_for_all, measure, verdict_on_split
from training.fitting import UNWATCHED, Course, Epoch, Progress
from training.learners import Fitted
from training.predictions import Predictions, predictions
from training.protocols import Indices, patient_splits, study_split

NOWHERE = Familiarity(*(np.zeros((2, 1), np.float32), np.zeros((1, 1), np.float32)), *(np.ones(1, np.float32),) * 2)


class Oracle:
    """A learner that is right about `known` slices only, as one that knows its patients by heart."""

    def __init__(self, data: LabelledSlices, known: Any = None, *, interrupt: bool = False) -> None:
        self._data = data
        self._known = known
        self._interrupt = interrupt

    def prepare(self, indices: Indices, trained: Indices) -> None: ...

    def prepared(self, indices: Indices, trained: Indices) -> bool:
        return True

    def expected_seconds(self, indices: Indices, trained: Indices, learned_from: int) -> float:
        return 0.0

    def fit(
        self,
        training: Indices,
        validation: Indices,
        *,
        epochs: int | None = None,
        checkpoint: Path | None = None,
        progress: Progress = UNWATCHED,
    ) -> Fitted:
        nothing = Familiarity(*(np.zeros((1, 1), np.float32),) * 2, *(np.ones(1, np.float32),) * 2)
        course = Course((Epoch(1, 0.1, 0.1, 1.0),), 1, self._interrupt)
        return Fitted(nn.Identity(), nothing, course, 1.0, 1.0 if len(validation) else None, (len(training), 0))

    def judge(self, fitted: Fitted, indices: Indices) -> Predictions:
        logits = np.eye(2)[self._data.labels[indices]] * 4.0
        if self._known is not None:
            logits[~np.isin(indices, self._known)] = [3.0, 0.0]
        return predictions(self._data, indices, logits, np.ones((len(indices), 2)))


@pytest.fixture
def data() -> LabelledSlices:
    return of_patients(5)


def of_patients(count: int) -> LabelledSlices:
    return labelled_slices({kind: {f"{kind}{n}": 6 for n in range(count)} for kind in ("UIP", "NSIP")}, size=4)


def test_a_fold_is_calibrated_without_the_patients_in_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    data = of_patients(25)
    asked: list[set[str]] = []
    original = calibrate

    def listening(untouched: Predictions, *, reproduces: bool = False) -> Calibration:
        asked.append(set(untouched.patients.tolist()))
        return original(untouched, reproduces=reproduces)

    monkeypatch.setattr(experiment, "calibrate", listening)
    splits = patient_splits(data, np.arange(len(data)), None, 0)
    measured, _fitted = measure(Oracle(data), splits, "patient")
    everybody = set(data.patients.tolist())
    assert asked[0] == everybody  # the model that serves
    assert len(asked) == 1 + len(splits) == 6
    for patients, split in zip(asked[1:], splits, strict=True):
        assert patients == everybody - set(data.patients[split.test].tolist())
    assert sorted(measured.test.indices) == list(range(len(data)))
    assert len(measured.exams) == 50
    assert all(exam.verdict == exam.truth for exam in measured.exams)
    assert measured.calibrated_on == "patients that no network had seen"


def test_a_split_by_slice_that_flatters_is_said_to(data: LabelledSlices) -> None:
    chosen = np.arange(len(data))
    by_slice = study_split(data, chosen, 0)
    study, _fitted = measure(Oracle(data, by_slice.test), [by_slice], "study")
    patient, _fitted = measure(Oracle(data, []), patient_splits(data, chosen, None, 0), "patient")
    sentence = verdict_on_split(study, patient)
    assert "The split by slice flatters (100.0% by slice, 50.0% by patient)" in sentence
    assert "With 10 patients neither figure says much" in sentence
    same, _fitted = measure(Oracle(data), patient_splits(data, chosen, None, 0), "patient")
    assert "does not flatter" in verdict_on_split(study, same)


def test_ctrl_c_in_the_midst_of_a_cross_validation_keeps_no_figures(data: LabelledSlices) -> None:
    splits = patient_splits(data, np.arange(len(data)), None, 0)
    with pytest.raises(KeyboardInterrupt):
        measure(Oracle(data, interrupt=True), splits, "patient")
    measured, _fitted = measure(Oracle(data, interrupt=True), splits[:1], "patient")
    assert measured.courses[0].interrupted


def test_too_few_patients_know_nobody_but_whom_the_parent_knew(data: LabelledSlices) -> None:
    splits = patient_splits(data, np.arange(len(data)), None, 0)
    alone, _fitted = measure(Oracle(data), splits, "patient")
    assert alone.calibration.guard == Guard("patients", {"UIP": 5, "NSIP": 5}, None)
    assert {exam.verdict for exam in alone.exams} == {"indeterminate"}
    assert {exam.reason for exam in alone.exams} == {"too_few_patients"}
    parents = Calibration(
        1.5, OperatingPoint(commit=0.7), Guard("phantoms", {"UIP": 40, "NSIP": 40}, {"UIP": 2.0, "NSIP": 2.0})
    )
    inherited = Inherited(parents, NOWHERE)
    measured, _fitted = measure(Oracle(data), splits, "patient", inherited=inherited)
    assert (measured.calibration, measured.calibrated_on) == (parents, "the parent's patients")
    assert np.allclose(measured.scaled.logits * 1.5, measured.test.logits)
    # With enough of its own the parent's say is over.
    more = of_patients(20)
    folds = patient_splits(more, np.arange(len(more)), None, 0)
    own, _fitted = measure(Oracle(more), folds, "patient", inherited=inherited)
    assert own.calibration.guard.patients == {"UIP": 20, "NSIP": 20}
    # Those who are held out to compare it with the parent have no say.
    held, _fitted = measure(Oracle(more), folds, "patient", inherited=inherited, held_out=True)
    assert held.calibration == parents
    nobody, _fitted = measure(Oracle(more), folds, "patient", held_out=True)
    assert nobody.calibration.guard.limits is None
    assert {exam.verdict for exam in nobody.exams} == {"indeterminate"}


def test_a_guard_of_fewer_or_of_phantoms_does_not_replace_one_of_patients() -> None:
    more = of_patients(20)
    folds = patient_splits(more, np.arange(len(more)), None, 0)

    def kept(guard: Guard, data: LabelledSlices = more) -> bool:
        parents = Calibration(1.5, OperatingPoint(commit=0.7), guard)
        measured, _fitted = measure(Oracle(data), folds, "patient", inherited=Inherited(parents, NOWHERE))
        return measured.calibration == parents

    limits = {"UIP": 2.0, "NSIP": 2.0}
    assert kept(Guard("patients", {"UIP": 30, "NSIP": 20}, limits))
    assert not kept(Guard("patients", {"UIP": 20, "NSIP": 19}, limits))
    assert not kept(Guard("patients", {"UIP": 4, "NSIP": 4}))
    assert not kept(Guard("phantoms", {"UIP": 99, "NSIP": 99}, limits))
    drawn = replace(more, phantoms=np.ones(len(more), dtype=bool))
    assert kept(Guard("patients", {"UIP": 19, "NSIP": 19}, limits), drawn)


def test_the_protocol_of_the_study_serves_nobody() -> None:
    data = of_patients(30)
    measured, _fitted = measure(Oracle(data), [study_split(data, np.arange(len(data)), 0)], "study")
    assert measured.calibration.guard.reproduces
    assert measured.calibrated_on == "slices of patients that were learned from, which flatters"
    assert {exam.reason for exam in measured.exams} <= {"study_protocol", "few_slices"}


def test_what_nobody_can_calibrate_knows_nobody(data: LabelledSlices) -> None:
    measured, _fitted = measure(Oracle(data, []), patient_splits(data, np.arange(len(data)), None, 0), "patient")
    assert "they say nothing of the class" in measured.uncalibrated
    assert measured.calibration.guard.limits is None


def test_the_network_that_serves_learns_until_all_folds_together_are_best() -> None:
    def course(*accuracies: float) -> Course:
        epochs = tuple(Epoch(n, 0.1, 1 - accuracy, accuracy) for n, accuracy in enumerate(accuracies, start=1))
        return Course(epochs, int(np.argmax(accuracies)) + 1, False)

    folds = [course(0.9, 0.5, 0.6, 0.8), course(0.2, 0.5, 0.9, 0.8), course(0.3, 0.5, 0.6, 0.8)]
    assert [each.best for each in folds] == [1, 3, 4]
    assert best_for_all(folds, "accuracy") == 4
    assert best_for_all([*folds, course(0.1)], "accuracy") == 2  # of unequal length: the middle
