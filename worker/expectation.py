"""How many instances the archive has of a series: asked beside the sweep, which must not wait for an answer."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from pacs.errors import QueryError
from pacs.retrieval import Source

logger = logging.getLogger(__name__)

# The number grows while a scanner sends: between two answers that agree this much time must lie.
APART_SECONDS = 2.0
_FORGET_SECONDS = 7200.0


@dataclass
class _Asked:
    """What is known of a series: the last answer and when it came, whether the one before agreed, what is under way."""

    question: "Future[int | None] | None" = None
    count: int | None = None
    answered: float = 0.0
    agreed: bool = False
    used: float = field(default_factory=time.monotonic)


class Expectations:
    """Answers of one archive, kept for the series that come in just now."""

    def __init__(self, source: Source, apart_seconds: float = APART_SECONDS) -> None:
        self._source, self._apart = source, apart_seconds
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="expected")
        self._asked: dict[str, _Asked] = {}
        self._complaint = ""

    def count(self, study_uid: str, series_uid: str) -> int | None:
        """Return the number that two answers agreed on, None until then; asks where that is due, and never waits."""
        known = self._asked.setdefault(series_uid, _Asked())
        known.used = time.monotonic()
        if known.question is not None and known.question.done():
            self._note(known, known.question.result())
            known.question = None
        if known.question is None and time.monotonic() - known.answered >= self._apart:
            known.question = self._pool.submit(self._ask, study_uid, series_uid)
        return known.count if known.agreed else None

    def forget(self) -> None:
        """Forget series that nobody has asked about for long."""
        old = time.monotonic() - _FORGET_SECONDS
        self._asked = {uid: known for uid, known in self._asked.items() if known.used > old}

    def _note(self, known: _Asked, count: int | None) -> None:
        known.agreed = count is not None and count == known.count
        known.count, known.answered = count, time.monotonic()

    def _ask(self, study_uid: str, series_uid: str) -> int | None:
        complaint = ""
        try:
            found = [each for each in self._source.series(study_uid) if each.series_uid == series_uid]
        except QueryError as error:
            found, complaint = [], str(error)
        if complaint and complaint != self._complaint:
            logger.warning("%s Series are complete after the quiet period.", complaint)
        self._complaint = complaint
        return found[0].instances if found else None
