"""One protocol measured: every split learned and judged, the figures with their intervals, and what they are worth."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.verdict import OperatingPoint
from training.calibration import abstention_curve, choose_operating_point, fit_temperature
from training.fitting import UNWATCHED, Course, Progress
from training.learners import Fitted, Learner
from training.metrics import Figure, exam_figures, slice_accuracy, slice_figures, with_interval
from training.outcomes import ExamOutcome, exam_verdicts
from training.predictions import Predictions, pooled
from training.protocols import FEW_PATIENTS, Split

Protocol = Literal["study", "patient"]
CalibratedOn = Literal[
    "validation slices", "slices of the parent's training", "the test slices themselves, which flatters"
]
_FLATTERS = 0.05  # difference of two accuracies from which it is said


@dataclass(frozen=True)
class Calibration:
    """What validation slices said of the probabilities and of when to commit."""

    temperature: float
    operating_point: OperatingPoint


@dataclass(frozen=True)
class Measured:
    """A protocol over all its splits. test: what was said of whole slices that no network had learned from.

    scaled, exams: the same after calibration. calibration: of the network that serves; a network of several is
    calibrated for its own test without the patients in it. examples: views that one network learned from and was chosen
    by, and slices that it was tested on.
    """

    protocol: Protocol
    splits: tuple[Split, ...]
    courses: tuple[Course, ...]
    training_accuracy: float
    validation_accuracy: float | None
    examples: tuple[int, int, int]
    test: Predictions
    scaled: Predictions
    exams: tuple[ExamOutcome, ...]
    calibration: Calibration
    calibrated_on: CalibratedOn
    seconds: float

    @property
    def accuracy(self) -> Figure:
        """Accuracy of test slices, with its interval by patient."""
        return with_interval(self.test.named, slice_accuracy)

    @property
    def epochs(self) -> int:
        """How long networks learned until they were best: the median."""
        return int(np.median([course.best for course in self.courses]))

    def as_json(self) -> dict[str, Any]:
        """Return the figures as they stand in `bundle.json`."""
        training, validation, test = self.examples
        return {
            "split": "slices, patients on both sides" if self.protocol == "study" else "whole patients",
            "folds": len(self.splits),
            "training_images": training,
            "validation_images": validation,
            "test_slices": test,
            "test_patients": len(set(self.test.patients.tolist())),
            "training_accuracy": round(self.training_accuracy, 4),
            "validation_accuracy": None if self.validation_accuracy is None else round(self.validation_accuracy, 4),
            "temperature": self.calibration.temperature,
            "calibrated_on": self.calibrated_on,
            "slices": slice_figures(self.test, self.scaled),
            "exams": exam_figures(self.exams, self.test.classes),
            "abstention_curve": abstention_curve(self.scaled),
            "best_epochs": [course.best for course in self.courses],
            "interrupted": any(course.interrupted for course in self.courses),
            "seconds": round(self.seconds, 1),
        }


def measure(
    learner: Learner,
    splits: Sequence[Split],
    protocol: Protocol,
    *,
    calibration: Calibration | None = None,
    checkpoints: Path | None = None,
    progress: Progress = UNWATCHED,
) -> tuple[Measured, Fitted]:
    """Learn and judge every split; return the figures and the network of the last split.

    Where no slice validates, `calibration` holds; without one the test slices are calibrated on, and that is noted.

    Raises KeyboardInterrupt where Ctrl-C leaves a split of several undone.
    """
    started = time.monotonic()
    courses, training_accuracies, validation_accuracies = [], [], []
    validations, tests = [], []
    fitted: Fitted | None = None
    for number, split in enumerate(splits, start=1):
        checkpoint = None if checkpoints is None else checkpoints / f"{protocol}-{number}.pt"
        fitted = learner.fit(split.training, split.validation, checkpoint=checkpoint, progress=progress)
        if fitted.course.interrupted and len(splits) > 1:
            raise KeyboardInterrupt
        courses.append(fitted.course)
        training_accuracies.append(fitted.training_accuracy)
        if fitted.validation_accuracy is not None:
            validation_accuracies.append(fitted.validation_accuracy)
            validations.append(learner.judge(fitted, split.validation))
        tests.append(learner.judge(fitted, split.test))
    if fitted is None:
        raise ValueError("A protocol needs a split.")
    validation = pooled(validations) if validations else None
    chosen: Calibration
    source: CalibratedOn
    if validation is not None:
        chosen, source = calibrate(validation), "validation slices"
    elif calibration is not None:
        chosen, source = calibration, "slices of the parent's training"
    else:
        chosen, source = calibrate(pooled(tests)), "the test slices themselves, which flatters"
    scaled, exams = [], []
    for test in tests:
        own = _without_patients_of(test, validation, chosen) if len(tests) > 1 else chosen
        scaled.append(test.scaled(own.temperature))
        exams.extend(exam_verdicts(scaled[-1], own.operating_point))
    measured = Measured(
        protocol=protocol,
        splits=tuple(splits),
        courses=tuple(courses),
        training_accuracy=float(np.mean(training_accuracies)),
        validation_accuracy=float(np.mean(validation_accuracies)) if validation_accuracies else None,
        examples=(*fitted.examples, len(splits[-1].test)),
        test=pooled(tests),
        scaled=pooled(scaled),
        exams=tuple(exams),
        calibration=chosen,
        calibrated_on=source,
        seconds=time.monotonic() - started,
    )
    return measured, fitted


def calibrate(validation: Predictions) -> Calibration:
    """Choose temperature and operating point on slices that no network learned from."""
    temperature = fit_temperature(validation)
    return Calibration(temperature, choose_operating_point(validation.scaled(temperature)))


def _without_patients_of(test: Predictions, validation: Predictions | None, otherwise: Calibration) -> Calibration:
    """Calibrate for a fold: every patient validates in some fold, and those tested here must not."""
    if validation is None:
        return otherwise
    others = ~np.isin(validation.patients, test.patients)
    return calibrate(validation.rows(others)) if others.any() else otherwise


def verdict_on_split(study: Measured, patient: Measured) -> str:
    """Say in a sentence or two what the two figures are worth beside each other."""
    by_slice, by_patient = study.accuracy, patient.accuracy
    both = f"{by_slice.value:.1%} by slice, {by_patient.value:.1%} by patient"
    if by_slice.value - by_patient.value >= _FLATTERS:
        said = (
            f"The split by slice flatters ({both}): neighbouring slices of one patient stand on both of its sides. "
            "Only the figure by patient says something of a patient that the model has not seen."
        )
    else:
        said = f"The split by slice does not flatter here ({both})."
    patients = len(set(patient.test.named.patients.tolist()))
    if patients < FEW_PATIENTS * len(patient.test.classes):
        said += f" With {patients} patients neither figure says much."
    return said
