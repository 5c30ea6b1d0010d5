"""Is a candidate better than the model that is active? Both are asked about the same patients, whom neither knows."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.bundle import Bundle
from models.verdict import INDETERMINATE
from training.dataset import BACKGROUND, LabelledSlices
from training.evaluation import classify
from training.intervals import CONFIDENCE
from training.metrics import brier_scores, exam_figures, slice_figures
from training.outcomes import exam_verdicts

FEWEST_PATIENTS = 5
RULE = (
    "A candidate is promoted when its Brier score on held-out patients is better than the active model's, by patient "
    "and paired, with a 95 % interval (Student's t over patients) that excludes zero, and when it does not get fewer "
    "exams right. With few patients, or gains that are far from normally distributed, the interval promises too much."
)


@dataclass(frozen=True)
class Decision:
    """What came of a comparison. gain: how much better the candidate's mean Brier score is, with its interval."""

    promote: bool
    sentence: str
    patients: int
    gain: tuple[float, float, float] | None
    active: dict[str, Any] | None
    candidate: dict[str, Any] | None

    def withheld(self, sentence: str) -> "Decision":
        """Return the decision not to promote after all, for the reason in `sentence`."""
        return replace(self, promote=False, sentence=sentence)

    def as_json(self) -> dict[str, Any]:
        """Return the decision as it is stored."""
        return {**self.__dict__, "rule": RULE, "gain": None if self.gain is None else list(self.gain)}


def decide_promotion(active: Bundle, candidate: Bundle, data: LabelledSlices, test: NDArray[np.int64]) -> Decision:
    """Compare two bundles on the slices `test`, whose patients neither has learned from."""
    named = test[data.labels[test] != BACKGROUND]
    patients = set(data.patients[named].tolist())
    missing = [name for index, name in enumerate(data.classes) if not (data.labels[named] == index).any()]
    if len(patients) < FEWEST_PATIENTS or missing:
        lack = f"none of them {missing[0]}" if missing and patients else f"{FEWEST_PATIENTS} are needed"
        sentence = f"Not promoted: {len(patients)} patients are held out, {lack}, so nobody can say which is better."
        return Decision(False, sentence, len(patients), None, None, None)
    before, after = (_Judged.of(bundle, data, test) for bundle in (active, candidate))
    gain = _interval(before.brier - after.brier)
    better = gain[1] > 0 and after.right >= before.right
    figures = f"Brier score better by {gain[0]:.4f} ({gain[1]:.4f} to {gain[2]:.4f})"
    exams = f"{after.right} exams right, {before.right} before"
    if better:
        sentence = f"Promoted: {figures}, {exams}, on {len(patients)} held-out patients."
    elif gain[1] <= 0:
        sentence = f"Not promoted: the interval of the gain does not exclude zero ({figures}; {exams})."
    else:
        sentence = f"Not promoted: fewer exams are right ({exams}; {figures})."
    return Decision(
        promote=better,
        sentence=sentence,
        patients=len(patients),
        gain=gain,
        active=before.figures,
        candidate=after.figures,
    )


@dataclass(frozen=True)
class _Judged:
    """A bundle on the held-out slices. brier: mean Brier score of each patient, in the order of their names.

    right: exams whose verdict is true; an exam of no class is right when it is left indeterminate.
    """

    brier: NDArray[np.float64]
    right: int
    figures: dict[str, Any]

    @classmethod
    def of(cls, bundle: Bundle, data: LabelledSlices, test: NDArray[np.int64]) -> "_Judged":
        description = bundle.description
        raw = classify(bundle, data, only=test)
        scaled = raw.scaled(description.temperature)
        outcomes = exam_verdicts(scaled, description.operating_point, description.guard)
        classes = description.class_names
        named = scaled.named
        scores = brier_scores(named.probabilities, named.labels)
        patients = sorted(set(named.patients.tolist()))
        return cls(
            brier=np.array([scores[named.patients == patient].mean() for patient in patients]),
            right=sum(exam.verdict == (exam.truth if exam.truth in classes else INDETERMINATE) for exam in outcomes),
            figures={"slices": slice_figures(raw, scaled), "exams": exam_figures(outcomes, classes)},
        )


def _interval(gains: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean and interval by Student's t: a bootstrap of so few patients would be too narrow."""
    mean, error = float(gains.mean()), float(stats.sem(gains))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(gains) - 1)) * error
    return round(mean, 6), round(mean - half, 6), round(mean + half, 6)
