"""Several workers on one database and broker, a day of many hospitals, and tables of ten million slices."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis as RedisClient
from sqlalchemy import text

from tests.benchmarks.conftest import Figures
from tests.benchmarks.simulation import PATIENCE_SECONDS, StageTimes, breaking_point, plan
from tests.installation import Installation
from tests.plant import Plant
from tests.servers import Orthanc, Postgres, Redis, need, wait_for
from training.phantom import write_phantoms
from worker import exams
from worker.database import Database
from worker.listing import list_exams, show_exam
from worker.sections import ListenerSettings

EXAMS, SLICES = 12, 40
RESULTS, SLICES_EACH = 10_000_000, 300
ROUNDS = 9
WORKLIST_SECONDS = 0.05
HOSPITALS, EXAMS_A_DAY = 100, 60.0


class Ward:
    """An installation with servers, whose exams are all queued before its workers start."""

    def __init__(
        self, folder: Path, servers: tuple[Postgres, Redis, Orthanc], series: list[Path], storescu: str
    ) -> None:
        postgres, redis, orthanc = servers
        self._url = postgres.new_database()
        self._redis = RedisClient.from_url(redis.url)
        self._redis.flushall()
        self.installation = Installation(
            folder,
            f'database_url = "{self._url}"\nbroker_url = "{redis.url}"\n'
            '[[destinations]]\nname = "pacs"\nkind = "dimse"\n'
            f'host = "127.0.0.1"\nport = {orthanc.port}\nae_title = "ORTHANC"\n',
            listeners=ListenerSettings().processes,
        )
        self.installation.prepare()
        self.database = Database(self._url)
        self.installation.start("listen")
        started = time.perf_counter()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda each: self._send(storescu, each), series))
        self.intake = len(series) * SLICES / (time.perf_counter() - started)
        self.installation.start("sweep")
        wait_for(lambda: self._count("queued") == len(series), "the exams in the queue", seconds=60)

    def _send(self, storescu: str, folder: Path) -> None:
        subprocess.run(
            [storescu, "-R", "+sd", "-aec", "RETICULA", "127.0.0.1", str(self.installation.port), str(folder)],
            check=True, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip

    def work(self, workers: int, exams: int) -> float:
        """Start workers at once; return the seconds from the first claim to the last report."""
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda _number: self.installation.start("work"), range(workers)))
        wait_for(lambda: self._count("reported") == exams, "the reports", seconds=240)
        with self.database.read() as session:
            first, last = session.execute(text(
                "select min(c.classified_at - make_interval(secs => c.seconds)), max(s.reported_at) "
                "from classifications c join series s on s.id = c.series_id"
            )).one()  # fmt: skip
        return float((last - first).total_seconds())

    def seconds_in_servers(self) -> tuple[float, float]:
        """How long PostgreSQL worked for this database, and Redis for everybody since it was emptied, in s."""
        with psycopg.connect(self._url.replace("+psycopg", "")) as connection:
            row = connection.execute(
                "select active_time from pg_stat_database where datname = current_database()"
            ).fetchone()
        assert row is not None
        commands: dict[str, Any] = self._redis.info("commandstats")
        return row[0] / 1000, sum(each["usec"] for each in commands.values()) / 1e6

    def connections(self) -> int:
        with self.database.read() as session:
            found = session.scalar(text("select count(*) from pg_stat_activity where datname = current_database()"))
        return int(found or 0)

    def classify_seconds(self) -> float:
        with self.database.read() as session:
            return float(session.scalar(text("select avg(seconds) from classifications")) or 0)

    def _count(self, state: str) -> int:
        with self.database.read() as session:
            return int(session.scalar(text("select count(*) from series where state = :state"), {"state": state}) or 0)

    def close(self) -> None:
        self.installation.close()
        self.database.dispose()
        self._redis.config_resetstat()
        self._redis.close()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Postgres, Redis, Orthanc]]:
    postgres, redis, orthanc = Postgres(tmp_path / "pg"), Redis(tmp_path / "redis"), Orthanc(tmp_path / "orthanc")
    for server in (postgres, redis, orthanc):
        server.start()
    yield postgres, redis, orthanc
    for server in (orthanc, redis, postgres):
        server.stop()


def test_workers_on_one_database_and_what_a_day_needs(
    tmp_path: Path, servers: tuple[Postgres, Redis, Orthanc], figures: Figures
) -> None:
    storescu = need("/usr/bin/storescu", "dcmtk")
    written = write_phantoms(tmp_path / "phantoms", seed=8, exams=EXAMS, slices=SLICES)
    series = [tmp_path / "phantoms" / exam.folder for exam in written]
    rates: dict[int, float] = {}
    connections: dict[int, int] = {}
    times: StageTimes | None = None
    for workers in (1, 2, 4):
        ward = Ward(tmp_path / f"ward-{workers}", servers, series, storescu)
        before = ward.seconds_in_servers()
        seconds = ward.work(workers, EXAMS)
        sql, broker = (after - earlier for after, earlier in zip(ward.seconds_in_servers(), before, strict=True))
        rates[workers], connections[workers] = EXAMS * SLICES / seconds, ward.connections()
        busy = seconds * workers
        figures.add(
            f"{workers} workers on one database and broker, {os.cpu_count()} cores",
            f"{rates[workers]:.0f} slices/s; SQL {sql / busy:.1%}, broker {broker / busy:.1%} of the workers' time",
            f"one worker: {rates[1]:.0f} slices/s", rates[workers] / rates[1], at_least=None,
        )  # fmt: skip
        if workers == 1:
            classify = ward.classify_seconds()
            # A worker's time besides is report and sending, whatever the number of slices.
            rest = max(0.0, seconds / EXAMS - classify)
            times = StageTimes(
                classify=classify * SLICES_EACH / SLICES, deliver=rest, sql=sql / EXAMS, broker=broker / EXAMS,
                intake=ward.intake, connections=0,
            )  # fmt: skip
        ward.close()
    assert times is not None
    each = max(1, round((connections[4] - connections[1]) / 3))
    times = replace(times, connections=each)
    for name, hospitals in (("one hospital", 1), (f"a network of {HOSPITALS} hospitals", HOSPITALS)):
        needed = plan(hospitals * EXAMS_A_DAY, times, seed=4)
        load = ", ".join(f"{part} {value:.1%}" for part, value in needed.load.items())
        figures.add(
            f"a day of {name} ({needed.exams} exams of {SLICES_EACH} slices, simulated)",
            f"{needed.workers} workers like this one, {needed.connections} connections, {needed.gigabytes:.0f} GB; "
            f"95 % within {needed.wait:.0f} s",
            f"{PATIENCE_SECONDS:.0f} s from complete to delivered; busiest hour: {load}; first to give way, at "
            f"{breaking_point(times, needed):.1f} times the exams: {needed.first}",
            needed.wait / PATIENCE_SECONDS, at_least=False,
        )  # fmt: skip


def test_ten_million_slices_in_the_database(tmp_path: Path, figures: Figures) -> None:
    postgres = Postgres(tmp_path / "pg")
    postgres.start()
    database = Database(postgres.new_database())
    database.upgrade()
    count = RESULTS // SLICES_EACH
    with database.write() as session:
        for statement in _GENERATE:
            session.execute(text(statement), {"exams": count, "slices": SLICES_EACH})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    with database.read() as session:
        assert session.scalar(text("select count(*) from slice_results")) == count * SLICES_EACH
        uid = session.scalar(text("select series_uid from series order by id desc limit 1"))

    def median(work: Callable[[], object]) -> float:
        times = []
        for _ in range(ROUNDS + 1):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    def newest() -> None:
        with database.read() as session:
            assert len(list_exams(session, newest=100)) == 100

    def in_a_state() -> None:
        with database.read() as session:
            assert len(list_exams(session, newest=100, state="queued")) == 20

    def shown() -> None:
        with database.read() as session:
            assert len(show_exam(session, str(uid))["slices"]) == SLICES_EACH

    def claimed() -> None:
        assert exams.claim(database, tmp_path, "bench") is not None

    for what, work in {
        "the newest 100 exams": newest, "100 exams in a state": in_a_state, "one exam with its slices": shown,
        "a worker takes the next exam": claimed,
    }.items():  # fmt: skip
        seconds = median(work)
        figures.add(
            f"{what}, of {count} with {count * SLICES_EACH / 1e6:.1f} million slice results",
            f"{seconds * 1000:.1f} ms", f"limit {WORKLIST_SECONDS * 1000:.0f} ms", seconds / WORKLIST_SECONDS,
            at_least=False,
        )  # fmt: skip
    database.dispose()
    postgres.stop()


def test_a_look_of_the_sweep_at_a_spool_that_grew(tmp_path: Path, figures: Figures) -> None:
    postgres = Postgres(tmp_path / "pg")
    postgres.start()
    looks: dict[int, float] = {}
    for count in (1_000, 100_000):
        database = Database(postgres.new_database())
        database.upgrade()
        plant = Plant(tmp_path / f"data-{count}", database)
        with database.write() as session:
            for statement in _OLD:
                session.execute(text(statement), {"exams": count})
        for number in range(1, count + 1):
            folder = plant.app.spool.folder(f"1.2.3.{number}", f"1.2.3.{number}.1")
            folder.mkdir(parents=True)
            (folder / f"1.2.3.{number}.1.1.dcm").touch()
            os.utime(folder, (time.time() - 86400, time.time() - 86400))
        walk = ticks(plant, partial(_has_walked, plant))
        figures.add(
            f"the walk through a spool of {count} series, at start and hourly", f"{walk:.1f} s",
            "an hour", walk / 3600, at_least=None,
        )  # fmt: skip
        looks[count] = statistics.median(ticks(plant, lambda: True) for _ in range(ROUNDS))
        database.dispose()
    postgres.stop()
    few, many = looks.values()
    figures.add(
        "one look of the sweep at 100000 old series", f"{many * 1000:.1f} ms",
        f"twice that at 1000: {few * 2000:.1f} ms", many / (2 * few), at_least=False,
    )  # fmt: skip


def _has_walked(plant: Plant) -> bool:
    return plant.sweep._assembly._walk is None


def ticks(plant: Plant, done: Callable[[], bool]) -> float:
    """Return for how many seconds the sweep looks until something is so."""
    started = time.perf_counter()
    plant.sweep.tick()
    while not done():
        plant.sweep.tick()
    return time.perf_counter() - started


# All are reported, and nothing is to be done.
_OLD = (
    """insert into studies (id, study_uid, patient_id, patient_name, accession_number, study_date, description,
    created_at) select n, '1.2.3.' || n, 'P' || n, 'NAME^' || n, n, '20260101', 'CT CHEST', now()
    from generate_series(1, :exams) n""",
    """insert into series (id, study_id, series_uid, revision, state, patient_id, patient_issuer, patient_name, sender,
    instance_count, urgent, received_at, last_instance_at, reported_at, attempts)
    select n, n, '1.2.3.' || n || '.1', 1, 'reported', 'P' || n, '', 'NAME^' || n, 'CT1', 1, false,
    now() - n * interval '1 minute', now() - n * interval '1 minute', now(), 1 from generate_series(1, :exams) n""",
    """insert into instances (series_id, sop_uid, path, size, arrived_at) select n, '1.2.3.' || n || '.1.1',
    'spool/series/1.2.3.' || n || '/1.2.3.' || n || '.1/1.2.3.' || n || '.1.1.dcm', 500000,
    now() - n * interval '1 minute' from generate_series(1, :exams) n""",
)

# 20 exams wait, old and new, all others are reported. Numbers are drawn from that of the row: the same in every run.
_GENERATE = (
    """insert into model_versions (id, name, version, architecture, bundle_sha256, path, metrics, active, imported_at,
    imported_by) values (1, 'bench', '1', 'mobilenet_v2', repeat('0', 64), 'bundles/0', '{}', true, now(), 'bench')""",
    """insert into studies (id, study_uid, patient_id, patient_name, accession_number, study_date, description,
    created_at) select n, '1.2.3.' || n, 'P' || n % 20000, 'NAME^' || n, n, '20260101', 'CT CHEST',
    now() - n * interval '1 minute' from generate_series(1, :exams) n""",
    """insert into series (id, study_id, series_uid, revision, state, patient_id, patient_issuer, patient_name, sender,
    instance_count, urgent, precedence, received_at, last_instance_at, reported_at, attempts)
    select n, n, '1.2.3.' || n || '.1', 1, case when n % 1666 = 0 then 'queued' else 'reported' end,
    'P' || n % 20000, '', 'NAME^' || n, 'CT1', :slices, false, now() - n * interval '1 minute',
    now() - n * interval '1 minute', now() - n * interval '1 minute', now(), 1 from generate_series(1, :exams) n""",
    """insert into classifications (id, series_id, model_id, software, precision, operating_point, classes, verdict,
    certainty, probabilities, called, verdict_code, verdict_reason, header, notes, slice_count, slices_classified,
    seconds, classified_at)
    select n, n, 1, '1', 'bf16', '{}', '[]', case when n % 3 = 0 then 'UIP' else 'NSIP' end, 0.9,
    '{"UIP": 0.9, "NSIP": 0.1}', '{}', '', '', '{}', '[]', :slices, :slices, 3, now()
    from generate_series(1, :exams) n""",
    """insert into slice_results (classification_id, position, sop_uid, sop_class_uid, instance_number, position_mm,
    geometry, lung_fraction, classified, probabilities)
    select n, m, '1.2.3.' || n || '.1.' || m, '1.2.840.10008.5.1.4.1.1.2', m, m * 1.25,
    '{"rows": 512, "columns": 512, "pixel_spacing": [0.7, 0.7]}', 0.4, true, '{"UIP": 0.9, "NSIP": 0.1}'
    from generate_series(1, :exams) n, generate_series(1, :slices) m""",
    """insert into deliveries (series_id, object, destination, protocol, required, state, attempts, next_attempt_at)
    select n, 'sr', 'pacs', 'dimse', true, 'delivered', 1, now() from generate_series(21, :exams) n""",
)
