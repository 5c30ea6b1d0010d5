"""The head of an instance: its elements before the pixels, read within bounds whatever the bytes say.

A deflated dataset (PS3.5 A.5) may inflate a thousandfold; pydicom would inflate all of it to read one element.
"""

import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from pacs.errors import Unreadable

_LONGEST_HEAD = 32 << 20
_PIXELS_FROM = Tag(0x7FE00001)
_PIECE = 1 << 20
# PS3.10 chapter 7.1: preamble, prefix, and the element with the length of the rest of the file meta information.
_META_FROM = 128 + 4 + 12


def read_head(path: Path, keywords: Sequence[str] | None = None) -> Dataset:
    """Return the elements before the pixels of a file, or of them those that are named.

    Raises OSError, Unreadable, and what pydicom raises on garbage.
    """
    meta = read_file_meta_info(path)
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_deflated:
        tags: Any = None if keywords is None else list(keywords)
        return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    if "FileMetaInformationGroupLength" not in meta:
        raise Unreadable("The file meta information has no length.")
    encoded = path.read_bytes()[_META_FROM + meta.FileMetaInformationGroupLength :]
    dataset = read_elements(encoded, syntax, keywords)
    dataset.file_meta = meta
    return dataset


def read_elements(encoded: bytes, syntax: UID, keywords: Sequence[str] | None = None) -> Dataset:
    """Return the elements before the pixels of a dataset in a transfer syntax, or of them those that are named.

    Raises what pydicom and zlib raise on garbage.
    """
    dataset = Dataset()
    dataset.update(_read(encoded, syntax, None if keywords is None else [Tag(keyword) for keyword in keywords]))
    return dataset


def read_uids(encoded: bytes, syntax: UID, keywords: Sequence[str]) -> dict[str, str]:
    """Return UIDs of a dataset in a transfer syntax: as they stand there, valid or not, and empty where one is absent.

    They are taken as bytes: what pydicom makes of them takes longer than to sync the instance on disk.
    Raises what pydicom and zlib raise on garbage.
    """
    tags = [Tag(keyword) for keyword in keywords]
    dataset = _read(encoded, syntax, tags)
    values = [dataset.get_item(tag).value if tag in dataset else b"" for tag in tags]
    return {
        keyword: value.decode("ascii", "replace").strip("\0 ") if isinstance(value, bytes) else ""
        for keyword, value in zip(keywords, values, strict=True)
    }


def _read(encoded: bytes, syntax: UID, wanted: list[BaseTag] | None) -> Dataset:
    if syntax.is_deflated:
        encoded = zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, _LONGEST_HEAD)
    last = int(_PIXELS_FROM) if wanted is None else min(int(_PIXELS_FROM), max(wanted) + 1)
    tags: Any = wanted
    return read_dataset(
        BytesIO(encoded),
        is_implicit_VR=syntax.is_implicit_VR,
        is_little_endian=syntax.is_little_endian,
        # Tags compare slower than the numbers that they are, and this is asked of each element.
        stop_when=lambda tag, _vr, _length: int.__ge__(tag, last),
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
