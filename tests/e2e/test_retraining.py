"""`reticula retrain --queue`: a worker does it in a process of its own, which may die."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bundles import make_bundle
from tests.installation import Installation
from tests.servers import Redis, wait_for
from training.phantom import write_phantoms


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Phantoms whose patients a new model may learn from, and some that it holds out."""
    folder = tmp_path / "base"
    write_phantoms(folder, seed=31, exams=12, totals={"NSIP": 18, "UIP": 18}, conditions=("NSIP", "UIP"))
    return folder


@pytest.fixture
def installation(tmp_path: Path, redis: Redis) -> Iterator[Installation]:
    made = Installation(tmp_path / "installation", f'broker_url = "{redis.url}"\n')
    made.run("db", "upgrade")
    yield made
    made.close()


def run_of(installation: Installation) -> dict[str, Any]:
    """The only retraining, from the list of models."""
    (run,) = [row["training"] for row in installation.json("models", "list") if row["training"] is not None]
    return dict(run)


def trainers(worker: int) -> list[psutil.Process]:
    """The training processes below a worker."""
    found = []
    for child in psutil.Process(worker).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "retrain" in child.cmdline():
                found.append(child)
    return found


def test_a_queued_retraining_survives_kill_9_and_ends_with_a_candidate(
    installation: Installation, base: Path, tmp_path: Path
) -> None:
    make_bundle(tmp_path / "bundles" / "first")
    installation.run("models", "import", str(tmp_path / "bundles" / "first"))
    plan = installation.run("retrain", "--dataset", str(base), "--dry-run")
    assert "Nothing was trained" in plan.stdout
    asked = installation.run("retrain", "--dataset", str(base), "--queue", "--epochs", "15")
    assert "is queued" in asked.stdout
    assert run_of(installation)["state"] == "queued"
    twice = installation.run("retrain", "--dataset", str(base), "--queue", check=False)
    assert (twice.returncode, "under way" in twice.stderr) == (1, True)
    installation.start("sweep")
    worker = installation.start("work", "--queues", "training")

    found: list[psutil.Process] = []

    def begun() -> bool:
        found[:] = trainers(worker.pid)
        return bool(found) and run_of(installation)["state"] == "running"

    wait_for(begun, "the retraining to begin", 60)
    os.kill(found[0].pid, signal.SIGKILL)
    wait_for(lambda: run_of(installation)["state"] in ("queued", "running", "done"), "the run to be taken back", 60)
    deadline = time.monotonic() + 150
    while run_of(installation)["state"] not in ("done", "failed"):
        assert time.monotonic() < deadline, f"{run_of(installation)}\n{installation.log('work')[-2000:]}"
        time.sleep(1)
    run = run_of(installation)
    assert run["state"] == "done", f"{run}\n{installation.log('work')[-2000:]}"
    assert run["outcome"].startswith(("Promoted", "Not promoted"))
    models = installation.json("models", "list")
    made = next(row for row in models if row["training"] is not None)
    assert made["parent"] == "tiny 1"
    assert made["imported_by"] == run["requested_by"]
    assert sum(row["active"] for row in models) == 1
    assert installation.stop(worker) == 0


def test_stopping_the_worker_stops_the_training_and_loses_nothing(tmp_path: Path, base: Path) -> None:
    """On the embedded broker."""
    installation = Installation(tmp_path / "installation")
    installation.run("db", "upgrade")
    make_bundle(tmp_path / "bundles" / "first")
    installation.run("models", "import", str(tmp_path / "bundles" / "first"))
    installation.run("retrain", "--dataset", str(base), "--queue")
    worker = installation.start("work", "--queues", "training")
    found: list[psutil.Process] = []

    def begun() -> bool:
        found[:] = trainers(worker.pid)
        return bool(found) and run_of(installation)["state"] == "running"

    wait_for(begun, "the retraining to begin", 60)
    assert installation.stop(worker) == 0
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in found)
    assert run_of(installation)["state"] in ("queued", "done")
    installation.close()
