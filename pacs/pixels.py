"""From stored pixels to Hounsfield units, several slices at once, in order and without holding them all."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.pixels import get_decoder  # type: ignore[attr-defined]
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from pacs import codecs
from pacs.discreet import said
from pacs.elements import text
from pacs.errors import Unreadable
from pacs.head import read_parts
from pacs.pixel_data import PixelData, is_as_stated
from pacs.series import Rescale, SourceSlice

codecs.register()

# What lies outside the reconstructed circle counts as air.
PADDING_HU = -1024
# `US` is unspecified, as GDCM writes it when it transcodes: in a CT image that is HU (PS3.3 C.8.2.1.1.3).
_HOUNSFIELD = frozenset({"HU", "HU_MOD", "US"})
MAX_PIXELS = 4096 * 4096
_LOWEST, _HIGHEST = -32768, 32767  # of int16

Source = TypeVar("Source")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Decoded:
    """A slice's Hounsfield units, int16 of shape (rows, columns), or the sentence why there are none."""

    source: SourceSlice
    hu: NDArray[np.int16] | None
    error: str = ""


def hounsfield(source: SourceSlice) -> NDArray[np.int16]:
    """Decode one slice to Hounsfield units, int16 of shape (rows, columns).

    Photometric interpretation does not enter: MONOCHROME1 tells how to show the values, not what they mean
    (PS3.3 C.7.6.3.1.2), and the rescale gives Hounsfield units in both (C.11.1). Raises Unreadable.
    """
    if not 0 < source.rows * source.columns <= MAX_PIXELS:
        raise Unreadable(f"{source.rows}×{source.columns} pixels are outside what is decoded.")
    rescale = source.rescale
    if rescale is None or rescale.slope == 0:
        raise Unreadable("Rescale slope and intercept are missing or useless: no Hounsfield units.")
    if rescale.unit not in _HOUNSFIELD:
        raise Unreadable(f"The rescale gives {rescale.unit}, not Hounsfield units.")
    try:
        stored = stored_values(source.path, source.pixels, source.frame)
    except Exception as error:  # the decoders raise whatever they like on corrupt data
        raise Unreadable(f"The pixels cannot be decoded: {said(error)}.") from error
    if stored.shape != (source.rows, source.columns):
        raise Unreadable(f"The pixels have the shape {stored.shape}, the header says otherwise.")
    result = _rescaled(stored, rescale)
    if source.padding is not None:
        low, high = source.padding
        np.copyto(result, PADDING_HU, where=stored == low if low == high else (stored >= low) & (stored <= high))
    return result


def _rescaled(stored: NDArray[Any], rescale: Rescale) -> NDArray[np.int16]:
    """Stored values as whole Hounsfield units; what int16 cannot hold becomes the nearest that it can."""
    slope, intercept = rescale.slope, rescale.intercept
    if slope == 1 and intercept.is_integer() and stored.dtype.kind in "iu":  # as in nearly every CT
        lowest, highest = int(stored.min()) + intercept, int(stored.max()) + intercept
        if lowest >= _LOWEST and highest <= _HIGHEST:
            # What wraps on the way wraps back: the sum is known to fit.
            offset = np.array(int(intercept)).astype(np.int16)
            shifted: NDArray[np.int16] = np.add(stored, offset, dtype=np.int16, casting="unsafe")
            return shifted
    hu = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return np.clip(np.rint(hu, out=hu), _LOWEST, _HIGHEST, out=hu).astype(np.int16)


def stored_values(path: Path, data: PixelData | None, frame: int | None) -> NDArray[Any]:
    """Decode the stored values of an instance, or of one frame (from 1); they may be read-only.

    data: where they lie; None where only the whole file tells. Raises what pydicom and its decoders raise.
    """
    index = None if frame is None else frame - 1
    with path.open("rb") as file:
        if data is None:
            meta, dataset = read_parts(file)
            in_part = index is not None and is_as_stated(UID(text(meta, "TransferSyntaxUID")), dataset)
            return pixel_array(path if in_part else dcmread(path), index=index)
        file.seek(data.offset)
        options: dict[str, Any] = dict(data.options)
        # They are only read, and a copy takes as long as the file.
        options["view_only"] = options.get("bits_stored") == options.get("bits_allocated")
        # The whole value where there is one image in it: a decoder sees whether its length is right.
        source = file if frame is not None or data.length is None else file.read(data.length)
        stored: NDArray[Any] = get_decoder(data.syntax).as_array(source, index=index, **options)[0]
    return stored


def decode_all(sources: Sequence[SourceSlice], *, threads: int, ahead: int = 8) -> Iterator[Decoded]:
    """Decode the slices in `threads` threads and yield them in order, at most `ahead` of them waiting.

    A slice that cannot be decoded costs itself only: it comes with its error.
    """
    return in_order(decode, sources, threads=threads, ahead=ahead)


def in_order(
    work: Callable[[Source], Result], sources: Iterable[Source], *, threads: int, ahead: int = 8
) -> Iterator[Result]:
    """Do a piece of work for each source in `threads` threads; yield in order, at most `ahead` results waiting.

    One thread is the caller's own: it works when it is asked for the next result, and none waits.
    """
    if threads == 1:
        yield from map(work, sources)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="slices") as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for source in sources:
                waiting.append(pool.submit(work, source))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def decode(source: SourceSlice) -> Decoded:
    """Decode a slice; where that fails it comes with its error."""
    try:
        return Decoded(source, hounsfield(source))
    except Unreadable as error:
        return Decoded(source, None, str(error))
