"""The stage between queue and result: select, decode, mask, classify, decide. Slices stream; no volume is held."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import contourpy
import numpy as np
from numpy.typing import NDArray

from models.activation import contrast
from models.classifier import Classifier, SliceOutput
from models.lung_mask import lung_fraction, lung_mask
from models.preprocessing import Preprocessing
from models.resizing import fit
from models.verdict import ExamVerdict
from pacs.decoder import decode_apart
from pacs.errors import Rejected
from pacs.pixels import Decoded, decode, in_order
from pacs.report.content import polygon_area
from pacs.selection import Selection, select
from pacs.series import SeriesHeader, SourceSlice, read_series
from worker.version import __version__

KEY_SLICES = 6
_OUTLINE_POINTS = 100
_SMALLEST_OUTLINE = 0.04  # of the slice's lung: what is smaller is not drawn


@dataclass(frozen=True)
class ClassifiedSlice:
    """One slice of a classification; probabilities in the order of the classes, None where it was not classified.

    activation: of a key slice, over the network's input, the evidence for the exam's most probable class against the
    others; `models.resizing.spread` brings it over the slice.
    """

    source: SourceSlice
    lung_fraction: float | None
    probabilities: tuple[float, ...] | None
    note: str | None = None
    key_rank: int | None = None
    outlines: tuple[tuple[tuple[float, float], ...], ...] | None = None
    activation: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class ClassifiedExam:
    """What a model said of a series; `seconds` is what it took."""

    header: SeriesHeader
    slices: tuple[ClassifiedSlice, ...]
    verdict: ExamVerdict
    notes: tuple[str, ...]
    software: str
    precision: str
    seconds: float

    @property
    def classified(self) -> int:
        """How many slices went through the network."""
        return sum(image.probabilities is not None for image in self.slices)


def classify_series(
    paths: Iterable[Path],
    classifier: Classifier,
    *,
    min_slices: int,
    check_header: Callable[[SeriesHeader], None] = lambda _header: None,
    alive: Callable[[], None] = lambda: None,
    alive_seconds: float = 30.0,
    careful: bool = False,
) -> ClassifiedExam:
    """Classify the series in `paths`. Raises Rejected where it is not an axial chest CT with lungs.

    `check_header` may refuse the series by raising Rejected. `alive` is called while slices come through, about
    every `alive_seconds`, and may raise to end the work. `careful`: slices are decoded in a process of their
    own, since a worker has died of this series before.
    """
    started = time.monotonic()
    series = read_series(paths)
    check_header(series.header)
    selection = select(series, min_slices=min_slices)
    work = _Work(selection, classifier, alive, alive_seconds, careful=careful)
    slices = work.run()
    description = classifier.bundle.description
    if not work.outputs:
        if all(image.note for image in slices):
            raise Rejected("undecodable", f"No slice could be decoded. {(slices[0].note or '').rstrip('.')}.")
        raise Rejected("no_lungs", "No slice shows enough lung.")
    verdict = classifier.decide(work.outputs)
    corrupt = sum(image.note is not None for image in slices)
    notes = (*selection.notes, *([f"{corrupt} slices could not be decoded"] if corrupt else []))
    return ClassifiedExam(
        header=series.header,
        slices=tuple(_with_keys(slices, work, description.class_names, verdict)),
        verdict=verdict,
        notes=notes,
        software=__version__,
        precision=classifier.precision,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class PreparedSlice:
    """A slice before the network. lung_fraction: None with the sentence why it could not be decoded in `error`.

    fitted: int16 (size, size) in HU, and mask: the lungs' packed bits, where there is lung enough to classify it.
    """

    lung_fraction: float | None
    fitted: NDArray[np.int16] | None = None
    mask: NDArray[np.uint8] | None = None
    error: str | None = None


def prepare(decoded: Decoded, preprocessing: Preprocessing) -> PreparedSlice:
    """Find the lungs of a slice and, where they are large enough, bring it to the network's input."""
    spacing = decoded.source.pixel_spacing
    if decoded.hu is None or spacing is None:
        return PreparedSlice(None, error=decoded.error)
    mask = lung_mask(decoded.hu, spacing)
    fraction = lung_fraction(mask, spacing)
    if fraction < preprocessing.min_lung_fraction:
        return PreparedSlice(fraction)
    return PreparedSlice(fraction, fit(decoded.hu, spacing, preprocessing.size), np.packbits(mask))


class _Work:
    """One pass over a selection."""

    def __init__(
        self,
        selection: Selection,
        classifier: Classifier,
        alive: Callable[[], None],
        alive_seconds: float,
        *,
        careful: bool,
    ) -> None:
        self._alive_seconds, self._careful = alive_seconds, careful
        self._selection = selection
        self._classifier = classifier
        self._alive = alive
        self._last_sign = time.monotonic()
        self.masks: dict[int, NDArray[np.uint8]] = {}  # packed bits, by index of the slice
        self.outputs: list[SliceOutput] = []
        self.activations: dict[int, NDArray[np.float32]] = {}  # (classes, height, width), by index of the slice
        self._slices: dict[int, ClassifiedSlice] = {}

    def run(self) -> list[ClassifiedSlice]:
        for index, output in self._classifier.stream(self._inputs()):
            self.outputs.append(output)
            if output.activation is not None:
                self.activations[index] = output.activation
            seen = self._slices[index]
            values = tuple(float(value) for value in output.probabilities)
            self._slices[index] = ClassifiedSlice(seen.source, seen.lung_fraction, values)
        return [self._slices[index] for index in range(len(self._selection.slices))]

    def _inputs(self) -> Iterator[tuple[int, NDArray[np.int16]]]:
        preprocessing = self._classifier.bundle.description.preprocessing
        slices = self._selection.slices
        prepared = (
            (prepare(decoded, preprocessing) for decoded in decode_apart(slices))
            if self._careful
            else in_order(
                lambda source: prepare(decode(source), preprocessing), slices, threads=max(2, os.cpu_count() or 1)
            )
        )
        for index, (source, image) in enumerate(zip(slices, prepared, strict=True)):
            self._sign_of_life()
            fraction = None if image.lung_fraction is None else round(image.lung_fraction, 4)
            self._slices[index] = ClassifiedSlice(source, fraction, None, note=image.error)
            if image.fitted is not None and image.mask is not None:
                self.masks[index] = image.mask
                yield index, image.fitted

    def _sign_of_life(self) -> None:
        if time.monotonic() - self._last_sign > self._alive_seconds:
            self._alive()
            self._last_sign = time.monotonic()


def _with_keys(
    slices: list[ClassifiedSlice], work: "_Work", classes: tuple[str, ...], verdict: ExamVerdict
) -> Iterator[ClassifiedSlice]:
    """Mark the key slices and give them the outlines of their lungs and their activation."""
    likeliest = classes.index(max(verdict.probabilities, key=lambda name: verdict.probabilities[name]))
    ranks = {index: rank for rank, index in enumerate(_key_slices(slices, classes, verdict), start=1)}
    for index, image in enumerate(slices):
        if index not in ranks:
            yield image
            continue
        shape = image.source.rows, image.source.columns
        mask = np.unpackbits(work.masks[index], count=shape[0] * shape[1]).reshape(shape)
        maps = work.activations.get(index)
        shown = None if maps is None else tuple(map(tuple, contrast(maps, likeliest).round(3).tolist()))
        yield replace(image, key_rank=ranks[index], outlines=outlines(mask), activation=shown)


def _key_slices(slices: list[ClassifiedSlice], classes: tuple[str, ...], verdict: ExamVerdict) -> list[int]:
    """The most telling slices, the best first, spread over the lungs.

    Telling is a slice that speaks most clearly for the verdict; without a verdict, one that shows much lung.
    """
    candidates = [index for index, image in enumerate(slices) if image.probabilities is not None]
    apart = max(1, len(candidates) // (KEY_SLICES * 2))

    def telling(index: int) -> tuple[float, float, int]:
        image = slices[index]
        lungs = image.lung_fraction or 0.0
        if verdict.verdict not in classes or image.probabilities is None:
            return lungs, 0.0, -index
        # Ties, as between saturated probabilities, go to the slice with more lung.
        return round(image.probabilities[classes.index(verdict.verdict)], 2), lungs, -index

    chosen: list[int] = []
    for index in sorted(candidates, key=telling, reverse=True):
        if len(chosen) < KEY_SLICES and all(abs(index - other) >= apart for other in chosen):
            chosen.append(index)
    return chosen


def outlines(mask: NDArray[np.uint8]) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the outer borders of a mask (rows, columns) as polygons of (column, row), the largest first.

    Coordinates are those of PS3.3 C.10.5.1.2: (0.5, 0.5) is the middle of the first pixel.
    """
    padded = np.pad(mask, 1).astype(np.float32)
    lines, offsets = contourpy.contour_generator(z=padded, fill_type="OuterOffset").filled(0.5, np.inf)
    polygons = []
    for points, ends in zip(lines, offsets, strict=True):
        # Without the holes, and without the padding; the centre of a pixel lies half a pixel in.
        border = points[ends[0] : ends[1]] - 1 + 0.5
        polygons.append((polygon_area(border), border))
    polygons.sort(key=lambda polygon: -polygon[0])
    smallest = _SMALLEST_OUTLINE * float(mask.sum())
    kept = [border for area, border in polygons if area >= smallest] or [border for _area, border in polygons[:1]]
    return tuple(_thinned(border) for border in kept)


def _thinned(border: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    step = max(1, -(-len(border) // _OUTLINE_POINTS))
    return tuple((round(float(x), 1), round(float(y), 1)) for x, y in border[:-1:step])
