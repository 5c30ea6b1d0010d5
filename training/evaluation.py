"""A bundle as it serves, on labelled slices: figures, and whether they may be believed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.classifier import Classifier, SliceOutput
from models.guard import Guard
from training.battery import EXAMS, ask
from training.calibration import abstention_curve
from training.dataset import LabelledSlices
from training.metrics import exam_figures, slice_figures
from training.outcomes import ExamOutcome, exam_verdicts
from training.predictions import Predictions, predictions
from training.sides import Sides
from training.worth import worth

_SMALLEST = 1e-12  # probabilities are kept off zero before their logarithm is taken


@dataclass(frozen=True)
class Evaluated:
    """Figures of slices and exams. battery: what the bundle says of what it must not name.

    warnings: sentences on why the figures may say less than they seem to.
    """

    bundle: Bundle
    raw: Predictions
    scaled: Predictions
    slices: dict[str, Any]
    exams: dict[str, Any]
    outcomes: tuple[ExamOutcome, ...]
    battery: dict[str, Any]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the figures as scripts read them."""
        description = self.bundle.description
        return {
            "model": f"{description.name} {description.version}",
            "bundle_sha256": self.bundle.sha256,
            "patients": len(set(self.raw.patients.tolist())),
            "slices": self.slices,
            "exams": self.exams,
            "abstention_curve": abstention_curve(self.scaled),
            "battery": self.battery,
            "warnings": list(self.warnings),
        }


def evaluate(
    bundle: Bundle,
    data: LabelledSlices,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    asked: bool = False,
    battery: int = EXAMS,
    unknowns: Path | None = None,
    on_stage: Callable[[str], None] = lambda _name: None,
) -> Evaluated:
    """Classify the slices as the worker would, compare, and ask the bundle about so many unknowns of each kind.

    asked: whether its answers are known although it does not hold them: it serves then.
    """
    description = bundle.description
    raw = classify(bundle, data, progress)
    scaled = raw.scaled(description.temperature)
    outcomes = exam_verdicts(scaled, description.operating_point, _guard(bundle, asked=asked))
    slices = slice_figures(raw, scaled)
    on_stage("Unknowns")
    asked_about = ask(Classifier(bundle, asked=True), exams=battery, unknowns=unknowns, progress=progress)
    return Evaluated(
        bundle=bundle,
        raw=raw,
        scaled=scaled,
        slices=slices,
        exams=exam_figures(outcomes, description.class_names),
        outcomes=tuple(outcomes),
        battery=asked_about.as_json(),
        warnings=tuple(_warnings(bundle, data, slices)),
    )


def classify(
    bundle: Bundle,
    data: LabelledSlices,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    only: NDArray[np.int64] | None = None,
) -> Predictions:
    """Return what the bundle says of every slice, or of `only` some, through the network that serves, not scaled."""
    classifier = Classifier(bundle)
    indices = np.arange(len(data)) if only is None else only
    outputs = answers(classifier, data, indices, progress)
    distances = np.zeros((len(indices), len(bundle.description.classes)))
    exams = data.exams[indices]
    for exam in set(exams.tolist()):
        rows = np.flatnonzero(exams == exam)
        distances[rows] = classifier.distances(outputs[row] for row in rows)
    return predictions(data, indices, logits_of(bundle, outputs), distances)


def answers(
    classifier: Classifier, data: LabelledSlices, indices: NDArray[np.int64], progress: Callable[[int, int], None]
) -> list[SliceOutput]:
    """Return what the network that serves says of slices. `progress` is told (done, total)."""
    outputs: list[SliceOutput] = []
    for _key, output in classifier.stream((None, data.images[index]) for index in indices):
        outputs.append(output)
        progress(len(outputs), len(indices))
    return outputs


def logits_of(bundle: Bundle, outputs: Sequence[SliceOutput]) -> NDArray[np.float64]:
    """Return the logits (slices, classes) behind probabilities, known but for a constant, before any temperature."""
    probabilities = np.array([output.probabilities for output in outputs])
    return np.asarray(np.log(np.maximum(probabilities, _SMALLEST)) * bundle.description.temperature)


def _guard(bundle: Bundle, *, asked: bool) -> Guard | None:
    """The guard as it serves: a bundle that was never asked what it says of unknowns says nothing of anybody."""
    description = bundle.description
    return description.guard if asked or description.battery is not None else None


def _warnings(bundle: Bundle, data: LabelledSlices, figures: Mapping[str, Any]) -> Iterator[str]:
    patients = len(set(data.patients.tolist()))
    known = Sides.of(bundle).learned_from(data.patients.tolist())
    if known:
        yield f"The model has learned from {known} of the {patients} patients: these figures flatter."
    said = worth(figures, leaked=False)
    if said:
        yield f"{patients} patients stand behind these figures. {said}"
