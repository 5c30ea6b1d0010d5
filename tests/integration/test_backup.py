"""The drill: a backup of an installation at work, brought back elsewhere, and tables of every earlier revision."""

import io
import json
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Boolean, DateTime, Float, Integer, MetaData, func, insert, select

from pacs.archive import Archive
from pacs.listener import Listener
from tests.installation import Installation, send
from tests.integration.test_database import add_series
from tests.plant import Plant, files
from tests.servers import free_port
from training.phantom import PhantomExam
from worker import labels
from worker.backup import back_up
from worker.database import Database
from worker.errors import WorkerError
from worker.restore import restore
from worker.table_base import Base
from worker.tables import Series

Phantoms = tuple[Path, list[PhantomExam]]

REVISIONS = ("0001", "0002", "0003", "0004")


@pytest.fixture(params=["sqlite", "postgresql"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables, of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'restored' / 'target.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    opened = Database(url)
    yield opened
    opened.dispose()


def start_archive(folder: Path) -> Listener:
    listener = Listener(Archive(folder), ae_title="ARCHIVE", host="127.0.0.1", port=0)
    listener.start()
    return listener


def rows(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.read() as session:
        return {
            table.name: [
                dict(row) for row in session.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in Base.metadata.sorted_tables
        }


def test_the_drill(tmp_path: Path, database: Database, target: Database, phantoms: Phantoms) -> None:
    delivered, waiting = phantoms[1][:2]
    archive = start_archive(tmp_path / "archive")
    plant = Plant(tmp_path / "data", database, archive.port)
    plant.app.registry.import_bundle("demo", actor="ana")
    plant.receive(*files(phantoms, 0), age=60)
    plant.run()
    archive.stop()
    plant.receive(*files(phantoms, 1), age=60)
    plant.run()
    labels.store(database, [labels.GivenLabel(delivered.series_uid, "UIP")], author="ana")
    assert [plant.exam(exam.series_uid)["state"] for exam in (delivered, waiting)] == ["reported", "classified"]
    file = tmp_path / "backup.tar.gz"
    assert back_up(database, tmp_path / "data", file) == []
    assert file.stat().st_mode & 0o077 == 0
    before = rows(database)

    restored = restore(target, tmp_path / "restored" / "data", file, actor="bo")
    after = rows(target)
    assert after.pop("audit_events")[: len(before["audit_events"])] == before.pop("audit_events")
    assert after == before
    assert restored.missing == ()
    second = start_archive(tmp_path / "second")
    again = Plant(tmp_path / "restored" / "data", target, second.port)
    try:
        again.deliver_now()
        again.run()
    finally:
        second.stop()
    for exam in (delivered, waiting):
        shown, was = again.exam(exam.series_uid), plant.exam(exam.series_uid)
        assert shown["state"] == "reported"
        assert (shown["verdict"], shown["slices"]) == (was["verdict"], was["slices"])
    store = Archive(tmp_path / "second")
    assert len(store.reports(waiting.study_uid)) == 1
    assert store.reports(delivered.study_uid) == []
    # New rows are numbered after those that came along.
    add_series(target, "1.2.3.999")


def test_what_is_saved_is_of_one_moment(tmp_path: Path, database: Database, target: Database) -> None:
    add_series(database, "1.2.1")
    stop = threading.Event()

    def work() -> None:
        number = 1
        while not stop.is_set():
            number += 1
            add_series(database, f"1.2.{number}")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for number in range(3):
            back_up(database, tmp_path, tmp_path / f"{number}.tar.gz")
    finally:
        stop.set()
        thread.join()
    restore(target, tmp_path / "restored", tmp_path / "2.tar.gz", actor="bo")
    with target.read() as session:
        uids = list(session.scalars(select(Series.series_uid).order_by(Series.id)))
    assert uids == [f"1.2.{number}" for number in range(1, len(uids) + 1)]


@pytest.mark.parametrize("revision", REVISIONS)
def test_tables_of_every_revision_are_brought_up_to_date(
    tmp_path: Path, database: Database, target: Database, revision: str
) -> None:
    database.downgrade(revision)
    filled = _fill(database)
    assert len(filled) >= 8
    file = tmp_path / "old.tar.gz"
    back_up(database, tmp_path, file)
    database.upgrade()
    restore(target, tmp_path / "restored" / "data", file, actor="bo")
    for brought in (database, target):
        assert brought.is_current()
        with brought.read() as session:
            for name, count in filled.items():
                table = Base.metadata.tables[name]
                found = session.scalar(select(func.count()).select_from(table))
                assert found == count + (name == "audit_events" and brought is target), name


def _fill(database: Database) -> dict[str, int]:
    """Put a row into every table, whatever its columns are; return how many each has."""
    with database.write() as session:
        connection = session.connection()
        metadata = MetaData()
        metadata.reflect(connection)
        for table in metadata.sorted_tables:
            if table.name == "alembic_version":
                continue
            values = {}
            for column in table.columns:
                if column.foreign_keys:
                    values[column.name] = None if column.nullable else 1
                else:
                    values[column.name] = _value(column)
            connection.execute(insert(table).values(**values))
        return {table.name: 1 for table in metadata.sorted_tables if table.name != "alembic_version"}


def _value(column: Any) -> Any:
    if isinstance(column.type, DateTime):
        return datetime(2026, 1, 1, tzinfo=UTC)
    for kind, value in ((Boolean, True), (Integer, 1), (Float, 0.5), (JSON, {"a": 1})):
        if isinstance(column.type, kind):
            return value
    return "x"


def test_a_backup_that_is_none_is_refused_and_nothing_is_changed(tmp_path: Path, database: Database) -> None:
    add_series(database)
    file = tmp_path / "good.tar.gz"
    back_up(database, tmp_path, file)
    target = Database(f"sqlite:///{tmp_path / 'restored' / 'target.sqlite3'}")
    content = file.read_bytes()
    bad = {
        "cut": content[: len(content) // 2],
        "flipped": content[:200] + bytes([content[200] ^ 1]) + content[201:],
        "text": b"not a backup",
        "empty": b"",
        "outside": _tar({"../evil": b"x", "manifest.json": b"{}"}),
        "absolute": _tar({f"files/{tmp_path}/evil": b"x", "manifest.json": _manifest({})}),
        "hidden": _tar({"files/bundles/../../evil": b"x", "manifest.json": _manifest({})}),
        "elsewhere": _tar({"files/reticula.sqlite3": b"x", "manifest.json": _manifest({})}),
        "no manifest": _tar({"tables/series.jsonl": b""}),
        "altered": _tar({"tables/series.jsonl": b"{}", "manifest.json": _manifest({"tables/series.jsonl": "0"})}),
        "later": _tar({"manifest.json": _manifest({}, revision="9999")}),
    }
    for name, broken in bad.items():
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(WorkerError) as caught:
            restore(target, tmp_path / "restored", tmp_path / name, actor="bo")
        assert str(caught.value).endswith("."), name
    with pytest.raises(WorkerError, match="cannot be read"):
        restore(target, tmp_path / "restored", tmp_path / "missing", actor="bo")
    assert not target.has_rows()
    assert not (tmp_path / "evil").exists()
    assert [path.name for path in (tmp_path / "restored").iterdir() if "sqlite" not in path.name] == []
    with pytest.raises(WorkerError, match="holds rows already"):
        restore(database, tmp_path / "restored", file, actor="bo")
    with pytest.raises(WorkerError, match="exists already"):
        back_up(database, tmp_path, file)
    with pytest.raises(WorkerError, match="cannot be written"):
        back_up(database, tmp_path, tmp_path / "nowhere" / "file")
    restore(target, tmp_path / "restored", file, actor="bo")
    target.dispose()


def _manifest(sums: dict[str, str], revision: str = "0004") -> bytes:
    return json.dumps(
        {"format": 1, "sha256": sums, "revision": revision, "software": "9", "tables": {}, "made_at": "", "missing": []}
    ).encode()


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_the_commands_save_and_bring_back_an_installation_at_work(
    tmp_path: Path, phantoms: Phantoms, dcmtk: dict[str, str]
) -> None:
    folder, exam = phantoms[0], phantoms[1][0]
    destination = '\n[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nae_title = "ARCHIVE"\n'
    first = Installation(tmp_path / "first", f"{destination}port = {free_port()}\n")
    archive = start_archive(tmp_path / "archive")
    second = Installation(tmp_path / "second", f"{destination}port = {archive.port}\n")
    try:
        first.prepare()
        first.start("up")
        assert send(dcmtk["storescu"], first.port, folder / exam.folder).returncode == 0
        first.wait_for_state(exam.series_uid, "classified")
        assert "MB" in first.run("backup", str(tmp_path / "b.tar.gz")).stdout
        first.close()
        assert "Restored what was there" in second.run("restore", str(tmp_path / "b.tar.gz")).stdout
        second.run("exams", "resend", exam.series_uid)
        second.start("up")
        assert second.wait_for_state(exam.series_uid, "reported")["verdict"] == exam.label
        assert len(Archive(tmp_path / "archive").reports(exam.study_uid)) == 1
        again = second.run("restore", str(tmp_path / "b.tar.gz"), check=False)
        assert again.returncode == 1
        assert "into a new database" in again.stderr
    finally:
        first.close()
        second.close()
        archive.stop()
