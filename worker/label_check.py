"""Labels are looked at before anything learns from them: who contradicts the model, other readers, or another exam.

A model that abstains says nothing, so nothing contradicts it: then the check says that it was not possible.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from worker import exams
from worker.tables import ChallengerResult, Classification, Label, ModelVersion, Series

# Beyond this share of the labelled series a person must confirm them.
MOST_SUSPECT = 0.10
# A model that was trained here on too few patients to speak still has an opinion where it is as sure as this.
_SURE = 0.90
_KNOWS_SUCH_EXAMS = frozenset({"too_few_patients", "study_protocol"})
# A reader who differs in so many of the series that others have read too is named.
_SHARED, _AGAINST = 3, 0.5


@dataclass(frozen=True)
class Finding:
    """A label that may be wrong."""

    series_uid: str
    kind: str
    sentence: str


@dataclass(frozen=True)
class LabelCheck:
    """labelled: series with a label. asked: those of which the model has said something that a label can contradict.

    readers: sentences about readers who differ from all others.
    """

    labelled: int
    asked: int
    findings: tuple[Finding, ...]
    readers: tuple[str, ...]
    model: str

    @property
    def suspect(self) -> int:
        """How many series have a label that may be wrong."""
        return len({finding.series_uid for finding in self.findings})

    @property
    def too_many(self) -> bool:
        """Whether a person must confirm them."""
        return self.suspect > MOST_SUSPECT * self.labelled

    def summary(self) -> str:
        """Say what was found."""
        kinds = Counter(finding.kind for finding in self.findings)
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        seen = f" ({found})" if found else ""
        not_asked = "" if self.asked == self.labelled else (
            f" {self.model} says nothing sure of {self.labelled - self.asked} of them: those were not compared with it."
        )  # fmt: skip
        return f"{self.suspect} of {self.labelled} labelled series look wrong{seen}.{not_asked}"

    def sentences(self) -> Iterator[str]:
        """Yield everything that was found, one sentence each."""
        for finding in self.findings:
            yield f"Labelled series {finding.series_uid}: {finding.sentence}"
        yield from self.readers


def check_labels(session: Session, active: ModelVersion | None) -> LabelCheck:
    """Look at all labels that count. active: the model that they are compared with, where there is one."""
    words = _words(session)
    current = {uid: next(reversed(by_author.values())) for uid, by_author in words.items()}
    said = {} if active is None else _said(session, active)
    name = "A model" if active is None else f"Model {active.name} {active.version}"
    comparable = {uid: verdict for uid, verdict in said.items() if uid in current}
    findings = [
        Finding(uid, "against the model", f"it is labelled {current[uid]}, and {name.removeprefix('Model ')} "
                f"says {verdict}.")
        for uid, verdict in comparable.items() if verdict != current[uid]
    ]  # fmt: skip
    findings += _differing(words)
    findings += _two_classes(session, current)
    return LabelCheck(len(current), len(comparable), tuple(findings), tuple(_readers(words)), name)


def _words(session: Session) -> dict[str, dict[str, str]]:
    """The last word of each reader on each series; the last one of all stands last."""
    words: dict[str, dict[str, str]] = defaultdict(dict)
    for row in session.scalars(select(Label).order_by(Label.id)):
        words[row.series_uid].pop(row.author, None)
        words[row.series_uid][row.author] = row.label
    return dict(words)


def _said(session: Session, active: ModelVersion) -> dict[str, str]:
    """What the active model is sure of, by series: from its results, and from those that it gave in shadow."""
    said: dict[str, str] = {}
    shadow = (
        select(Series.series_uid, ChallengerResult.verdict, ChallengerResult.verdict_code,
               ChallengerResult.probabilities)
        .join(Classification, Classification.id == ChallengerResult.classification_id)
        .join(Series, Series.id == Classification.series_id)
        .where(ChallengerResult.model_id == active.id, ChallengerResult.classified_at.is_not(None))
        .order_by(Classification.id)
    )  # fmt: skip
    own = (
        select(Series.series_uid, Classification.verdict, Classification.verdict_code, Classification.probabilities)
        .join(Series, Series.id == Classification.series_id)
        .where(Classification.model_id == active.id, Series.withdrawn_at.is_(None))
        .order_by(Classification.id)
    )
    for uid, verdict, code, probabilities in [*session.execute(shadow), *session.execute(own)]:
        said.pop(uid, None)
        sure = _sure_of(verdict, code, probabilities or {})
        if sure is not None:
            said[uid] = sure
    return said


def _sure_of(verdict: str | None, code: str | None, probabilities: Mapping[str, float]) -> str | None:
    if verdict in probabilities:
        return verdict
    likeliest = max(probabilities, key=lambda name: probabilities[name], default=None)
    sure = likeliest is not None and code in _KNOWS_SUCH_EXAMS and probabilities[likeliest] >= _SURE
    return likeliest if sure else None


def _differing(words: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    for uid, by_author in words.items():
        if len(set(by_author.values())) < 2:
            continue
        counts = Counter(by_author.values())
        alone = [author for author, label in by_author.items() if counts[label] == 1]
        said = ", ".join(f"{author} says {label}" for author, label in by_author.items())
        if len(by_author) > 2 and len(counts) == 2 and len(alone) == 1:
            yield Finding(uid, "one reader against all others", f"{alone[0]} stands alone: {said}.")
        else:
            yield Finding(uid, "readers differ", f"its readers differ: {said}.")


def _readers(words: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Name a reader who differs from others in most series that they share, where those agree."""
    shared, against = Counter[str](), Counter[str]()
    for by_author in words.values():
        for author, label in by_author.items():
            others = {other for name, other in by_author.items() if name != author}
            if len(others) == 1:
                shared[author] += 1
                against[author] += label not in others
    for author, count in against.items():
        if shared[author] >= _SHARED and count > _AGAINST * shared[author]:
            yield f"Reader {author} differs from the others in {count} of {shared[author]} series that they share."


def _two_classes(session: Session, current: Mapping[str, str]) -> Iterator[Finding]:
    """Find patients whose exams are labelled as different classes."""
    by_patient: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    query = select(Series.series_uid, Series.patient_id, Series.patient_issuer).where(exams.latest_revisions())
    for uid, number, issuer in session.execute(query):
        if uid in current and number:
            by_patient[number, issuer][uid] = current[uid]
    for labelled in by_patient.values():
        classes = sorted(set(labelled.values()))
        if len(classes) > 1:
            for uid in labelled:
                yield Finding(uid, "one patient under several classes",
                              f"exams of its patient are labelled {' and '.join(classes)}.")  # fmt: skip
