"""From files to the network's inputs: slices are prepared while headers are still read, so that it never waits."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.lung_mask import Lungs, find_lungs
from models.preprocessing import Preprocessing
from models.resizing import fit
from pacs.decoder import decode_apart
from pacs.errors import Rejected
from pacs.pixels import Decoded, decode, in_order
from pacs.selection import Selection, may_be_selected
from pacs.series import Series, SeriesHeader, SeriesReader, SourceSlice, read_series

# The network takes longer for a slice than so many headers to be read.
_HEADERS_A_SLICE = 2


@dataclass(frozen=True)
class PreparedSlice:
    """A slice before the network. lung_fraction: None with the sentence why it could not be decoded in `error`.

    fitted: int16 (size, size) in HU, and its lungs, where there is lung enough to classify it.
    """

    source: SourceSlice
    lung_fraction: float | None
    fitted: NDArray[np.int16] | None = None
    lungs: Lungs | None = None
    error: str | None = None


def prepare(decoded: Decoded, preprocessing: Preprocessing) -> PreparedSlice:
    """Find the lungs of a slice and, where they are large enough, bring it to the network's input."""
    source, spacing = decoded.source, decoded.source.pixel_spacing
    if decoded.hu is None or spacing is None:
        return PreparedSlice(source, None, error=decoded.error)
    lungs = find_lungs(decoded.hu, spacing)
    fraction = lungs.fraction(spacing)
    if fraction < preprocessing.min_lung_fraction:
        return PreparedSlice(source, fraction)
    return PreparedSlice(source, fraction, fit(decoded.hu, spacing, preprocessing.size), lungs)


class Preparation:
    """One pass over the files of a series. `check` may refuse it by its header, `select` says what is looked at.

    Both may raise Rejected. careful: each slice is decoded in a process of its own, none before all headers are read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        *,
        check: Callable[[SeriesHeader], None],
        select: Callable[[Series], Selection],
        careful: bool = False,
    ) -> None:
        self._paths, self._preprocessing, self._careful = paths, preprocessing, careful
        self._check, self._select = check, select
        self._selection: Selection | None = None
        self._series: Series | None = None

    @property
    def series(self) -> Series:
        """The headers of all images, when all have come."""
        if self._series is None:
            raise RuntimeError("The slices were not asked for.")
        return self._series

    @property
    def selection(self) -> Selection:
        """The slices that are looked at, when all have come."""
        if self._selection is None:
            raise RuntimeError("The slices were not asked for.")
        return self._selection

    def slices(self) -> Iterator[PreparedSlice]:
        """Yield slices as they come: all that are selected, and some that turn out not to be. Raises Rejected."""
        if self._careful:
            yield from (prepare(decoded, self._preprocessing) for decoded in decode_apart(self._chosen()))
            return
        sources = self._as_they_come()
        first = next(sources, None)
        if first is None:
            return
        threads = _threads(first)
        yield from in_order(
            lambda source: prepare(decode(source), self._preprocessing),
            chain([first], sources),
            threads=threads,
            ahead=max(8, threads),
        )

    def _chosen(self) -> Sequence[SourceSlice]:
        series = read_series(self._paths)
        self._check(series.header)
        self._series, self._selection = series, self._select(series)
        return self._selection.slices

    def _as_they_come(self) -> Iterator[SourceSlice]:
        """Yield some images while headers are read, and then, of those that are selected, the rest.

        Nothing is begun of a series that its first header, or what came of it so far, keeps from being classified.
        """
        reader, begun = SeriesReader(), set[SourceSlice]()
        refused: Rejected | None = None
        checked = False
        orientation: object = None
        for number, path in enumerate(self._paths):
            images = reader.read(path)
            header = reader.header
            if header is None or not images:
                continue
            if not checked:
                checked, orientation = True, images[0].orientation
                try:
                    self._check(header)
                except Rejected as error:
                    refused = error
            if number % _HEADERS_A_SLICE or refused is not None or not reader.agrees:
                continue
            if images[0].orientation == orientation and may_be_selected(images[0], header):
                begun.add(images[0])
                yield images[0]
        series = reader.series()  # that it is of several patients is said first
        if refused is not None:
            raise refused
        self._series, self._selection = series, self._select(series)
        yield from (image for image in self._selection.slices if image not in begun)


def _threads(image: SourceSlice) -> int:
    """How many threads prepare slices like this one: all cores where decoding takes longer than the network does.

    Otherwise half of them are more than enough, and each one more keeps the interpreter from the others.
    """
    cores = os.cpu_count() or 1
    return cores if image.pixels is None or image.pixels.syntax.is_compressed else max(1, cores // 2)
