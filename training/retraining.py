"""A candidate from the active model: the same patients stay held out, whatever was labelled since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle, open_bundle
from training.dataset import LabelledSlices
from training.errors import DatasetError
from training.experiment import Calibration
from training.fitting import Schedule
from training.learners import Views
from training.protocols import Indices, Split
from training.recipe import FineTune, Observer, Recipe, Run, checkpoint_folder, patient_hash
from training.weights import Start

# Of 20 patients that the active model does not know, so many are held out for good, and so many choose the epoch.
_TEST_PARTS, _VALIDATION_PARTS, _PARTS = 4, 3, 20
LIMITS = "Retrained from the model named as its parent; the figures hold for patients like these."


@dataclass(frozen=True)
class Sides:
    """Which side of the split a patient stands on, for good."""

    known: Mapping[str, str]

    @classmethod
    def of(cls, bundle: Bundle) -> "Sides":
        """Return the sides that the active model's training left."""
        sides: Mapping[str, Sequence[str]] = bundle.description.data.get("patients_by_side", {})
        return cls({patient: side for side, patients in sides.items() for patient in patients})

    def side(self, patient: str) -> str:
        """Return `training`, `validation` or `test`: as before, or for a new patient by a hash of the name."""
        hashed = patient_hash(patient)
        if hashed in self.known:
            return self.known[hashed]
        place = int(hashed, 16) % _PARTS
        if place < _TEST_PARTS:
            return "test"
        return "validation" if place < _TEST_PARTS + _VALIDATION_PARTS else "training"


def split(data: LabelledSlices, sides: Sides) -> Split:
    """Return the split of a data set by the patients' sides. Raises DatasetError where a class is not learned from."""
    of_slice = np.array([sides.side(patient) for patient in data.patients.tolist()])
    training, validation, test = (np.flatnonzero(of_slice == name) for name in ("training", "validation", "test"))
    for index, name in enumerate(data.classes):
        if not (data.labels[training] == index).any():
            raise DatasetError(f"No patient of {name} may be learned from: label more, or give the base data set.")
    if not (data.labels[test] >= 0).any():
        raise DatasetError("No patient is held out, so nobody could say what a candidate is worth: label more exams.")
    named = data.labels[validation]
    if not all((named == index).any() for index in range(len(data.classes))):
        # Nobody left to choose an epoch by: those patients are learned from, and the last epoch is kept.
        training, validation = np.sort(np.concatenate([training, validation])), validation[:0]
    return Split(training, validation, test)


def retrain(
    active: Bundle,
    data: LabelledSlices,
    output: Path,
    cache: Path,
    *,
    version: str,
    fine_tune: FineTune,
    epochs: int,
    command: str,
    observer: Observer,
) -> tuple[Bundle, Indices]:
    """Train a candidate from the active model's weights; return it with the indices of the held-out slices.

    A run that was stopped is gone on with; one that was finished is taken as it is.
    """
    parts = split(data, Sides.of(active))
    held_out, learned = set(data.patients[parts.test].tolist()), set(data.patients[parts.training].tolist())
    if held_out & learned:
        raise DatasetError(f"{len(held_out & learned)} patients stand on both sides of the split: nothing was trained.")
    description = active.description
    recipe = Recipe(
        name=description.name,
        version=version,
        architecture=description.architecture,
        start=Start("file", active.weights),
        protocol="patient",
        fine_tune=fine_tune,
        balance="weights",
        folds=1,
        views=Views(),
        schedule=Schedule(epochs=epochs),
        device="auto",
        both=False,
        limits=LIMITS,
        command=command,
        parent=active.sha256,
        calibration=Calibration(description.temperature, description.operating_point),
    )
    stopped = checkpoint_folder(output).is_dir()
    if output.is_dir() and not stopped:
        return open_bundle(output), parts.test
    run = Run(recipe, data, cache, observer, splits={"patient": [parts]})
    return run.train(output, resume=stopped).bundle, parts.test


def summary(data: LabelledSlices, sides: Sides) -> dict[str, Any]:
    """Return how many patients and slices of each class would stand on each side."""
    counted: dict[str, Any] = {}
    of_slice = np.array([sides.side(patient) for patient in data.patients.tolist()])
    for side in ("training", "validation", "test"):
        counted[side] = {
            kind: {
                "slices": int(((of_slice == side) & (data.kinds == kind)).sum()),
                "patients": len(set(data.patients[(of_slice == side) & (data.kinds == kind)].tolist())),
            }
            for kind in sorted(set(data.kinds.tolist()))
        }
    return counted
