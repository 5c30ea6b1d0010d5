"""The Celery tasks, and the worker process that runs them.

A task asks SQL what is to be done, does one piece of it, and wakes the next: messages carry nothing.
"""

import logging
import os
import socket
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from worker.application import Application
from worker.errors import UnavailableError
from worker.queues import CLASSIFY, DELIVER, TRAINING, task_name
from worker.training_stage import TrainingStage

logger = logging.getLogger(__name__)


class TaskRunner:
    """The stages of one worker process. They are made after the fork, where OpenVINO's threads live."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._owner = ""
        self._stages: dict[str, Callable[[str], bool]] = {}
        self._training: TrainingStage | None = None

    def start_process(self, **_signal: Any) -> None:
        """Begin anew after a fork: no inherited connection is used."""
        self._application.database.forget_connections()
        self._owner = f"{socket.gethostname()[:24]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._stages = {}

    def run(self, queue: str) -> None:
        """Do one piece of a queue's work, and wake whoever comes next."""
        try:
            if self._stage(queue)(self._owner):
                self._application.broker.wake(queue)
                if queue == CLASSIFY:
                    self._application.broker.wake(DELIVER)
        except UnavailableError as error:
            logger.warning("%s The sweep wakes this worker again.", error)

    def _stage(self, queue: str) -> Callable[[str], bool]:
        if queue not in self._stages:
            application = self._application
            if queue == CLASSIFY:
                self._stages[queue] = application.classification().run_one
            elif queue == DELIVER:
                self._stages[queue] = application.delivery().run_one
            else:
                self._training = TrainingStage(application.database)
                self._stages[queue] = self._training.run_one
        return self._stages[queue]

    def stop_process(self, **_signal: Any) -> None:
        """End what this process started."""
        if self._training is not None:
            self._training.stop()


def register(application: Application) -> Celery:
    """Give the Celery application its tasks."""
    runner = TaskRunner(application)
    celery = application.broker.celery

    @celery.task(name=task_name(CLASSIFY))  # type: ignore[untyped-decorator]
    def classify() -> None:
        runner.run(CLASSIFY)

    @celery.task(name=task_name(DELIVER))  # type: ignore[untyped-decorator]
    def deliver() -> None:
        runner.run(DELIVER)

    @celery.task(name=task_name(TRAINING))  # type: ignore[untyped-decorator]
    def train() -> None:
        runner.run(TRAINING)

    signals.worker_process_init.connect(runner.start_process, weak=False)
    signals.worker_process_shutdown.connect(runner.stop_process, weak=False)
    return celery


def run_worker(application: Application, queues: Sequence[str], ready: Callable[[], None]) -> int:
    """Serve the queues with one process until SIGTERM; return the exit code."""
    application.broker.prepare()
    celery = register(application)

    def on_ready(**_signal: Any) -> None:
        ready()

    signals.worker_ready.connect(on_ready, weak=False)
    # Our own logging stands; Celery would put its handlers over it.
    signals.setup_logging.connect(lambda **_signal: None, weak=False)
    # Celery warns of root because of pickle; ours takes JSON only, and the units and images that we ship are not root.
    warnings.filterwarnings("ignore", message=".*superuser privileges", category=SecurityWarning)
    worker = celery.Worker(
        pool="prefork",
        concurrency=1,
        queues=list(queues),
        hostname=f"{'-'.join(queues)}-{uuid.uuid4().hex[:8]}@{socket.gethostname()}",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)
