"""The harness proves itself; then a short run of it, with servers and embedded. `make chaos` is the long one."""

import shutil
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import select

from tests.chaos.account import Account, take_account
from tests.chaos.faults import STAGES
from tests.chaos.plant import Plant
from tests.chaos.run import Run, run
from worker.database import Database
from worker.tables import Classification


class Quiet:
    """A run without faults, whose every part can be tampered with afterwards."""

    def __init__(self, folder: Path) -> None:
        self.result = run(
            folder, seed=5, series=2, slices=10, faults=0, servers=False, patience=40, small_disk=False
        )  # fmt: skip
        self.plant = Plant(folder / "plant", servers=False)
        self.reports = self.plant.reports()
        self.database = Database(f"sqlite:///{self.plant.data / 'reticula.sqlite3'}")

    def account(self, reports: list[Dataset] | None = None) -> Account:
        return take_account(
            self.result.log, self.plant.data, self.reports if reports is None else reports, self.database
        )

    def an_instance(self) -> Path:
        return next((self.plant.data / "spool" / "series").rglob("*.dcm"))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quiet]:
    made = Quiet(tmp_path_factory.mktemp("quiet"))
    yield made
    made.database.dispose()


def test_a_run_without_faults_is_clean(quiet: Quiet) -> None:
    account = quiet.account()
    assert account.clean, account
    assert (account.series, account.instances, account.reports) == (2, 20, 2)


def test_a_planted_loss_is_seen(quiet: Quiet, tmp_path: Path) -> None:
    path = quiet.an_instance()
    shutil.move(path, tmp_path / "away")
    assert [sentence for sentence in quiet.account().lost if path.stem in sentence]
    shutil.move(tmp_path / "away", path)
    assert quiet.account(quiet.reports[1:]).lost
    assert quiet.account().clean


def test_a_planted_double_is_seen(quiet: Quiet) -> None:
    path = quiet.an_instance()
    copy = path.with_name(f"{path.stem}~again.dcm")
    shutil.copy(path, copy)
    assert quiet.account().doubled
    copy.unlink()
    again = deepcopy(quiet.reports[0])
    again.SOPInstanceUID = "1.2.3.4"
    assert quiet.account([*quiet.reports, again]).doubled
    assert quiet.account().clean


def test_a_planted_alteration_is_seen(quiet: Quiet) -> None:
    path = quiet.an_instance()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert quiet.account().wrong
    path.write_bytes(content)
    other = deepcopy(quiet.reports[0])
    other.PatientID = "SOMEBODY ELSE"
    assert quiet.account([other, quiet.reports[1]]).wrong
    with quiet.database.write() as session:
        row = session.scalars(select(Classification)).first()
        assert row is not None
        was, row.verdict = row.verdict, "NSIP" if row.verdict == "UIP" else "UIP"
    assert quiet.account().wrong
    with quiet.database.write() as session:
        session.get_one(Classification, row.id).verdict = was
    assert quiet.account().clean


def assert_clean(result: Run, *, series: int, each_stage: int) -> None:
    account = result.account
    assert account.clean, (account, result.faults)
    assert account.series == series
    # On a busy machine an exam may leave a stage before its second fault finds it there.
    found = result.by_stage()
    assert min(found.values()) >= 1, found
    assert sum(found.values()) >= each_stage * len(STAGES) - 1, found
    assert result.restarts > 0


def test_nothing_is_lost_or_doubled_with_servers(tmp_path: Path, need_servers: None) -> None:
    result = run(tmp_path, seed=11, series=9, slices=10, faults=12, servers=True, patience=45)
    assert_clean(result, series=9, each_stage=2)


def test_nothing_is_lost_or_doubled_embedded(tmp_path: Path) -> None:
    result = run(tmp_path, seed=12, series=8, slices=40, faults=6, servers=False, patience=45)
    assert_clean(result, series=8, each_stage=1)
