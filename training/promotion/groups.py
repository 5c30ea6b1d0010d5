"""Which held-out patients may be asked, and how much error is left for the question.

A candidate that harms is promoted by chance now and then; who asks the same patients again and again gets it promoted
in the end. So every question about a group of patients spends some of the error that is allowed over all of them, and
how much is settled before the answer is known (alpha spending; the sum holds by Bonferroni's inequality whatever the
candidates are, for up to its end all that a group has ever answered is no).

A group ends when one of those who were compared on it becomes active, by itself or through a person: from then on what
is trained depends on its answer. It ends too when what is left is too little to show anything. Then new patients, whom
nobody has asked, make the next group once they are enough, and only then the old ones may be learned from.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import pi

from training.promotion.exact import fewest, is_rarer

ERROR = 0.025  # over all questions about one group
FEWEST_PATIENTS, FEWEST_OF_A_CLASS = 72, 36
HARM, MARGIN = 0.05, 0.10  # shares of patients, of all and of one class, who may lose: shown to be fewer


@dataclass(frozen=True)
class Asked:
    """An earlier decision. patients: hashes of those whom it asked. alpha: error that it spent, 0 for too few of them.

    served: the candidate that it was about has been active since.
    """

    group: int
    patients: frozenset[str]
    alpha: float
    served: bool


@dataclass(frozen=True)
class Plan:
    """How the next candidate is judged, settled before it is trained.

    asked: the patients to compare on. released: those of ended groups, who may be learned from now. alpha: the error
    that may be spent, None where nothing can be shown. lacking: patients that are missing, of all and by class.
    ended: whether those who are asked have decided what they can, so that the missing ones must be new.
    """

    group: int
    attempt: int
    asked: frozenset[str]
    released: frozenset[str]
    alpha: float | None
    lacking: Mapping[str, int]
    counts: Mapping[str, int]
    ended: bool = False

    @property
    def patients(self) -> int:
        """How many patients have a class."""
        return sum(self.counts.values())

    def sentence(self) -> str:
        """Say whether a candidate can be promoted by itself, and how many patients are missing."""
        if self.alpha is not None:
            return (
                f"The candidate can be promoted by itself, if it is shown to be better and to harm nobody on "
                f"{self.patients} held-out patients (question {self.attempt} to group {self.group}, error at most "
                f"{self.alpha:.2%})."
            )
        return f"The candidate will be a challenger, not shown to be safe: {self.shortage()}."

    def shortage(self) -> str:
        """Say who is missing."""
        have = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        lack = [f"{count} of {name}" for name, count in self.lacking.items() if name != ALL and count]
        total = max(self.lacking.get(ALL, 0), sum(self.lacking.get(name, 0) for name in self.counts))
        more = f"{total} {'new ones' if self.ended else 'more'} are missing"
        among = f", among them {' and '.join(lack)}" if lack else ""
        used = ", who have decided what they can" if self.ended else ""
        return f"{self.patients} patients ({have}){used}; {more}{among}"


ALL = "all"


def plan(
    held_out: Mapping[str, str | None],
    classes: Sequence[str],
    earlier: Sequence[Asked],
    hashed: Callable[[str], str],
) -> Plan:
    """Return how the next candidate is judged. held_out: each patient's class, None where it has none or several."""
    group = max((each.group for each in earlier), default=1)
    of_group = [each for each in earlier if each.group == group]
    everybody = frozenset(held_out)
    hashes = {hashed(patient): patient for patient in held_out} if earlier else {}
    ended = _names(hashes, (each for each in earlier if each.group < group))
    own = _names(hashes, of_group) - ended
    fresh = everybody - own - ended
    spent, questions = sum(each.alpha for each in of_group), sum(each.alpha > 0 for each in of_group)
    closed = any(each.served for each in of_group)
    left = 0.0 if closed else max(0.0, ERROR - spent)

    nobody = frozenset[str]()
    together = own | fresh
    counts, new = _counts(together, held_out, classes), _counts(fresh, held_out, classes)
    alpha = _alpha(counts, left, questions + 1)
    if alpha is not None:
        return Plan(group, questions + 1, together, nobody, alpha, {}, counts)
    if not closed and not spent:  # nothing was asked of it that counts: it grows
        return Plan(group, 1, together, nobody, None, _lacking(counts), counts)
    alpha = _alpha(new, ERROR, 1)
    if alpha is not None:
        return Plan(group + 1, 1, fresh, own | ended, alpha, {}, new)
    # The new ones stay new until they are enough; who was asked already shows what can be shown meanwhile.
    return Plan(group, questions + 1, own, nobody, None, _lacking(new), _counts(own, held_out, classes), ended=True)


def _alpha(counts: Mapping[str, int], left: float, question: int) -> float | None:
    """Return what a question may spend; None where no answer could show anything with what is left.

    The n-th question to a group gets 6/(π² n²) of the whole, which adds up to the whole; where even a faultless
    candidate could show nothing with that, it gets as much as that takes.
    """
    total, smallest = sum(counts.values()), min(counts.values(), default=0)
    if total < FEWEST_PATIENTS or smallest < FEWEST_OF_A_CLASS:
        return None
    needed = max(is_rarer(0, total, HARM), is_rarer(0, smallest, MARGIN))
    return None if needed > left else min(left, max(ERROR * 6 / (pi * question) ** 2, needed))


def _lacking(counts: Mapping[str, int]) -> dict[str, int]:
    """Return how many patients a group lacks before it can be asked, of all and of each class."""
    of_all, of_class = max(FEWEST_PATIENTS, fewest(HARM, ERROR)), max(FEWEST_OF_A_CLASS, fewest(MARGIN, ERROR))
    lacking = {name: max(0, of_class - count) for name, count in counts.items()}
    return {ALL: max(0, of_all - sum(counts.values())), **lacking}


def _counts(patients: Collection[str], held_out: Mapping[str, str | None], classes: Sequence[str]) -> dict[str, int]:
    found = Counter(held_out[patient] for patient in patients)
    return {name: found[name] for name in classes}


def _names(hashes: Mapping[str, str], earlier: Iterable[Asked]) -> frozenset[str]:
    asked = frozenset[str]().union(*(each.patients for each in earlier))
    return frozenset(name for hashed, name in hashes.items() if hashed in asked)
