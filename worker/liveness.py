"""Is a worker at work? Judged by what it does while there is something to do, not by a pulse.

A worker that lost its broker, or hangs, still answers questions. It leaves a sign with each task and while slices come
through; where work has waited for long and there was no sign all that time, it is ended, and started again by whoever
looks after it.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import or_, select

from worker.database import now
from worker.errors import UnavailableError
from worker.queues import CLASSIFY, DELIVER
from worker.states import State
from worker.tables import Delivery, Series

if TYPE_CHECKING:
    from worker.application import Application

logger = logging.getLogger(__name__)


class Sign:
    """The last sign of the workers of some queues on this machine: the time stamp of a file."""

    def __init__(self, data_dir: Path, queues: Sequence[str]) -> None:
        self._path = data_dir / "alive" / "-".join(sorted(queues))

    def give(self) -> None:
        """Leave a sign; a disk that does not take it must not stop the work."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            self._path.touch()
        except OSError as error:
            logger.warning("No sign of life can be left: %s", error.strerror)

    def age(self) -> float:
        """Seconds since the last sign; infinite where there was none."""
        try:
            return time.time() - self._path.stat().st_mtime
        except FileNotFoundError:
            return float("inf")


class Watch:
    """Watches the worker of some queues, from within or from its supervisor."""

    def __init__(self, application: "Application", queues: Sequence[str], seconds: float) -> None:
        self._application = application
        self._queues = queues
        self._seconds = seconds
        self._sign = Sign(application.settings.data_dir, queues)
        self._since = time.monotonic()

    def begin(self) -> None:
        """A worker was started just now."""
        self._since = time.monotonic()

    def is_stuck(self) -> bool:
        """Whether work has waited, and no sign was left, for longer than allowed."""
        if min(self._sign.age(), time.monotonic() - self._since) < self._seconds:
            return False
        try:
            if not self._waits():
                return False
            # A broker that is away is no fault of the worker's.
            self._application.broker.check()
        except UnavailableError:
            return False
        return True

    def run(self, end: Callable[[], None]) -> None:
        """Watch from a thread of its own and call `end` once the worker is stuck."""

        def watch() -> None:
            while not self.is_stuck():
                time.sleep(min(15.0, self._seconds / 3))
            logger.error("Work waits, and this worker has done nothing for %.0f s: it ends.", self._seconds)
            end()

        threading.Thread(target=watch, name="watch", daemon=True).start()

    def _waits(self) -> bool:
        """Whether something has been due for so long."""
        from worker import delivery  # and with it what makes reports, which a command that lists needs not

        before = now() - timedelta(seconds=self._seconds)
        app = self._application
        with app.database.read() as session:
            if CLASSIFY in self._queues and app.registry.active(session) is not None:
                ready = or_(Series.not_before.is_(None), Series.not_before <= before)
                queued = select(Series.id).where(Series.state == State.QUEUED, Series.queued_at <= before, ready)
                if session.scalar(queued.limit(1)) is not None:
                    return True
            if DELIVER in self._queues:
                late = select(Delivery.id).where(delivery.due(), Delivery.next_attempt_at <= before)
                if session.scalar(late.limit(1)) is not None:
                    return True
        return False


def end_process() -> None:
    """End this process and its pool at once; whoever supervises it starts it again."""
    from billiard.process import active_children

    for child in active_children():
        child.kill()
    os._exit(1)
