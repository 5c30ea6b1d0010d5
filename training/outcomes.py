"""What a model would report of each exam."""

from dataclasses import dataclass

import numpy as np

from models.guard import Guard
from models.verdict import Exam, OperatingPoint, decide
from training.predictions import Predictions


@dataclass(frozen=True)
class ExamOutcome:
    """One exam: what it is, what was said and why not more, and what it is most likely of.

    certainty: the probability of `called`, 0 to 1; distance: from the exams of that class.
    """

    exam: str
    patient: str
    truth: str
    verdict: str
    reason: str
    certainty: float
    called: str
    distance: float


def exam_verdicts(predictions: Predictions, point: OperatingPoint, guard: Guard | None) -> list[ExamOutcome]:
    """Return what would be said of each exam; the predictions are scaled already.

    A data set holds the slices with lung alone, so how much of the lungs was classified is not asked.
    """
    probabilities = predictions.probabilities
    outcomes = []
    for exam in dict.fromkeys(predictions.exams.tolist()):
        rows = predictions.exams == exam
        first = int(np.flatnonzero(rows)[0])
        asked = Exam(probabilities[rows], predictions.distances[first], bool(predictions.phantoms[first]))
        said = decide(predictions.classes, asked, point, guard)
        called = max(said.probabilities, key=lambda name: said.probabilities[name])
        outcomes.append(
            ExamOutcome(
                exam=exam,
                patient=str(predictions.patients[first]),
                truth=str(predictions.kinds[first]),
                verdict=said.verdict,
                reason=said.reason_code,
                certainty=said.probabilities[called],
                called=called,
                distance=said.distance,
            )
        )
    return outcomes
