"""Back-filling: studies that an archive has are fetched as if it had sent them, from where it stopped the last time.

Nothing is remembered: what lies in the spool, or was classified and has left it, is not fetched again.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select

from pacs.errors import QueryError
from pacs.retrieval import FoundSeries, FoundStudy, Receiver, Source, StudyQuery
from pacs.spool import Spool
from worker.database import Database
from worker.states import AT_REST, State
from worker.tables import Series

_LOOK_SECONDS = 1.0
# A C-MOVE ends when the archive has sent everything; the listener names the last of it a moment later.
_ARRIVAL_SECONDS = 10.0


@dataclass(frozen=True)
class Planned:
    """A series of an archive. reason: why it is not taken; None where it is. here: instances that lie in the spool."""

    study: FoundStudy
    series: FoundSeries
    here: int
    reason: str | None


@dataclass(frozen=True)
class Fetched:
    """What came of a series: how many of its instances are here now, and what went wrong."""

    planned: Planned
    here: int
    error: str | None


class Pull:
    """Finds and fetches. ahead: no more is fetched while so many exams wait to be classified."""

    def __init__(self, source: Source, database: Database, spool: Spool, *, ahead: int) -> None:
        self._source, self._database, self._spool, self._ahead = source, database, spool, ahead

    def plan(self, query: StudyQuery) -> Iterator[Planned]:
        """Yield what there is, and whether it would be taken. Raises QueryError."""
        for study in sorted(self._source.studies(query), key=lambda each: (each.study_date, each.study_uid)):
            for series in self._source.series(study.study_uid):
                here = self._here(series)
                yield Planned(study, series, here, self._reason(series, here))

    def fetch(self, planned: Planned, receiver: Receiver, waiting: Callable[[int], None]) -> Fetched:
        """Fetch a series and say how it went; `waiting` is told how many exams wait before it is begun."""
        while (count := self._waiting()) >= self._ahead:
            waiting(count)
            time.sleep(_LOOK_SECONDS)
        error = None
        try:
            self._source.fetch(planned.series, receiver)
        except QueryError as problem:
            error = str(problem)
        expected = planned.series.instances
        deadline = time.monotonic() + _ARRIVAL_SECONDS
        here = self._here(planned.series)
        while error is None and here < (expected or 1) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS / 4)
            here = self._here(planned.series)
        if error is None and here < (expected or 1):
            error = f"{here} of {expected if expected is not None else 'some'} instances came."
        return Fetched(planned, here, error)

    def _reason(self, series: FoundSeries, here: int) -> str | None:
        if series.modality != "CT":
            return f"not CT but {series.modality or 'of no stated modality'}"
        if series.instances is not None and 0 < series.instances <= here:
            return "here already"
        with self._database.read() as session:
            done = select(Series.id).where(
                Series.series_uid == series.series_uid, Series.state.in_(AT_REST), Series.pixels_removed_at.is_not(None)
            )
            if session.scalar(done.limit(1)) is not None:
                return "classified before"
        return None

    def _here(self, series: FoundSeries) -> int:
        folder = self._spool.folder(series.study_uid, series.series_uid)
        try:
            return len({instance.sop_uid for instance in self._spool.instances(folder)})
        except FileNotFoundError:
            return 0

    def _waiting(self) -> int:
        with self._database.read() as session:
            return session.scalar(
                select(func.count()).where(Series.state.in_((State.QUEUED, State.CLASSIFYING)))
            ) or 0  # fmt: skip
