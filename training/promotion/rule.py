"""What must be shown of a candidate before it may become the active model by itself."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from training.promotion.exact import highest_share, is_better, is_rarer
from training.promotion.groups import ERROR, FEWEST_OF_A_CLASS, FEWEST_PATIENTS, HARM, MARGIN
from training.promotion.outcomes import Compared

RULE = (
    f"A candidate is promoted by itself only where it is shown, on {FEWEST_PATIENTS} held-out patients or more, "
    f"{FEWEST_OF_A_CLASS} or more of each class, one outcome each (wrong, silent, right), that fewer than {HARM:.0%} "
    f"of all patients and fewer than {MARGIN:.0%} of each class are worse off (exact binomial tests), and that more "
    "are better off than worse (sign test). It passes the battery of unknowns and names no larger share of it than the "
    "active model. Scanners and other patients that are too few for a test are listed as untested, and stop it where "
    f"more are worse off than better. All tests on one group of patients err with {ERROR:.1%} together at most."
)


@dataclass(frozen=True)
class Condition:
    """One thing that must hold. value: what was seen, for the record."""

    name: str
    holds: bool
    sentence: str

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Judgement:
    """Whether all conditions hold. untested: groups of patients that were too few for a test."""

    conditions: tuple[Condition, ...]
    untested: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the candidate may be promoted."""
        return all(condition.holds for condition in self.conditions)

    @property
    def failed(self) -> str:
        """The sentences of what does not hold."""
        return "; ".join(condition.sentence for condition in self.conditions if not condition.holds)


def judge(patients: Sequence[Compared], classes: Sequence[str], alpha: float, battery: Condition) -> Judgement:
    """Apply the rule to patients whom neither model has learned from, with an error of `alpha`."""
    named = [patient for patient in patients if patient.kind in classes]
    conditions = [_harmless("harm", named, HARM, alpha, "all patients")]
    conditions += [
        _harmless(f"class {name}", [each for each in named if each.kind == name], MARGIN, alpha, f"those with {name}")
        for name in classes
    ]
    conditions.append(_better(named, alpha))
    conditions.append(battery)
    untested = []
    for title, some in _groups(patients, classes):
        if len(some) >= FEWEST_OF_A_CLASS:
            conditions.append(_harmless(title, some, MARGIN, alpha, title))
        else:
            falls, rises = _moved(some)
            untested.append(f"{title} ({len(some)} patients)")
            if falls > rises:
                conditions.append(Condition(title, holds=False, sentence=f"{title}: {falls} worse off, {rises} better"))
    return Judgement(tuple(conditions), tuple(untested))


def battery_condition(active: Mapping[str, Any] | None, candidate: Mapping[str, Any] | None) -> Condition:
    """Return whether the candidate says no more of what it must not name than the active model does."""
    if candidate is None:
        return Condition("battery", holds=False, sentence="it was not asked about unknowns")
    said = f"it names {candidate['named']} of {candidate['asked']} unknowns"
    if not candidate["passed"]:
        return Condition("battery", holds=False, sentence=f"it fails the battery: {said}")
    if active is None or active.get("silent"):  # who says nothing of anybody has named nobody, and helps nobody
        return Condition("battery", holds=True, sentence=said)
    # A share against a share: the two were asked about unknowns drawn by their own seeds, maybe not as many.
    worse = candidate["named"] * max(1, active["asked"]) > active["named"] * max(1, candidate["asked"])
    return Condition(
        "battery", holds=not worse, sentence=f"{said}, the active model {active['named']} of {active['asked']}"
    )


def _harmless(name: str, some: Sequence[Compared], limit: float, alpha: float, whom: str) -> Condition:
    """Fewer than `limit` are worse off: then the share of right verdicts falls by less than that, whoever gains."""
    falls, of = _moved(some)[0], len(some)
    return Condition(
        name,
        holds=is_rarer(falls, of, limit) <= alpha,
        sentence=f"{falls} of {of} worse off among {whom}, up to {highest_share(falls, of, alpha):.1%} of them "
        f"(fewer than {limit:.0%} must be shown)",
    )


def _better(some: Sequence[Compared], alpha: float) -> Condition:
    falls, rises = _moved(some)
    chance = is_better(rises, falls)
    return Condition(
        "better",
        holds=chance <= alpha,
        sentence=f"{rises} better off and {falls} worse, which chance does in {chance:.1%} (at most {alpha:.2%})",
    )


def _groups(patients: Sequence[Compared], classes: Sequence[str]) -> Iterator[tuple[str, list[Compared]]]:
    """Yield patients by scanner, and those of no class by what they were labelled."""
    named = [each for each in patients if each.kind in classes]
    others = [each for each in patients if each.kind not in classes]
    yield from _by(named, "scanner ", lambda each: each.scanner or "unknown")
    yield from _by(others, "patients with ", lambda each: each.kind)


def _by(some: Iterable[Compared], title: str, key: Callable[[Compared], str]) -> Iterator[tuple[str, list[Compared]]]:
    for name, members in groupby(sorted(some, key=key), key):
        yield f"{title}{name}", list(members)


def _moved(some: Sequence[Compared]) -> tuple[int, int]:
    """How many are worse off, and how many better."""
    return sum(each.falls for each in some), sum(each.rises for each in some)
