"""One protocol measured: every split learned and judged, the figures with their intervals, and what they are worth."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.familiarity import Familiarity
from models.guard import Guard
from models.verdict import OperatingPoint
from training.calibration import Calibration, UncalibratedError, abstention_curve, calibrate, patients_of, population
from training.fitting import UNWATCHED, Course, Progress, Select
from training.learners import Fitted, Learner
from training.metrics import Figure, exam_figures, slice_accuracy, slice_figures, with_interval
from training.outcomes import ExamOutcome, exam_verdicts
from training.predictions import Predictions, pooled
from training.protocols import FEW_PATIENTS, Split

Protocol = Literal["study", "patient"]
CalibratedOn = Literal[
    "patients that no network had seen",
    "slices of patients that were learned from, which flatters",
    "the parent's patients",
]
_FLATTERS = 0.05  # difference of two accuracies from which it is said


@dataclass(frozen=True)
class Inherited:
    """What a candidate has of its parent; it holds while all but the last layer stays as it was."""

    calibration: Calibration
    familiarity: Familiarity


@dataclass(frozen=True)
class Measured:
    """A protocol over all its splits. test: what was said of whole slices that no network had learned from.

    scaled, exams: the same after calibration, as the bundle would report them. calibration: of the network that serves;
    a network of several is calibrated for its own test without the patients in it. examples: views that one network
    learned from and was chosen by, and slices that it was tested on. epochs: how long the network learns that serves,
    where it learns from all patients. uncalibrated: why the probabilities could not be calibrated; empty where they
    could.
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
    uncalibrated: str
    epochs: int
    seconds: float

    @property
    def accuracy(self) -> Figure:
        """Accuracy of test slices, with its interval by patient."""
        return with_interval(self.test.named, slice_accuracy)

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
            "uncalibrated": self.uncalibrated,
            "guard": asdict(self.calibration.guard),
            "slices": slice_figures(self.test, self.scaled),
            "exams": exam_figures(self.exams, self.test.classes),
            "abstention_curve": abstention_curve(self.scaled),
            "best_epochs": [course.best for course in self.courses],
            "best_for_all": self.epochs,
            "interrupted": any(course.interrupted for course in self.courses),
            "seconds": round(self.seconds, 1),
        }


def measure(
    learner: Learner,
    splits: Sequence[Split],
    protocol: Protocol,
    *,
    inherited: Inherited | None = None,
    held_out: bool = False,
    select: Select = "accuracy",
    checkpoints: Path | None = None,
    progress: Progress = UNWATCHED,
) -> tuple[Measured, Fitted]:
    """Learn and judge every split; return the figures and the network of the last split.

    inherited: what a candidate has of its parent; it holds unless as many patients as the parent was calibrated on give
    another one. held_out: whether those that are tested are kept for a comparison, and must have no say. select: what
    an epoch is best in.

    Raises KeyboardInterrupt where Ctrl-C leaves a split of several undone.
    """
    started = time.monotonic()
    courses, training_accuracies, validation_accuracies = [], [], []
    tests, networks = [], []
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
        tests.append(learner.judge(fitted, split.test))
        networks.append(fitted)
    if fitted is None:
        raise ValueError("A protocol needs a split.")
    everything = pooled(tests)
    chosen, uncalibrated = _calibrated(everything, reproduces=protocol == "study")
    source: CalibratedOn = (
        "patients that no network had seen" if protocol == "patient"
        else "slices of patients that were learned from, which flatters"
    )  # fmt: skip
    if held_out:
        chosen, uncalibrated = _of_nobody(everything), ""
    if inherited is not None and not _replaces(chosen.guard, inherited.calibration.guard):
        chosen, source, uncalibrated = inherited.calibration, "the parent's patients", ""
        # As the bundle will measure them: from the parent's exams.
        tests = [
            learner.judge(replace(network, familiarity=inherited.familiarity), split.test)
            for network, split in zip(networks, splits, strict=True)
        ]
        everything = pooled(tests)
    scaled, exams = [], []
    for test in tests:
        nested = len(tests) > 1 and (inherited is None or chosen is not inherited.calibration)
        own = without_patients_of(test, everything, chosen) if nested else chosen
        scaled.append(test.scaled(own.temperature))
        exams.extend(exam_verdicts(scaled[-1], own.operating_point, own.guard))
    measured = Measured(
        protocol=protocol,
        splits=tuple(splits),
        courses=tuple(courses),
        training_accuracy=float(np.mean(training_accuracies)),
        validation_accuracy=float(np.mean(validation_accuracies)) if validation_accuracies else None,
        examples=(*fitted.examples, len(splits[-1].test)),
        test=everything,
        scaled=pooled(scaled),
        exams=tuple(exams),
        calibration=chosen,
        calibrated_on=source,
        uncalibrated=uncalibrated,
        epochs=best_for_all(courses, select),
        seconds=time.monotonic() - started,
    )
    return measured, fitted


def _of_nobody(tested: Predictions) -> Calibration:
    """Return the calibration of a network of which nobody may say anything."""
    knows, _those = population(tested)
    return Calibration(1.0, OperatingPoint(), Guard(knows, dict.fromkeys(tested.classes, 0)))


def _replaces(own: Guard, parents: Guard) -> bool:
    """Whether a guard is as good as the parent's: nothing that the parent knew is lost."""
    if own.limits is None or (parents.limits is not None and own.knows == "phantoms" != parents.knows):
        return False
    if own.knows != parents.knows or parents.limits is None:
        return True
    return all(own.patients.get(name, 0) >= count for name, count in parents.patients.items())


def best_for_all(courses: Sequence[Course], select: Select) -> int:
    """Return the epoch at which the networks of several folds were best together on their validation slices.

    Single folds are best now early, now late: what is best for all of them is steadier than the middle of these. Where
    no slice validated, or the courses differ in length, it is the median of their own best epochs.
    """
    figures = [[(epoch.validation_accuracy, epoch.validation_loss) for epoch in course.epochs] for course in courses]
    known = all(None not in epoch for course in figures for epoch in course)
    if not known or len({len(course) for course in figures}) > 1:
        return int(np.median([course.best for course in courses]))
    means = np.array(figures, dtype=np.float64).mean(axis=0)
    part = 1.0 if select == "accuracy" else 0.0
    return max(range(len(means)), key=lambda epoch: (part * round(means[epoch, 0], 6), -means[epoch, 1])) + 1


def _calibrated(untouched: Predictions, *, reproduces: bool) -> tuple[Calibration, str]:
    """Calibrate, and say why that could not be done; then nobody is known."""
    try:
        return calibrate(untouched, reproduces=reproduces), ""
    except UncalibratedError as error:
        knows, those = population(untouched)
        guard = Guard(knows, patients_of(those), None, reproduces)
        return Calibration(1.0, OperatingPoint(), guard), str(error)


def without_patients_of(test: Predictions, everything: Predictions, whole: Calibration) -> Calibration:
    """Calibrate for a fold without those tested in it, whom the guard must not have been measured on.

    Whether the bundle knows anybody is settled by all of them; a fold's own limits rest on fewer.
    """
    others = everything.rows(~np.isin(everything.patients, test.patients))
    if whole.guard.limits is None or not len(others.named):
        return whole
    own, uncalibrated = _calibrated(others, reproduces=False)
    if uncalibrated:
        return whole
    return own if own.guard.limits is not None else replace(own, guard=whole.guard)


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
