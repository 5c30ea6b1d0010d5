"""How far an exam lies from what the network learned from: a distance over its features.

After Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks"
(NeurIPS 2018): the Mahalanobis distance to a class centre, here of an exam's mean feature.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import BundleError

_ARRAYS = ("centres", "axes", "spread", "rest")
# A mean over more slices is less noisy and lies nearer: every exam is judged by means over this many.
SLICES = 8


@dataclass(frozen=True)
class Familiarity:
    """Where the exams of training lie: the centres of the classes, and an ellipsoid around each.

    centres (classes, features). axes (features, dimensions), orthonormal: along them exams of one class differ most,
    with the standard deviations `spread` (dimensions,). rest (1,): that along all other directions.
    """

    centres: NDArray[np.float32]
    axes: NDArray[np.float32]
    spread: NDArray[np.float32]
    rest: NDArray[np.float32]

    def distances(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the distance of an exam from each class, (classes,), from features (slices, features), foot to head.

        It is the root mean square over combs of 8 slices spread over the whole exam, so that the number of slices does
        not move it; an exam of fewer slices lies farther, for its mean is less sure. The unit is the usual distance of
        a training exam, their median.
        """
        away = combs(features)[:, None] - self.centres
        along = away @ self.axes
        besides = np.maximum((away**2).sum(axis=2) - (along**2).sum(axis=2), 0)
        squares = ((along / self.spread) ** 2).sum(axis=2) + besides / float(self.rest[0]) ** 2
        return np.asarray(np.sqrt(squares.mean(axis=0)), dtype=np.float64)

    def save(self, path: Path) -> None:
        """Write to an .npz file."""
        np.savez(path, centres=self.centres, axes=self.axes, spread=self.spread, rest=self.rest)


def combs(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return means (combs, features) of features (slices, features), each over 8 slices spread evenly over the exam.

    Of fewer slices there is one mean, over all.
    """
    count = len(features)
    number = max(1, count // SLICES)
    values = features.astype(np.float64)
    if count <= SLICES:
        return np.asarray(values.mean(axis=0, keepdims=True), dtype=np.float64)
    shifts = (np.arange(number) + 0.5) / number
    rows = np.floor((np.arange(SLICES)[None] + shifts[:, None]) * count / SLICES).astype(int)
    return np.asarray(values[rows].mean(axis=1))


def load_familiarity(path: Path) -> Familiarity:
    """Read what `save` wrote. Raises BundleError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            centres, axes, spread, rest = (arrays[name] for name in _ARRAYS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} holds no training distances: {error}.") from error
    shapes = centres.ndim == axes.ndim == 2 and spread.ndim == rest.ndim == 1
    if not shapes or axes.shape != (centres.shape[1], len(spread)) or len(rest) != 1:
        raise BundleError(f"{path} holds training distances whose shapes do not fit.")
    if not all(np.isfinite(array).all() for array in (centres, axes, spread, rest)):
        raise BundleError(f"{path} holds training distances that are no numbers.")
    return Familiarity(centres, axes, spread, rest)
