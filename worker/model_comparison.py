"""Where two model versions differ, over the exams that both have classified: live, or as a challenger in shadow."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from worker import labels
from worker.retraining import scanner
from worker.tables import ChallengerResult, Classification, ModelVersion, Series

NOTHING = "nothing"  # in place of a verdict where a challenger could not classify the exam


@dataclass(frozen=True)
class Statement:
    """What a version said of an exam."""

    verdict: str
    reason_code: str
    probabilities: Mapping[str, float] | None
    at: datetime

    def as_json(self) -> dict[str, Any]:
        """Return it as scripts read it."""
        return {
            "verdict": None if self.verdict == NOTHING else self.verdict,
            "reason_code": self.reason_code or None,
            "probabilities": None if self.probabilities is None else dict(self.probabilities),
        }


@dataclass(frozen=True)
class Pair:
    """One exam under both versions. kind: its label, else the verdict that was reported. month: as 2026-11."""

    series_uid: str
    first: Statement
    second: Statement
    kind: str
    scanner: str
    month: str

    @property
    def differ(self) -> bool:
        """Whether the verdicts are two."""
        return self.first.verdict != self.second.verdict

    def as_json(self) -> dict[str, Any]:
        """Return it as scripts read it."""
        said = {"first": self.first.as_json(), "second": self.second.as_json()}
        return {"series_uid": self.series_uid, "class": self.kind, "scanner": self.scanner, "month": self.month, **said}


def pairs(session: Session, first: ModelVersion, second: ModelVersion) -> list[Pair]:
    """Return the exams that both versions have classified, in the order in which they were classified."""
    said = _statements(session, first), _statements(session, second)
    labelled = labels.current(session)
    both = said[0].keys() & said[1].keys()
    reported = {
        (series.study_id, series.series_uid): row
        for row, series in session.execute(
            select(Classification, Series)
            .join(Series, Series.id == Classification.series_id)
            .order_by(Classification.id)
        )
        if (series.study_id, series.series_uid) in both
    }
    return [
        Pair(
            series_uid=key[1],
            first=said[0][key],
            second=said[1][key],
            kind=labelled.get(key[1], row.verdict),
            scanner=scanner(row.header.get("manufacturer"), row.header.get("kernel")),
            month=f"{row.classified_at:%Y-%m}",
        )
        for key, row in sorted(reported.items(), key=lambda each: each[1].id)
    ]


def table(found: list[Pair], by: Callable[[Pair], str]) -> list[dict[str, Any]]:
    """Return for each group how many exams there are, and in how many the verdicts differ."""
    exams, differing = Counter(map(by, found)), Counter(by(pair) for pair in found if pair.differ)
    return [{"group": name, "exams": exams[name], "differ": differing[name]} for name in sorted(exams)]


def verdicts(found: list[Pair]) -> list[dict[str, Any]]:
    """Return how often each pair of verdicts occurs, the most frequent first."""
    counted = Counter((pair.first.verdict, pair.second.verdict) for pair in found)
    return [{"first": one, "second": two, "exams": count} for (one, two), count in counted.most_common()]


def as_json(found: list[Pair], first: ModelVersion, second: ModelVersion) -> dict[str, Any]:
    """Return the whole comparison as scripts read it."""
    return {
        "first": f"{first.name} {first.version}",
        "second": f"{second.name} {second.version}",
        "exams": len(found),
        "differ": sum(pair.differ for pair in found),
        "verdicts": verdicts(found),
        "by_class": table(found, lambda pair: pair.kind),
        "by_scanner": table(found, lambda pair: pair.scanner),
        "by_month": table(found, lambda pair: pair.month),
        "differing": [pair.as_json() for pair in found if pair.differ],
    }


def _statements(session: Session, version: ModelVersion) -> dict[tuple[int, str], Statement]:
    """The latest word of a version on each series, by study and series; what was taken back is none."""
    shadow = (
        select(Series.study_id, Series.series_uid, ChallengerResult.verdict, ChallengerResult.verdict_code,
               ChallengerResult.probabilities, ChallengerResult.classified_at)
        .join(Classification, Classification.id == ChallengerResult.classification_id)
        .join(Series, Series.id == Classification.series_id)
        .where(
            ChallengerResult.model_id == version.id, ChallengerResult.classified_at.is_not(None),
            Series.withdrawn_at.is_(None),
        )
    )  # fmt: skip
    own = (
        select(Series.study_id, Series.series_uid, Classification.verdict, Classification.verdict_code,
               Classification.probabilities, Classification.classified_at)
        .join(Series, Series.id == Classification.series_id)
        .where(Classification.model_id == version.id, Series.withdrawn_at.is_(None))
    )  # fmt: skip
    rows = [*session.execute(shadow), *session.execute(own)]
    return {
        (study, uid): Statement(verdict or NOTHING, code or "", probabilities, at)
        for study, uid, verdict, code, probabilities, at in sorted(rows, key=lambda row: row[5])
    }
