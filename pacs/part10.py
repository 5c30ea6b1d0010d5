"""An instance in the DICOM File Format (PS3.10 7.1): what it announces, before its encoded dataset."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta, encode_file_meta

from pacs.discreet import said
from pacs.elements import is_uid, text
from pacs.errors import Unreadable

# Preamble, prefix, and (0002,0000), whose value is the length of what follows.
_PREFIX = slice(128, 132)
_LENGTH_ELEMENT, _LENGTH = slice(132, 140), slice(140, 144)
_GROUP_FROM = 144
_SOP_UID_ELEMENT = b"\x02\x00\x03\x00UI"  # tag and VR; two bytes of length follow, and the value


@dataclass(frozen=True)
class Announced:
    """What is said of an instance before its dataset. sender, receiver: AE titles."""

    sop_class_uid: str
    sop_uid: str
    syntax: UID
    sender: str
    receiver: str


def file_head(announced: Announced) -> bytes:
    """Return what stands before the dataset in a file: preamble, prefix and file meta information."""
    uid = announced.sop_uid
    before, after = _around_uid(
        announced.sop_class_uid, len(uid), announced.syntax, announced.sender, announced.receiver
    )
    return before + uid.encode("ascii") + b"\0" * (len(uid) % 2) + after


@lru_cache(maxsize=256)
def _around_uid(sop_class_uid: str, length: int, syntax: UID, sender: str, receiver: str) -> tuple[bytes, bytes]:
    """Return what stands before and after the instance's UID, which alone differs within an association.

    To write the same elements anew for each instance takes longer than to sync it on disk.
    """
    meta = create_file_meta(
        sop_class_uid=UID(sop_class_uid), sop_instance_uid=UID("1" * length), transfer_syntax=syntax
    )
    if sender:
        meta.SourceApplicationEntityTitle = sender
    if receiver:
        meta.ReceivingApplicationEntityTitle = receiver
    head = b"".join((b"\0" * 128, b"DICM", encode_file_meta(meta)))
    value = head.index(_SOP_UID_ELEMENT) + len(_SOP_UID_ELEMENT) + 2
    return head[:value], head[value + length + length % 2 :]


def take_apart(content: bytes, sender: str, receiver: str) -> tuple[Announced, bytes]:
    """Return what a file announces, and its encoded dataset. sender, receiver: AE titles. Raises Unreadable."""
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
    sop_class, sop_uid, syntax = uids
    return Announced(sop_class, sop_uid, UID(syntax), sender, receiver), content[end:]
