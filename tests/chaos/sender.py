"""A modality that sends series again and again until every instance is acknowledged, and its log of that."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association

from training.phantom import write_phantoms
from training.phantom.mark import phantom_uid

_ROOT = "1.2.826.0.1.3680043.10.1561"
_LINGER_SECONDS = 4.0
_EVERY = 4  # one pixel in so many is kept: the slices are small, the lungs are not


@dataclass(frozen=True)
class Sent:
    """An instance as the sender knows it; digest: sha256 of its dataset."""

    sop_uid: str
    series_uid: str
    study_uid: str
    patient_id: str
    path: Path
    digest: str


@dataclass
class SendLog:
    """What got 0x0000."""

    acknowledged: dict[str, Sent] = field(default_factory=dict)
    refused: int = 0  # attempts that got another status, or none

    def by_series(self) -> dict[str, list[Sent]]:
        """Return the acknowledged instances of each series."""
        series: dict[str, list[Sent]] = {}
        for sent in self.acknowledged.values():
            series.setdefault(sent.series_uid, []).append(sent)
        return series


def dataset_bytes(path: Path) -> bytes:
    """Return what follows the file meta information (PS3.10 7.1): that is what travels."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def make_series(folder: Path, seed: int, count: int, slices: int) -> list[list[Sent]]:
    """Write `count` series of small slices, each of a patient and study of its own."""
    masters = folder / "masters"
    write_phantoms(masters, seed=seed, exams=4, slices=slices)
    kinds = [sorted(exam.glob("*.dcm")) for exam in sorted(masters.iterdir()) if exam.is_dir()]
    kinds = [kind for kind in kinds if kind]
    return [list(_series(folder / "series", seed, index, kinds[index % len(kinds)])) for index in range(count)]


def _series(folder: Path, seed: int, index: int, masters: Sequence[Path]) -> Iterator[Sent]:
    study, series, patient = f"{_ROOT}.{seed}.{index}", f"{_ROOT}.{seed}.{index}.1", f"CHAOS-{seed}-{index:04d}"
    (folder / f"{index:04d}").mkdir(parents=True)
    for number, master in enumerate(masters, start=1):
        dataset = dcmread(master)
        pixels = dataset.pixel_array[::_EVERY, ::_EVERY].copy()
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.PixelSpacing = [float(value) * _EVERY for value in dataset.PixelSpacing]
        dataset.PixelData = pixels.tobytes()
        dataset.PatientID, dataset.PatientName = patient, f"Chaos^{index}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.InstanceNumber = number
        # As a phantom's own rule has it, or the demo model would say nothing of it.
        sop_uid = phantom_uid(series, number)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop_uid)
        dataset.ImageComments = f"{seed} {index} {number}"  # no two alike
        path = folder / f"{index:04d}" / f"{number:04d}.dcm"
        dcmwrite(path, dataset, enforce_file_format=True)
        digest = hashlib.sha256(dataset_bytes(path)).hexdigest()
        yield Sent(sop_uid, series, study, patient, path, digest)


class Sender:
    """Sends series in threads of its own. sending: how many associations are open."""

    def __init__(self, port: int, series: Sequence[Sequence[Sent]], *, threads: int = 2) -> None:
        self.log = SendLog()
        self.sending = 0
        self.allowed = 4  # how many series may have been begun; the run raises it as reports come
        self.stopped = False
        self.linger = False  # stop in the middle of a series for a moment: somebody wants to disturb it there
        self._port = port
        self._waiting = list(series)
        self._begun = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        """Whether everything was acknowledged."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def waiting(self) -> int:
        """How many series were not begun yet."""
        return len(self._waiting)

    def _next(self) -> Sequence[Sent] | None:
        with self._lock:
            if self._begun >= self.allowed or not self._waiting:
                return None
            self._begun += 1
            return self._waiting.pop(0)

    def _work(self) -> None:
        while self._waiting and not self.stopped:
            series = self._next()
            if series is None:
                time.sleep(0.1)
                continue
            left = [sent for sent in series if sent.sop_uid not in self.log.acknowledged]
            while left and not self.stopped:
                self._send(left)
                left = [sent for sent in left if sent.sop_uid not in self.log.acknowledged]
                if left:
                    time.sleep(0.3)

    def _wait_to_be_disturbed(self, index: int, count: int) -> None:
        until = time.monotonic() + _LINGER_SECONDS
        while self.linger and index == count // 2 and time.monotonic() < until:
            time.sleep(0.02)

    def _send(self, left: Sequence[Sent]) -> None:
        entity = AE("CHAOS")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 8
        entity.connection_timeout = 3
        entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association: Association = entity.associate("127.0.0.1", self._port, ae_title="RETICULA")
        if not association.is_established:
            self.log.refused += 1
            return
        self.sending += 1
        try:
            for index, sent in enumerate(left):
                self._wait_to_be_disturbed(index, len(left))
                status = association.send_c_store(sent.path).get("Status")
                if status != 0:
                    self.log.refused += 1
                    return
                self.log.acknowledged[sent.sop_uid] = sent
        except (RuntimeError, ValueError):  # the association has ended
            self.log.refused += 1
        finally:
            self.sending -= 1
            if association.is_established:
                association.release()
