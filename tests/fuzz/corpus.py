"""Where fuzzing starts: one good input of each kind for each target."""

import subprocess
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA, MaximumLengthNotification
from pynetdicom.presentation import build_context

from pacs.commitment import CommitmentRequest, CommitmentResult, Reference
from tests.datasets import ct

# The byte with which an input of a dataset begins, and what it means.
SYNTAXES: tuple[UID, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)

# Tags, lengths and delimiters that make a dataset do something else.
DICTIONARY = (
    b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00", b"\x08\x00\x99\x11SQ\x00\x00\xff\xff\xff\xff", b"\x08\x00\x16\x00UI",
    b"\x08\x00\x18\x00UI", b"\x20\x00\x0d\x00UI", b"\x20\x00\x0e\x00UI", b"\x08\x00\x05\x00CS", b"ISO 2022 IR 87",
    b"\x28\x00\x10\x00US\x02\x00\xff\xff", b"\x28\x00\x11\x00US\x02\x00\xff\xff", b"\x28\x00\x08\x00IS",
    b"\xe0\x7f\x10\x00OW\x00\x00\xff\xff\xff\xff", b"\xff\xd8\xff\xc3", b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xf7", b"UN",
    b"\x28\x00\x53\x10DS",
    b"\r\n--cut\r\n", b"\r\n--cut--\r\n", b"DICM\x02\x00\x00\x00UL\x04\x00", b"Content-Type: ",
    b"nan", b"1e309", b"-1", b"\\\\\\\\\\\\\\\\",
)  # fmt: skip


def datasets() -> Iterator[bytes]:
    """Encoded datasets as a listener gets them, after the byte of their transfer syntax."""
    for dataset in (ct(1, rows=8, columns=8), _deep(6), _enhanced(3)):
        for index, syntax in enumerate(SYNTAXES):
            encoded = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
            if encoded is not None:
                yield bytes([index]) + encoded


def files(folder: Path) -> Iterator[bytes]:
    """Instances as files: uncompressed, and in each compressed syntax that can be written here."""
    pixels = (np.arange(32 * 32, dtype=np.int16) * 7 % 1500).reshape(32, 32)
    for dataset in (ct(1, pixels=pixels), _enhanced(3)):
        yield _file(dataset)
    for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless, DeflatedExplicitVRLittleEndian):
        dataset = ct(1, pixels=pixels)
        if syntax.is_deflated:
            dataset.file_meta.TransferSyntaxUID = syntax
        else:
            dataset.compress(syntax)
        yield _file(dataset)
    plain = folder / "plain.dcm"
    plain.write_bytes(_file(ct(1, pixels=np.abs(pixels), PixelRepresentation=0)))
    for options in (("+e1", "--true-lossless"), ("+ee", "+q", "90")):
        coded = folder / "coded.dcm"
        done = subprocess.run(["/usr/bin/dcmcjpeg", *options, str(plain), str(coded)], capture_output=True, check=False)
        if done.returncode == 0:
            yield coded.read_bytes()


def bodies() -> Iterator[bytes]:
    """Bodies of Store transactions, after the byte that says in which chunks they come."""
    head = b"\r\n--cut\r\nContent-Type: application/dicom\r\n\r\n"
    for count in (1, 3):
        parts = b"".join(head + _file(ct(number, rows=8, columns=8)) for number in range(count))
        yield b"\x08" + parts + b"\r\n--cut--\r\n"
    yield b"\x01" + head.replace(b"dicom", b"octet-stream") + b"not ours\r\n--cut--"


def commitments() -> Iterator[bytes]:
    """The datasets of storage commitment, in implicit VR."""
    reference = Reference(CTImageStorage, "1.2.3")
    for dataset in (
        CommitmentRequest("1.2.4", (reference,) * 3).dataset(),
        CommitmentResult("1.2.4", (reference,), ((reference, 0x0112),)).dataset(),
    ):
        yield encode(dataset, is_implicit_vr=True, is_little_endian=True) or b""


def association_request(calling: str = "FUZZ", called: str = "RETICULA", syntaxes: Iterable[UID] = SYNTAXES) -> bytes:
    """An A-ASSOCIATE-RQ PDU for CT and verification."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    length = MaximumLengthNotification()
    length.maximum_length_received = 16382
    primitive.user_information = [length]
    contexts = []
    for index, sop_class in enumerate((CTImageStorage, UID("1.2.840.10008.1.1"), UID("1.2.840.10008.1.20.1"))):
        context = build_context(sop_class, list(syntaxes))
        context.context_id = 2 * index + 1
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def c_store_command(sop_uid: str) -> bytes:
    """The command set of a C-STORE-RQ."""
    command = Dataset()
    command.CommandGroupLength = 0
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = CTImageStorage, sop_uid
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 1, 1, 0, 1
    return encode(command, is_implicit_vr=True, is_little_endian=True) or b""


def c_store(encoded: bytes, sop_uid: str) -> bytes:
    """The P-DATA-TF PDUs of a C-STORE-RQ with a dataset."""
    return _data(b"\x03" + c_store_command(sop_uid)) + _data(b"\x02" + encoded)


def release() -> bytes:
    """An A-RELEASE-RQ PDU."""
    return bytes(A_RELEASE_RQ().encode())


def pdus() -> Iterator[bytes]:
    """PDUs of each kind."""
    yield association_request()
    yield c_store(next(datasets())[1:], "1.2.3.4.5.1")
    yield release()
    yield b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"  # A-ABORT


def _data(fragment: bytes) -> bytes:
    primitive = P_DATA()
    primitive.presentation_data_value_list = [[1, fragment]]  # type: ignore[list-item]
    pdu = P_DATA_TF()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def _file(dataset: Dataset) -> bytes:
    meta: FileMetaDataset = dataset.file_meta
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _deep(levels: int) -> Dataset:
    dataset = ct(2, rows=8, columns=8)
    inner = Dataset()
    inner.CodeValue = "1"
    for _ in range(levels):
        outer = Dataset()
        outer.ConceptCodeSequence = Sequence([inner])
        outer["ConceptCodeSequence"].is_undefined_length = True
        inner = outer
    dataset.RequestAttributesSequence = Sequence([inner])
    return dataset


def _enhanced(frames: int) -> Dataset:
    dataset = ct(3, rows=8, columns=8, SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=str(frames))
    dataset.PixelData = dataset.PixelData * frames
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = ["0.8", "0.8"]
    shared.PixelMeasuresSequence[0].SliceThickness = "5"
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelValueTransformationSequence = Sequence([Dataset()])
    transformation = shared.PixelValueTransformationSequence[0]
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = "1", "-1024", "HU"
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    own = []
    for number in range(frames):
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([Dataset()])
        frame.PlanePositionSequence[0].ImagePositionPatient = ["0", "0", str(number * 5.0)]
        own.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(own)
    return dataset
