"""The Celery tasks, and the worker process that runs them.

A task asks SQL what is to be done, does one piece of it, and wakes the next: messages carry nothing.
"""

import logging
import os
import resource
import socket
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from worker import exams
from worker.application import Application
from worker.errors import UnavailableError
from worker.liveness import Guard, Sign, Watch
from worker.queues import CLASSIFY, DELIVER, TRAINING, task_name
from worker.training_stage import TrainingStage

logger = logging.getLogger(__name__)


class TaskRunner:
    """The stages of one worker process. They are made after the fork, where OpenVINO's threads live."""

    def __init__(self, application: Application, queues: Sequence[str]) -> None:
        self._application = application
        self._queues = queues
        self._sign = Sign(application.settings.data_dir, queues)
        # Of this worker; its pool has one process at a time.
        self._worker = f"{socket.gethostname()[:24]}:{uuid.uuid4().hex[:12]}"
        self._owner = ""
        self._stages: dict[str, Callable[[str], bool]] = {}
        self._training: TrainingStage | None = None

    def start_process(self, **_signal: Any) -> None:
        """Begin anew after a fork: no inherited connection is used."""
        self._application.database.forget_connections()
        self._owner = f"{self._worker}:{os.getpid()}"
        self._stages = {}
        if TRAINING not in self._queues:
            limit_memory(self._application.settings.worker.memory_mb << 20)

    def free(self) -> None:
        """Free what processes of this worker held that have died. Raises UnavailableError."""
        exams.end_leases(self._application.database, f"{self._worker}:")

    def run(self, queue: str) -> None:
        """Do one piece of a queue's work, and wake whoever comes next."""
        self._sign.give()
        if self._application.work_switch.is_stopped():
            return  # the sweep wakes us when it goes on
        try:
            if self._stage(queue)(self._owner):
                self._application.broker.wake(queue)
                if queue == CLASSIFY:
                    self._application.broker.wake(DELIVER)
        except UnavailableError as error:
            logger.warning("%s The sweep wakes this worker again.", error)
        finally:
            self._sign.give()

    def _stage(self, queue: str) -> Callable[[str], bool]:
        if queue not in self._stages:
            application = self._application
            if queue == CLASSIFY:
                self._stages[queue] = application.classification(self._sign.give).run_one
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


def limit_memory(size: int) -> None:
    """Let this process allocate so many bytes at most: within a task too, not only after it."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def register(application: Application, runner: TaskRunner) -> Celery:
    """Give the Celery application its tasks."""
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
    runner = TaskRunner(application, queues)
    celery = register(application, runner)
    guard = Guard(Watch(application, queues, application.settings.worker.stuck_seconds), runner.free)

    def on_ready(**_signal: Any) -> None:
        ready()
        guard.start()

    def on_stopping(**_signal: Any) -> None:
        guard.stop()

    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_stopping, weak=False)
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
