"""No lock is held while a file of an exam is read, a PACS is asked or a picture drawn: SQLite has one lock for all."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage

from pacs.archive import Archive
from pacs.listener import Listener
from pacs.report.rejection import Grounds
from pacs.spool import ReceivedInstance
from tests.datasets import write
from tests.plant import Plant, files
from training.phantom import PhantomExam
from worker import retention, retraction
from worker.database import Database
from worker.sections import DimseSettings

Phantoms = tuple[Path, list[PhantomExam]]


class Watch(threading.local):
    """What this thread did while it held the lock of a transaction that may write."""

    def __init__(self) -> None:
        self.depth = 0


_watch = Watch()
_seen: list[str] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watch.depth:
        return
    if event == "open" and str(arguments[0]).endswith((".dcm", ".xml", ".bin", ".npz", ".ttf")):
        _seen.append(f"read {arguments[0]}")
    elif event in ("socket.connect", "subprocess.Popen"):
        _seen.append(f"{event} {arguments[-1]}")


@pytest.fixture(scope="module", autouse=True)
def _hooked() -> None:
    sys.addaudithook(_hook)  # it stays, and does nothing without a watched transaction


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    write_ = Database.write

    @contextmanager
    def write(self: Database) -> Iterator[Any]:
        with write_(self) as session:
            _watch.depth += 1
            try:
                yield session
            finally:
                _watch.depth -= 1

    monkeypatch.setattr(Database, "write", write)
    _seen.clear()
    return _seen


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_no_lock_is_held_while_files_are_read_or_a_pacs_is_asked(
    tmp_path: Path, database: Database, phantoms: Phantoms, watched: list[str]
) -> None:
    archive = Archive(tmp_path / "archive")
    listener = Listener(archive, ae_title="ARCHIVE", host="127.0.0.1", port=0)
    listener.start()
    try:
        destination = DimseSettings(
            name="pacs", kind="dimse", host="127.0.0.1", port=listener.port, ae_title="ARCHIVE",
            objects=("sr", "summary", "heatmaps", "pdf"),
        )  # fmt: skip
        plant = Plant(tmp_path / "data", database, destinations=(destination,))
        plant.app.registry.import_bundle("demo", actor="test")
        exam, other = phantoms[1]
        for index in (0, 1):
            plant.receive(*files(phantoms, index), age=60)
        plant.run()
        assert {plant.exam(each.series_uid)["state"] for each in (exam, other)} == {"reported"}
        dose = dcmread(files(phantoms, 1)[0])
        (path,) = write(tmp_path / "dose", dose)
        study = str(dose.StudyInstanceUID)
        plant.app.spool.store(ReceivedInstance(ComprehensiveSRStorage, "1.2.3.78", study, "1.2.77", path.read_bytes()))
        retraction.retract(plant.database, exam.series_uid, Grounds.QUALITY, actor="ana")
        plant.run()
        retention.forget(plant.database, plant.settings.data_dir, other.series_uid, actor="ana")
    finally:
        listener.stop()
    assert watched == []
