"""An exam from complete to stored in the PACS, its memory, and what compressed slices cost."""

import os
import statistics
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pydicom.uid import UID, JPEG2000Lossless, generate_uid
from sqlalchemy import select

from models.classifier import Classifier
from pacs.pixels import decode_all
from pacs.series import read_series
from tests.benchmarks.conftest import Figures
from tests.installation import Installation
from tests.servers import Orthanc, need
from training.phantom import write_phantoms
from training.phantom.mark import phantom_uid
from worker.classification import classify_series
from worker.database import Database
from worker.registry import demo_bundle
from worker.tables import Series

SMALL, LARGE = 300, 1500
SECONDS, TIMES, GIB, COMPRESSED = 4.0, 5.2, 1.2 * 1000**3 / 1024**3, 2.0
ROUNDS = 3


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantoms")
    (exam,) = write_phantoms(folder, seed=5, exams=1, slices=SMALL)
    return sorted((folder / exam.folder).glob("*.dcm"))


def another_exam(slices: list[Path], folder: Path, count: int) -> str:
    """Write an exam of so many slices, new to everybody; slices are repeated a little further on. Return its UID."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    copies = count // len(slices)
    for path in slices:
        dataset = dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        x, y, z = dataset.ImagePositionPatient
        number = int(dataset.InstanceNumber)
        for copy in range(copies):
            dataset.ImagePositionPatient = [x, y, round(float(z) + 0.1 * copy, 3)]
            dataset.InstanceNumber = number * copies + copy
            # As a phantom's own rule has it, or the demo model would say nothing of it.
            sop_uid = UID(phantom_uid(series, number * copies + copy))
            dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop_uid
            dataset.save_as(folder / f"{number:04}-{copy}.dcm")
    return series


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    orthanc = Orthanc(tmp_path / "orthanc")
    orthanc.start()
    made = Installation(
        tmp_path / "installation",
        f'\n[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {orthanc.port}\n'
        'ae_title = "ORTHANC"\n',
    )
    made.prepare()
    made.start("up")
    yield made
    made.close()
    orthanc.stop()


def send(installation: Installation, folder: Path) -> None:
    subprocess.run(
        [need("/usr/bin/storescu", "dcmtk"), "-R", "+sd", "-aec", "RETICULA", "127.0.0.1", str(installation.port),
         str(folder)],
        check=True, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"},
    )  # fmt: skip


def seconds_of(database: Database, series_uid: str) -> float:
    """From complete to accepted by the PACS."""
    with database.read() as session:
        row = session.scalars(select(Series).where(Series.series_uid == series_uid)).one()
        assert row.queued_at is not None
        assert row.reported_at is not None
        return float((row.reported_at - row.queued_at).total_seconds())


def peak_gib(installation: Installation) -> float:
    """The most memory that one of our commands and its children have held together; what they share counts twice."""
    peaks: list[int] = []
    for process in installation.processes:
        for command in psutil.Process(process.pid).children():
            family = [command, *command.children(recursive=True)]
            peaks.append(sum(_peak_kib(each.pid) for each in family))
    return max(peaks) / 1024**2


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def test_an_exam_from_complete_to_stored(
    tmp_path: Path, slices: list[Path], installation: Installation, figures: Figures
) -> None:
    database = Database(f"sqlite:///{installation.data / 'reticula.sqlite3'}")
    median: dict[int, float] = {}
    for count in (SMALL, LARGE):
        taken = []
        for number in range(ROUNDS + (count == SMALL)):  # the first one of all loads the model
            folder = tmp_path / f"exam-{count}-{number}"
            uid = another_exam(slices, folder, count)
            send(installation, folder)
            installation.wait_for_state(uid, "reported", seconds=120)
            taken.append(seconds_of(database, uid))
        median[count] = statistics.median(taken[-ROUNDS:])
        if count == SMALL:
            figures.add(
                f"the first exam of {SMALL} slices after the start, with the model's loading", f"{taken[0]:.1f} s",
                f"the others: {median[SMALL]:.1f} s", taken[0] / median[SMALL], at_least=None,
            )  # fmt: skip
        memory = peak_gib(installation)
        figures.add(
            f"memory after exams of {count} slices, the largest command with its children", f"{memory:.2f} GiB",
            f"limit {GIB:.2f} GiB", memory / GIB, at_least=False,
        )  # fmt: skip
    figures.add(
        f"exam of {SMALL} slices, complete to stored in Orthanc", f"{median[SMALL]:.1f} s", f"limit {SECONDS} s",
        median[SMALL] / SECONDS, at_least=False,
    )  # fmt: skip
    figures.add(
        f"exam of {LARGE} slices", f"{median[LARGE]:.1f} s", f"{TIMES} × that of {SMALL}",
        median[LARGE] / median[SMALL] / TIMES, at_least=False,
    )  # fmt: skip
    database.dispose()


def _by_dcmtk(tool: str) -> Callable[[Path, Path], None]:
    def encode(source: Path, target: Path) -> None:
        subprocess.run([need(f"/usr/bin/{tool}", "dcmtk"), str(source), str(target)], check=True, capture_output=True)

    return encode


def _jpeg_2000(source: Path, target: Path) -> None:
    dataset = dcmread(source)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.save_as(target)


ENCODERS: dict[str, Callable[[Path, Path], None]] = {
    "JPEG-LS": _by_dcmtk("dcmcjpls"),
    "JPEG 2000": _jpeg_2000,
    "JPEG Lossless": _by_dcmtk("dcmcjpeg"),
}


def test_compressed_slices(tmp_path: Path, slices: list[Path], figures: Figures) -> None:
    classifier = Classifier.open(demo_bundle())
    series = {"uncompressed": slices}
    for name, encode in ENCODERS.items():
        (tmp_path / name).mkdir()
        series[name] = [tmp_path / name / path.name for path in slices]
        for source, target in zip(slices, series[name], strict=True):
            encode(source, target)
    times: dict[str, list[float]] = {name: [] for name in series}
    decoding: dict[str, list[float]] = {name: [] for name in series}
    for _round in range(ROUNDS):
        for name, files in series.items():
            started = time.perf_counter()
            classify_series(files, classifier, min_slices=3)
            times[name].append(time.perf_counter() - started)
            sources = read_series(files).slices
            started = time.perf_counter()
            deque(decode_all(sources, threads=os.cpu_count() or 1), maxlen=0)
            decoding[name].append(time.perf_counter() - started)
    plain = statistics.median(times["uncompressed"])
    for name in ENCODERS:
        alone = statistics.median(decoding[name])
        figures.add(
            f"{SMALL} slices in {name}", f"{statistics.median(times[name]):.1f} s",
            f"uncompressed ones, and decoding alone on all cores: {plain:.1f} + {alone:.1f} s",
            statistics.median(times[name]) / (plain + alone), at_least=None,
        )  # fmt: skip
        pairs = [one / other for one, other in zip(times[name], times["uncompressed"], strict=True)]
        figures.add(
            f"{SMALL} slices in {name}", f"{statistics.median(times[name]):.1f} s",
            f"{COMPRESSED:.0f} × uncompressed: {plain:.1f} s", statistics.median(pairs) / COMPRESSED, at_least=False,
        )  # fmt: skip
