"""What the model may say: a temperature, the point from which it commits itself, and whom it knows.

All three come from whole patients that the network neither learned from nor was chosen by, each of whom weighs the
same. A cross-validation tests every patient once, by a network that has not seen that patient; what is chosen on these
answers holds for the network that learned from all of them as CV+ does (Barber et al., Ann Stat 2021;49:486): nearly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from models.guard import FEWEST_PATIENTS, Guard, Population, conformal_limit
from models.verdict import OperatingPoint
from training.dataset import BACKGROUND
from training.errors import TrainingError
from training.outcomes import ExamOutcome, exam_verdicts
from training.predictions import Predictions

_BINS = 15
_TEMPERATURES = (1e-3, 1e3)
_AT_THE_BOUND = 1.02
_LOWEST_COMMIT, _HIGHEST_COMMIT = 0.6, 0.95
_ACCEPTED_ERROR = 0.05


class UncalibratedError(TrainingError):
    """The probabilities say nothing of the truth, so no temperature mends them."""


@dataclass(frozen=True)
class Calibration:
    """What unseen patients said of the network's probabilities, of when to commit, and of whom it knows."""

    temperature: float
    operating_point: OperatingPoint
    guard: Guard


def calibrate(untouched: Predictions, *, reproduces: bool = False) -> Calibration:
    """Choose everything on slices of patients that no network had seen. Raises UncalibratedError.

    Patients and phantoms are never mixed: with 19 patients of each class, or where there are no phantoms, it is the
    patients that count, and the bundle is to know patients; otherwise it is the phantoms. reproduces: the bundle
    repeats a study and is to know nobody.
    """
    knows, those = population(untouched)
    temperature = fit_temperature(those)
    scaled = those.scaled(temperature)
    limits = {name: _limit(scaled, label) for label, name in enumerate(those.classes)}
    known = {name: limit for name, limit in limits.items() if limit is not None}
    guard = Guard(knows, patients_of(those), known if len(known) == len(limits) else None, reproduces)
    return Calibration(temperature, choose_operating_point(scaled, guard), guard)


def patients_of(predictions: Predictions) -> dict[str, int]:
    """Return how many patients there are of each class."""
    return {
        name: len(set(predictions.patients[predictions.labels == label].tolist()))
        for label, name in enumerate(predictions.classes)
    }


def population(untouched: Predictions) -> tuple[Population, Predictions]:
    """Return whom a bundle is to know, and the slices of these alone."""
    patients, phantoms = untouched.rows(~untouched.phantoms), untouched.rows(untouched.phantoms)
    named_phantoms = bool((phantoms.labels != BACKGROUND).any())
    if min(patients_of(patients).values()) >= FEWEST_PATIENTS or not named_phantoms:
        return "patients", patients
    return "phantoms", phantoms


def _limit(predictions: Predictions, label: int) -> float | None:
    """The limit of distance of a class; a patient of several exams counts once, by the farthest."""
    of_class = predictions.rows(predictions.labels == label)
    farthest: dict[str, float] = {}
    for patient, distance in zip(of_class.patients.tolist(), of_class.distances[:, label].tolist(), strict=True):
        known = farthest.get(patient, 0.0)
        farthest[patient] = distance if math.isnan(distance) else max(known, distance)
    return conformal_limit(list(farthest.values()))


def fit_temperature(predictions: Predictions) -> float:
    """Return the temperature with the smallest cross-entropy (Guo et al., ICML 2017); 1 without slices.

    Every patient weighs the same. With n patients of a class its slices count as of that class with (n + 1) / (n + 2)
    only, as Platt has it (1999): a few patients that are all right do not show that the model is never wrong. Of the
    background, as in training, all classes shall be equally probable: what is not known must not be sharpened. Raises
    UncalibratedError at a bound, where the answer would be another with a wider one.
    """
    if not len(predictions):
        return 1.0
    classes = len(predictions.classes)
    targets = np.full((len(predictions), classes), 1 / classes)
    for label in range(classes):
        rows = predictions.labels == label
        patients = len(set(predictions.patients[rows].tolist()))
        targets[rows] = (1 - (patients + 1) / (patients + 2)) / (classes - 1)
        targets[rows, label] = (patients + 1) / (patients + 2)
    weights = patient_weights(predictions)

    def loss(logarithm: float) -> float:
        scaled = log_softmax(predictions.logits / np.exp(logarithm), axis=1)
        return float(-(weights @ (targets * scaled).sum(axis=1)))

    found = float(np.exp(minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded").x))
    if not _TEMPERATURES[0] * _AT_THE_BOUND < found < _TEMPERATURES[1] / _AT_THE_BOUND:
        raise UncalibratedError(
            f"The network's answers about patients that it has not seen cannot be calibrated (temperature {found:.2f}, "
            "which is a bound): they say nothing of the class. See whether the labels are right, and add patients."
        )
    return round(found, 4)


def patient_weights(predictions: Predictions) -> NDArray[np.float64]:
    """Return a weight for each slice, so that all patients weigh the same and all slices 1 together."""
    _names, inverse, counts = np.unique(predictions.patients, return_inverse=True, return_counts=True)
    weights = 1 / counts[inverse]
    return np.asarray(weights / weights.sum())


def expected_calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return how far stated certainty and accuracy lie apart on average, in 15 bins (Guo et al., ICML 2017)."""
    error = 0.0
    for _stated, _right, gap, part in reliability(probabilities, labels):
        error += part * gap
    return error


def reliability(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64]
) -> Sequence[tuple[float, float, float, float]]:
    """Return (mean certainty, accuracy, their distance, part of the slices) of each bin that holds slices."""
    certainty = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((certainty * _BINS).astype(int), _BINS - 1)
    rows = []
    for number in sorted(set(bins.tolist())):
        inside = bins == number
        stated, accuracy = float(certainty[inside].mean()), float(right[inside].mean())
        rows.append((stated, accuracy, abs(stated - accuracy), float(inside.mean())))
    return rows


def choose_operating_point(predictions: Predictions, guard: Guard) -> OperatingPoint:
    """Choose when the model commits itself; the predictions are scaled already.

    commit: the lowest probability from 60 % on, at which no more than 5 % of the verdicts are wrong, one on an exam of
    no class among them; where a higher one would decide the same exams, the middle of the gap. Exams that the guard
    keeps from a verdict do not count.
    """
    familiar = [exam for exam in exam_outcomes(predictions) if _is_familiar(exam, guard)]
    steps = [_step(familiar, float(commit)) for commit in np.arange(_LOWEST_COMMIT, _HIGHEST_COMMIT + 0.001, 0.01)]
    accepted = [step for step in steps if step.error <= _ACCEPTED_ERROR]
    if not accepted:
        return OperatingPoint(commit=1.0)  # nothing is sure enough
    first = accepted[0]
    gap = [step.commit for step in steps if step.commit >= first.commit and step.decided == first.decided]
    return OperatingPoint(commit=round((gap[0] + gap[-1]) / 2, 2))


def exam_outcomes(predictions: Predictions) -> list[ExamOutcome]:
    """Return what is most likely of each exam, whatever a guard or an operating point would keep back."""
    return exam_verdicts(predictions, OperatingPoint(commit=0.0), None)


def _is_familiar(exam: ExamOutcome, guard: Guard) -> bool:
    return guard.limits is None or exam.distance <= guard.limits[exam.called]


@dataclass(frozen=True)
class _Step:
    """How many exams get a verdict at a probability, and which part of these verdicts is wrong."""

    commit: float
    decided: int
    error: float


def _step(exams: Sequence[ExamOutcome], commit: float) -> _Step:
    decided = [exam for exam in exams if exam.certainty >= commit]
    wrong = sum(exam.called != exam.truth for exam in decided)
    return _Step(commit, len(decided), wrong / len(decided) if decided else 0.0)


def abstention_curve(predictions: Predictions) -> list[tuple[float, float, float]]:
    """Return (commit, coverage, accuracy of the decided) of exams that have a class, as `commit` rises.

    The predictions are scaled already.
    """
    named = exam_outcomes(predictions.named)
    rows = []
    for commit in np.arange(0.5, 1.0, 0.02):
        decided = [exam for exam in named if exam.certainty >= commit]
        if decided:
            right = sum(exam.called == exam.truth for exam in decided)
            rows.append((round(float(commit), 2), len(decided) / len(named), right / len(decided)))
    return rows
