"""Is a candidate better than the model that is active? Both are asked about the same patients, whom neither knows."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models.bundle import Bundle
from training.dataset import BACKGROUND, LabelledSlices
from training.evaluation import classify
from training.intervals import CONFIDENCE
from training.metrics import brier_scores, exam_figures, slice_figures
from training.outcomes import ExamOutcome, exam_verdicts
from training.promotion.groups import Asked, Plan, plan
from training.promotion.outcomes import compared
from training.promotion.rule import RULE, Judgement, battery_condition, judge
from training.sides import Sides


@dataclass(frozen=True)
class Question:
    """A plan with the hashes of those whom it asks: the decision keeps them, so that a later one knows them again."""

    plan: Plan
    salt: str
    hashes: tuple[str, ...]

    @classmethod
    def about(cls, data: LabelledSlices, sides: Sides, earlier: Sequence[Asked], salt: str | None = None) -> "Question":
        """Settle before a training how its candidate is judged. earlier: decisions whose hashes have this salt."""
        salt = salt or secrets.token_hex(16)
        hashed = Sides(salt).hashed
        made = plan(held_out(data, sides), data.classes, earlier, hashed)
        return cls(made, salt, tuple(sorted(map(hashed, made.asked))))


@dataclass(frozen=True)
class Decision:
    """What came of a comparison. gain: how much better the candidate's mean Brier score is, with its interval.

    A candidate that is not promoted is a challenger. shown: whether it was shown to be safe, and not promoted for
    another reason. alpha: error that the question has spent. moved: how many patients are better off and how many
    worse. gain is for the reader and decides nothing.
    """

    promote: bool
    sentence: str
    patients: int
    group: int
    alpha: float
    asked: Mapping[str, Any]
    conditions: tuple[Mapping[str, Any], ...] = ()
    untested: tuple[str, ...] = ()
    moved: tuple[int, int] | None = None
    gain: tuple[float, float, float] | None = None
    active: dict[str, Any] | None = None
    candidate: dict[str, Any] | None = None
    shown: bool = False

    def withheld(self, sentence: str) -> "Decision":
        """Return the decision not to promote after all, for the reason in `sentence`."""
        return replace(self, promote=False, shown=self.promote or self.shown, sentence=sentence)

    def as_json(self) -> dict[str, Any]:
        """Return the decision as it is stored."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in self.__dict__.items()}
        return {**plain, "rule": RULE}


def held_out(data: LabelledSlices, sides: Sides) -> dict[str, str | None]:
    """Return the patients who are held out, with their class; None where they have none, or several."""
    kinds = dict[str, set[str]]()
    for patient, kind in set(zip(data.patients.tolist(), data.kinds.tolist(), strict=True)):
        if sides.side(patient) == "test":
            kinds.setdefault(patient, set()).add(kind)
    one = {patient: next(iter(of)) if len(of) == 1 else "" for patient, of in kinds.items()}
    return {patient: kind if kind in data.classes else None for patient, kind in one.items()}


def decide_promotion(
    active: Bundle,
    candidate: Bundle,
    data: LabelledSlices,
    test: NDArray[np.int64],
    question: Question,
    scanners: Mapping[str, str] | None = None,
) -> Decision:
    """Compare two bundles on those slices of `test`, whose patients neither has learned from, that are asked about.

    scanners: who made each exam.
    """
    asked = question.plan
    rows = test[np.isin(data.patients[test], sorted(asked.asked))]
    undecided = Decision(
        promote=False, sentence=f"Not promoted: not shown to be safe: {asked.shortage()}. It is a challenger.",
        patients=asked.patients, group=asked.group, alpha=asked.alpha or 0.0,
        asked={"salt": question.salt, "patients": list(question.hashes)},
    )  # fmt: skip
    if not (data.labels[rows] != BACKGROUND).any():
        return undecided
    before, after = (_Judged.of(bundle, data, rows) for bundle in (active, candidate))
    patients = compared(before.exams, after.exams, data.classes, scanners or {})
    battery = battery_condition(active.description.battery, candidate.description.battery)
    judged = judge(patients, data.classes, asked.alpha or 0.0, battery)
    promote = asked.alpha is not None and judged.holds
    moved = sum(each.rises for each in patients), sum(each.falls for each in patients)
    return replace(
        undecided,
        promote=promote,
        sentence=undecided.sentence if asked.alpha is None else _sentence(asked, judged, moved),
        conditions=tuple(condition.as_json() for condition in judged.conditions),
        untested=judged.untested,
        moved=moved,
        gain=_interval(before.brier - after.brier),
        active=before.figures,
        candidate=after.figures,
    )


def _sentence(asked: Plan, judged: Judgement, moved: tuple[int, int]) -> str:
    rises, falls = moved
    untested = f" Untested: {', '.join(judged.untested)}." if judged.untested else ""
    if judged.holds:
        return (
            f"Promoted: of {asked.patients} held-out patients {rises} are better off and {falls} worse, shown with an "
            f"error of at most {asked.alpha:.2%}.{untested}"
        )
    return (
        f"Not promoted: not shown to be safe: {asked.patients} patients; {judged.failed}.{untested} It is a challenger."
    )


@dataclass(frozen=True)
class _Judged:
    """A bundle on the held-out slices. brier: mean Brier score of each patient, in the order of their names."""

    brier: NDArray[np.float64]
    exams: list[ExamOutcome]
    figures: dict[str, Any]

    @classmethod
    def of(cls, bundle: Bundle, data: LabelledSlices, rows: NDArray[np.int64]) -> "_Judged":
        description = bundle.description
        raw = classify(bundle, data, only=rows)
        scaled = raw.scaled(description.temperature)
        outcomes = exam_verdicts(scaled, description.operating_point, description.guard)
        named = scaled.named
        scores = brier_scores(named.probabilities, named.labels)
        return cls(
            brier=np.array([scores[named.patients == patient].mean() for patient in sorted(set(named.patients))]),
            exams=outcomes,
            figures={"slices": slice_figures(raw, scaled), "exams": exam_figures(outcomes, description.class_names)},
        )


def _interval(gains: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Mean and interval by Student's t; None with one patient."""
    if len(gains) < 2:
        return None
    mean, error = float(gains.mean()), float(stats.sem(gains))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(gains) - 1)) * error
    return round(mean, 6), round(mean - half, 6), round(mean + half, 6)
