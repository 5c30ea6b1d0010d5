"""A bundle that learned already gets a guard, a temperature and an operating point from exams that it never saw."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from sklearn.model_selection import StratifiedGroupKFold

from models.architectures import build
from models.bundle import FAMILIARITY, Bundle, open_bundle
from models.classifier import Classifier
from models.export import export_network
from training.assembly import ask_bundle, drop_quantised, remade
from training.calibration import Calibration, abstention_curve, calibrate
from training.dataset import BACKGROUND, LabelledSlices
from training.errors import TrainingError
from training.evaluation import answers, logits_of
from training.experiment import without_patients_of
from training.familiarity import fit_familiarity
from training.features import Features
from training.learners import exam_distances
from training.metrics import exam_figures, slice_figures
from training.outcomes import exam_verdicts
from training.predictions import Predictions, pooled, predictions
from training.protocols import Indices
from training.sides import Sides

_FOLDS = 5
Progress = Callable[[int, int], None]


def guard_bundle(
    bundle: Bundle,
    output: Path,
    data: LabelledSlices,
    *,
    version: str,
    battery: int,
    unknowns: Path | None = None,
    progress: Progress = lambda _done, _total: None,
    on_stage: Callable[[str], None] = lambda _name: None,
) -> Bundle:
    """Make a bundle anew with the guard that exams give which it neither learned from nor was chosen by.

    Each is measured against the others, without its own patient. battery, unknowns: what it is asked then. Raises
    TrainingError where the data hold no such patients of each class.
    """
    if output.exists():
        raise TrainingError(f"{output} exists already: name a folder that does not.")
    rows = _untouched(bundle, data)
    on_stage("Classifying")
    said, features = _said(bundle, data, rows, progress)
    calibration = calibrate(said)
    point, guard = calibration.operating_point, calibration.guard
    description = bundle.description
    figures = _figures(said, calibration)
    main = str(description.metrics["protocol"])
    kept = description.quantisation is not None and not description.quantised
    made = dataclasses.replace(
        description,
        version=version,
        temperature=calibration.temperature,
        operating_point=point,
        guard=guard,
        battery=None,
        # The int8 network has the old temperature in it.
        quantisation=description.quantisation if kept else None,
        metrics={
            **description.metrics,
            main: {
                **description.metrics[main],
                **figures,
                "temperature": calibration.temperature,
                "calibrated_on": "patients that no network had seen",
                "guard": dataclasses.asdict(guard),
            },
        },
        data={
            **description.data,
            "guarded_by": data.fingerprint,
            # Whoever has a say here is never held out to judge a candidate.
            "patients_by_side": Sides.of(bundle).including({"validation": data.patients[rows].tolist()}).as_json(),
        },
    )
    labels, names = data.labels[rows], data.exams[rows]
    familiarity = fit_familiarity(features, labels, names, len(description.classes))
    with remade(bundle, output, made) as workshop:
        network = build(description.architecture, len(description.classes))
        network.load_state_dict(load_file(bundle.weights))
        export_network(network, description.preprocessing, calibration.temperature, workshop)
        familiarity.save(workshop / FAMILIARITY)
        drop_quantised(workshop)
    on_stage("Unknowns")
    return ask_bundle(open_bundle(output), exams=battery, unknowns=unknowns, progress=progress)


def _figures(said: Predictions, whole: Calibration) -> dict[str, Any]:
    """Return the figures of exams that the bundle had never seen, each as if it had no say in the calibration."""
    scaled, exams = [], []
    groups = np.array([int(hashlib.sha256(name.encode()).hexdigest(), 16) % _FOLDS for name in said.patients.tolist()])
    for group in range(_FOLDS):
        test = said.rows(groups == group)
        if len(test):
            own = without_patients_of(test, said, whole)
            scaled.append(test.scaled(own.temperature))
            exams.extend(exam_verdicts(scaled[-1], own.operating_point, own.guard))
    return {
        "split": "patients that it had never seen, when its guard was made",
        "test_slices": len(said),
        "test_patients": len(set(said.patients.tolist())),
        "slices": slice_figures(said, pooled(scaled)),
        "exams": exam_figures(exams, said.classes),
        "abstention_curve": abstention_curve(pooled(scaled)),
    }


def _untouched(bundle: Bundle, data: LabelledSlices) -> Indices:
    """Return the slices of patients that the bundle has not seen. Raises TrainingError where a class has under two."""
    sides = Sides.of(bundle)
    unseen = [name for name in np.unique(data.patients).tolist() if not sides.learned_from([name])]
    rows = np.flatnonzero(np.isin(data.patients, unseen))
    for label, name in enumerate(data.classes):
        if len(set(data.patients[rows][data.labels[rows] == label].tolist())) < 2:
            raise TrainingError(
                f"The data hold fewer than two patients of {name} that {bundle.folder} has not learned from: a guard "
                "is made on patients that the model has never seen."
            )
    return rows


def _said(bundle: Bundle, data: LabelledSlices, rows: Indices, progress: Progress) -> tuple[Predictions, Features]:
    """Return what the network says of the slices, with distances from exams of other patients, and their features."""
    outputs = answers(Classifier(bundle), data, rows, progress)
    features = np.array([output.features for output in outputs])
    labels, exams, patients = data.labels[rows], data.exams[rows], data.patients[rows]
    distances = np.zeros((len(rows), len(data.classes)))
    fewest = min(len(set(patients[labels == label].tolist())) for label in range(len(data.classes)))
    folds = StratifiedGroupKFold(min(_FOLDS, fewest), shuffle=True, random_state=0)
    for known, asked in folds.split(rows, np.where(labels == BACKGROUND, len(data.classes), labels), patients):
        familiarity = fit_familiarity(features[known], labels[known], exams[known], len(data.classes))
        distances[asked] = exam_distances(familiarity, features[asked], exams[asked])
    return predictions(data, rows, logits_of(bundle, outputs), distances), features
