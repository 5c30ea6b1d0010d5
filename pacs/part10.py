"""An instance in the DICOM File Format (PS3.10 7.1), taken apart: what it announces, and its encoded dataset."""

from io import BytesIO

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta

from pacs.discreet import said
from pacs.elements import is_uid, text
from pacs.errors import Unreadable

# Preamble, prefix, and (0002,0000), whose value is the length of what follows.
_PREFIX = slice(128, 132)
_LENGTH_ELEMENT, _LENGTH = slice(132, 140), slice(140, 144)
_GROUP_FROM = 144


def take_apart(content: bytes) -> tuple[FileMetaDataset, bytes]:
    """Return new file meta information with what the given one names, and the encoded dataset. Raises Unreadable."""
    if content[_PREFIX] != b"DICM" or content[_LENGTH_ELEMENT] != b"\x02\x00\x00\x00UL\x04\x00":
        raise Unreadable("it is not in the DICOM File Format")
    end = _GROUP_FROM + int.from_bytes(content[_LENGTH], "little")
    if end > len(content):
        raise Unreadable("its file meta information is cut off")
    try:
        given = read_dataset(BytesIO(content[_GROUP_FROM:end]), is_implicit_VR=False, is_little_endian=True)
        uids = [
            text(given, keyword)
            for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
        ]
    except Exception as error:  # pydicom raises whatever it likes on garbage
        raise Unreadable(f"its file meta information cannot be read ({said(error)})") from error
    if not all(map(is_uid, uids)):
        raise Unreadable("its file meta information names no class, instance and transfer syntax")
    sop_class, sop_uid, syntax = map(UID, uids)
    return create_file_meta(sop_class_uid=sop_class, sop_instance_uid=sop_uid, transfer_syntax=syntax), content[end:]
