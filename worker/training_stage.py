"""The queue `training`: a retraining runs in a process of its own, so that exams never wait for it."""

import logging
import os
import subprocess
import threading
from collections.abc import Mapping

from worker import processes, training_runs
from worker.database import Database
from worker.errors import UnavailableError
from worker.settings import SUPERVISOR_VARIABLE

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10
_NICENESS = 10  # exams come first


class TrainingStage:
    """Starts queued retrainings, one at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._process: subprocess.Popen[bytes] | None = None
        self._follower: threading.Thread | None = None
        self._stopping = False

    def run_one(self, _owner: str) -> bool:
        """Start the retraining that waits longest, unless one runs here; the task does not wait for its end."""
        if self._process is not None and self._process.poll() is None:
            return False
        with self._database.read() as session:
            waiting = training_runs.waiting(session)
        if not waiting:
            return False
        number, owner = waiting[0], training_runs.new_owner()
        logger.info("Retraining %d begins.", number)
        self._process = subprocess.Popen(
            ["nice", "-n", str(_NICENESS), *processes.command("retrain", "--run", str(number), "--owner", owner)],
            stdout=subprocess.DEVNULL,
            env=_environment(),
        )
        self._follower = threading.Thread(target=self._follow, args=(self._process, number, owner), daemon=True)
        self._follower.start()
        return False

    def stop(self) -> None:
        """End what runs; it goes on from its last epoch when a worker serves the queue again."""
        self._stopping = True
        if self._process is None or self._follower is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._follower.join(_PATIENCE_SECONDS)

    def _follow(self, process: "subprocess.Popen[bytes]", number: int, owner: str) -> None:
        """Wait for the end of a process; a run that it did not end itself is taken back."""
        code = process.wait()
        logger.info("The process of retraining %d ended with %d.", number, code)
        if code == 0:
            return
        why = f"The process that trained ended with {code}."
        try:
            training_runs.give_back(self._database, number, owner, why, counts=not self._stopping)
        except UnavailableError as error:
            logger.warning("%s The sweep takes the run back.", error)


def _environment() -> Mapping[str, str]:
    """The child dies with this process, however that dies."""
    return {**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())}
