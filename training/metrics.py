"""Figures of predictions, by slice and by exam, and their intervals by patient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binomtest, rankdata
from sklearn.metrics import confusion_matrix

from models.verdict import INDETERMINATE
from training.calibration import expected_calibration_error
from training.outcomes import ExamOutcome
from training.predictions import Predictions

RESAMPLES = 1000
CONFIDENCE = 0.95
Statistic = Callable[[NDArray[np.float64], NDArray[np.int64]], float]  # of logits (slices, classes) and labels


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


def with_interval(predictions: Predictions, statistic: Statistic, seed: int = 0) -> Figure:
    """Return a statistic with the interval of a bootstrap over whole patients, the classes kept in proportion.

    Slices of one patient look alike, so patients are drawn, never slices. Where every patient gives the same figure,
    no drawing differs from another and the bootstrap would claim to be certain; a part of 0 or 1 then gets the exact
    binomial interval (Clopper & Pearson 1934) of as many patients. With one patient of a class nothing can be drawn,
    and there is no interval.
    """
    logits, labels = predictions.logits, predictions.labels
    value = statistic(logits, labels)
    groups = _patients_by_class(predictions)
    if min(map(len, groups), default=0) < 2 or np.isnan(value):
        return Figure(value, None, None)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        drawn = [group[index] for group in groups for index in rng.integers(0, len(group), len(group))]
        rows = np.concatenate(drawn)
        values.append(statistic(logits[rows], labels[rows]))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail])
    if low == high == value and value in (0.0, 1.0):
        count = sum(map(len, groups))
        exact = binomtest(count if value else 0, count).proportion_ci(CONFIDENCE)
        low, high = exact.low, exact.high
    return Figure(value, float(low), float(high))


def _patients_by_class(predictions: Predictions) -> list[list[NDArray[np.int64]]]:
    """For each class the rows of each of its patients; a patient counts for the class of the first slice."""
    groups: dict[str, dict[str, list[int]]] = {}
    first: dict[str, str] = {}
    for row, (patient, kind) in enumerate(zip(predictions.patients.tolist(), predictions.kinds.tolist(), strict=True)):
        group = groups.setdefault(first.setdefault(patient, kind), {})
        group.setdefault(patient, []).append(row)
    return [[np.array(rows) for rows in group.values()] for group in groups.values()]


def slice_figures(predictions: Predictions, scaled: Predictions) -> dict[str, Any]:
    """Return the figures of slices that have a class; `scaled`: the same predictions, calibrated."""
    raw, named = predictions.named, scaled.named
    if not len(named):
        return {"slices": 0}
    classes = named.classes
    table = confusion_matrix(named.labels, named.logits.argmax(axis=1), labels=list(range(len(classes))))
    figures: dict[str, Any] = {
        "slices": len(named),
        "accuracy": with_interval(named, slice_accuracy).as_json(),
        "balanced_accuracy": with_interval(named, _balanced_accuracy).as_json(),
        "auc": with_interval(named, area_under_curve).as_json(),
        "brier": with_interval(named, _brier).as_json(),
        "calibration_error_before": round(expected_calibration_error(raw.probabilities, raw.labels), 4),
        "calibration_error": round(expected_calibration_error(named.probabilities, named.labels), 4),
        "confusion": table.tolist(),
    }
    return figures | _by_class(classes, table)


def exam_figures(exams: Sequence[ExamOutcome], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the figures of whole exams, with exact binomial intervals over exams."""
    named = [exam for exam in exams if exam.truth in classes]
    background = [exam for exam in exams if exam.truth not in classes]
    table = np.zeros((len(classes), len(classes) + 1), dtype=int)
    columns = (*classes, INDETERMINATE)
    for exam in named:
        table[classes.index(exam.truth), columns.index(exam.verdict)] += 1
    decided = [exam for exam in named if exam.verdict != INDETERMINATE]

    def part(count: int, of: int) -> dict[str, float | None] | None:
        if not of:
            return None
        interval = binomtest(count, of).proportion_ci(CONFIDENCE)
        return Figure(count / of, float(interval.low), float(interval.high)).as_json()

    figures: dict[str, Any] = {
        "exams": len(named),
        "accuracy": part(sum(exam.verdict == exam.truth for exam in named), len(named)),
        "coverage": part(len(decided), len(named)),
        "accuracy_of_decided": part(sum(exam.verdict == exam.truth for exam in decided), len(decided)),
        "confusion": table.tolist(),
        "background_exams": len(background),
        "background_indeterminate": part(sum(exam.verdict == INDETERMINATE for exam in background), len(background)),
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
    """Area by the sum of ranks (Mann & Whitney 1947): a bootstrap needs it a thousand times, and sklearn takes 4 ms."""
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
