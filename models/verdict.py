"""From the slices' probabilities to what is said of the exam."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.guard import Guard

INDETERMINATE = "indeterminate"
ReasonCode = Literal[
    "",
    "incomplete",  # too little of the lungs was classified
    "few_slices",
    "unguarded",  # the bundle does not know what is strange to it
    "study_protocol",  # the bundle reproduces a study, and does not serve
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
    `indeterminate`. So it is with fewer than `min_slices` slices, and where less than `min_share` of the slices that
    may show lung were classified, or these reach over less than `min_extent_mm` of the body.
    """

    commit: float = 0.6
    min_slices: int = 3
    min_share: float = 0.8
    min_extent_mm: float = 100.0


@dataclass(frozen=True)
class Coverage:
    """How much of the lungs was classified.

    share: classified slices of those that show lung, or may show it because nobody could look, 0 to 1. extent_mm: from
    the lowest classified slice to the highest; None where positions are not known.
    """

    share: float = 1.0
    extent_mm: float | None = None


WHOLE = Coverage()


@dataclass(frozen=True)
class ExamVerdict:
    """What is said of an exam. certainty: probability of the verdict's class, 0 to 1; None without a verdict.

    distance: how far the exam lies from the class that it is most likely of. reason_code, reason: why it is
    indeterminate.
    """

    verdict: str
    certainty: float | None
    probabilities: dict[str, float]
    called: dict[str, int]
    distance: float
    reason_code: ReasonCode = ""
    reason: str = ""


@dataclass(frozen=True)
class Exam:
    """What the verdict rests on: slice probabilities (slices, classes), at least one slice, and what is known beside.

    distances (classes,): from each class (`models.familiarity`). phantom: whether every image says that it is one.
    """

    slices: NDArray[np.float64]
    distances: NDArray[np.float64]
    phantom: bool = False
    coverage: Coverage = WHOLE


def decide(classes: Sequence[str], exam: Exam, point: OperatingPoint, guard: Guard | None) -> ExamVerdict:
    """Return the verdict; `called` counts the slices by their most probable class.

    What keeps the exam from a verdict is said before what keeps the model from one, and that before what the model
    found. Without a guard nobody is known.
    """
    mean = exam.slices.mean(axis=0)
    winners = np.bincount(exam.slices.argmax(axis=1), minlength=len(classes))
    best = int(mean.argmax())
    distance = float(exam.distances[best])
    code, reason = (
        _of_the_exam(exam, point) or _of_the_model(guard, phantom=exam.phantom)
        or _of_the_finding(classes[best], float(mean[best]), distance, point, guard)
    )  # fmt: skip
    return ExamVerdict(
        verdict=INDETERMINATE if code else classes[best],
        certainty=None if code else float(mean[best]),
        probabilities={name: float(value) for name, value in zip(classes, mean, strict=True)},
        called={name: int(count) for name, count in zip(classes, winners, strict=True)},
        distance=distance,
        reason_code=code,
        reason=reason,
    )


def _of_the_exam(exam: Exam, point: OperatingPoint) -> tuple[ReasonCode, str] | None:
    coverage = exam.coverage
    if coverage.share < point.min_share:
        needed = f"{point.min_share:.0%} are needed"
        return "incomplete", f"only {coverage.share:.0%} of the slices that may show lung were classified: {needed}"
    if coverage.extent_mm is not None and coverage.extent_mm < point.min_extent_mm:
        needed = f"{point.min_extent_mm:.0f} mm are needed"
        return "incomplete", f"the classified slices reach over {coverage.extent_mm:.0f} mm of the body: {needed}"
    if len(exam.slices) < point.min_slices:
        return "few_slices", f"only {len(exam.slices)} slices with enough lung"
    return None


def _of_the_model(guard: Guard | None, *, phantom: bool) -> tuple[ReasonCode, str] | None:
    silence = silent_about_all(guard)
    if silence is not None:
        return silence
    if guard is not None and guard.knows == "phantoms" and not phantom:
        return "demo_model", "the model knows phantoms only, and this is no phantom"
    return None


def silent_about_all(guard: Guard | None) -> tuple[ReasonCode, str] | None:
    """Return why a bundle with this guard gives no verdict on anybody; None where it gives some."""
    if guard is None:
        return "unguarded", "the model does not know what is strange to it: it has no guard, or was never asked"
    if guard.reproduces:
        return "study_protocol", "the model reproduces a study that split by slice: it does not serve"
    if guard.limits is None:
        lack = " and ".join(f"{count} more of {name}" for name, count in guard.missing.items()) or "others"
        needed = f"{lack}, {guard.knows} that it never learned from"
        return "too_few_patients", f"the model needs {needed}, before it may know anybody"
    return None


def _of_the_finding(
    name: str, probability: float, distance: float, point: OperatingPoint, guard: Guard | None
) -> tuple[ReasonCode, str]:
    limit = guard.limits.get(name) if guard is not None and guard.limits is not None else None
    if limit is None:
        return "unfamiliar", "the model knows no exam like this one"
    if not distance <= limit:  # what is no number is strange
        # Neither class nor limit, which would tell the class.
        return "unfamiliar", f"unlike the exams that the model knows: distance {distance:.2f}"
    if not probability >= point.commit:
        return "undecided", f"no class reaches {point.commit:.0%}"
    return "", ""
