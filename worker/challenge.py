"""A challenger classifies beside the active model, in shadow: when no exam waits, and nothing of it is ever reported.

SQL says what is to be done: the newest exams that the active model has classified and the challenger has not. One that
was begun by a worker that died is done again when its lease has run out.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from models.classifier import Classifier
from models.errors import ModelError
from pacs.discreet import said
from pacs.errors import Rejected
from worker import exams
from worker.challengers import due, settled
from worker.classification import ClassifiedExam, classify_series
from worker.database import Database, now
from worker.errors import UnavailableError
from worker.registry import Registry
from worker.tables import ChallengerResult, Classification, ModelVersion, Series

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0  # how long an exam that comes in waits for a challenger at most, and one slice more


class _ExamWaits(Exception):
    """An exam has come in: the challenger stands back."""


@dataclass(frozen=True)
class _Held:
    """An exam that this worker classifies in shadow."""

    result_id: int
    series_uid: str
    owner: str
    paths: tuple[Path, ...]
    attempts: int
    missing: int


class ChallengeStage:
    """Classifies one exam after another with the newest challenger, which it keeps compiled. days: how far back."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        data_dir: Path,
        *,
        min_slices: int,
        days: int,
        together: timedelta | None = None,
        lease: timedelta = exams.LEASE,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._database, self._registry, self._data_dir = database, registry, data_dir
        self._min_slices, self._days, self._together = min_slices, days, together
        self._lease, self._alive = lease, alive
        self._loaded: tuple[str, Classifier] | None = None
        self._broken = ""  # the sha256 that does not open

    def run_one(self, owner: str) -> bool:
        """Classify the next exam in shadow; False where there is none, or no challenger. Raises UnavailableError."""
        with self._database.read() as session:
            found = due(session, self._registry, self._days)
        if found is None:
            return False
        challenger, classification_id = found
        classifier = self._classifier(challenger)
        held = None if classifier is None else self._claim(challenger, classification_id, owner)
        if classifier is None or held is None:
            return False
        try:
            self._store(held, **self._result(held, classifier))
        except _ExamWaits:
            self._give_back(held)
        return True

    def _result(self, held: _Held, classifier: Classifier) -> dict[str, Any]:
        """Return what the challenger says, or why it says nothing: that is final, for the same files say the same."""
        try:
            if not all(path.is_file() for path in held.paths):
                return _nothing("missing_files", "Its files are not in the spool any more.")
            result = classify_series(
                held.paths,
                classifier,
                min_slices=self._min_slices,
                alive=lambda: self._keep(held),
                alive_seconds=min(_LOOK_SECONDS, self._lease.total_seconds() / 4),
                careful=held.attempts > 1,
                missing=held.missing,
            )
        except Rejected as error:
            return _nothing(error.code, str(error))
        except (UnavailableError, _ExamWaits):
            raise
        except MemoryError:
            return _nothing("memory", "It needs more memory than a worker may take.")
        except Exception as error:
            logger.exception("Series %s was not classified by the challenger.", held.series_uid)
            return _nothing("error", said(error))
        return _verdict(result)

    def _claim(self, challenger: ModelVersion, classification_id: int, owner: str) -> _Held | None:
        """Take an exam; None where another worker was faster."""
        until = now() + self._lease
        try:
            with self._database.write() as session:
                mine = (ChallengerResult.model_id == challenger.id) & (
                    ChallengerResult.classification_id == classification_id
                )
                row = session.scalar(select(ChallengerResult).where(mine))
                if row is None:
                    row = ChallengerResult(model_id=challenger.id, classification_id=classification_id, attempts=1,
                                           lease_owner=owner, lease_until=until)  # fmt: skip
                    session.add(row)
                    session.flush()
                elif not _update(
                    session,
                    update(ChallengerResult)
                    .where(mine, ~settled())
                    .values(lease_owner=owner, lease_until=until, attempts=ChallengerResult.attempts + 1),
                ):
                    return None
                session.refresh(row)
                series = session.get_one(Classification, classification_id).series
                paths = exams.instance_paths(session, series, self._data_dir)
                return _Held(row.id, series.series_uid, owner, paths, row.attempts, exams.missing(series))
        except IntegrityError:  # another worker has it, or somebody erased the exam
            return None

    def _keep(self, held: _Held) -> None:
        """Leave a sign and keep the exam, unless one that is to be reported waits. Raises _ExamWaits."""
        self._alive()
        with self._database.write() as session:
            if session.scalar(select(Series.id).where(exams.waiting(now(), together=self._together)).limit(1)):
                raise _ExamWaits
            _update(session, _mine(held).values(lease_until=now() + self._lease))

    def _give_back(self, held: _Held) -> None:
        with self._database.write() as session:
            values = {"lease_owner": None, "lease_until": None, "attempts": held.attempts - 1}
            _update(session, _mine(held).values(**values))

    def _store(self, held: _Held, **values: Any) -> None:
        """Keep what was said; where the exam was erased meanwhile, or taken by another, it is thrown away."""
        with self._database.write() as session:
            ended = {"classified_at": now(), "lease_owner": None, "lease_until": None}
            _update(session, _mine(held).values(**values, **ended))

    def _classifier(self, challenger: ModelVersion) -> Classifier | None:
        sha256 = challenger.bundle_sha256
        if self._loaded is not None and self._loaded[0] == sha256:
            return self._loaded[1]
        self._loaded = None
        if self._broken == sha256:
            return None
        try:
            self._loaded = sha256, self._registry.classifier(challenger)
        except ModelError as error:
            self._broken = sha256
            logger.error("Challenger %s %s cannot be used: %s", challenger.name, challenger.version, error)  # noqa: TRY400
            return None
        return self._loaded[1]


def _mine(held: _Held) -> Any:
    return update(ChallengerResult).where(
        ChallengerResult.id == held.result_id, ChallengerResult.lease_owner == held.owner
    )


def _verdict(result: ClassifiedExam) -> dict[str, Any]:
    verdict = result.verdict
    return {
        "verdict": verdict.verdict,
        "probabilities": verdict.probabilities,
        "verdict_code": verdict.reason_code,
        "verdict_reason": verdict.reason,
        "distance": verdict.distance,
        "seconds": round(result.seconds, 3),
    }


def _nothing(code: str, reason: str) -> dict[str, Any]:
    return {"verdict_code": code[:64], "verdict_reason": reason}


def _update(session: Session, statement: Any) -> int:
    return cast("CursorResult[Any]", session.execute(statement)).rowcount
