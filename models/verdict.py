"""From the slices' probabilities to what is said of the exam."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

INDETERMINATE = "indeterminate"
ReasonCode = Literal[
    "",
    "incomplete",  # too little of the lungs was classified
    "few_slices",
    "unguarded",  # the bundle does not know what is strange to it
    "study_protocol",  # a bundle that reproduces the study, and does not serve
    "too_few_patients",  # the bundle was calibrated on too few to know anybody
    "demo_model",  # the bundle knows phantoms, and this is a patient
    "unfamiliar",
    "undecided",
]


@dataclass(frozen=True)
class OperatingPoint:
    """When the model commits itself, part of the bundle.

    The exam's probability of a class is the mean over its classified slices. The most probable class is the
    verdict when its probability reaches `commit`; below lies the abstention band, and the verdict is
    `indeterminate`. So it is with fewer than `min_slices` slices, and with an exam farther than `max_distance` from
    what the network learned from (`models.familiarity`; None: any distance will do).
    """

    commit: float = 0.6
    min_slices: int = 3
    max_distance: float | None = None


@dataclass(frozen=True)
class ExamVerdict:
    """What is said of an exam. certainty: probability of the verdict's class, 0 to 1; None without a verdict.

    distance: how far the exam lies from those that the model knows. reason_code, reason: why it is indeterminate.
    """

    verdict: str
    certainty: float | None
    probabilities: dict[str, float]
    called: dict[str, int]
    distance: float
    reason_code: ReasonCode = ""
    reason: str = ""


def decide(
    classes: Sequence[str], slices: NDArray[np.float64], point: OperatingPoint, *, distance: float = 0.0
) -> ExamVerdict:
    """Return the verdict for slice probabilities of shape (slices, classes), at least one slice.

    `called` counts the slices by their most probable class.
    """
    mean = slices.mean(axis=0)
    winners = np.bincount(slices.argmax(axis=1), minlength=len(classes))
    best = int(mean.argmax())
    verdict = classes[best]
    code: ReasonCode = ""
    reason = ""
    if len(slices) < point.min_slices:
        code, reason = "few_slices", f"only {len(slices)} slices with enough lung"
    elif point.max_distance is not None and distance > point.max_distance:
        code = "unfamiliar"
        reason = f"unlike the exams of training: distance {distance:.2f}, the limit is {point.max_distance:.2f}"
    elif mean[best] < point.commit:
        code, reason = "undecided", f"no class reaches {point.commit:.0%}"
    return ExamVerdict(
        verdict=INDETERMINATE if code else verdict,
        certainty=None if code else float(mean[best]),
        probabilities={name: float(value) for name, value in zip(classes, mean, strict=True)},
        called={name: int(count) for name, count in zip(classes, winners, strict=True)},
        distance=distance,
        reason_code=code,
        reason=reason,
    )
