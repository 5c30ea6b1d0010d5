"""An installation in the test's own process, driven step by step."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydicom import dcmread
from sqlalchemy import update

from pacs.spool import ReceivedInstance
from training.phantom import PhantomExam
from worker.application import Application
from worker.database import Database, now
from worker.listing import show_exam
from worker.sections import (
    DestinationSettings,
    DimseSettings,
    ListenerSettings,
    PeerSettings,
    PrivacySettings,
    TrainingSettings,
)
from worker.settings import Settings
from worker.tables import Delivery


class Plant:
    """An installation in this process, driven step by step."""

    def __init__(
        self,
        folder: Path,
        database: Database,
        archive_port: int = 1,
        *,
        destinations: tuple[DestinationSettings, ...] = (),
        peers: tuple[PeerSettings, ...] = (),
        privacy: PrivacySettings | None = None,
        more: Mapping[str, Any] | None = None,
        **listener: Any,
    ) -> None:
        destination = DimseSettings(name="pacs", kind="dimse", host="127.0.0.1", port=archive_port, ae_title="ARCHIVE")
        self.settings = Settings(
            data_dir=folder,
            database_url=database.url if database.url.startswith("postgresql") else None,
            listener=ListenerSettings(**{"quiet_seconds": 30, **listener}),
            destinations=destinations or (destination,),
            peers=peers,
            privacy=privacy or PrivacySettings(),
            training=TrainingSettings(int8=False),  # whose gate takes a minute
            **(more or {}),
        )
        self.app = Application(self.settings)
        self.app.__dict__["database"] = database
        self.app.spool.prepare()
        self.database = database
        self.sweep = self.app.sweep()

    def receive(self, *paths: Path, age: float = 0) -> None:
        """Put instances into the spool as if they had come `age` seconds ago."""
        for path in paths:
            header = dcmread(path, stop_before_pixels=True)
            self.app.spool.store(
                ReceivedInstance(
                    header.SOPClassUID,
                    header.SOPInstanceUID,
                    header.StudyInstanceUID,
                    header.SeriesInstanceUID,
                    path.read_bytes(),
                )
            )
            stored = self.app.spool.root / "series" / header.StudyInstanceUID / header.SeriesInstanceUID
            os.utime(stored / f"{header.SOPInstanceUID}.dcm", (time.time() - age, time.time() - age))

    def exam(self, series_uid: str) -> dict[str, Any]:
        with self.database.read() as session:
            return show_exam(session, series_uid)

    def deliver_now(self) -> None:
        """As if the time until the next attempt had passed."""
        with self.database.write() as session:
            session.execute(update(Delivery).values(next_attempt_at=now()))

    def run(self) -> None:
        """Do all the work that is there."""
        self.sweep.tick()
        while self.app.classification().run_one("worker"):
            pass
        while self.app.delivery().run_one("worker"):
            pass


def files(phantoms: tuple[Path, list[PhantomExam]], index: int = 0) -> list[Path]:
    folder, made = phantoms
    return sorted((folder / made[index].folder).glob("*.dcm"))
