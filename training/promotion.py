"""Is a candidate better than the model that is active? Both are asked about the same patients, whom neither knows."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.verdict import INDETERMINATE
from training.dataset import BACKGROUND, LabelledSlices
from training.evaluation import classify
from training.metrics import CONFIDENCE, RESAMPLES, brier_scores, exam_figures, slice_figures
from training.outcomes import exam_verdicts
from training.predictions import Predictions

FEWEST_PATIENTS = 5
RULE = (
    "A candidate is promoted when its Brier score on held-out patients is better than the active model's, by patient "
    "and paired, with a 95 % interval (bootstrap over patients) that excludes zero, and when it does not get fewer "
    "exams right."
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
    said = {name: classify(bundle, data, only=test) for name, bundle in (("active", active), ("candidate", candidate))}
    losses = {name: _brier_by_patient(each.named, _temperature(bundle)) for (name, each), bundle
              in zip(said.items(), (active, candidate), strict=True)}  # fmt: skip
    gains = losses["active"] - losses["candidate"]
    gain = _interval(gains)
    right = {name: _right_exams(said[name], bundle) for name, bundle in (("active", active), ("candidate", candidate))}
    better = gain[1] > 0 and right["candidate"] >= right["active"]
    figures = f"Brier score better by {gain[0]:.4f} ({gain[1]:.4f} to {gain[2]:.4f})"
    exams = f"{right['candidate']} exams right, {right['active']} before"
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
        active=_figures(said["active"], active),
        candidate=_figures(said["candidate"], candidate),
    )


def _temperature(bundle: Bundle) -> float:
    return bundle.description.temperature


def _brier_by_patient(named: Predictions, temperature: float) -> NDArray[np.float64]:
    """Mean Brier score of each patient's slices, patients in the order of their names."""
    probabilities = named.probabilities(temperature)
    scores = brier_scores(probabilities, named.labels)
    return np.array([scores[named.patients == patient].mean() for patient in sorted(set(named.patients.tolist()))])


def _interval(gains: NDArray[np.float64]) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    means = gains[rng.integers(0, len(gains), (RESAMPLES, len(gains)))].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return round(float(gains.mean()), 6), round(float(low), 6), round(float(high), 6)


def _right_exams(said: Predictions, bundle: Bundle) -> int:
    """Exams whose verdict is true; an exam of no class is right when it is left indeterminate."""
    outcomes = exam_verdicts(said, _temperature(bundle), bundle.description.operating_point)
    classes = bundle.description.class_names
    return sum(exam.verdict == (exam.truth if exam.truth in classes else INDETERMINATE) for exam in outcomes)


def _figures(said: Predictions, bundle: Bundle) -> dict[str, Any]:
    temperature = _temperature(bundle)
    return {
        "slices": slice_figures(said, temperature),
        "exams": exam_figures(said, temperature, bundle.description.operating_point),
    }
