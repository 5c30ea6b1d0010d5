"""When a candidate is promoted by itself: the tests, the patients that may be asked, and how often the rule errs."""

from typing import Any

import pytest

from training.outcomes import ExamOutcome
from training.promotion.exact import fewest, fewest_rises, is_better, is_rarer, most
from training.promotion.groups import ALL, ERROR, Asked, Plan, plan
from training.promotion.outcomes import Compared, Outcome, compared
from training.promotion.rule import Condition, battery_condition, judge
from training.promotion.simulation import CANDIDATES, rates

CLASSES = ("UIP", "NSIP")
FINE = Condition("battery", holds=True, sentence="")


def held_out(count: int, start: int = 0) -> dict[str, str | None]:
    """Return so many patients, half of each class."""
    return {f"P{number}": CLASSES[number % 2] for number in range(start, start + count)}


def planned(patients: dict[str, str | None], *earlier: Asked) -> Plan:
    return plan(patients, CLASSES, earlier, str)


def group(rises: int, falls: int, of: int = 84, scanner: str = "GE / LUNG") -> list[Compared]:
    """Return patients of whom some gain, some lose, and the others stay right."""
    moves = [(Outcome.SILENT, Outcome.RIGHT)] * rises + [(Outcome.RIGHT, Outcome.SILENT)] * falls
    moves += [(Outcome.RIGHT, Outcome.RIGHT)] * (of - len(moves))
    return [Compared(f"P{n}", CLASSES[n % 2], *move, scanner) for n, move in enumerate(moves)]


def failed(patients: list[Compared], alpha: float = 0.0152) -> list[str]:
    return [each.name for each in judge(patients, CLASSES, alpha, FINE).conditions if not each.holds]


def test_the_exact_tests_are_what_the_arithmetic_says() -> None:
    assert is_rarer(0, 72, 0.05) == pytest.approx(0.95**72)
    assert (fewest(0.05, 0.025), fewest(0.10, 0.025)) == (72, 36)
    assert 0.95**71 > 0.025
    assert is_better(6, 0) == pytest.approx(0.5**6)
    assert (fewest_rises(0.025), is_better(0, 0), is_rarer(0, 0, 0.1)) == (6, 1.0, 1.0)
    assert [most(of, 0.05, 0.0152) for of in (72, 82, 150)] == [-1, 0, 1]


def test_a_candidate_that_harms_nobody_and_helps_some_is_promoted() -> None:
    assert failed(group(rises=8, falls=0)) == []
    assert judge(group(8, 0), CLASSES, 0.0152, FINE).holds
    assert failed(group(rises=6, falls=0)) == ["better"]
    assert "harm" in failed(group(rises=30, falls=1))  # whoever gains, one in 84 may be one in twenty
    assert failed(group(rises=30, falls=1, of=150)) == []
    lost = [Compared(f"Q{n}", "UIP", Outcome.RIGHT, Outcome.WRONG, "GE / LUNG") for n in range(4)]
    few = [each for each in group(30, 0, 400) if each.kind == "NSIP"] + lost
    few += [Compared(f"R{n}", "UIP", Outcome.SILENT, Outcome.RIGHT, "GE / LUNG") for n in range(34)]
    assert failed(few) == ["class UIP"]  # 4 of 38, hidden among 238
    assert judge(group(8, 0), CLASSES, 0.0152, Condition("battery", holds=False, sentence="")).holds is False


def test_silence_that_becomes_a_wrong_verdict_is_harm() -> None:
    patients = group(10, 0)
    patients[-1] = Compared("P83", "NSIP", Outcome.SILENT, Outcome.WRONG)
    assert "harm" in failed(patients)


def test_scanners_that_are_too_few_are_listed_and_stop_only_what_is_worse() -> None:
    many = group(10, 0, 150)
    some = [Compared(f"S{n}", "UIP", Outcome.RIGHT, Outcome.RIGHT, "Canon / FC51") for n in range(5)]
    judged = judge([*many, *some], CLASSES, 0.0152, FINE)
    assert (judged.holds, judged.untested) == (True, ("scanner Canon / FC51 (5 patients)",))
    some[0] = Compared("S0", "UIP", Outcome.RIGHT, Outcome.SILENT, "Canon / FC51")
    assert failed([*many, *some]) == ["scanner Canon / FC51"]
    some[1] = Compared("S1", "UIP", Outcome.SILENT, Outcome.RIGHT, "Canon / FC51")
    assert failed([*many, *some]) == []
    healthy = [Compared("H", "healthy", Outcome.RIGHT, Outcome.WRONG)]
    assert failed([*many, *healthy]) == ["patients with healthy"]


def test_a_patient_has_the_worst_outcome_of_all_exams() -> None:
    def exam(name: str, patient: str, truth: str, verdict: str) -> ExamOutcome:
        return ExamOutcome(name, patient, truth, verdict, reason="", certainty=0.9, called="UIP", distance=0.0)

    before = [exam("1", "A", "UIP", "UIP"), exam("2", "A", "UIP", "UIP"), exam("3", "B", "healthy", "indeterminate"),
              exam("4", "C", "UIP", "UIP"), exam("5", "C", "NSIP", "UIP")]  # fmt: skip
    after = [exam("1", "A", "UIP", "indeterminate"), exam("2", "A", "UIP", "UIP"), exam("3", "B", "healthy", "NSIP"),
             *before[3:]]  # fmt: skip
    found = compared(before, after, CLASSES, {"1": "GE", "2": "GE"})
    assert [(each.patient, each.before, each.after, each.scanner) for each in found] == [
        ("A", Outcome.RIGHT, Outcome.SILENT, "GE"), ("B", Outcome.RIGHT, Outcome.WRONG, ""),
    ]  # fmt: skip
    assert all(each.falls and not each.rises for each in found)


def test_with_too_few_patients_a_candidate_can_only_be_a_challenger() -> None:
    for count, lacking in ((12, {ALL: 60, "UIP": 30, "NSIP": 30}), (70, {ALL: 2, "UIP": 1, "NSIP": 1})):
        asked = planned(held_out(count))
        assert (asked.alpha, asked.lacking, asked.patients) == (None, lacking, count)
        assert f"{lacking[ALL]} more are missing" in asked.sentence()
    one_sided = {**held_out(60), **{f"U{n}": "UIP" for n in range(60)}}
    asked = planned(one_sided)
    assert (asked.alpha, asked.lacking["NSIP"]) == (None, 6)
    enough = planned(held_out(72))
    assert enough.alpha == pytest.approx(0.95**72)  # nearly all that a group has
    assert planned(held_out(150)).alpha == pytest.approx(ERROR * 6 / 3.14159265**2)
    nobody = {**held_out(70), "two": None, "healthy": None}
    assert (planned(nobody).alpha, len(planned(nobody).asked)) == (None, 72)


def test_all_questions_to_one_group_spend_no_more_than_the_error_that_is_allowed() -> None:
    for count in (72, 90, 150, 400):
        earlier: list[Asked] = []
        for _ in range(60):
            asked = planned(held_out(count), *earlier)
            earlier.append(Asked(asked.group, asked.asked, asked.alpha or 0.0, served=False))
        assert {each.group for each in earlier} == {1}
        assert 0 < sum(each.alpha for each in earlier) <= ERROR
        if count < 150:
            assert planned(held_out(count), *earlier).alpha is None


def test_new_patients_make_the_next_group_and_the_old_ones_may_be_learned_from() -> None:
    everybody = held_out(72)
    first = planned(everybody)
    used = Asked(1, first.asked, first.alpha or 0.0, served=False)
    waiting = planned({**everybody, **held_out(40, start=72)}, used)
    assert (waiting.alpha, waiting.ended, waiting.released) == (None, True, frozenset())
    assert waiting.asked == set(everybody)  # the new ones stay new
    assert waiting.lacking[ALL] == 32
    assert "32 new ones are missing" in waiting.sentence()
    second = planned({**everybody, **held_out(72, start=72)}, used, Asked(1, waiting.asked, 0.0, served=False))
    assert (second.group, second.attempt) == (2, 1)
    assert second.released == set(everybody)
    assert second.asked == set(held_out(72, start=72))
    # From then on whoever was asked in the first group is not asked again.
    third = planned({**everybody, **held_out(200, start=72)}, used, Asked(2, second.asked, 0.015, served=False))
    assert third.group == 2
    assert not third.asked & set(everybody)


def test_a_group_ends_when_one_of_its_candidates_becomes_active() -> None:
    everybody = held_out(150)
    asked = planned(everybody)
    again = planned(everybody, Asked(1, asked.asked, asked.alpha or 0.0, served=False))
    assert (again.group, again.attempt) == (1, 2)
    assert again.alpha is not None
    for spent in (asked.alpha or 0.0, 0.0):  # a person may have promoted it though nothing was shown
        after = planned(everybody, Asked(1, asked.asked, spent, served=True))
        assert (after.alpha, after.ended) == (None, True)


@pytest.mark.parametrize(
    ("active", "candidate", "holds"),
    [
        ((0, 240), (0, 240), True), ((0, 240), (1, 240), False), ((4, 240), (2, 120), True), (None, (0, 240), True),
        (None, None, False), ((0, 240), None, False),
    ],
)  # fmt: skip
def test_the_battery_must_not_be_worse(
    active: tuple[int, int] | None, candidate: tuple[int, int] | None, holds: bool
) -> None:
    def battery(said: tuple[int, int] | None) -> dict[str, Any] | None:
        return None if said is None else {"named": said[0], "asked": said[1], "passed": True}

    assert battery_condition(battery(active), battery(candidate)).holds is holds
    if candidate is not None:
        assert not battery_condition(battery(active), {**(battery(candidate) or {}), "passed": False}).holds


@pytest.mark.parametrize(("candidate", "patients", "attempts", "lowest", "highest"), [
    (CANDIDATES[0], 72, 1, 0.0, 0.03), (CANDIDATES[1], 72, 1, 0.008, 0.035), (CANDIDATES[1], 72, 20, 0.0, 0.045),
    (CANDIDATES[1], 12, 1, 0.0, 0.0), (CANDIDATES[2], 40, 1, 0.0, 0.0), (CANDIDATES[2], 72, 5, 0.0, 0.01),
    (CANDIDATES[3], 72, 1, 0.9, 1.0),
])  # fmt: skip
def test_the_rule_errs_as_seldom_as_it_says(
    candidate: Any, patients: int, attempts: int, lowest: float, highest: float
) -> None:
    """A fixed sample: with 0.95⁷¹ patients, twice the error or a second test on the same ones a bound would break."""
    assert lowest <= rates(candidate, patients, attempts, 1000 if attempts == 1 else 200, seed=5)[1] <= highest


def test_the_rule_before_promoted_what_harms_and_what_is_worse() -> None:
    assert rates(CANDIDATES[1], 12, 1, 200, seed=5)[0] > 0.36
    assert rates(CANDIDATES[2], 12, 1, 200, seed=5)[0] > 0.19
