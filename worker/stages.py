"""The classification stage: from a claimed exam to a stored result, whatever happens on the way."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from models.classifier import Classifier
from models.errors import ModelError
from pacs.discreet import said
from pacs.errors import Rejected
from worker import exams, results
from worker.challenge import ChallengeStage
from worker.choice import Choice, Chosen
from worker.classification import ClassifiedExam, classify_series
from worker.database import Database
from worker.errors import LeaseLostError, SettingsError, UnavailableError
from worker.exams import Claim
from worker.privacy import Identities
from worker.registry import Registry
from worker.rejections import ALL_REJECTED
from worker.retraction import SOURCE_REJECTED
from worker.states import State
from worker.tables import ModelVersion, Series

logger = logging.getLogger(__name__)

_STORE_PAUSE_SECONDS = 3.0


def _need_files(held: Claim) -> None:
    """Half a series must not replace the report of the whole. Raises Rejected."""
    if not held.paths:
        raise Rejected(SOURCE_REJECTED, ALL_REJECTED)
    missing = sum(not path.is_file() for path in held.paths)
    if missing:
        raise Rejected(
            "missing_files",
            f"{missing} of {len(held.paths)} files are not in the spool any more: send the whole series again, then "
            "'reticula exams retry'.",
        )


class ClassificationStage:
    """Classifies one exam after another with the active model, which it keeps compiled until another is promoted."""

    def __init__(
        self,
        database: Database,
        registry: Registry,
        data_dir: Path,
        *,
        min_slices: int,
        identities: Identities,
        choice: Choice,
        together: timedelta | None = None,
        shadow: bool = False,
        lease: timedelta = exams.LEASE,
        alive: Callable[[], None] = lambda: None,
        challenge: ChallengeStage | None = None,
    ) -> None:
        self._challenge = challenge
        self._lease, self._alive = lease, alive
        self._database = database
        self._registry = registry
        self._data_dir = data_dir
        self._min_slices, self._identities = min_slices, identities
        self._choice, self._together, self._shadow = choice, together, shadow
        self._loaded: tuple[ModelVersion, Classifier] | None = None
        self._broken = ""  # the sha256 that was last complained of

    def run_one(self, owner: str) -> bool:
        """Classify the exam that comes next, or one in shadow; False where none waits or there is no model."""
        loaded = self._classifier()
        if loaded is None:
            return False
        model, classifier = loaded
        held = exams.claim(self._database, self._data_dir, owner, self._lease, together=self._together)
        if held is None:
            return self._challenge is not None and self._challenge.run_one(owner)
        logger.info("Series %s revision %d: %d instances.", held.series_uid, held.revision, len(held.paths))
        try:
            self._run(held, classifier, model)
        except LeaseLostError as error:
            logger.warning("%s What was computed is thrown away.", error)
        except UnavailableError:
            raise  # the lease runs out, and the sweep queues the exam again
        except SettingsError as error:  # a list of patients that cannot be read just now is no fault of the exam
            logger.error("Series %s waits: %s", held.series_uid, error)  # noqa: TRY400
            with suppress(LeaseLostError):
                exams.put_back(self._database, held, "settings", str(error))
        except MemoryError:
            logger.error("Series %s needs more memory than a worker may take.", held.series_uid)  # noqa: TRY400
            with suppress(LeaseLostError):
                exams.give_up(
                    self._database, held, "memory", "It needs more memory than a worker may take: see worker.memory_mb."
                )
        except Exception as error:
            logger.exception("Series %s was not classified.", held.series_uid)
            with suppress(LeaseLostError):
                exams.give_up(self._database, held, "error", said(error))
        return True

    def _run(self, held: Claim, classifier: Classifier, model: ModelVersion) -> None:
        chosen: list[Chosen] = []
        try:
            _need_files(held)
            result = classify_series(
                held.paths,
                classifier,
                min_slices=self._min_slices,
                check_header=lambda header: chosen.append(self._choice.choose(held, header)),
                alive=lambda: self._keep(held),
                alive_seconds=self._lease.total_seconds() / 4,
                careful=held.attempts > 1,
                missing=held.missing,
            )
            self._store(held, result, classifier, model, chosen[0])
        except Rejected as error:
            self._reject(held, error)
            return
        logger.info(
            "Series %s: %s, %d of %d slices in %.1f s.",
            held.series_uid,
            result.verdict.verdict,
            result.classified,
            len(result.slices),
            result.seconds,
        )

    def _reject(self, held: Claim, error: Rejected) -> None:
        with self._database.write() as session:
            exams.lock_study(session, held)
            if error.code == exams.NOT_PREFERRED and self._speaks_after_all(session, held):
                exams.finish(session, held, State.QUEUED)
                logger.info("Series %s speaks for its study after all.", held.series_uid)
                return
            exams.finish(session, held, State.REJECTED, error.code, str(error))
        logger.info("Series %s rejected (%s).", held.series_uid, error.code)

    def _speaks_after_all(self, session: Session, held: Claim) -> bool:
        """Whether the series that was preferred has come to nothing since."""
        try:
            self._choice.instead_of(session, held)
        except Rejected:
            return False
        return True

    def _keep(self, held: Claim) -> None:
        """Leave a sign and renew the lease; while the database is away the work goes on, for it may be back in time."""
        self._alive()
        try:
            exams.renew(self._database, held)
        except UnavailableError as error:
            logger.warning("%s The exam goes on.", error)

    def _store(
        self, held: Claim, result: ClassifiedExam, classifier: Classifier, model: ModelVersion, chosen: Chosen
    ) -> None:
        """Store a result; a database that is away is waited for, as long as the lease may hold.

        Raises Rejected where a series that is preferred was classified meanwhile.
        """
        deadline = time.monotonic() + held.lease.total_seconds() / 2
        while True:
            try:
                with self._database.write() as session:
                    exams.lock_study(session, held)
                    instead_of = self._choice.instead_of(session, held)
                    series = session.get_one(Series, held.series_id)
                    series.scope_rule, series.instead_of_id = chosen.scope_rule, instead_of
                    series.shadow = self._shadow
                    results.store(
                        session, held, result, classifier.bundle, model, self._identities.header(result.header)
                    )
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_STORE_PAUSE_SECONDS)
            else:
                return

    def _classifier(self) -> tuple[ModelVersion, Classifier] | None:
        """Return the model that classifies: the active one, and where that does not open one that was so before."""
        with self._database.read() as session:
            candidates = self._registry.candidates(session)
        for model in candidates:
            if self._loaded is not None and self._loaded[0].bundle_sha256 == model.bundle_sha256:
                return self._loaded
            try:
                self._loaded = model, self._registry.classifier(model)
            except ModelError as error:
                if self._broken != model.bundle_sha256:
                    self._broken = model.bundle_sha256
                    logger.error(  # noqa: TRY400
                        "Model %s %s cannot be used: %s %s", model.name, model.version, error,
                        "Exams wait." if model is candidates[-1] else "The one before it goes on.",
                    )  # fmt: skip
            else:
                return self._loaded
        return None
