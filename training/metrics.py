"""Figures of predictions, by slice and by exam; their intervals count patients (see `training.intervals`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata
from sklearn.metrics import confusion_matrix

from models.verdict import INDETERMINATE
from training.calibration import expected_calibration_error
from training.intervals import counting_by_class, counting_for, counting_in_pairs, exact_interval
from training.outcomes import ExamOutcome
from training.predictions import Predictions

INTERVALS = (
    "Intervals are of 95 %, exact binomial, as if each patient were one trial: slices of a patient may all be right or "
    "wrong together. They count who was tested; what a split leaks they do not know."
)
Statistic = Callable[[NDArray[np.float64], NDArray[np.int64]], float]  # of logits (slices, classes) and labels
Count = Callable[[NDArray[np.str_], NDArray[np.int64]], float]  # of the patient and the label of each slice


@dataclass(frozen=True)
class Figure:
    """A figure with its 95 % interval; None where it cannot be told."""

    value: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        """Return it in percent."""
        if self.low is None or self.high is None:
            return f"{self.value:.1%}"
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%})"

    def as_json(self) -> dict[str, float | None]:
        """Return it as it stands in `bundle.json`."""
        return {
            "value": None if np.isnan(self.value) else round(self.value, 4),
            "low": None if self.low is None else round(self.low, 4),
            "high": None if self.high is None else round(self.high, 4),
        }


def _of_slices(patients: NDArray[np.str_], _labels: NDArray[np.int64]) -> float:
    return counting_for(patients)


def with_interval(predictions: Predictions, statistic: Statistic, count: Count = _of_slices) -> Figure:
    """Return a statistic from 0 to 1 with its interval; `count` tells for how many patients it stands.

    A class of one patient says nothing of others of that class: then there is no interval.
    """
    value = statistic(predictions.logits, predictions.labels)
    if np.isnan(value) or min(patients_by_class(predictions).values(), default=0) < 2:
        return Figure(value, None, None)
    return Figure(value, *exact_interval(value, count(predictions.patients, predictions.labels)))


def patients_by_class(predictions: Predictions) -> dict[str, int]:
    """Return how many patients of each class there are; one who stands under several counts in each."""
    kinds = sorted(set(predictions.kinds.tolist()), key=lambda kind: _place(predictions, kind))
    return {kind: len(set(predictions.patients[predictions.kinds == kind].tolist())) for kind in kinds}


def _place(predictions: Predictions, kind: str) -> tuple[int, str]:
    known = kind in predictions.classes
    return (predictions.classes.index(kind) if known else len(predictions.classes)), kind


def slice_figures(predictions: Predictions, scaled: Predictions) -> dict[str, Any]:
    """Return the figures of slices that have a class; `scaled`: the same predictions, calibrated."""
    raw, named = predictions.named, scaled.named
    if not len(named):
        return {"slices": 0}
    classes = named.classes
    table = confusion_matrix(named.labels, named.logits.argmax(axis=1), labels=list(range(len(classes))))
    figures: dict[str, Any] = {
        "slices": len(named),
        "patients": patients_by_class(named),
        "accuracy": with_interval(named, slice_accuracy).as_json(),
        "balanced_accuracy": with_interval(named, _balanced_accuracy, counting_by_class).as_json(),
        "auc": with_interval(named, area_under_curve, counting_in_pairs).as_json(),
        "brier": with_interval(named, _brier).as_json(),
        "calibration_error_before": round(expected_calibration_error(raw.probabilities, raw.labels), 4),
        "calibration_error": round(expected_calibration_error(named.probabilities, named.labels), 4),
        "confusion": table.tolist(),
    }
    return figures | _by_class(classes, table)


def exam_figures(exams: Sequence[ExamOutcome], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the figures of whole exams. Exams of one patient are as alike as slices are: intervals count patients."""
    named = [exam for exam in exams if exam.truth in classes]
    background = [exam for exam in exams if exam.truth not in classes]
    table = np.zeros((len(classes), len(classes) + 1), dtype=int)
    columns = (*classes, INDETERMINATE)
    for exam in named:
        table[classes.index(exam.truth), columns.index(exam.verdict)] += 1
    decided = [exam for exam in named if exam.verdict != INDETERMINATE]

    def part(right: Sequence[bool], of: Sequence[ExamOutcome]) -> dict[str, float | None] | None:
        if not of:
            return None
        value = sum(right) / len(of)
        return Figure(value, *exact_interval(value, counting_for([exam.patient for exam in of]))).as_json()

    figures: dict[str, Any] = {
        "exams": len(named),
        "patients": {name: len({exam.patient for exam in named if exam.truth == name}) for name in classes},
        "accuracy": part([exam.verdict == exam.truth for exam in named], named),
        "coverage": part([exam.verdict != INDETERMINATE for exam in named], named),
        "accuracy_of_decided": part([exam.verdict == exam.truth for exam in decided], decided),
        "confusion": table.tolist(),
        "background_exams": len(background),
        "background_indeterminate": part([exam.verdict == INDETERMINATE for exam in background], background),
    }
    return figures | _by_class(classes, table)


def slice_accuracy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the part of slices whose most probable class is theirs."""
    return float((logits.argmax(axis=1) == labels).mean())


def area_under_curve(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the area under the ROC curve; of more than two classes the mean of each against the rest."""
    classes = logits.shape[1]
    if len(np.unique(labels)) < classes:
        return float("nan")
    if classes == 2:
        return _area(logits[:, 1] - logits[:, 0], labels == 1)
    scores = softmax(logits, axis=1)
    return float(np.mean([_area(scores[:, label], labels == label) for label in range(classes)]))


def _area(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Area by the sum of ranks (Mann & Whitney 1947): simulations need it thousands of times; sklearn takes 4 ms."""
    count = int(positive.sum())
    above = rankdata(scores)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(scores) - count)))


def _balanced_accuracy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean sensitivity of the classes that there are."""
    right = logits.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _brier(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(brier_scores(softmax(logits, axis=1), labels).mean())


def brier_scores(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return half the squared distance between each slice's probabilities and the truth, 0 to 1 (Brier 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return np.asarray(((probabilities - truth) ** 2).sum(axis=1) / 2)


def _by_class(classes: tuple[str, ...], table: NDArray[Any]) -> dict[str, dict[str, float | None]]:
    """Sensitivity and specificity of each class. table: truth in the rows, what was said in the columns."""
    sensitivity: dict[str, float | None] = {}
    specificity: dict[str, float | None] = {}
    for index, name in enumerate(classes):
        own, others = int(table[index].sum()), int(np.delete(table, index, axis=0).sum())
        wrongly = int(np.delete(table, index, axis=0)[:, index].sum())
        sensitivity[name] = round(float(table[index, index]) / own, 4) if own else None
        specificity[name] = round(1 - wrongly / others, 4) if others else None
    return {"sensitivity": sensitivity, "specificity": specificity}
