"""Servers on loopback, real data, and phantoms for the tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import Orthanc, Postgres, Redis, need
from training.phantom import PhantomExam, write_phantoms
from worker.commands.context import application
from worker.database import Database

NO_SKIPS = bool(os.environ.get("RETICULA_TEST_NO_SKIPS"))
CHECKOUT = Path(__file__).resolve().parent.parent

# Several tests train at once, here and in processes of their own: threads that wait for each other would only spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Where everything is installed a skipped test is a failed one."""
    report = yield
    if NO_SKIPS and report.skipped and not hasattr(report, "wasxfail"):  # type: ignore[attr-defined]
        report.outcome = "failed"  # type: ignore[attr-defined]
    return report


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test sees settings of the machine, or the application of a command that ran in this process before."""
    application.cache_clear()
    for name in list(os.environ):
        if name.startswith("RETICULA_") and not name.startswith("RETICULA_TEST_"):
            monkeypatch.delenv(name)
    # A battery takes minutes: tests that need one ask it themselves.
    monkeypatch.setenv("RETICULA_TRAINING__BATTERY", "0")
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture(scope="session")
def real_ct() -> Path:
    """Folder of four real chest CT series."""
    folder = Path(os.environ.get("RETICULA_TEST_DATA", CHECKOUT.parent / "shared" / "data")) / "lung-pet-ct-dx"
    if not folder.is_dir():
        pytest.skip(f"Real CT is not at {folder}: set RETICULA_TEST_DATA to the folder that holds lung-pet-ct-dx.")
    return folder


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """ImageNet weights for MobileNetV2."""
    folder = Path(os.environ.get("RETICULA_TEST_WEIGHTS", CHECKOUT.parent / "shared" / "weights"))
    file = folder / "mobilenet_v2-imagenet1k.safetensors"
    if not file.is_file():
        pytest.skip(f"ImageNet weights are not at {file}: set RETICULA_TEST_WEIGHTS to their folder.")
    return file


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PhantomExam]]:
    """Two small phantom exams, one of each disease."""
    folder = tmp_path_factory.mktemp("phantoms")
    return folder, write_phantoms(folder, seed=77, exams=2, slices=14)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL cluster."""
    server = Postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis server."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An Orthanc with DICOMweb and nothing in it."""
    server = Orthanc(tmp_path / "orthanc")
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An up to date database, once of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'test.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres").new_database()
    opened = Database(url)
    opened.upgrade()
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def dcmtk() -> dict[str, str]:
    """DCMTK's tools by name; those that pynetdicom puts into the environment have the same names."""
    names = ("storescu", "findscu", "getscu", "movescu", "echoscu", "storescp", "dsrdump", "dcmdump")
    return {name: need(f"/usr/bin/{name}", "dcmtk") for name in names}
