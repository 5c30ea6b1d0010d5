"""Processes are killed, inputs are bad, the PACS is away: nothing is lost and the next good exam is served."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select

from pacs.archive import Archive
from pacs.listener import Listener
from tests.datasets import ct, write
from tests.installation import Installation, send
from tests.servers import Postgres, Redis, free_port, wait_for
from training.phantom import PhantomExam
from worker.tables import Series

Phantoms = tuple[Path, list[PhantomExam]]


def start_archive(folder: Path, port: int) -> Listener:
    archive = Listener(Archive(folder), ae_title="ARCHIVE", host="127.0.0.1", port=port)
    archive.start()
    return archive


@pytest.fixture
def archive_port() -> int:
    return free_port()


@pytest.fixture
def installation(tmp_path: Path, archive_port: int) -> Iterator[Installation]:
    destination = f'[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {archive_port}\n'
    made = Installation(tmp_path / "installation", f'\n{destination}ae_title = "ARCHIVE"\n')
    made.prepare()
    yield made
    made.close()


def children(process: "subprocess.Popen[str]", command: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it may be gone, or not yet reaped
            if command in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_a_listener_killed_in_mid_series_loses_nothing(
    installation: Installation, phantoms: Phantoms, archive_port: int, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    folder, (exam, *_others) = phantoms
    files = sorted((folder / exam.folder).glob("*.dcm"))
    archive = start_archive(tmp_path / "archive", archive_port)
    # Longer than the listener takes to come back; otherwise the rest would open a second revision.
    installation.environment["RETICULA_LISTENER__QUIET_SECONDS"] = "8"
    try:
        installation.start("up")
        assert send(dcmtk["storescu"], installation.port, *files[:6]).returncode == 0
        (listener,) = children(installation.processes[0], "listen")
        listener.kill()
        wait_for(lambda: send(dcmtk["storescu"], installation.port, *files[6:]).returncode == 0, "the listener again")
        done = installation.wait_for_state(exam.series_uid, "reported")
        assert (done["slice_count"], done["verdict"]) == (exam.slices, exam.label)
    finally:
        archive.stop()


@pytest.mark.parametrize("victim", ["--queues classify", "--queues deliver", "sweep"])
def test_a_process_killed_again_and_again_costs_time_only(
    installation: Installation,
    phantoms: Phantoms,
    archive_port: int,
    tmp_path: Path,
    dcmtk: dict[str, str],
    victim: str,
) -> None:
    folder, exams = phantoms
    archive = start_archive(tmp_path / "archive", archive_port)
    # What a worker held that was killed with its pool is free when its lease ends: minutes, unless told.
    installation.environment["RETICULA_WORKER__LEASE_SECONDS"] = "10"
    try:
        up = installation.start("up")
        for exam in exams:
            assert send(dcmtk["storescu"], installation.port, folder / exam.folder).returncode == 0
        for _ in range(3):
            time.sleep(0.7)
            for process in children(up, victim):
                with suppress(psutil.Error):
                    process.kill()
        for exam in exams:
            installation.wait_for_state(exam.series_uid, "reported")
        store = Archive(tmp_path / "archive")
        for exam in exams:
            done = installation.exams()[exam.series_uid]
            assert (done["verdict"], done["revision"]) == (exam.label, 1)
            assert len(store.reports(exam.study_uid)) == 1
    finally:
        archive.stop()


def test_two_of_everything_and_the_same_series_twice_at_once_make_one_exam(
    installation: Installation, phantoms: Phantoms, archive_port: int, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    folder, (exam, *_others) = phantoms
    archive = start_archive(tmp_path / "archive", archive_port)
    ports = [installation.port, free_port()]
    try:
        for port in ports:
            installation.environment["RETICULA_LISTENER__PORT"] = str(port)
            for command in (["listen"], ["sweep"], ["work"]):
                installation.start(*command)
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(send, dcmtk["storescu"], port, folder / exam.folder) for port in ports * 2]
            assert [each.result().returncode for each in sent] == [0] * 4
        done = installation.wait_for_state(exam.series_uid, "reported")
        assert (done["revision"], done["slice_count"], done["verdict"]) == (1, exam.slices, exam.label)
        time.sleep(3)
        assert installation.exams()[exam.series_uid]["revision"] == 1
        assert len(Archive(tmp_path / "archive").reports(exam.study_uid)) == 1
    finally:
        archive.stop()


def test_up_killed_takes_its_children_along_and_starts_again(
    installation: Installation, phantoms: Phantoms, archive_port: int, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    folder, (exam, *_others) = phantoms
    up = installation.start("up")
    family = psutil.Process(up.pid).children(recursive=True)
    assert len(family) >= 6
    assert send(dcmtk["storescu"], installation.port, folder / exam.folder).returncode == 0
    installation.stop(up, signal.SIGKILL)
    _gone, alive = psutil.wait_procs(family, timeout=30)
    assert alive == []
    archive = start_archive(tmp_path / "archive", archive_port)
    try:
        again = installation.start("up")
        installation.wait_for_state(exam.series_uid, "reported")
        assert installation.stop(again) == 0
    finally:
        archive.stop()


def test_a_signal_for_the_whole_group_lets_the_worker_finish(
    tmp_path: Path, phantoms: Phantoms, installation: Installation, dcmtk: dict[str, str]
) -> None:
    folder, (exam, *_others) = phantoms
    up = installation.start("up")
    assert send(dcmtk["storescu"], installation.port, folder / exam.folder).returncode == 0
    installation.wait_for_state(exam.series_uid, "queued", "classifying", "classified")
    started = time.monotonic()
    os.killpg(up.pid, signal.SIGTERM)
    assert up.wait(60) == 0
    assert time.monotonic() - started < 30
    assert installation.exams()[exam.series_uid]["state"] in ("queued", "classified")


def test_up_ends_where_a_part_cannot_start(installation: Installation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", installation.port))
        taken.listen()
        done = installation.run("up", check=False)
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{installation.port}" in done.stderr
    assert "The listener did not start" in done.stderr


def test_a_pacs_that_is_away_gets_its_report_when_it_is_back(
    installation: Installation, phantoms: Phantoms, archive_port: int, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    folder, (exam, *_others) = phantoms
    installation.start("up")
    assert send(dcmtk["storescu"], installation.port, folder / exam.folder).returncode == 0
    installation.wait_for_state(exam.series_uid, "classified")

    def tried() -> Any:
        delivery = installation.json("exams", "show", exam.series_uid)["deliveries"]
        # An attempt counts when it begins; what came of it is known when it has ended.
        return delivery and delivery[0]["last_error"] and delivery[0]

    delivery = wait_for(tried, "the end of an attempt")
    assert delivery["attempts"] >= 1
    assert delivery["state"] == "pending"
    assert "is the PACS running" in delivery["last_error"]
    done = installation.run("check", check=False)
    assert done.returncode == 1
    assert "FAIL  destination pacs" in done.stdout
    archive = start_archive(tmp_path / "archive", archive_port)
    try:
        installation.wait_for_state(exam.series_uid, "reported")
    finally:
        archive.stop()


def test_database_and_broker_go_and_come_back(
    phantoms: Phantoms, archive_port: int, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    folder, (exam, other, *_rest) = phantoms
    postgres, redis = Postgres(tmp_path / "postgres"), Redis(tmp_path / "redis")
    postgres.start()
    redis.start()
    settings = f'database_url = "{postgres.new_database()}"\nbroker_url = "{redis.url}"\n\n[[destinations]]\n'
    settings += f'name = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {archive_port}\nae_title = "ARCHIVE"\n'
    installation = Installation(tmp_path / "installation", settings)
    archive = start_archive(tmp_path / "archive", archive_port)
    try:
        installation.prepare()
        up = installation.start("up")
        assert send(dcmtk["storescu"], installation.port, folder / exam.folder).returncode == 0
        postgres.halt()
        redis.stop()
        assert send(dcmtk["storescu"], installation.port, folder / other.folder).returncode == 0
        time.sleep(4)
        postgres.start_again()
        redis.start()
        for series in (exam, other):
            done = installation.wait_for_state(series.series_uid, "reported", seconds=150)
            assert (done["verdict"], done["slice_count"]) == (series.label, series.slices)
            assert len(Archive(tmp_path / "archive").reports(series.study_uid)) == 1
        assert installation.stop(up) == 0
    finally:
        installation.close()
        archive.stop()
        postgres.stop()
        redis.stop()


def test_bad_input_is_answered_and_the_next_good_series_is_served(
    installation: Installation, phantoms: Phantoms, archive_port: int, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    folder, (exam, other, *_rest) = phantoms
    archive = start_archive(tmp_path / "archive", archive_port)
    try:
        installation.start("up")
        with socket.create_connection(("127.0.0.1", installation.port), timeout=5) as connection:
            connection.sendall(os.urandom(2000))
        wrong = send(dcmtk["storescu"], installation.port, folder / exam.folder, called="WRONG")
        assert wrong.returncode != 0
        assert "Called AE Title Not Recognized" in wrong.stderr
        single = write(tmp_path / "single", ct(1, StudyInstanceUID="1.2.1", SeriesInstanceUID="1.2.1.1",
                                               SOPInstanceUID="1.2.1.1.1"))  # fmt: skip
        assert send(dcmtk["storescu"], installation.port, *single).returncode == 0
        odd = _odd_copy(folder / other.folder, tmp_path / "odd")
        assert send(dcmtk["storescu"], installation.port, tmp_path / "odd").returncode == 0
        assert send(dcmtk["storescu"], installation.port, folder / exam.folder).returncode == 0

        rejected = installation.wait_for_state("1.2.1.1", "rejected")
        assert rejected["reason_code"] == "too_few_slices"
        good = installation.wait_for_state(exam.series_uid, "reported")
        assert good["verdict"] == exam.label
        installation.wait_for_state(odd, "reported")
        shown = installation.json("exams", "show", odd)
        # Its UIDs are no phantom's any more, so the demo model names no disease.
        assert (shown["verdict"], shown["verdict_reason"]) == (
            "indeterminate", "the model knows phantoms only, and this is no phantom",
        )  # fmt: skip
        assert max(shown["probabilities"], key=shown["probabilities"].get) == other.label
        assert [image["note"] is not None for image in shown["slices"]].count(True) == 1
        assert shown["notes"] == ["1 slices could not be decoded"]
        ((_path, report),) = [(path, dataset) for path, dataset in Archive(tmp_path / "archive").reports("1.2.1.2")]
        assert report.PatientName == "Conceição^João"
        assert (report.AccessionNumber, report.StudyDate) == ("", "")
    finally:
        archive.stop()


def _odd_copy(source: Path, target: Path) -> str:
    """Write a series again: UTF-8, no date, no accession number, a quarter of its columns cut, one slice truncated."""
    target.mkdir()
    for number, path in enumerate(sorted(source.glob("*.dcm"))):
        dataset: Dataset = dcmread(path)
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.PatientName = "Conceição^João"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.1.2", "1.2.1.2.1"
        dataset.SOPInstanceUID = f"1.2.1.2.1.{number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        del dataset.StudyDate, dataset.AccessionNumber
        rows = dataset.pixel_array[40:470].copy()
        dataset.Rows, dataset.PixelData = rows.shape[0], rows.tobytes()
        if number == 7:
            dataset.PixelData = dataset.PixelData[:5000]
        dataset.save_as(target / path.name)
    return "1.2.1.2.1"


def test_an_exam_that_kills_its_worker_fails_and_lets_the_others_pass(
    tmp_path: Path, phantoms: Phantoms, archive_port: int, dcmtk: dict[str, str]
) -> None:
    """Whoever classifies it dies at once, three times; then `exams retry` starts it again."""
    folder, (poison, good, *_others) = phantoms
    settings = '\n[worker]\nlease_seconds = 60\n\n[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\n'
    installation = Installation(tmp_path / "installation", f'{settings}port = {archive_port}\nae_title = "ARCHIVE"\n')
    archive = start_archive(tmp_path / "archive", archive_port)
    try:
        installation.prepare()
        installation.start("up")
        assert send(dcmtk["storescu"], installation.port, folder / poison.folder).returncode == 0
        killed: set[int] = set()

        def failed() -> bool:
            with installation._database.read() as session:
                row = session.scalar(select(Series).where(Series.series_uid == poison.series_uid))
            if row is not None and row.state == "classifying" and row.lease_owner is not None:
                pid = int(row.lease_owner.rpartition(":")[2])
                if pid not in killed and psutil.pid_exists(pid):
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
            return row is not None and row.state == "failed"

        # The pool's next process frees what the dead one held: no lease is waited for.
        wait_for(failed, "the end of the exam", 50)
        assert len(killed) == 3
        assert installation.exams()[poison.series_uid]["reason_code"] == "worker_died"
        assert send(dcmtk["storescu"], installation.port, folder / good.folder).returncode == 0
        assert installation.wait_for_state(good.series_uid, "reported")["verdict"] == good.label
        installation.run("exams", "retry", poison.series_uid)
        assert installation.wait_for_state(poison.series_uid, "reported")["verdict"] == poison.label
    finally:
        installation.close()
        archive.stop()


def test_a_worker_that_does_nothing_while_work_waits_is_started_again(
    tmp_path: Path, phantoms: Phantoms, archive_port: int, dcmtk: dict[str, str]
) -> None:
    folder, (exam, *_others) = phantoms
    settings = '\n[worker]\nstuck_seconds = 6\n\n[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\n'
    installation = Installation(tmp_path / "installation", f'{settings}port = {archive_port}\nae_title = "ARCHIVE"\n')
    archive = start_archive(tmp_path / "archive", archive_port)
    try:
        installation.prepare()
        up = installation.start("up")
        for process in children(up, "--queues classify"):
            process.suspend()  # it lives, and consumes nothing
        assert send(dcmtk["storescu"], installation.port, folder / exam.folder).returncode == 0
        installation.wait_for_state(exam.series_uid, "reported")
        assert "does nothing while work waits" in installation.log("up")
    finally:
        installation.close()
        archive.stop()
