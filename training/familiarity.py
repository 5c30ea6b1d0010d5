"""Where the exams of training lie in the space of features: fitted here, used by `models.familiarity`."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.familiarity import Familiarity
from training.dataset import BACKGROUND

_DIMENSIONS = 32
_SHRINKAGE = 0.1  # of the spread towards its mean: few exams span few directions


def fit_familiarity(features: NDArray[np.float32], labels: NDArray[np.int64], exams: NDArray[np.str_]) -> Familiarity:
    """Return the centres of the classes and the spread around them, from features (slices, features) of training.

    The spread is that of the exams' mean features around the centre of their class. Background slices take no part.
    """
    centres: list[NDArray[np.float32]] = []
    away: list[NDArray[np.float32]] = []
    means_of_exams: list[NDArray[np.float32]] = []
    for label in sorted(set(labels.tolist()) - {BACKGROUND}):
        of_class = sorted(set(exams[labels == label].tolist()))
        means = [features[(labels == label) & (exams == exam)].mean(axis=0) for exam in of_class]
        centre = np.mean(means, axis=0)
        centres.append(centre)
        means_of_exams.extend(means)
        away.extend(mean - centre for mean in means)
    deviations = np.array(away, dtype=np.float64)
    count, width = deviations.shape
    _left, singular, axes = np.linalg.svd(deviations / np.sqrt(count), full_matrices=False)
    dimensions = min(_DIMENSIONS, max(1, count - len(centres)), width)
    variances = singular[:dimensions] ** 2
    total = float((singular**2).sum()) or 1.0
    average = total / width
    rest = max(total - float(variances.sum()), 0.0) / max(width - dimensions, 1)
    shrunk = (1 - _SHRINKAGE) * variances + _SHRINKAGE * average
    familiarity = Familiarity(
        centres=np.array(centres, dtype=np.float32),
        axes=axes[:dimensions].T.astype(np.float32),
        spread=np.sqrt(shrunk).astype(np.float32),
        rest=np.array([np.sqrt((1 - _SHRINKAGE) * rest + _SHRINKAGE * average)], dtype=np.float32),
    )
    unit = np.float32(np.median([familiarity.distance(mean[None]) for mean in means_of_exams]) or 1.0)
    return replace(familiarity, spread=familiarity.spread * unit, rest=familiarity.rest * unit)
