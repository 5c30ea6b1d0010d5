"""Whether a claimed exam is for us: of one patient, within the scope, and the series that speaks for its study."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from pacs.errors import Rejected
from pacs.facts import SeriesFacts, read_facts
from pacs.head import read_head
from pacs.series import SeriesHeader
from worker import exams
from worker.database import Database
from worker.exams import NOT_PREFERRED, Claim
from worker.privacy import Identities
from worker.retraction import RETRACTED
from worker.rules import Preference, Rules, Standing
from worker.states import Completeness, State
from worker.tables import Classification, Retraction, Series

_IN_THE_RUNNING = (State.RECEIVING, State.QUEUED, State.CLASSIFYING, State.CLASSIFIED, State.REPORTED)


@dataclass(frozen=True)
class Chosen:
    """Why an exam is classified. scope_rule: the rule that chose it, None where there is none about that."""

    scope_rule: str | None


class Choice:
    """Applies rules and preference to claimed exams."""

    def __init__(self, database: Database, rules: Rules, preference: Preference, identities: Identities) -> None:
        self._database, self._rules, self._preference, self._identities = database, rules, preference, identities

    def choose(self, held: Claim, header: SeriesHeader) -> Chosen:
        """Return why an exam is classified. Raises Rejected where it is not, SettingsError."""
        with self._database.read() as session:
            conflict = exams.patient_conflict(session, held, header.patient, self._identities.patient(header.patient))
            if conflict is not None:
                raise Rejected("patient_conflict", conflict)
            _require_not_retracted(session, held)
            scope_rule = self._rules.require(_facts(held))
            self.instead_of(session, held)
            return Chosen(scope_rule)

    def instead_of(self, session: Session, held: Claim) -> int | None:
        """Return the series that spoke for the study so far. Raises Rejected where another one is preferred.

        It holds while the study is locked; see `exams.lock_study`.
        """
        if not self._preference.keep_others:
            return None
        own = session.get_one(Series, held.series_id)
        mine = self._standing(own)
        # A series whose late revision came to nothing is in the running by the one that has a report.
        classified = and_(exists().where(Classification.series_id == Series.id), Series.withdrawn_at.is_(None))
        others = session.scalars(
            select(Series).where(
                Series.study_id == own.study_id,
                Series.series_uid != own.series_uid,
                or_(and_(Series.state.in_(_IN_THE_RUNNING), exams.latest_revisions()), classified),
            )
        )
        standings = sorted(
            (self._standing(other), -other.revision, other.id, other.classification is not None) for other in others
        )
        if standings and standings[0][0] < mine:
            best = standings[0][0]
            raise Rejected(NOT_PREFERRED, self._preference.sentence(best.series_uid, best))
        return next((series_id for _standing, _revision, series_id, spoke in standings if spoke), None)

    def _standing(self, series: Series) -> Standing:
        return self._preference.standing(
            series.series_uid,
            kernel=series.kernel,
            description=series.description,
            thickness=series.thickness_mm,
            slices=series.instance_count,
        )


def _require_not_retracted(session: Session, held: Claim) -> None:
    """What a person took back is not said again because a late image came. Raises Rejected."""
    own = session.get_one(Series, held.series_id)
    before: Any = session.execute(
        select(Series.completeness, Retraction)
        .outerjoin(Retraction, Retraction.series_id == Series.id)
        .where(Series.series_uid == own.series_uid, Series.study_id == own.study_id)
        .where(Series.revision <= own.revision)
        .order_by(Series.revision.desc())
    )
    for completeness, taken_back in before:
        if taken_back is not None and taken_back.reason_code == RETRACTED:
            raise Rejected(RETRACTED, f"{taken_back.reason} To classify it again: 'reticula exams reprocess'.")
        if completeness == Completeness.REPROCESS:
            return


def _facts(held: Claim) -> SeriesFacts:
    for path in held.paths:
        try:
            return read_facts(read_head(path), len(held.paths))
        except Exception:  # pydicom raises whatever it likes on garbage; another instance tells the same
            continue
    raise Rejected("unreadable", "No instance of this series could be read.")
