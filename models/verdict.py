"""From the slices' probabilities to what is said of the exam."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

INDETERMINATE = "indeterminate"


@dataclass(frozen=True)
class OperatingPoint:
    """When the model commits itself, part of the bundle.

    The exam's probability of a class is the mean over its classified slices. The most probable class is the
    verdict when its probability reaches `commit`; below lies the abstention band, and the verdict is
    `indeterminate`. So it is with fewer than `min_slices` slices.
    """

    commit: float = 0.6
    min_slices: int = 3


@dataclass(frozen=True)
class ExamVerdict:
    """What is said of an exam. certainty: probability of the most probable class, 0 to 1."""

    verdict: str
    certainty: float
    probabilities: dict[str, float]
    called: dict[str, int]
    reason: str = ""


def decide(classes: Sequence[str], slices: NDArray[np.float64], point: OperatingPoint) -> ExamVerdict:
    """Return the verdict for slice probabilities of shape (slices, classes), at least one slice.

    `called` counts the slices by their most probable class.
    """
    mean = slices.mean(axis=0)
    winners = np.bincount(slices.argmax(axis=1), minlength=len(classes))
    best = int(mean.argmax())
    verdict, reason = classes[best], ""
    if len(slices) < point.min_slices:
        verdict, reason = INDETERMINATE, f"only {len(slices)} slices with enough lung"
    elif mean[best] < point.commit:
        verdict, reason = INDETERMINATE, f"no class reaches {point.commit:.0%}"
    return ExamVerdict(
        verdict=verdict,
        certainty=float(mean[best]),
        probabilities={name: float(value) for name, value in zip(classes, mean, strict=True)},
        called={name: int(count) for name, count in zip(classes, winners, strict=True)},
        reason=reason,
    )
