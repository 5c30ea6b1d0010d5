"""Where the exams of training lie in the space of features: fitted here, used by `models.familiarity`."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from models.familiarity import Familiarity, combs

_MOST_DIMENSIONS = 256  # more exams than that are told apart along so many directions, and alike along all others


def fit_familiarity(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    exams: NDArray[np.str_],
    classes: int,
) -> Familiarity:
    """Return the centres of the classes and the spread around them, from features (slices, features) of training.

    The spread is that of the exams' means, each over eight slices, around the centre of their class, shrunk as Ledoit
    and Wolf (J Multivar Anal 2004;88:365) reckon: few exams span few directions, and the others must not count as
    impossible. Background slices take no part. Every class has an exam.
    """
    centres: list[NDArray[np.float64]] = []
    points: list[NDArray[np.float64]] = []
    away: list[NDArray[np.float64]] = []
    for label in range(classes):
        of_class = [exams == exam for exam in sorted(set(exams[labels == label].tolist()))]
        means = [features[rows & (labels == label)].mean(axis=0, dtype=np.float64) for rows in of_class]
        centre = np.mean(means, axis=0)
        shown = [_middle(features[rows & (labels == label)]) for rows in of_class]
        centres.append(centre)
        points.extend(shown)
        away.extend(point - centre for point in shown)
    familiarity = _ellipsoid(centres, np.array(away))
    unit = np.float32(np.median([_nearest(familiarity, point) for point in points]) or 1.0)
    return replace(familiarity, spread=familiarity.spread * unit, rest=familiarity.rest * unit)


def _ellipsoid(centres: Sequence[NDArray[np.float64]], deviations: NDArray[np.float64]) -> Familiarity:
    count, width = deviations.shape
    shrinkage = float(ledoit_wolf_shrinkage(deviations, assume_centered=True))
    _left, singular, axes = np.linalg.svd(deviations / np.sqrt(count), full_matrices=False)
    dimensions = min(_MOST_DIMENSIONS, max(1, count - len(centres)), width)
    variances = singular[:dimensions] ** 2
    total = float((singular**2).sum()) or 1.0
    average = total / width
    rest = max(total - float(variances.sum()), 0.0) / max(width - dimensions, 1)
    return Familiarity(
        centres=np.array(centres, dtype=np.float32),
        axes=axes[:dimensions].T.astype(np.float32),
        spread=np.sqrt((1 - shrinkage) * variances + shrinkage * average).astype(np.float32),
        rest=np.array([np.sqrt((1 - shrinkage) * rest + shrinkage * average)], dtype=np.float32),
    )


def _middle(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """One mean of an exam as it is judged: an exam of many slices must not count as less noisy than it will be."""
    means = combs(features)
    return np.asarray(means[len(means) // 2])


def _nearest(familiarity: Familiarity, point: NDArray[np.float64]) -> float:
    return float(familiarity.distances(point[None].astype(np.float32)).min())
