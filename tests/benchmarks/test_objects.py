"""How long the objects of an exam take to be made."""

import statistics
import time
from pathlib import Path

from sqlalchemy import delete

from tests.benchmarks.conftest import Figures
from tests.plant import Plant
from training.phantom import write_phantoms
from worker.database import Database
from worker.exams import latest
from worker.objects import objects_of, sop_classes
from worker.tables import Report

ROUNDS = 5


def test_result_objects_of_300_slices(tmp_path: Path, figures: Figures) -> None:
    """The page against its limit of 0.5 s, all result objects against 1.5 s, from SQL and files to stored bytes."""
    (exam,) = write_phantoms(tmp_path / "phantoms", seed=5, exams=1, slices=300)
    database = Database(f"sqlite:///{tmp_path / 'bench.sqlite3'}")
    database.upgrade()
    plant = Plant(tmp_path / "data", database)
    plant.app.registry.import_bundle("demo", actor="bench")
    plant.receive(*sorted((tmp_path / "phantoms" / exam.folder).glob("*.dcm")), age=60)
    plant.sweep.tick()
    plant.app.classification().run_one("bench")
    with database.read() as session:
        series_id = latest(session, exam.series_uid).id
    reports = plant.app.reports()
    names = objects_of(("sr", "summary", "heatmaps", "pdf"), reports.drawn(series_id))
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS + 1):
        with database.write() as session:
            session.execute(delete(Report))
        seconds: dict[str, float] = {}
        store = plant.app.reports()
        for name in names:
            started = time.perf_counter()
            store.document(series_id, sop_classes(name)[0], name)
            seconds[name.partition("-")[0]] = seconds.get(name.partition("-")[0], 0) + time.perf_counter() - started
        rounds.append(seconds)
    median = {name: statistics.median(each[name] for each in rounds[1:]) for name in rounds[0]}
    total = statistics.median(sum(each.values()) for each in rounds[1:])
    each = ", ".join(f"{name} {value:.2f} s" for name, value in median.items())
    report, page = median["sr"], median["summary"]
    figures.add("report of 300 slices", f"{report:.2f} s", "limit 0.8 s", report / 0.8, at_least=False)
    figures.add("summary page of 300 slices", f"{page:.2f} s", "limit 0.5 s", page / 0.5, at_least=False)
    figures.add(
        f"all {len(names)} objects of 300 slices", f"{total:.2f} s ({each})", "limit 1.5 s", total / 1.5, at_least=False
    )
    assert len(names) == 9
