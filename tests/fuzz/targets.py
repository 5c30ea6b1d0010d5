"""What is fuzzed: each target takes bytes and raises only where it does what it never should."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from pydicom.uid import UID, CTImageStorage, ImplicitVRLittleEndian
from pynetdicom.dsutils import decode
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ, P_DATA_TF

from pacs.commitment import CommitmentRequest, CommitmentResult
from pacs.errors import Rejected, Unreadable
from pacs.intake import Intake, Sender, read_instance
from pacs.part10 import Announced
from pacs.pixels import hounsfield
from pacs.selection import select
from pacs.series import read_series
from pacs.spool import ReceivedInstance, Stored
from pacs.stow import Malformed, PartReader, StoreRequest, as_json, as_xml
from tests.fuzz import corpus

_LONGEST = 64 << 20
_SECONDS = 15
_PDUS = (A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_ABORT_RQ)
_FILE = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}.dcm"


def dataset(data: bytes) -> None:
    """What the listener does with a dataset before it answers: it reads it, or says that it cannot."""
    if not data:
        return
    syntax = corpus.SYNTAXES[data[0] % len(corpus.SYNTAXES)]
    announced = Announced(CTImageStorage, "1.2.3", UID(syntax), "FUZZ", "RETICULA")
    try:
        instance = read_instance(announced, data[1:], _LONGEST)
    except Unreadable:
        return
    # They become names of files and folders.
    for uid in (instance.sop_uid, instance.study_uid, instance.series_uid):
        _assert_uid(uid)


def _assert_uid(uid: str) -> None:
    if not uid or len(uid) > 64 or set(uid) - set("0123456789."):
        raise AssertionError(f"a UID that is none: {uid!r}")


def header(data: bytes) -> None:
    """What the worker does with a file: the series is read and chosen, or rejected."""
    _FILE.write_bytes(data)
    with suppress(Rejected):
        select(read_series([_FILE]), min_slices=1)


def pixels(data: bytes) -> None:
    """What the worker does with the pixels: Hounsfield units of the shape announced, or a reason, or its process dies.

    Decoders abort on some inputs; then the next attempt decodes apart, and goes on without the slice.
    """
    child = os.fork()
    if child:
        _child, status = os.waitpid(child, 0)
        died = signal.Signals(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else None
        if died is signal.SIGALRM or (died is None and os.WEXITSTATUS(status)):
            raise AssertionError("it takes too long" if died else "it does what it never should")
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    signal.alarm(_SECONDS)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        _decode(data)
    except BaseException:  # the parent says it
        os._exit(1)
    os._exit(0)


def _decode(data: bytes) -> None:
    _FILE.write_bytes(data)
    try:
        chosen = select(read_series([_FILE]), min_slices=1)
    except Rejected:
        return
    for source in chosen.slices[:4]:
        try:
            shape = hounsfield(source).shape
        except Unreadable:
            continue
        if shape != (source.rows, source.columns):
            raise AssertionError(f"{shape} is not what the header says")


def commitment(data: bytes) -> None:
    """What is asked or answered of storage commitment: it is read, or refused as the service expects."""
    for kind in (CommitmentRequest, CommitmentResult):
        try:
            read = kind.read(decode(BytesIO(data), ImplicitVRLittleEndian.is_implicit_VR, is_little_endian=True))
        except (MemoryError, SystemError):
            raise
        except Exception:  # the service answers 0x0115 to whatever pydicom raises
            continue
        if kind.read(read.dataset()) != read:
            raise AssertionError("what was read is not what would be written")
        if isinstance(read, CommitmentRequest):
            for reference in read.references:
                _assert_uid(reference.sop_uid)
                _assert_uid(reference.sop_class_uid)


class _Memory:
    """A store that looks at what it would name files after."""

    def store(self, instance: ReceivedInstance) -> Stored:
        for uid in (instance.sop_uid, instance.study_uid, instance.series_uid):
            _assert_uid(uid)
        return Stored.NEW

    def objection(self) -> None:
        return None


def stow(data: bytes) -> None:
    """The body of a Store transaction, in chunks of any size: each part has an answer, or the request is refused."""
    if not data:
        return
    request = StoreRequest(Intake(_Memory(), _LONGEST, lambda _happening: None), Sender("FUZZ", "::1"), "RETICULA")
    reader = PartReader('multipart/related; type="application/dicom"; boundary=cut', 1 << 14)
    size, count = 1 + data[0] * 16, 0
    try:
        for start in range(1, len(data), size):
            for part in reader.feed(data[start : start + size]):
                request.take(part)
                count += 1
        for part in reader.end():
            request.take(part)
            count += 1
        answer = request.answer()
    except Malformed as error:
        if error.status != 400:
            raise AssertionError("a body is malformed in no other way") from error
        return
    as_json(answer.dataset)
    as_xml(answer.dataset)
    named = ("ReferencedSOPSequence", "FailedSOPSequence", "OtherFailuresSequence")
    if sum(len(answer.dataset.get(keyword) or ()) for keyword in named) != count:
        raise AssertionError("a part has no answer")


def pdu(data: bytes) -> None:
    """PDUs: they are decoded, or refused by an exception, upon which the association is aborted."""
    for kind in _PDUS:
        try:
            kind().decode(data)
        except (MemoryError, SystemError):
            raise
        except Exception:  # pynetdicom aborts the association (PS3.8 table 9-10, Evt19)
            continue


def planted(data: bytes) -> None:
    """A fault for the harness to find, to show that it would."""
    if data.startswith(b"\0\x08\0") and b"SQ\0\0\xff\xff\xff\xff" in data[10:]:
        raise AssertionError("the planted fault")


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[Path], Iterator[bytes]]]] = {
    "dataset": (dataset, lambda _folder: corpus.datasets()),
    "header": (header, corpus.files),
    "pixels": (pixels, corpus.files),
    "stow": (stow, lambda _folder: corpus.bodies()),
    "commitment": (commitment, lambda _folder: corpus.commitments()),
    "pdu": (pdu, lambda _folder: corpus.pdus()),
    "planted": (planted, lambda _folder: corpus.datasets()),
}
