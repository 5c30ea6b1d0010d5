"""What a model said of slices that it had not learned from, with what is true of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from training.dataset import BACKGROUND, LabelledSlices


@dataclass(frozen=True)
class Predictions:
    """Slices in the rows. logits (slices, classes); distances (slices, classes): of each slice's exam from each class.

    indices: the slices in the data set that `labels`, `kinds`, `patients`, `exams` and `phantoms` were taken from.
    """

    classes: tuple[str, ...]
    logits: NDArray[np.float64]
    distances: NDArray[np.float64]
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    kinds: NDArray[np.str_]
    patients: NDArray[np.str_]
    exams: NDArray[np.str_]
    phantoms: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """The probabilities (slices, classes)."""
        return np.asarray(softmax(self.logits, axis=1))

    def scaled(self, temperature: float) -> "Predictions":
        """Return the predictions with their logits divided by a temperature."""
        return replace(self, logits=self.logits / temperature)

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Predictions":
        """Return some of the rows."""
        return Predictions(
            self.classes,
            self.logits[chosen],
            self.distances[chosen],
            self.indices[chosen],
            self.labels[chosen],
            self.kinds[chosen],
            self.patients[chosen],
            self.exams[chosen],
            self.phantoms[chosen],
        )

    @property
    def named(self) -> "Predictions":
        """The slices that have a class, without the background."""
        return self.rows(self.labels != BACKGROUND)


def predictions(
    data: LabelledSlices, indices: NDArray[np.int64], logits: NDArray[np.float64], distances: NDArray[np.float64]
) -> Predictions:
    """Return what was said of the slices with these indices."""
    return Predictions(
        data.classes,
        logits,
        distances,
        indices,
        data.labels[indices],
        data.kinds[indices],
        data.patients[indices],
        data.exams[indices],
        data.phantoms[indices],
    )


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """Return the predictions of several folds as one."""
    first = parts[0]
    return Predictions(
        first.classes,
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("logits", "distances", "indices", "labels", "kinds", "patients", "exams", "phantoms")
        ),
    )
