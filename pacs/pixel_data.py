"""The pixel data of an instance: where they lie in its file, so that decoding does not read its elements again."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.uid import UID

from pacs.elements import integer, text

_PIXEL_DATA = 0x7FE0, 0x0010
# What a decoder must know (PS3.3 C.7.6.3), by pydicom's names.
_NUMBERS = {
    "samples_per_pixel": "SamplesPerPixel",
    "planar_configuration": "PlanarConfiguration",
    "number_of_frames": "NumberOfFrames",
    "rows": "Rows",
    "columns": "Columns",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
}


@dataclass(frozen=True)
class PixelData:
    """Where the value of Pixel Data begins in a file, and what a decoder must know of it.

    length: in bytes; None where fragments say it.
    """

    offset: int
    length: int | None
    syntax: UID
    options: tuple[tuple[str, int | str], ...]


def locate(file: BinaryIO, meta: Dataset, dataset: Dataset) -> PixelData | None:
    """Return where pixel data lie in a file that was read as far as them; None where only the whole file tells.

    So it is with deflated datasets, with an extended offset table, and where the encoding is not the stated one.
    """
    syntax = UID(text(meta, "TransferSyntaxUID"))
    if not is_as_stated(syntax, dataset):
        return None
    start = file.read(8)
    if start[:4] != struct.pack("<HH" if syntax.is_little_endian else ">HH", *_PIXEL_DATA):
        return None
    options: dict[str, int | str] = {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    length = start[4:]
    if not syntax.is_implicit_VR:  # its length comes after the value representation (PS3.5 7.1.2)
        if start[4:6] not in (b"OB", b"OW"):
            return None
        options["pixel_vr"], length = start[4:6].decode("ascii"), file.read(4)
    numbers = ((name, integer(dataset, keyword)) for name, keyword in _NUMBERS.items())
    options |= {name: number for name, number in numbers if number is not None}
    options["photometric_interpretation"] = text(dataset, "PhotometricInterpretation")
    size = int.from_bytes(length, "little" if syntax.is_little_endian else "big")
    return PixelData(file.tell(), None if syntax.is_compressed else size, syntax, tuple(options.items()))


def is_as_stated(syntax: UID, dataset: Dataset) -> bool:
    """Whether a dataset is not deflated, and its elements have the encoding that its transfer syntax states.

    pydicom reads it where they have not; whoever goes by the transfer syntax reads something else.
    """
    return bool(syntax) and not syntax.is_deflated and dataset.original_encoding[0] == syntax.is_implicit_VR
