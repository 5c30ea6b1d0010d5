"""Is a worker at work? Judged by what it does while there is something to do, not by a pulse.

A worker that lost its broker, or hangs, still answers questions. It leaves a sign with each task and while slices come
through; where work has waited for long and there was no sign all that time, it is ended, and started again by whoever
looks after it.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from billiard.process import active_children
from sqlalchemy import exists, select

from worker import exams
from worker.database import now
from worker.errors import UnavailableError
from worker.queues import CLASSIFY, DELIVER
from worker.settings import SUPERVISOR_VARIABLE
from worker.tables import Classification, Delivery, Series

if TYPE_CHECKING:
    from worker.application import Application

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 3.0


class Sign:
    """The last sign of one worker: the time stamp of a file. Its supervisor, if it has one, finds it too."""

    def __init__(self, data_dir: Path, queues: Sequence[str]) -> None:
        whose = os.environ.get(SUPERVISOR_VARIABLE) or str(os.getpid())
        self._path = data_dir / "alive" / f"{socket.gethostname()}-{whose}-{'-'.join(sorted(queues))}"

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


def forget_signs(data_dir: Path, seconds: float = 7 * 86400.0) -> None:
    """Remove signs that workers of long ago left. Raises OSError."""
    for path in (data_dir / "alive").glob("*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > seconds:
                path.unlink()


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

    def _waits(self) -> bool:
        """Whether something has been due for so long."""
        from worker import outbox  # and with it what makes reports, which a command that lists needs not

        before = now() - timedelta(seconds=self._seconds)
        app = self._application
        if app.work_switch.is_stopped():
            self.begin()  # from when it goes on
            return False
        with app.database.read() as session:
            if CLASSIFY in self._queues and app.registry.active(session) is not None:
                ready = exams.waiting(before, together=app.settings.together)
                queued = select(Series.id).where(Series.queued_at <= before, ready)
                if session.scalar(queued.limit(1)) is not None:
                    return True
            if DELIVER in self._queues:
                late = select(Delivery.id).where(outbox.due(), Delivery.next_attempt_at <= before)
                old = exists().where(Classification.series_id == Series.id, Classification.classified_at <= before)
                names = [configured.name for configured in app.settings.destinations]
                unmade = select(Series.id).where(outbox.unprepared(names), old)
                if any(session.scalar(query.limit(1)) is not None for query in (late, unmade)):
                    return True
        return False


class Guard:
    """Ends its worker, which is then started again, where the worker is stuck or a process of its pool has died.

    A process that is killed while it waits for a task takes the pool's lock with it: the next one would wait for ever.
    """

    def __init__(self, watch: Watch, free: Callable[[], None]) -> None:
        self._watch, self._free = watch, free
        self._stopping = False

    def start(self) -> None:
        """Watch from a thread of its own; the pool is there already."""
        threading.Thread(target=self._run, name="guard", daemon=True).start()

    def stop(self) -> None:
        """The worker ends in good order, and so do the processes of its pool."""
        self._stopping = True

    def _run(self) -> None:
        pool = _pool()
        next_look = time.monotonic()
        while not self._stopping:
            if not pool <= _pool() and not self._stopping:
                logger.error("A process of this worker has died: the worker ends, to be started again.")
                break
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + _LOOK_SECONDS
                if self._watch.is_stuck():
                    logger.error("Work waits, and this worker does nothing: it ends, to be started again.")
                    break
            time.sleep(0.2)
        if not self._stopping:
            self._end()

    def _end(self) -> None:
        for pid in _pool():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            self._free()
        except UnavailableError as error:
            logger.warning("%s What this worker held is free when its lease ends.", error)
        os._exit(1)


def _pool() -> set[int]:
    return {int(child.pid) for child in active_children()}
