"""Who trains, who validates, who is tested: the study's split by slice, and whole patients on one side.

The study (Hospital Universitário Pedro Ernesto) drew 333 of 813 NSIP slices at random against its 333 of UIP and split
the 666 by slice into 422, 110 and 134.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, train_test_split

from training.dataset import LabelledSlices
from training.errors import DatasetError

Balance = Literal["undersample", "weights", "none"]
Indices = NDArray[np.int64]

_STUDY_TRAINING, _STUDY_VALIDATION, _STUDY_TEST = 422, 110, 134
_STUDY_SLICES = _STUDY_TRAINING + _STUDY_VALIDATION + _STUDY_TEST
FEW_PATIENTS = 20  # of a class: with fewer, no figure says much
_MOST_FOLDS = 5
_PARTS = 8  # of a single split: one part validates, one is tested


@dataclass(frozen=True)
class Split:
    """Indices of slices. A split without validation trains to its last epoch."""

    training: Indices
    validation: Indices
    test: Indices


def balanced(data: LabelledSlices, balance: Balance, seed: int) -> Indices:
    """Return the slices to work with: all, or of every class as many as the smallest has, drawn at random.

    Background slices are drawn down to the number of all others.
    """
    everything = np.arange(len(data))
    if balance != "undersample":
        return everything
    rng = np.random.default_rng([seed, 1])
    named = [everything[data.labels == label] for label in range(len(data.classes))]
    smallest = min(len(members) for members in named)
    drawn = [rng.permutation(members)[:smallest] for members in named]
    background = rng.permutation(everything[data.labels < 0])[: smallest * len(named)]
    return np.sort(np.concatenate([*drawn, background]))


def study_split(data: LabelledSlices, chosen: Indices, seed: int) -> Split:
    """Split slices at random, classes in proportion: 422, 110 and 134 of 666, and so of any other number."""
    test = round(len(chosen) * _STUDY_TEST / _STUDY_SLICES)
    validation = round(len(chosen) * _STUDY_VALIDATION / _STUDY_SLICES)
    kinds = data.kinds
    try:
        rest, tested = train_test_split(chosen, test_size=test, stratify=kinds[chosen], random_state=seed)
        training, validating = train_test_split(rest, test_size=validation, stratify=kinds[rest], random_state=seed + 1)
    except ValueError as error:
        raise DatasetError(f"{len(chosen)} slices are too few for the study's split into three.") from error
    return Split(np.sort(training), np.sort(validating), np.sort(tested))


def patient_splits(data: LabelledSlices, chosen: Indices, folds: int | None, seed: int) -> list[Split]:
    """Split whole patients, classes in proportion. Raises DatasetError where a class has one patient only.

    There is one split a fold: every patient is tested once, and validates once in another fold. So every patient says
    what a network is worth that has not seen that patient. With `folds` 1 there is one split, and few say it.
    """
    fewest = fewest_patients(data, chosen)
    if fewest < 2:
        raise DatasetError(
            "A class has one patient only, so none can be held out: add patients, or take '--protocol study', whose "
            "figure says nothing of a patient that the model has not seen."
        )
    if folds is None:
        folds = min(_MOST_FOLDS, fewest)
    if folds > fewest:
        raise DatasetError(f"{folds} folds need as many patients of each class; the smallest has {fewest}.")
    parts = list(_parts(data, chosen, folds if folds > 1 else min(_PARTS, fewest), seed))
    splits = []
    for number in range(folds):
        test = parts[number]
        validation = parts[(number + 1) % len(parts)] if len(parts) > 2 else test[:0]
        training = np.setdiff1d(chosen, np.concatenate([test, validation]))
        if len(set(data.labels[training].tolist()) - {-1}) < len(data.classes):
            raise DatasetError("A fold would train without one of the classes: take fewer folds, or add patients.")
        splits.append(Split(training, validation, test))
    return splits


def fewest_patients(data: LabelledSlices, chosen: Indices) -> int:
    """Return how many patients the class with the fewest has."""
    labels, patients = data.labels[chosen], data.patients[chosen]
    return min(len(set(patients[labels == label].tolist())) for label in range(len(data.classes)))


def _parts(data: LabelledSlices, chosen: Indices, count: int, seed: int) -> Iterator[Indices]:
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for _rest, part in folds.split(chosen, data.kinds[chosen], data.patients[chosen]):
        yield np.sort(chosen[part])
