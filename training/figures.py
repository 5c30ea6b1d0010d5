"""Figures as PNG: what the network saw, how it learned, and where it is right, unsure and wrong; no names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, roc_curve

from models.preprocessing import Preprocessing
from training.calibration import abstention_curve, reliability
from training.dataset import LabelledSlices
from training.fitting import Course
from training.predictions import Predictions
from training.views import render, views_of

_MOST_WRONG = 8
_DPI = 90


def draw_training(data: LabelledSlices, courses: Sequence[Course], seed: int, folder: Path) -> None:
    """Draw the synthetic images of a slice and the learning curves into `folder`."""
    _augmentation(data, seed, folder / "augmentation.png")
    _learning_curves(courses, folder / "learning.png")


def draw_evaluation(data: LabelledSlices, raw: Predictions, scaled: Predictions, folder: Path) -> None:
    """Draw ROC, reliability, confusion, abstention and the most wrong slices into `folder`; `scaled`: calibrated."""
    named = scaled.named
    if not len(named):
        return
    _roc(named, folder / "roc.png")
    _reliability(raw.named, named, folder / "reliability.png")
    _confusion(named, folder / "confusion.png")
    _abstention(scaled, folder / "abstention.png")
    _most_wrong(data, named, folder / "most-wrong.png")


def _augmentation(data: LabelledSlices, seed: int, path: Path) -> None:
    middle = len(data) // 2
    names = ("slice", "crop", "mirrored", "rotated")
    figure, axes = _figure(1, len(names), 3)
    for axis, name, view in zip(axes, names, views_of(data.digests[middle], seed), strict=True):
        _slice(axis, render(data.images[middle], view), name)
    _save(figure, path)


def _learning_curves(courses: Sequence[Course], path: Path) -> None:
    figure, (losses, accuracies) = _figure(1, 2, 4)
    for course in courses:
        numbers = [epoch.number for epoch in course.epochs]
        losses.plot(numbers, [epoch.training_loss for epoch in course.epochs], color="tab:blue", alpha=0.7)
        if course.epochs[0].validation_loss is None:
            continue
        losses.plot(numbers, [epoch.validation_loss or 0 for epoch in course.epochs], color="tab:orange", alpha=0.7)
        accuracies.plot(
            numbers, [epoch.validation_accuracy or 0 for epoch in course.epochs], color="tab:orange", alpha=0.7
        )
        accuracies.axvline(course.best, color="grey", linewidth=0.6)
    losses.set(xlabel="epoch", ylabel="cross-entropy", title="training (blue), validation (orange)")
    accuracies.set(xlabel="epoch", ylabel="accuracy", title="validation; grey: the epoch kept", ylim=(0, 1.02))
    _save(figure, path)


def _roc(named: Predictions, path: Path) -> None:
    figure, (axis,) = _figure(1, 1, 4)
    probabilities = named.probabilities
    shown = [1] if len(named.classes) == 2 else range(len(named.classes))
    for index in shown:
        if 0 < int((named.labels == index).sum()) < len(named):
            false, true, _thresholds = roc_curve(named.labels == index, probabilities[:, index])
            axis.plot(false, true, label=named.classes[index])
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.6)
    axis.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC of slices")
    axis.legend(loc="lower right")
    _save(figure, path)


def _reliability(raw: Predictions, scaled: Predictions, path: Path) -> None:
    figure, (axis,) = _figure(1, 1, 4)
    for name, said in (("before scaling", raw), ("calibrated", scaled)):
        rows = reliability(said.probabilities, said.labels)
        axis.plot([row[0] for row in rows], [row[1] for row in rows], marker="o", label=name)
    axis.plot([0, 1], [0, 1], color="grey", linewidth=0.6)
    axis.set(xlabel="stated certainty", ylabel="accuracy", title="Reliability of slices")
    axis.legend(loc="upper left")
    _save(figure, path)


def _confusion(named: Predictions, path: Path) -> None:
    figure, (axis,) = _figure(1, 1, 4)
    everyone = list(range(len(named.classes)))
    table = confusion_matrix(named.labels, named.logits.argmax(axis=1), labels=everyone)
    axis.imshow(table, cmap="Blues")
    for (row, column), count in np.ndenumerate(table):
        dark = count > table.max() / 2
        axis.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(everyone, named.classes)
    axis.set_yticks(everyone, named.classes)
    axis.set(xlabel="said", ylabel="true", title="Slices")
    _save(figure, path)


def _abstention(scaled: Predictions, path: Path) -> None:
    figure, (axis,) = _figure(1, 1, 4)
    rows = abstention_curve(scaled)
    axis.plot([row[1] for row in rows], [row[2] for row in rows], marker=".")
    axis.set(xlabel="coverage", ylabel="accuracy of the decided", title="Exams, as certainty is asked for")
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02))
    _save(figure, path)


def _most_wrong(data: LabelledSlices, named: Predictions, path: Path) -> None:
    probabilities = named.probabilities
    of_truth = probabilities[np.arange(len(named)), named.labels]
    worst = [int(row) for row in np.argsort(of_truth)[:_MOST_WRONG] if of_truth[row] < 0.5]
    figure, axes = _figure(2, _MOST_WRONG // 2, 3)
    for axis in axes:
        axis.set_axis_off()
    for axis, row in zip(axes, worst, strict=False):
        said = named.classes[int(probabilities[row].argmax())]
        title = f"{named.classes[named.labels[row]]}, said {said} {probabilities[row].max():.0%}"
        _slice(axis, data.images[named.indices[row]], title)
    if not worst:
        axes[0].set_title("no slice is wrong", fontsize=9)
    _save(figure, path)


def _figure(rows: int, columns: int, side: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(side * columns * 1.15, side * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.ravel(figure.subplots(rows, columns)))


def _slice(axis: Axes, image: np.ndarray[tuple[int, ...], np.dtype[np.int16]], title: str) -> None:
    low, high = Preprocessing().window
    axis.imshow(image, cmap="gray", vmin=low, vmax=high)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=_DPI)
