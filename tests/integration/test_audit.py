"""The audit trail: what a listener saw reaches SQL once, and nobody changes it there."""

import json
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError

from pacs.intake import Happening
from worker.commands.exams import list_all
from worker.database import Database
from worker.errors import UnavailableError
from worker.journal import Journal
from worker.tables import AuditEvent


def events(database: Database) -> list[AuditEvent]:
    with database.read() as session:
        return list(session.scalars(select(AuditEvent).order_by(AuditEvent.id)))


def test_what_a_listener_saw_reaches_sql_once(tmp_path: Path, database: Database) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.collect(database) == 0
    journal.witness(Happening("rejected", "EVIL", "192.0.2.1", "not among the peers"))
    journal.witness(Happening("received", "CT1", "192.0.2.2", received={"1.2.3": 20}))
    kept = {path: path.read_bytes() for path in (tmp_path / "journal").iterdir()}
    (tmp_path / "journal" / "odd.json").write_text("{")
    assert journal.collect(database) == 2
    for path, content in kept.items():  # as after a crash between the commit and the removal
        path.write_bytes(content)
    journal.collect(database)
    found = events(database)
    assert {(event.action, event.actor, event.subject) for event in found} == {
        ("association rejected", "EVIL", "192.0.2.1"),
        ("association received", "CT1", "1.2.3"),
    }
    assert len(found) == 2
    assert [path.name for path in (tmp_path / "journal").iterdir()] == ["odd.odd"]


def test_while_the_database_is_away_events_wait(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.witness(Happening("rejected", "EVIL", "192.0.2.1", "not among the peers"))
    with pytest.raises(UnavailableError):
        journal.collect(Database(f"sqlite:///{tmp_path / 'without-tables.sqlite3'}"))
    assert len(list((tmp_path / "journal").iterdir())) == 1


def test_exams_are_listed_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETICULA_DATA_DIR", str(tmp_path))
    Database(f"sqlite:///{tmp_path / 'reticula.sqlite3'}").upgrade()

    def full(_database: Database) -> None:
        raise UnavailableError("The database cannot be used: database or disk is full.")

    monkeypatch.setattr(Database, "write", full)
    list_all(as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out) == []
    assert "Not in the audit trail" in said.err


@pytest.mark.parametrize("statement", [update(AuditEvent).values(actor="nobody"), delete(AuditEvent)])
def test_the_trail_is_append_only(tmp_path: Path, database: Database, statement: object) -> None:
    Journal(tmp_path / "journal").witness(Happening("rejected", "EVIL", "192.0.2.1", "no"))
    Journal(tmp_path / "journal").collect(database)
    with pytest.raises((SQLAlchemyError, UnavailableError), match="append only"), database.write() as session:
        session.execute(statement)  # type: ignore[call-overload]
    assert [event.actor for event in events(database)] == ["EVIL"]
