"""A candidate from the active model: the same patients stay held out, whatever was labelled since."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle, open_bundle
from models.errors import BundleError
from models.familiarity import load_familiarity
from training.battery import EXAMS
from training.calibration import Calibration
from training.dataset import LabelledSlices
from training.errors import DatasetError
from training.experiment import Inherited
from training.fitting import Schedule
from training.learners import Views
from training.protocols import Indices, Split, fewest_patients, patient_splits
from training.recipe import FineTune, Observer, Recipe, Run, checkpoint_folder
from training.sides import Sides
from training.weights import Start


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
    int8: bool = False,
    battery: int = EXAMS,
    unknowns: Path | None = None,
) -> tuple[Bundle, Indices]:
    """Train a candidate from the active model's weights; return it with the indices of the held-out slices.

    It is calibrated, and its guard made, by a cross-validation of those that it learns from and the parent has not: the
    held-out ones compare it with the parent, and must not have had a say. Where they are too few the parent's guard and
    calibration hold as long as the features are the parent's. A run that was stopped is gone on with; one that was
    finished is taken as it is.
    """
    sides = Sides.of(active)
    parts = split(data, sides)
    held_out, learned = set(data.patients[parts.test].tolist()), set(data.patients[parts.training].tolist())
    if held_out & learned:
        raise DatasetError(f"{len(held_out & learned)} patients stand on both sides of the split: nothing was trained.")
    description = active.description
    recipe = Recipe(
        name=description.name,
        version=version,
        architecture=description.architecture,
        start=Start("bundle", active.weights),
        protocol="patient",
        fine_tune=fine_tune,
        balance="weights",
        folds=1,
        views=Views(),
        schedule=Schedule(epochs=epochs),
        device="auto",
        both=False,
        limits=str(description.data["limits"]),
        command=command,
        parent=active.sha256,
        sides=sides,
        inherited=_inherited(active) if fine_tune == "last" else None,
        int8=int8,
        battery=battery,
        unknowns=unknowns,
    )
    run = Run(
        recipe, data, cache, observer, splits={"patient": _folds(data, parts, sides, recipe.schedule.seed)},
        preprocessing=description.preprocessing, held_out=parts.test,
    )  # fmt: skip
    resume = run.resumable(output)
    if not resume:
        shutil.rmtree(checkpoint_folder(output), ignore_errors=True)  # of other data, or another parent
        finished = _finished(output, active.sha256, data)
        if finished is not None:
            return finished, parts.test
        shutil.rmtree(output, ignore_errors=True)
    candidate = run.train(output, resume=resume).bundle
    if candidate.description.metrics["interrupted"]:
        shutil.rmtree(output)
        raise KeyboardInterrupt
    return candidate, parts.test


def _folds(data: LabelledSlices, parts: Split, sides: Sides, seed: int) -> list[Split]:
    """Return a cross-validation of the patients that are learned from, which tests those alone that are new.

    Every fold starts from the parent's weights, which have learned from the others: what is said of these shows nothing
    of a patient whom the model has not seen. Where fewer than two of a class are new there is the one split.
    """
    learned = np.sort(np.concatenate([parts.training, parts.validation]))
    names = np.unique(data.patients[learned]).tolist()
    new = learned[np.isin(data.patients[learned], [name for name in names if not sides.learned_from([name])])]
    if fewest_patients(data, new) < 2:
        return [parts]
    try:
        folds = patient_splits(data, learned, None, seed)
    except DatasetError:
        return [parts]
    tested = [Split(fold.training, fold.validation, np.intersect1d(fold.test, new)) for fold in folds]
    return [fold for fold in tested if len(fold.test)]


def _inherited(active: Bundle) -> Inherited | None:
    description = active.description
    if description.guard is None:
        return None
    return Inherited(
        Calibration(description.temperature, description.operating_point, description.guard),
        load_familiarity(active.familiarity),
    )


def _finished(output: Path, parent: str, data: LabelledSlices) -> Bundle | None:
    """Return the candidate that an earlier attempt finished from the same parent and data."""
    try:
        bundle = open_bundle(output)
    except BundleError:
        return None
    same = bundle.description.parent == parent and bundle.description.data["fingerprint"] == data.fingerprint
    return bundle if same else None


def summary(data: LabelledSlices, sides: Sides) -> dict[str, Any]:
    """Return how many patients and slices of each class would stand on each side. Raises as `split` does."""
    parts = split(data, sides)
    counted: dict[str, Any] = {}
    for side, rows in (("training", parts.training), ("validation", parts.validation), ("test", parts.test)):
        kinds, patients = data.kinds[rows], data.patients[rows]
        counted[side] = {
            kind: {"slices": int((kinds == kind).sum()), "patients": len(set(patients[kinds == kind].tolist()))}
            for kind in sorted(set(data.kinds.tolist()))
        }
    return counted
