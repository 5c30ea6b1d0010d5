"""The head of an instance: its elements before the pixels, read within bounds whatever the bytes say.

A deflated dataset (PS3.5 A.5) may inflate a thousandfold; pydicom would inflate all of it to read one element.
"""

import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from pacs.elements import text
from pacs.errors import Unreadable

_LONGEST_HEAD = 32 << 20
# The group of the pixels, but for its length.
_PIXELS_FROM, _PIXELS_BEFORE = 0x7FE00001, 0x7FE10000
_PIECE = 1 << 20


def read_head(path: Path, keywords: Sequence[str] | None = None) -> Dataset:
    """Return the elements before the pixels of a file, or of them those that are named.

    Raises OSError, Unreadable, and what pydicom raises on garbage.
    """
    with path.open("rb") as file:
        meta, dataset = read_parts(file, keywords)
    dataset.file_meta = FileMetaDataset(meta)
    return dataset


def read_parts(file: BinaryIO, keywords: Sequence[str] | None = None) -> tuple[Dataset, Dataset]:
    """Return the file meta information of an open file, and the elements before its pixels or those that are named.

    The file is left at the pixels, but for a deflated dataset, or where it has none. Raises what `read_head` raises.
    """
    read_preamble(file, force=False)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_after_meta)
    syntax = text(meta, "TransferSyntaxUID")
    wanted = None if keywords is None else [Tag(keyword) for keyword in keywords]
    if syntax:
        return meta, _read(file, UID(syntax), wanted)
    file.seek(0)
    dataset = dcmread(file, stop_before_pixels=True, specific_tags=cast("list[Any]", wanted))  # it finds out
    return dataset.file_meta, dataset


def _after_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 0x0002


def read_elements(encoded: bytes, syntax: UID, keywords: Sequence[str] | None = None) -> Dataset:
    """Return the elements before the pixels of a dataset in a transfer syntax, or of them those that are named.

    Raises what pydicom and zlib raise on garbage.
    """
    return _read(BytesIO(encoded), syntax, None if keywords is None else [Tag(keyword) for keyword in keywords])


def read_uids(encoded: bytes, syntax: UID, keywords: Sequence[str]) -> dict[str, str]:
    """Return UIDs of a dataset in a transfer syntax: as they stand there, valid or not, and empty where one is absent.

    They are taken as bytes: what pydicom makes of them takes longer than to sync the instance on disk.
    Raises what pydicom and zlib raise on garbage.
    """
    tags = [Tag(keyword) for keyword in keywords]
    dataset = _read(BytesIO(encoded), syntax, tags, in_order=True)
    values = [dataset.get_item(tag).value if tag in dataset else b"" for tag in tags]
    return {
        keyword: value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else ""
        for keyword, value in zip(keywords, values, strict=True)
    }


def _read(encoded: BinaryIO, syntax: UID, wanted: list[BaseTag] | None, *, in_order: bool = False) -> Dataset:
    """Read a dataset as far as its pixels. in_order: presume that nothing wanted comes after a higher tag."""
    if syntax.is_deflated:
        encoded = BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded.read(), _LONGEST_HEAD))
    last = max(wanted) + 1 if in_order and wanted else _PIXELS_FROM
    beyond = None if in_order else _PIXELS_BEFORE
    tags: Any = wanted
    return read_dataset(
        encoded,
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        # Tags compare slower than the numbers that they are, and this is asked of each element.
        stop_when=lambda tag, _vr, _length: int.__ge__(tag, last) and (beyond is None or int.__lt__(tag, beyond)),
        specific_tags=tags,
    )


def inflates_beyond(deflated: bytes, limit: int) -> bool:
    """Whether a deflated dataset has more than `limit` bytes. Raises Unreadable where it is not deflated."""
    inflate, size, left = zlib.decompressobj(-zlib.MAX_WBITS), 0, deflated
    try:
        while left and not inflate.eof:
            size += len(inflate.decompress(left, _PIECE))
            if size > limit:
                return True
            left = inflate.unconsumed_tail
    except zlib.error as error:
        raise Unreadable("it cannot be inflated") from error
    return False
