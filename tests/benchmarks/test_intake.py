"""Intake, durable on disk before each answer, against Orthanc, DCMTK's storescp, a gigabit wire and the disk itself.

Nothing is removed while it is measured: for seconds after many files were, ext4 takes ten times as long for a new one.
"""

import multiprocessing
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from pacs.durable import write_synced
from tests.benchmarks.conftest import Figures
from tests.datasets import ct, write
from tests.installation import Installation
from tests.servers import Orthanc, free_port, need, wait_for
from training.phantom import write_phantoms
from worker.sections import ListenerSettings

SLICES, ROUNDS, SENDERS = 400, 5, 4
PROCESSES = ListenerSettings().processes
ASSOCIATIONS = (1, 4, 8)
# Slices of 0.5 MB a second: one gigabit, and twice that for several senders at once.
LIMITS = {1: 224.0, 4: 450.0, 8: 450.0}


@dataclass(frozen=True)
class Receiver:
    """Something that takes slices."""

    name: str
    ae_title: str
    port: int


def make_slices(folder: Path, count: int) -> list[Path]:
    """Write slices of 512 × 512 in so many folders, one for each association."""
    pixels = np.random.default_rng(1).integers(0, 2000, (512, 512), dtype=np.int16)
    folders = [folder / str(part) for part in range(count)]
    for part, target in enumerate(folders):
        root = f"1.2.3.{count}.{part}.{time.monotonic_ns()}"
        of_series: dict[str, Any] = {"SeriesInstanceUID": root, "SeriesNumber": "1", "StudyID": "1"}
        made = (
            ct(number, pixels=pixels, SOPInstanceUID=f"{root}.{number}", **of_series)
            for number in range(1, SLICES // count + 1)
        )
        write(target, *made)
    return folders


def synced_per_second(folder: Path) -> float:
    """Write slices on the disk, and sync them, with nothing else."""
    content = np.random.default_rng(1).bytes(512 * 512 * 2)
    folder.mkdir()
    started = time.perf_counter()
    for number in range(SLICES):
        write_synced(folder / str(number), content)
    return SLICES / (time.perf_counter() - started)


def send(folder: Path, to: Receiver, *options: str, no_delay: bool = True) -> None:
    """Send the slices of a folder by DCMTK's client, which pynetdicom's of that name is not."""
    environment = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    environment |= {"TCP_NODELAY": "1"} if no_delay else {}
    subprocess.run(
        [need("/usr/bin/storescu", "dcmtk"), "-R", "+sd", *options, "-aec", to.ae_title, "127.0.0.1", str(to.port),
         str(folder)], check=True, capture_output=True, env=environment,
    )  # fmt: skip


def slices_per_second(folders: list[Path], to: Receiver, *, no_delay: bool) -> float:
    """Send folders at once, each time under new UIDs of instances, series and studies."""
    each = str(SLICES // len(folders))
    started = time.perf_counter()
    with ThreadPoolExecutor(len(folders)) as pool:
        list(pool.map(lambda folder: send(folder, to, "+II", "+IR", each, "+IS", each, no_delay=no_delay), folders))
    return SLICES / (time.perf_counter() - started)


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Installation]:
    """Ourselves, with as many processes as by default; what all receivers kept is removed at the end."""
    made = Installation(tmp_path / "ours", listeners=PROCESSES)
    made.prepare()
    yield made
    made.close()
    for child in tmp_path.iterdir():
        shutil.rmtree(child)


@pytest.fixture
def receivers(tmp_path: Path, ours: Installation, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Receiver]]:
    """Ourselves first; the peers with their best setting."""
    monkeypatch.setenv("TCP_NODELAY", "1")
    ours.start("listen")
    orthanc = Orthanc(tmp_path / "orthanc")
    orthanc.start()
    port = free_port()
    (tmp_path / "storescp").mkdir()
    storescp = subprocess.Popen(
        [need("/usr/bin/storescp", "dcmtk"), "--fork", "-pm", "-od", str(tmp_path / "storescp"), str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    echoscu = need("/usr/bin/echoscu", "dcmtk")
    wait_for(lambda: subprocess.run([echoscu, "127.0.0.1", str(port)], check=False).returncode == 0, "storescp")
    yield [
        Receiver("reticula", "RETICULA", ours.port),
        Receiver("orthanc", "ORTHANC", orthanc.port),
        Receiver("storescp", "STORESCP", port),
    ]
    storescp.terminate()
    storescp.wait(10)
    orthanc.stop()


def begin(begun: Barrier) -> None:
    """Say that a process of senders has read this module."""
    begun.wait(60)


def waits(folder: Path, port: int) -> list[float]:
    """Send slices as fast as they are answered; return the seconds to the association and to each answer."""
    client = AE("SCU")
    client.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    datasets = [dcmread(path) for path in sorted(folder.glob("*.dcm"))]
    started = time.perf_counter()
    association = client.associate("127.0.0.1", port, ae_title="RETICULA")
    found = [time.perf_counter() - started]
    for dataset in datasets:
        started = time.perf_counter()
        assert association.send_c_store(dataset).Status == 0
        found.append(time.perf_counter() - started)
    association.release()
    return found


def test_answers_while_a_worker_classifies(tmp_path: Path, ours: Installation, figures: Figures) -> None:
    """Senders, each a process, beside a worker that has the same cores."""
    for command in ("listen", "sweep"):
        ours.start(command)
    (exam,) = write_phantoms(tmp_path / "phantoms", seed=6, exams=1, slices=3 * SLICES)
    send(tmp_path / "phantoms" / exam.folder, Receiver("reticula", "RETICULA", ours.port))
    ours.wait_for_state(exam.series_uid, "queued")
    folders = make_slices(tmp_path / "slices", 2 * SENDERS)[:SENDERS]  # half of the slices: the exam outlasts them
    processes = multiprocessing.get_context("spawn")
    begun = processes.Barrier(SENDERS + 1)
    with ProcessPoolExecutor(SENDERS, processes, initializer=begin, initargs=(begun,)) as pool:
        for _ in range(SENDERS):
            pool.submit(os.getpid)  # a process begins where there is work and none is idle
        begun.wait(60)
        ours.start("work")
        ours.wait_for_state(exam.series_uid, "classifying")
        found = [each for one in pool.map(waits, folders, [ours.port] * SENDERS) for each in one]
    assert ours.exams()[exam.series_uid]["state"] == "classifying", "it was over before they were"
    longest = max(found)
    figures.add(
        f"the longest of {len(found)} waits of {SENDERS} associations while a worker classifies", f"{longest:.2f} s "
        f"(median {statistics.median(found) * 1000:.0f} ms)", "limit 1 s", longest, at_least=False,
    )  # fmt: skip


def test_intake(tmp_path: Path, receivers: list[Receiver], figures: Figures) -> None:
    reticula, orthanc, storescp = receivers
    disk: list[float] = []
    for associations in ASSOCIATIONS:
        rates: dict[tuple[str, bool], list[float]] = {}
        folders = make_slices(tmp_path / f"slices-{associations}", associations)
        for round_ in range(ROUNDS):
            disk.append(synced_per_second(tmp_path / f"disk-{associations}-{round_}"))
            for no_delay in (True, False):
                # Each comes first in its turn: the disk still writes what the one before it has left.
                for receiver in receivers[round_ % 3 :] + receivers[: round_ % 3]:
                    if receiver is not reticula and not no_delay and round_:
                        continue  # 40 ms an image: once is enough
                    rate = slices_per_second(folders, receiver, no_delay=no_delay)
                    rates.setdefault((receiver.name, no_delay), []).append(rate)
        median = {key: statistics.median(each) for key, each in rates.items()}
        best = max(median[orthanc.name, True], median[orthanc.name, False])
        for no_delay in (True, False):
            rate = median[reticula.name, no_delay]
            limit = LIMITS[associations]
            what = f"intake, {associations} associations, TCP_NODELAY {'' if no_delay else 'not '}set"
            said = f"{rate:.0f} slices/s"
            figures.add(what, said, f"{limit:.0f} slices/s", rate / limit, at_least=True)
            peers = f"Orthanc at its best: {best:.0f} (storescp, without fsync: {median[storescp.name, no_delay]:.0f})"
            figures.add(what, said, peers, rate / best, at_least=True)
            limit = statistics.median(disk[-ROUNDS:])
            figures.add(what, said, f"the disk, with write and fsync alone: {limit:.0f}", rate / limit, at_least=None)
        assert min(median.values()) > 0
