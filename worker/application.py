"""The composition root: from settings to the objects that do the work. Nothing connects before it is used.

Each part is imported where it is made: a command that lists exams loads neither network nor report.
"""

import logging
import sys
from functools import cached_property
from typing import TYPE_CHECKING

from worker.database import Database
from worker.registry import Registry
from worker.settings import DestinationSettings, DicomwebSettings, Settings

if TYPE_CHECKING:
    from pacs.destinations import Destination
    from pacs.listener import Listener
    from pacs.spool import Spool
    from worker.broker import Broker
    from worker.delivery import DeliveryStage
    from worker.stages import ClassificationStage
    from worker.sweep import Sweep


class Application:
    """Everything that one process needs, made when it is first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def database(self) -> Database:
        """The database."""
        return Database(self.settings.database)

    @cached_property
    def broker(self) -> "Broker":
        """The queues."""
        from worker.broker import Broker

        return Broker(self.settings)

    @cached_property
    def registry(self) -> Registry:
        """The model versions."""
        return Registry(self.database, self.settings.data_dir, self.settings.model)

    @cached_property
    def spool(self) -> "Spool":
        """The received instances."""
        from pacs.spool import Spool

        return Spool(self.settings.data_dir / "spool")

    @cached_property
    def destinations(self) -> "dict[str, Destination]":
        """The destinations by name."""
        return {configured.name: make_destination(configured) for configured in self.settings.destinations}

    def listener(self) -> "Listener":
        """A listener that stores into the spool."""
        from pacs.listener import Listener, Peer

        configured = self.settings.listener
        return Listener(
            self.spool,
            ae_title=configured.ae_title,
            host=configured.host,
            port=configured.port,
            peers=[Peer(peer.ae_title, str(peer.address)) for peer in self.settings.peers],
            associations=configured.max_associations,
        )

    def sweep(self) -> "Sweep":
        """A sweep over spool and database."""
        from worker.sweep import Sweep

        return Sweep(self.settings, self.database, self.spool, self.registry, self.broker)

    def classification(self) -> "ClassificationStage":
        """The stage that classifies."""
        from worker.stages import ClassificationStage

        return ClassificationStage(
            self.database,
            self.registry,
            self.settings.data_dir,
            min_slices=self.settings.selection.min_slices,
        )

    def delivery(self) -> "DeliveryStage":
        """The stage that makes and sends reports."""
        from worker.delivery import DeliveryStage
        from worker.reports import ReportStore

        reports = ReportStore(
            self.database,
            self.settings.data_dir,
            language=self.settings.language,
            final=self.settings.completion == "FINAL",
        )
        return DeliveryStage(self.database, reports, self.destinations, self.settings.destinations)


def make_destination(configured: DestinationSettings) -> "Destination":
    """Make the destination that the settings describe."""
    from pacs.destinations import DicomwebDestination, DimseDestination

    if not isinstance(configured, DicomwebSettings):
        return DimseDestination(
            configured.name, configured.host, configured.port, configured.ae_title, configured.calling_ae
        )
    auth: tuple[str, str] | str | None = None
    if configured.auth is not None:
        if configured.auth.token is not None:
            auth = configured.auth.token.get_secret_value()
        elif configured.auth.user is not None and configured.auth.password is not None:
            auth = configured.auth.user, configured.auth.password.get_secret_value()
    return DicomwebDestination(configured.name, configured.url, auth, configured.verify)


def configure_logging() -> None:
    """Log to stderr, where systemd and containers look; without what libraries tell about every step."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    for name in (
        "pynetdicom",
        "pydicom",
        "highdicom",
        "alembic",
        "dicomweb_client",
        "matplotlib",
        "urllib3",
        "kombu",
    ):
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "pynetdicom" else logging.ERROR)
    logging.captureWarnings(capture=True)
