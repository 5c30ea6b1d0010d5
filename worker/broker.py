"""The Celery application. A message only wakes a worker; what is to be done stands in SQL."""

import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Queue
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from worker.embedded import EMBEDDED
from worker.errors import UnavailableError
from worker.queues import CLASSIFY, QUEUES, task_name
from worker.settings import Settings

logger = logging.getLogger(__name__)

# More messages than this in a queue wake nobody sooner.
ENOUGH_MESSAGES = 16
_MESSAGE_SECONDS = 3600
_LONGEST_TASK_SECONDS = 900


class Broker:
    """The queues. With no URL they are folders in `data_dir`: the embedded broker."""

    def __init__(self, settings: Settings) -> None:
        self._folder: Path | None = None
        options: dict[str, Any]
        if settings.broker_url is None:
            self._folder = settings.data_dir / "broker"
            url = f"{EMBEDDED}://"
            options = {
                "data_folder_in": str(self._folder / "messages"),
                "data_folder_out": str(self._folder / "messages"),
                "processed_folder": str(self._folder / "processed"),
                "control_folder": str(self._folder / "control"),
                "store_processed": True,
                "polling_interval": 0.1,
            }
        else:
            url = settings.broker_url
            options = {"socket_connect_timeout": 5, "visibility_timeout": 2 * _MESSAGE_SECONDS}
            if not url.startswith("redis"):
                options = {"connect_timeout": 5}
        self.celery = Celery("reticula", broker=url, set_as_current=False)
        self.celery.conf.update(
            accept_content=["json"],
            task_serializer="json",
            task_ignore_result=True,
            task_acks_late=True,
            task_create_missing_queues=False,
            task_queues=[Queue(name) for name in QUEUES],
            task_default_queue=CLASSIFY,
            worker_prefetch_multiplier=1,
            # A task that hangs for good is killed; the lease of its exam has run out long before.
            task_time_limit=_LONGEST_TASK_SECONDS,
            # How long a pool waits for a last word of a process that died.
            worker_lost_wait=1.0,
            worker_enable_remote_control=False,
            worker_send_task_events=False,
            worker_hijack_root_logger=False,
            broker_connection_retry_on_startup=True,
            broker_connection_max_retries=None,
            broker_transport_options=options,
        )

    def prepare(self) -> None:
        """Make the folders of the embedded broker."""
        if self._folder is not None:
            for name in ("messages", "processed", "control"):
                (self._folder / name).mkdir(parents=True, exist_ok=True, mode=0o750)

    def wake(self, queue: str, messages: int = 1) -> None:
        """Send messages to a queue, unless enough lie in it. Raises UnavailableError."""
        self.prepare()
        try:
            with self.celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
                channel = connection.default_channel
                self.celery.amqp.queues[queue].bind(channel).declare()
                # Not passive: on Redis an empty queue does not exist.
                waiting = channel.queue_declare(queue, durable=True, auto_delete=False).message_count
                for _ in range(min(messages, max(0, ENOUGH_MESSAGES - waiting))):
                    self.celery.send_task(
                        task_name(queue),
                        queue=queue,
                        connection=connection,
                        retry=False,
                        expires=_MESSAGE_SECONDS,
                    )
        except (BrokerError, KombuError, OSError, *_recoverable(self.celery)) as error:
            raise UnavailableError(f"The broker cannot be used: {_reason(error)}.") from error

    def tidy(self) -> None:
        """Remove the messages that the embedded broker has handed out."""
        if self._folder is not None:
            old = time.time() - _MESSAGE_SECONDS
            for path in (self._folder / "processed").glob("*"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < old:
                        path.unlink()

    def check(self) -> None:
        """Connect once. Raises UnavailableError."""
        self.prepare()
        try:
            with self.celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, timeout=5)
        except (BrokerError, KombuError, OSError, *_recoverable(self.celery)) as error:
            raise UnavailableError(f"The broker cannot be used: {_reason(error)}.") from error


def _recoverable(celery: Celery) -> tuple[type[BaseException], ...]:
    """What the transport in use raises when its server is away."""
    transport = celery.connection_for_write().transport
    return (*transport.connection_errors, *transport.channel_errors)


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
