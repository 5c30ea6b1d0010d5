"""The tables on SQLite and PostgreSQL: revisions, transactions, claims."""

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, select, text

from tests.conftest import CHECKOUT
from worker import exams, restart
from worker.database import Database, now
from worker.errors import LeaseLostError, NotFoundError, UnavailableError, WorkerError
from worker.listing import list_exams
from worker.states import Completeness, State
from worker.table_base import Base
from worker.tables import AuditEvent, Classification, Instance, ModelVersion, Series, SliceResult, Study


def add_series(database: Database, uid: str = "1.2.3", **values: object) -> int:
    with database.write() as session:
        study = Study(study_uid=f"{uid}.0", patient_id="P", patient_name="", accession_number="", study_date="",
                      description="", created_at=now())  # fmt: skip
        fields = {
            "study": study, "series_uid": uid, "revision": 1, "state": State.RECEIVING, "patient_id": "P",
            "patient_issuer": "", "patient_name": "", "sender": "CT", "urgent": False, "instance_count": 1,
            "received_at": now(), "last_instance_at": now(), **values,
        }  # fmt: skip
        series = Series(**fields)
        session.add(series)
        session.flush()
        session.add(Instance(series_id=series.id, sop_uid=f"{uid}.1", path="spool/x.dcm", size=1, arrived_at=now()))
        exams.queue(session, series, Completeness.QUIET_PERIOD)
        return series.id


def state(database: Database, series_id: int) -> Series:
    with database.read() as session:
        return session.get_one(Series, series_id)


def expire(database: Database, series_id: int) -> None:
    with database.write() as session:
        session.get_one(Series, series_id).lease_until = now() - timedelta(seconds=1)


def test_revisions_make_the_tables_of_the_code_and_take_them_back(database: Database) -> None:
    assert database.is_current()
    with database.read() as session:
        context = MigrationContext.configure(session.connection())
        assert compare_metadata(context, Base.metadata) == []
    database.downgrade("base")
    assert not database.is_current()
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    database.upgrade()
    assert database.is_current()


_UPGRADES = """
import sys, time
from alembic import command
from worker.database import Database
database = Database(sys.argv[1])
print("ready", flush=True)
begin = float(input())
time.sleep(max(0.0, begin - time.time()))
database.upgrade()
"""


def test_processes_that_make_the_tables_at_once_wait_for_each_other(database: Database) -> None:
    database.downgrade("base")
    with database.write() as session:
        session.execute(text("DROP TABLE alembic_version"))
    command = [sys.executable, "-c", _UPGRADES, database.url]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=CHECKOUT) for _ in range(3)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    begin = f"{time.time() + 0.5}\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write(begin)
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in started] == [""] * 3
    assert [process.returncode for process in started] == [0] * 3
    assert database.is_current()


def test_times_come_back_in_utc(database: Database) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    with database.write() as session:
        session.add(AuditEvent(at=moment, actor="a", action="b", subject="c", detail={}))
    with database.read() as session:
        assert session.query(AuditEvent).one().at == moment
    with pytest.raises(Exception, match="without a zone"), database.write() as session:
        session.add(AuditEvent(at=datetime(2024, 1, 1), actor="a", action="b", subject="c", detail={}))  # noqa: DTZ001


def test_one_exam_is_claimed_once_however_many_ask(database: Database, tmp_path: Path) -> None:
    ids = {add_series(database, f"1.2.{index}") for index in range(6)}
    claimed: list[int] = []

    def work(name: str) -> None:
        while (held := exams.claim(database, tmp_path, name)) is not None:
            claimed.append(held.series_id)

    threads = [threading.Thread(target=work, args=(f"w{index}",)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(ids)


def test_urgent_exams_pass_but_do_not_starve_routine_ones(database: Database, tmp_path: Path) -> None:
    old = add_series(database, "1.1")
    routine = add_series(database, "1.2")
    urgent = add_series(database, "1.3", urgent=True)
    with database.write() as session:
        waited = session.get_one(Series, old)
        waited.precedence = now() - exams.URGENT_HEAD_START - timedelta(minutes=1)
    order = []
    while (held := exams.claim(database, tmp_path, "w")) is not None:
        order.append(held.series_id)
    assert order == [old, urgent, routine]


def test_what_a_dead_worker_held_is_queued_again_and_fails_after_the_third_time(
    database: Database, tmp_path: Path
) -> None:
    series_id = add_series(database)
    for attempt in (1, 2, 3):
        held = exams.claim(database, tmp_path, f"w{attempt}")
        assert held is not None
        assert exams.release_expired(database) == 0, "its lease holds"
        expire(database, series_id)
        assert exams.release_expired(database) == 1
        with pytest.raises(LeaseLostError):
            exams.renew(database, held)
        with pytest.raises(LeaseLostError), database.write() as session:
            exams.finish(session, held, State.CLASSIFIED)
    series = state(database, series_id)
    assert (series.state, series.reason_code) == (State.FAILED, "worker_died")
    assert exams.claim(database, tmp_path, "w4") is None
    restart.retry(database, "1.2.3", actor="test")
    assert state(database, series_id).state == State.QUEUED
    assert state(database, series_id).attempts == 0


def test_an_exam_that_went_wrong_waits_before_it_is_tried_again(database: Database, tmp_path: Path) -> None:
    series_id = add_series(database)
    held = exams.claim(database, tmp_path, "w")
    assert held is not None
    exams.give_up(database, held, "error", "Boom\x00\nwith a long tail")
    series = state(database, series_id)
    assert (series.state, series.reason) == (State.QUEUED, "Boom")
    assert exams.claim(database, tmp_path, "w") is None
    with database.write() as session:
        session.get_one(Series, series_id).not_before = now()
    assert exams.claim(database, tmp_path, "w") is not None


def test_commands_on_what_is_not_there(database: Database, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        restart.retry(database, "9.9", actor="test")
    add_series(database)
    for action in (restart.retry, restart.resend):
        with pytest.raises(WorkerError, match=r"1\.2\.3 is queued"):
            action(database, "1.2.3", actor="test")
    with pytest.raises(WorkerError, match=r"1\.2\.3 is queued"):
        restart.reprocess(database, tmp_path, "1.2.3", actor="test")


def test_a_database_that_is_away_is_said_in_one_sentence(tmp_path: Path) -> None:
    away = Database("postgresql+psycopg://nobody@127.0.0.1:9/none")
    with pytest.raises(UnavailableError, match="The database cannot be used"), away.read() as session:
        session.connection()
    away.dispose()


def test_a_database_without_tables_is_said_in_one_sentence(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path / 'empty.sqlite3'}", request.getfixturevalue("postgres").new_database()):
        empty = Database(url)
        assert not empty.is_current()
        with pytest.raises(UnavailableError), empty.read() as session:
            list_exams(session)
        empty.dispose()


def test_an_installation_with_rows_comes_up_from_the_first_revision_and_goes_back(database: Database) -> None:
    """What was classified before keeps its rows; those that refer to altered tables are in nobody's way."""
    series_id = add_series(database)
    with database.write() as session:
        model = ModelVersion(name="m", version="1", architecture="a", bundle_sha256="0" * 64, path="p", metrics={},
                             active=True, imported_at=now(), imported_by="ana")  # fmt: skip
        session.add(model)
        session.flush()
        row = Classification(
            series_id=series_id, model_id=model.id, software="0", precision="f32", operating_point={}, classes=[],
            verdict="indeterminate", stated=0.5, probabilities={}, called={}, verdict_code="undecided",
            verdict_reason="no class reaches 60%", distance=1.5, header={}, notes=[], slice_count=1,
            slices_classified=1, seconds=1.0, classified_at=now(),
        )  # fmt: skip
        session.add(row)
        session.flush()
        session.add(
            SliceResult(classification_id=row.id, position=0, sop_uid="1.2", sop_class_uid="1.3", geometry={},
                        classified=False)
        )  # fmt: skip
    database.downgrade("0001")
    database.upgrade()
    with database.read() as session:
        kept = session.scalars(select(Classification)).one()
        assert (kept.verdict_code, kept.distance) == ("undecided", None)
        assert session.scalars(select(ModelVersion)).one().imported_by == "unknown"
        assert session.scalars(select(SliceResult)).one().sop_uid == "1.2"
