"""One outcome a patient: what two models made of the same people. Slices and exams of one patient are no evidence more.

A patient with several exams has the worst outcome of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from models.verdict import INDETERMINATE
from training.outcomes import ExamOutcome


class Outcome(IntEnum):
    """What a model made of a patient, the worse the lower. Of who has none of its classes silence is right."""

    WRONG = 0
    SILENT = 1
    RIGHT = 2


@dataclass(frozen=True)
class Compared:
    """A patient under both models. kind: the class, or another label. scanner: its maker, and the kernel."""

    patient: str
    kind: str
    before: Outcome
    after: Outcome
    scanner: str = ""

    @property
    def falls(self) -> bool:
        """Whether the candidate makes less of this patient: a right verdict is lost, or silence ends in a wrong one."""
        return self.after < self.before

    @property
    def rises(self) -> bool:
        """Whether the candidate makes more of this patient."""
        return self.after > self.before


def outcome(exam: ExamOutcome, classes: Sequence[str]) -> Outcome:
    """Return what was made of an exam."""
    if exam.truth not in classes:
        return Outcome.RIGHT if exam.verdict == INDETERMINATE else Outcome.WRONG
    if exam.verdict == INDETERMINATE:
        return Outcome.SILENT
    return Outcome.RIGHT if exam.verdict == exam.truth else Outcome.WRONG


def compared(
    before: Sequence[ExamOutcome],
    after: Sequence[ExamOutcome],
    classes: Sequence[str],
    scanners: Mapping[str, str],
) -> list[Compared]:
    """Return each patient under both models, in the order of their names. scanners: by exam.

    Who stands under several classes is left out: nobody knows which verdict would be right.
    """
    then, now = _worst(before, classes), _worst(after, classes)
    kinds, made_by = dict[str, set[str]](), dict[str, set[str]]()
    for exam in before:
        kinds.setdefault(exam.patient, set()).add(exam.truth)
        made_by.setdefault(exam.patient, set()).add(scanners.get(exam.exam, ""))
    return [
        Compared(patient, kinds[patient].pop(), then[patient], now[patient], " and ".join(sorted(made_by[patient])))
        for patient in sorted(then)
        if len(kinds[patient]) == 1
    ]


def _worst(exams: Sequence[ExamOutcome], classes: Sequence[str]) -> dict[str, Outcome]:
    found = dict[str, Outcome]()
    for exam in exams:
        found[exam.patient] = min(found.get(exam.patient, Outcome.RIGHT), outcome(exam, classes))
    return found
