"""What a model would report of each exam."""

from dataclasses import dataclass

import numpy as np

from models.verdict import OperatingPoint, decide
from training.predictions import Predictions


@dataclass(frozen=True)
class ExamOutcome:
    """One exam: what it is, what was said, with which certainty, and how far it lies from the training exams."""

    exam: str
    patient: str
    truth: str
    verdict: str
    certainty: float
    called: str
    distance: float


def exam_verdicts(predictions: Predictions, point: OperatingPoint) -> list[ExamOutcome]:
    """Return what would be said of each exam; the predictions are scaled already."""
    probabilities = predictions.probabilities
    outcomes = []
    for exam in dict.fromkeys(predictions.exams.tolist()):
        rows = predictions.exams == exam
        distance = float(predictions.distances[rows][0])
        said = decide(predictions.classes, probabilities[rows], point, distance=distance)
        called = max(said.probabilities, key=lambda name: said.probabilities[name])
        first = int(np.flatnonzero(rows)[0])
        outcomes.append(
            ExamOutcome(
                exam=exam,
                patient=str(predictions.patients[first]),
                truth=str(predictions.kinds[first]),
                verdict=said.verdict,
                certainty=max(said.probabilities.values()),
                called=called,
                distance=distance,
            )
        )
    return outcomes
