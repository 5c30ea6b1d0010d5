"""The pixel data of an instance: where they lie in its file, so that decoding does not read its elements again."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import get_decoder  # type: ignore[attr-defined]
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from pacs import codecs
from pacs.elements import integer, text

codecs.register()

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
    """Return where pixel data lie in a file that was read as far as them; None where they are not found there.

    So it is with deflated datasets, and with an extended offset table.
    """
    syntax = UID(text(meta, "TransferSyntaxUID"))
    if not syntax or syntax.is_deflated:
        return None
    start = file.read(8)
    if start[:4] != struct.pack("<HH" if syntax.is_little_endian else ">HH", *_PIXEL_DATA):
        return None
    options: dict[str, int | str] = {"number_of_frames": 1, "pixel_keyword": "PixelData"}
    length = start[4:]
    if not syntax.is_implicit_VR:  # its length comes after the value representation (PS3.5 7.1.2)
        options["pixel_vr"], length = start[4:6].decode("latin-1"), file.read(4)
    numbers = ((name, integer(dataset, keyword)) for name, keyword in _NUMBERS.items())
    options |= {name: number for name, number in numbers if number is not None}
    options["photometric_interpretation"] = text(dataset, "PhotometricInterpretation")
    size = int.from_bytes(length, "little" if syntax.is_little_endian else "big")
    return PixelData(file.tell(), None if syntax.is_compressed else size, syntax, tuple(options.items()))


def stored_values(path: Path, data: PixelData | None, frame: int | None) -> NDArray[Any]:
    """Decode the stored values of an instance, or of one frame (from 1). Raises what pydicom and its decoders raise."""
    index = None if frame is None else frame - 1
    if data is None:
        in_part = index is not None and not read_file_meta_info(path).TransferSyntaxUID.is_deflated
        return pixel_array(path if in_part else dcmread(path), index=index)
    with path.open("rb") as file:
        file.seek(data.offset)
        options: dict[str, Any] = dict(data.options)
        # They are only read, and a copy takes as long as the file.
        options["view_only"] = options.get("bits_stored") == options.get("bits_allocated")
        # The whole value where there is one image in it: a decoder sees whether its length is right.
        source = file if frame is not None or data.length is None else file.read(data.length)
        stored: NDArray[Any] = get_decoder(data.syntax).as_array(source, index=index, **options)[0]
    return stored
