"""What the model may say: a temperature for its probabilities, and the point from which it commits itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from models.verdict import OperatingPoint
from training.dataset import BACKGROUND
from training.outcomes import ExamOutcome, exam_verdicts
from training.predictions import Predictions

_BINS = 15
_TEMPERATURES = (0.25, 8.0)
_LOWEST_COMMIT, _HIGHEST_COMMIT = 0.6, 0.95
_ACCEPTED_ERROR = 0.05
_FAMILIAR_PART = 0.95
_FEWEST_EXAMS = 5  # with fewer, no limit of distance can be told


def fit_temperature(predictions: Predictions) -> float:
    """Return the temperature with the smallest cross-entropy (Guo et al., ICML 2017); 1 without slices.

    Of the background, as in training, all classes shall be equally probable: what is not known must not be sharpened.
    """
    if not len(predictions):
        return 1.0
    classes = len(predictions.classes)
    targets = np.full((len(predictions), classes), 1 / classes)
    named = predictions.labels != BACKGROUND
    targets[named] = np.eye(classes)[predictions.labels[named]]

    def loss(logarithm: float) -> float:
        scaled = log_softmax(predictions.logits / np.exp(logarithm), axis=1)
        return float(-(targets * scaled).sum(axis=1).mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    return round(float(np.exp(found.x)), 4)


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


def choose_operating_point(predictions: Predictions) -> OperatingPoint:
    """Choose when the model commits itself, on exams that it did not learn from; the predictions are scaled already.

    max_distance: 95 % of the exams of a class lie within it, as split conformal prediction counts them (Papadopoulos
    et al., 2002). commit: the lowest probability from 60 % on, at which no more than 5 % of the verdicts are wrong, one
    on an exam of no class among them; where a higher one would decide the same exams, the middle of the gap.
    """
    outcomes = exam_verdicts(predictions, OperatingPoint(commit=0.0))
    named = [exam for exam in outcomes if exam.truth in predictions.classes]
    max_distance = None
    if len(named) >= _FEWEST_EXAMS:
        distances = sorted(exam.distance for exam in named)
        rank = min(len(distances), int(np.ceil((len(distances) + 1) * _FAMILIAR_PART)))
        max_distance = float(np.ceil(distances[rank - 1] * 1e4) / 1e4)  # never below the exam that sets it
    familiar = [exam for exam in outcomes if max_distance is None or exam.distance <= max_distance]
    steps = [_step(familiar, float(commit)) for commit in np.arange(_LOWEST_COMMIT, _HIGHEST_COMMIT + 0.001, 0.01)]
    accepted = [step for step in steps if step.error <= _ACCEPTED_ERROR] or [min(steps, key=lambda step: step.error)]
    first = accepted[0]
    gap = [step.commit for step in steps if step.commit >= first.commit and step.decided == first.decided]
    return OperatingPoint(commit=round((gap[0] + gap[-1]) / 2, 2), max_distance=max_distance)


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
    named = exam_verdicts(predictions.named, OperatingPoint(commit=0.0))
    rows = []
    for commit in np.arange(0.5, 1.0, 0.02):
        decided = [exam for exam in named if exam.certainty >= commit]
        if decided:
            right = sum(exam.called == exam.truth for exam in decided)
            rows.append((round(float(commit), 2), len(decided) / len(named), right / len(decided)))
    return rows
