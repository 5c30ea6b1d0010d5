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
from pacs.pixels import Decoded, decode, in_order
from pacs.selection import Selection, may_be_selected
from pacs.series import Series, SeriesReader, SourceSlice, read_series

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
    """One pass over the files of a series. `choose` says which of its slices are looked at, and may raise Rejected.

    careful: each slice is decoded in a process of its own, and none before all headers are read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocessing: Preprocessing,
        choose: Callable[[Series], Selection],
        *,
        careful: bool = False,
    ) -> None:
        self._paths, self._preprocessing, self._choose, self._careful = paths, preprocessing, choose, careful
        self._selection: Selection | None = None

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
        for first in sources:
            yield from in_order(
                lambda source: prepare(decode(source), self._preprocessing),
                chain([first], sources),
                threads=_threads(first),
            )

    def _chosen(self) -> Sequence[SourceSlice]:
        self._selection = self._choose(read_series(self._paths))
        return self._selection.slices

    def _as_they_come(self) -> Iterator[SourceSlice]:
        """Yield some images while headers are read, and then, of those that are selected, the rest."""
        reader, begun = SeriesReader(), set()
        for number, path in enumerate(self._paths):
            images = reader.read(path)
            if number % _HEADERS_A_SLICE == 0 and images and may_be_selected(images[0]):
                begun.add(images[0])
                yield images[0]
        self._selection = self._choose(reader.series())
        yield from (image for image in self._selection.slices if image not in begun)


def _threads(image: SourceSlice) -> int:
    """How many threads prepare slices like this one: all cores where decoding takes longer than the network does.

    Otherwise half of them are more than enough, and each one more keeps the interpreter from the others.
    """
    cores = os.cpu_count() or 1
    return cores if image.pixels is None or image.pixels.syntax.is_compressed else max(1, cores // 2)
