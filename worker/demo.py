"""The demo: phantoms go from a C-STORE client through a whole installation into an archive, and are checked there."""

import json
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.image import imsave
from pydicom.uid import SecondaryCaptureImageStorage

from models.bundle import KNOWN_CLASSES
from pacs.archive import Archive
from pacs.codes import INDETERMINATE_CODE
from pacs.errors import Rejected, Unreadable
from pacs.listener import Listener
from pacs.report.reader import ReadReport, read_report
from pacs.sender import find_instances
from pacs.series import group_by_series, read_series
from worker import processes
from worker.application import Application
from worker.errors import WorkerError
from worker.listing import list_exams, show_exam
from worker.registry import DEMO
from worker.settings import load_settings
from worker.states import State
from worker.variables import CONFIG_VARIABLE

SEED = 20
_MARK = ".reticula-demo"
_START_SECONDS = 60
_ROUNDING = 0.00011  # two decimals of a percentage, which never reads 100 or 0
_DONE = frozenset({State.REPORTED, State.REJECTED, State.FAILED})


@dataclass(frozen=True)
class Outgoing:
    """A series that the demo sends. truth: its class where it is a phantom."""

    series_uid: str
    study_uid: str
    files: tuple[Path, ...]
    truth: str | None


@dataclass(frozen=True)
class Outcome:
    """What became of a series. seconds: from the last instance sent to the report in the archive."""

    exam: dict[str, Any]
    report: Path | None
    seconds: float | None
    picture: Path | None
    faults: tuple[str, ...]


class Demo:
    """One run in a folder of its own; what an earlier run left there is replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.archive = Archive(self.folder / "archive")
        self._application: Application | None = None

    @property
    def application(self) -> Application:
        """The installation that runs. Raises WorkerError before it does."""
        if self._application is None:
            raise WorkerError("The demo was not started.")
        return self._application

    def prepare(self) -> None:
        """Make the folder. Raises WorkerError where it holds something that no demo wrote."""
        if self.folder.exists():
            if any(self.folder.iterdir()) and not (self.folder / _MARK).exists():
                raise WorkerError(f"{self.folder} holds other files: name a folder of its own with --dir.")
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True)
        (self.folder / _MARK).touch()

    def outgoing(self, phantoms: Path, others: Sequence[Path]) -> list[Outgoing]:
        """Return the phantoms with their truth, and the series found in other folders."""
        truth = json.loads((phantoms / "truth.json").read_text(encoding="utf-8"))
        series = [
            Outgoing(
                uid,
                exam["study_uid"],
                tuple(sorted((phantoms / exam["folder"]).glob("*.dcm"))),
                exam["label"],
            )
            for uid, exam in truth.items()
        ]
        for folder in others:
            series.extend(_group(find_instances(folder), folder))
        return series

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run an archive and a whole installation beside it while the block runs."""
        archive = Listener(self.archive, ae_title="ARCHIVE", host="127.0.0.1", port=0)
        archive.start()
        config = self._configure(archive.port)
        os.environ[CONFIG_VARIABLE] = str(config)
        self._application = Application(load_settings())
        self._application.database.upgrade()
        self._application.registry.import_bundle(DEMO, actor="demo")
        log = (self.folder / "reticula.log").open("w")
        child = subprocess.Popen(processes.command("up"), stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            _wait_ready(child, self.folder / "reticula.log")
            yield
        finally:
            child.terminate()
            child.wait(90)
            if child.stdout is not None:
                child.stdout.close()
            log.close()
            archive.stop()

    def states(self) -> dict[str, dict[str, Any]]:
        """Return the exams by series UID as SQL knows them."""
        with self.application.database.read() as session:
            return {exam["series_uid"]: exam for exam in list_exams(session)}

    def done(self, series: Outgoing) -> bool:
        """Whether a series has come to an end."""
        exam = self.states().get(series.series_uid)
        return exam is not None and exam["state"] in _DONE

    def outcome(self, series: Outgoing, last_sent: float) -> Outcome:
        """Compare what the archive holds with SQL and with the truth, and draw the exam."""
        exam = self.states().get(series.series_uid)
        if exam is None:
            return Outcome({"series_uid": series.series_uid, "patient_id": "", "state": "lost"}, None, None, None,
                           ("the series never came to the database",))  # fmt: skip
        with self.application.database.read() as session:
            exam = show_exam(session, series.series_uid)
        if exam["state"] in (State.REJECTED, State.FAILED):
            wrong = series.truth is not None or exam["state"] == State.FAILED
            faults = [f"{exam['state']}: {exam['reason']}"] if wrong else []
            return Outcome(exam, None, None, None, tuple(faults))
        found = self._report(series)
        if found is None:
            return Outcome(exam, None, None, None, ("no report came to the archive",))
        path, report = found
        faults = list(_differences(exam, report))
        if series.truth is not None and exam["verdict"] != series.truth:
            faults.append(f"the verdict is {exam['verdict']}, the phantom is {series.truth}")
        picture = self._picture(series, exam)
        if picture is None:
            faults.append("no summary page came to the archive")
        return Outcome(exam, path, path.stat().st_mtime - last_sent, picture, tuple(faults))

    def _report(self, series: Outgoing) -> tuple[Path, ReadReport] | None:
        for path, dataset in self.archive.reports(series.study_uid):
            with suppress(Unreadable):
                report = read_report(dataset)
                if series.series_uid in report.series_uids:
                    return path, report
        return None

    def _picture(self, series: Outgoing, exam: dict[str, Any]) -> Path | None:
        """Write the summary page as the archive has it to a PNG."""
        uids = {image["sop_uid"] for image in exam["slices"]}
        for _path, dataset in self.archive.objects(series.study_uid, (SecondaryCaptureImageStorage,)):
            if {item.ReferencedSOPInstanceUID for item in dataset.SourceImageSequence} <= uids:
                picture = self.folder / "pictures" / f"{series.series_uid}.png"
                picture.parent.mkdir(exist_ok=True)
                imsave(picture, dataset.pixel_array)
                return picture
        return None

    def _configure(self, archive_port: int) -> Path:
        config = self.folder / "reticula.toml"
        config.write_text(
            f"""# Written by 'reticula demo'.
data_dir = {json.dumps(str(self.folder / "data"))}

[listener]
port = {_free_port()}
quiet_seconds = 2

[[destinations]]
name = "archive"
kind = "dimse"
host = "127.0.0.1"
port = {archive_port}
ae_title = "ARCHIVE"
objects = ["summary"]
""",
            encoding="utf-8",
        )
        return config


def _group(paths: Sequence[Path], folder: Path) -> list[Outgoing]:
    """Sort files into series by their headers."""
    groups, _unreadable = group_by_series(paths)
    found = []
    for files in groups:
        with suppress(Rejected):
            header = read_series(files[:1]).header
            found.append(Outgoing(header.series_uid, header.study_uid, files, None))
    if not found:
        raise WorkerError(f"{folder} holds no DICOM series.")
    return found


def _differences(exam: dict[str, Any], report: ReadReport) -> Iterator[str]:
    """Name what the report says otherwise than SQL."""
    known = KNOWN_CLASSES.get(exam["verdict"])
    if report.impression[0] != (known.code.value if known else INDETERMINATE_CODE):
        yield f"the report says {report.impression[2]}, SQL says {exam['verdict']}"
    if known is None:
        if report.certainty is not None or report.probabilities:
            yield "the report states probabilities, and there is no verdict"
        if not report.reason_code:
            yield "the report does not say why there is no verdict"
    else:
        if report.certainty is None or abs(report.certainty - exam["certainty"]) > _ROUNDING:
            yield f"the report is certain to {report.certainty}, SQL to {exam['certainty']}"
        stated = report.probabilities
        if any(abs(stated.get(name, -1) - value) > _ROUNDING for name, value in exam["probabilities"].items()):
            yield "the probabilities in the report are not those in SQL"
    if report.patient_id != exam["patient_id"]:
        yield "the report names another patient"
    if report.sop_uids != {image["sop_uid"] for image in exam["slices"] if image["classified"]}:
        yield "the report refers to other slices than were classified"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_ready(child: "subprocess.Popen[str]", log: Path) -> None:
    """Wait until `reticula up` serves. Raises WorkerError with the end of its log where it does not."""
    if child.stdout is not None:
        answered, _, _ = select.select([child.stdout], [], [], _START_SECONDS)
        if answered and child.stdout.readline().strip() == "ready":
            return
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise WorkerError(f"The installation did not start: {lines[-1] if lines else 'it said nothing'} (see {log}).")
