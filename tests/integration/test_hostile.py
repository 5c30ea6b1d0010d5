"""Instances made to cost memory, time or a process: they cost themselves only, and the next good exam is served."""

import struct
import time
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from pacs.decoder import decode_apart
from pacs.errors import Unreadable
from pacs.head import inflates_beyond, read_head
from pacs.series import read_series
from tests.datasets import ct, write
from tests.installation import Installation, send
from tests.plant import Plant, files
from training.phantom import PhantomExam
from training.phantom.mark import phantom_uid
from worker.database import Database

Phantoms = tuple[Path, list[PhantomExam]]

# Each makes the decoder of its transfer syntax abort its process; found by mutation.
CRASHING = sorted((Path(__file__).parent / "hostile").glob("*.dcm"))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "installation")
    made.environment |= {"RETICULA_LISTENER__MAX_INSTANCE_MB": "64", "RETICULA_LISTENER__QUIET_SECONDS": "2"}
    yield made
    made.close()


def associate(port: int, syntax: UID) -> Association:
    entity = AE("TESTER")
    entity.add_requested_context(CTImageStorage, syntax)
    association = entity.associate("127.0.0.1", port, ae_title="RETICULA")
    assert association.is_established
    return association


def store_bytes(port: int, encoded: bytes, syntax: UID) -> int | None:
    """Send the bytes of a dataset as they are; return the status."""
    association = associate(port, syntax)
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, UID("1.2.3.4.5.1")
    request.DataSet = BytesIO(encoded)
    (context,) = association.accepted_contexts
    association._reactor_checkpoint.clear()
    association.dimse.send_msg(request, context.context_id or 0)
    _context, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    association.release()
    return getattr(answer, "Status", None)


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    if vr in (b"OB", b"OW", b"SQ", b"UN"):
        return struct.pack("<HH2sHL", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def identified(rest: bytes) -> bytes:
    """A dataset with its UIDs, and more behind them."""
    return b"".join(
        (
            element(0x0008, 0x0016, b"UI", CTImageStorage.encode()),
            element(0x0008, 0x0018, b"UI", b"1.2.3.4.5.1"),
            element(0x0020, 0x000D, b"UI", b"1.2.3.4"),
            element(0x0020, 0x000E, b"UI", b"1.2.3.4.5"),
            rest,
        )
    )


def deflated(content: bytes, zeros: int) -> bytes:
    """Content deflated, with so many zeros behind it."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    pieces = [deflate.compress(content)]
    pieces.extend(deflate.compress(bytes(1 << 24)) for _ in range(zeros >> 24))
    return b"".join((*pieces, deflate.flush()))


def test_a_dataset_that_inflates_without_end_is_refused_in_bounded_memory(installation: Installation) -> None:
    process = installation.start("listen")
    before = psutil.Process(process.pid).memory_info().rss
    huge = identified(struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 1 << 31))
    bomb = deflated(huge, 2 << 30)
    started = time.monotonic()
    assert store_bytes(installation.port, bomb, DeflatedExplicitVRLittleEndian) == 0xC000
    assert time.monotonic() - started < 20
    assert psutil.Process(process.pid).memory_info().rss - before < 200 << 20
    assert "inflates to more than 64 MB" in installation.log("listen")
    association = associate(installation.port, ExplicitVRLittleEndian)
    assert association.send_c_store(ct(1)).Status == 0
    association.release()


@pytest.mark.parametrize("levels", [2_000, 200_000])
def test_sequences_within_sequences_without_end(installation: Installation, levels: int) -> None:
    installation.start("listen")
    opened = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    started = time.monotonic()
    status = store_bytes(installation.port, identified(opened * levels), ExplicitVRLittleEndian)
    assert status in (0x0000, 0xC000)
    before = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * levels
    assert store_bytes(installation.port, before + identified(b""), ExplicitVRLittleEndian) == 0xC000
    assert time.monotonic() - started < 20
    association = associate(installation.port, ExplicitVRLittleEndian)
    assert association.send_c_store(ct(2)).Status == 0
    association.release()


def test_only_the_beginning_of_a_deflated_file_is_inflated_for_its_header(tmp_path: Path) -> None:
    dataset = ct(1)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (path,) = write(tmp_path, dataset)
    assert read_head(path).SeriesInstanceUID == dataset.SeriesInstanceUID
    assert "PixelData" not in read_head(path)
    assert set(read_head(path, ["StudyInstanceUID"]).keys()) == {0x0020000D}
    with pytest.raises(Unreadable, match="inflated"):
        inflates_beyond(b"\xff" * 100, 1000)
    content = deflated(b"x" * 1000, 0)
    assert (inflates_beyond(content, 1000), inflates_beyond(content, 999)) == (False, True)


def _lying() -> Iterator[tuple[str, Dataset]]:
    yield "absurd rows and columns", ct(1, Rows=65535, Columns=65535)
    yield "more rows than pixels", ct(1, Rows=4096, Columns=4096)
    yield "a billion frames", ct(1, SOPClassUID=EnhancedCTImageStorage, NumberOfFrames="2147483647")
    yield "64 bits a pixel", ct(1, BitsAllocated=64, BitsStored=64, HighBit=63)
    yield "many samples", ct(1, SamplesPerPixel=60000)
    runs = struct.pack("<16L", 2, 64, 64 + 20000, *[0] * 13) + b"\x81\x00" * 20000
    compressed = ct(1, Rows=64, Columns=64)
    compressed.PixelData = encapsulate([runs])
    compressed["PixelData"].is_undefined_length = True
    compressed.file_meta.TransferSyntaxUID = RLELossless
    yield "runs that go on", compressed
    lies = ct(1, Rows=64, Columns=64)
    lies.PixelData = encapsulate([struct.pack("<16L", 15, *[0xFFFFFFF0] * 15)])
    lies["PixelData"].is_undefined_length = True
    lies.file_meta.TransferSyntaxUID = RLELossless
    yield "segments outside of the data", lies


@pytest.mark.parametrize(("what", "dataset"), list(_lying()))
def test_a_header_that_lies_costs_its_series_only(
    tmp_path: Path, phantoms: Phantoms, what: str, dataset: Dataset
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'test.sqlite3'}")
    database.upgrade()
    plant = Plant(tmp_path / "data", database)
    plant.app.registry.import_bundle("demo", actor="test")
    series_uid, study_uid = str(generate_uid()), str(generate_uid())
    for number in range(1, 13):
        dataset.SOPInstanceUID, dataset.SeriesInstanceUID = f"{series_uid[:50]}.{number}", series_uid
        dataset.StudyInstanceUID, dataset.InstanceNumber = study_uid, str(number)
        dataset.ImagePositionPatient = ["0", "0", str(number * 5.0)]
        plant.receive(*write(tmp_path / "in" / str(number), dataset), age=60)
    before, started = psutil.Process().memory_info().rss, time.monotonic()
    plant.run()
    assert psutil.Process().memory_info().rss - before < 1 << 30
    assert time.monotonic() - started < 60
    refused = plant.exam(series_uid)
    assert refused["state"] == "rejected", (what, refused)
    plant.receive(*files(phantoms), age=60)
    plant.run()
    assert plant.exam(phantoms[1][0].series_uid)["state"] == "classified"
    database.dispose()


def test_a_slice_that_crashes_its_decoder_costs_itself(tmp_path: Path) -> None:
    assert len(CRASHING) == 3
    paths = [*write(tmp_path, ct(1)), *CRASHING, *write(tmp_path / "second", ct(2))]
    sources = [image for path in paths for image in read_series([path]).slices]
    decoded = list(decode_apart(sources))
    assert [each.hu is None for each in decoded] == [False, True, True, True, False]
    assert all(each.error for each in decoded[1:4])


def test_an_exam_with_a_slice_that_crashes_its_decoder_is_classified_without_it(
    installation: Installation, phantoms: Phantoms, tmp_path: Path, dcmtk: dict[str, str]
) -> None:
    exam = phantoms[1][0]
    paths = files(phantoms)
    bad, first = dcmread(CRASHING[0]), dcmread(paths[0])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "PatientName", "ImageOrientationPatient"):
        setattr(bad, keyword, first[keyword].value)
    # It says that it is a phantom, as the others do: with one that does not they would all be a patient.
    bad.SOPInstanceUID, bad.InstanceNumber = phantom_uid(exam.series_uid, 99), "99"
    bad.QualityControlImage = "YES"
    bad.ImagePositionPatient = [*first.ImagePositionPatient[:2], float(first.ImagePositionPatient[2]) - 500]
    (bad_path,) = write(tmp_path / "bad", bad)
    installation.prepare()
    installation.start("up")
    association = associate(installation.port, bad.file_meta.TransferSyntaxUID)
    assert association.send_c_store(dcmread(bad_path)).Status == 0
    association.release()
    assert send(dcmtk["storescu"], installation.port, *paths).returncode == 0
    done = installation.wait_for_state(exam.series_uid, "classified", seconds=120)
    assert (done["verdict"], done["slice_count"], done["slices_classified"] >= 10) == (exam.label, 15, True)
    assert "has died" in installation.log("up")
