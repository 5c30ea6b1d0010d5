"""From stored pixels to Hounsfield units, several slices at once, in order and without holding them all."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from pacs.errors import Unreadable
from pacs.series import SourceSlice

# What lies outside the reconstructed circle counts as air.
PADDING_HU = -1024
MAX_PIXELS = 4096 * 4096


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
    try:
        dataset = dcmread(source.path)
        index = None if source.frame is None else source.frame - 1
        stored = pixel_array(dataset, index=index)
    except Exception as error:  # the decoders raise whatever they like on corrupt data
        raise Unreadable(f"The pixels cannot be decoded: {error}") from error
    if stored.shape != (source.rows, source.columns):
        raise Unreadable(f"The pixels have the shape {stored.shape}, the header says otherwise.")
    slope, intercept = _rescale(dataset, source.frame)
    hu = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    hu = np.clip(np.rint(hu, out=hu), -32768, 32767, out=hu)
    padding = _padding(dataset, stored)
    result = hu.astype(np.int16)
    if padding is not None:
        result[padding] = PADDING_HU
    return result


def decode_all(sources: Sequence[SourceSlice], *, threads: int, ahead: int = 8) -> Iterator[Decoded]:
    """Decode the slices in `threads` threads and yield them in order, at most `ahead` of them waiting.

    A slice that cannot be decoded costs itself only: it comes with its error.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[Future[Decoded]] = deque()
        try:
            for source in sources:
                waiting.append(pool.submit(_decode, source))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _decode(source: SourceSlice) -> Decoded:
    try:
        return Decoded(source, hounsfield(source))
    except Unreadable as error:
        return Decoded(source, None, str(error))


def _rescale(dataset: Dataset, frame: int | None) -> tuple[float, float]:
    holder = dataset if frame is None else _transformation(dataset, frame)
    if holder.get("RescaleType", "HU") not in ("HU", "HU_MOD", "", None):
        raise Unreadable(f"The rescale gives {holder.RescaleType}, not Hounsfield units.")
    try:
        slope, intercept = float(holder.RescaleSlope), float(holder.RescaleIntercept)
    except (AttributeError, TypeError, ValueError) as error:
        raise Unreadable("Rescale slope and intercept are missing: no Hounsfield units.") from error
    if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
        raise Unreadable(f"Rescale slope {slope} and intercept {intercept} give no Hounsfield units.")
    return slope, intercept


def _transformation(dataset: Dataset, frame: int) -> Dataset:
    """The Pixel Value Transformation macro (PS3.3 C.7.6.16.2.9) of a frame, its own or the shared one."""
    for groups in (dataset.PerFrameFunctionalGroupsSequence[frame - 1], *dataset.SharedFunctionalGroupsSequence):
        if groups.get("PixelValueTransformationSequence"):
            return groups.PixelValueTransformationSequence[0]  # type: ignore[no-any-return]
    raise Unreadable("The frame has no pixel value transformation: no Hounsfield units.")


def _padding(dataset: Dataset, stored: np.ndarray) -> NDArray[np.bool_] | None:  # type: ignore[type-arg]
    """Where padding stands (PS3.3 C.7.5.1.1.2), or None where the header names none."""
    value = dataset.get("PixelPaddingValue")
    if value is None:
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((int(value), int(value if limit is None else limit)))
    mask: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return mask
