"""A protocol measured: no patient helps to calibrate the model that is asked about this patient."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from models.familiarity import Familiarity
from tests.slices import labelled_slices
from training import experiment
from training.dataset import LabelledSlices
from training.experiment import Calibration, measure, verdict_on_split
from training.fitting import UNWATCHED, Course, Epoch, Progress
from training.learners import Fitted
from training.predictions import Predictions, predictions
from training.protocols import Indices, patient_splits, study_split


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
        return predictions(self._data, indices, logits, np.ones(len(indices)))


@pytest.fixture
def data() -> LabelledSlices:
    return labelled_slices({"UIP": {f"u{n}": 6 for n in range(5)}, "NSIP": {f"n{n}": 6 for n in range(5)}}, size=4)


def test_a_fold_is_calibrated_without_the_patients_in_its_test(
    data: LabelledSlices, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    original = experiment.calibrate

    def listening(validation: Predictions) -> Calibration:
        asked.append(set(validation.patients.tolist()))
        return original(validation)

    monkeypatch.setattr(experiment, "calibrate", listening)
    splits = patient_splits(data, np.arange(len(data)), None, 0)
    measured, _fitted = measure(Oracle(data), splits, "patient")
    everybody = set(data.patients.tolist())
    assert asked[0] == everybody  # the model that serves
    assert len(asked) == 1 + len(splits) == 6
    for patients, split in zip(asked[1:], splits, strict=True):
        assert patients == everybody - set(data.patients[split.test].tolist())
    assert sorted(measured.test.indices) == list(range(len(data)))
    assert len(measured.exams) == 10
    assert measured.calibrated_on == "validation slices"


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


def test_without_validation_the_parents_calibration_holds(data: LabelledSlices) -> None:
    splits = patient_splits(data, np.arange(len(data)), 2, 0)
    assert not len(splits[0].validation)
    from models.verdict import OperatingPoint

    parents = Calibration(1.5, OperatingPoint(commit=0.7))
    measured, _fitted = measure(Oracle(data), splits[:1], "patient", calibration=parents)
    assert (measured.calibration, measured.calibrated_on) == (parents, "slices of the parent's training")
    assert np.allclose(measured.scaled.logits * 1.5, measured.test.logits)
    flattering, _fitted = measure(Oracle(data), splits, "patient")
    assert flattering.calibrated_on == "the test slices themselves, which flatters"
