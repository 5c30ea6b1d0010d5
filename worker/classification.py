"""The stage between queue and result: select, decode, mask, classify, decide. Slices stream; no volume is held."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import contourpy
import cv2
import numpy as np
from numpy.typing import NDArray

from models.activation import contrast
from models.classifier import Classifier, SliceOutput
from models.lung_mask import Lungs
from models.verdict import Coverage, ExamVerdict
from pacs.errors import Rejected
from pacs.report.content import polygon_area
from pacs.selection import Note, select
from pacs.series import SeriesHeader, SourceSlice
from training.phantom import is_phantom
from worker.preparation import Preparation, PreparedSlice
from worker.scheduling import computing
from worker.version import __version__

KEY_SLICES = 6
_SAME_POSITION_MM = 0.01
_HOLE = 1.8  # a step between slices that is so many times the usual one leaves slices out
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
    notes: tuple[Note, ...]
    software: str
    precision: str
    seconds: float

    @property
    def classified(self) -> int:
        """How many slices went through the network."""
        return sum(image.probabilities is not None for image in self.slices)


@computing()
def classify_series(
    paths: Iterable[Path],
    classifier: Classifier,
    *,
    min_slices: int,
    check_header: Callable[[SeriesHeader], None] = lambda _header: None,
    alive: Callable[[], None] = lambda: None,
    alive_seconds: float = 30.0,
    careful: bool = False,
    missing: int = 0,
) -> ClassifiedExam:
    """Classify the series in `paths`. Raises Rejected where it is not an axial chest CT with lungs.

    `check_header` may refuse the series by raising Rejected. `alive` is called while slices come through, about
    every `alive_seconds`, and may raise to end the work. `careful`: slices are decoded in a process of their
    own, since a worker has died of this series before. missing: how many images of the series are known not to have
    come.
    """
    started = time.monotonic()

    preparation = Preparation(
        tuple(paths),
        classifier.bundle.description.preprocessing,
        check=check_header,
        select=partial(select, min_slices=min_slices),
        careful=careful,
    )
    work = _Work(preparation, classifier, alive, alive_seconds)
    slices = work.run()
    selection = preparation.selection
    description = classifier.bundle.description
    if not work.outputs:
        if all(image.note for image in slices):
            raise Rejected("undecodable", f"No slice could be decoded. {(slices[0].note or '').rstrip('.')}.")
        raise Rejected("no_lungs", "No slice shows enough lung.")
    verdict = classifier.decide(
        work.outputs,
        phantom=is_phantom(selection.header.series_uid, preparation.series.slices),
        coverage=coverage(slices, missing + len(preparation.series.unreadable)),
    )
    corrupt = sum(image.note is not None for image in slices)
    notes = (*selection.notes, *([Note("undecoded", corrupt)] if corrupt else []))
    return ClassifiedExam(
        header=selection.header,
        slices=tuple(_with_keys(slices, work, description.class_names, verdict)),
        verdict=verdict,
        notes=notes,
        software=__version__,
        precision=classifier.precision,
        seconds=time.monotonic() - started,
    )


def coverage(slices: Sequence[ClassifiedSlice], missing: int) -> Coverage:
    """Return how much of the lungs was classified. missing: images that are not here, or are unreadable.

    What could not be decoded, or is not here, may show lung; so may what a hole between two slices leaves out.
    """
    classified = [image for image in slices if image.probabilities is not None]
    positions = np.array([image.source.position_mm for image in slices if image.source.position_mm is not None])
    within = np.array([image.source.position_mm or 0.0 for image in classified])
    if len(positions) < len(slices) or not classified:
        return Coverage(0.0, 0.0)
    between = positions[(positions >= within.min()) & (positions <= within.max())]
    unseen = sum(image.note is not None for image in slices) + max(missing, _holes(between))
    return Coverage(len(classified) / (len(classified) + unseen), float(within.max() - within.min()))


def _holes(positions: NDArray[np.float64]) -> int:
    """How many slices are missing between others, by the step from one to the next that a quarter of them exceed."""
    steps = np.diff(np.sort(positions))
    steps = steps[steps > _SAME_POSITION_MM]
    if not len(steps):
        return 0
    usual = float(np.quantile(steps, 0.75))
    return int(sum(round(step / usual) - 1 for step in steps if step > _HOLE * usual))


class _Work:
    """One pass of a series through the network."""

    def __init__(
        self, preparation: Preparation, classifier: Classifier, alive: Callable[[], None], alive_seconds: float
    ) -> None:
        self._preparation, self._classifier = preparation, classifier
        self._alive, self._alive_seconds = alive, alive_seconds
        self._last_sign = time.monotonic()
        self._prepared: dict[SourceSlice, PreparedSlice] = {}
        self._said: dict[SourceSlice, SliceOutput] = {}

    def run(self) -> list[ClassifiedSlice]:
        """Return the slices that were selected, from foot to head, with what the network says of them."""
        for source, output in self._classifier.stream(self._inputs()):
            self._said[source] = output
        return [self._classified(source) for source in self._preparation.selection.slices]

    @property
    def outputs(self) -> list[SliceOutput]:
        """What the network said of the slices that were selected and classified, in their order."""
        return [self._said[source] for source in self._preparation.selection.slices if source in self._said]

    def activation(self, source: SourceSlice) -> NDArray[np.float32] | None:
        """Where in a classified slice the evidence comes from: (classes, height, width)."""
        return self._said[source].activation

    def lungs(self, source: SourceSlice) -> Lungs:
        """The lungs of a classified slice."""
        found = self._prepared[source].lungs
        if found is None:
            raise ValueError("A slice without lungs is not classified.")
        return found

    def _inputs(self) -> Iterator[tuple[SourceSlice, NDArray[np.int16]]]:
        for image in self._preparation.slices():
            self._sign_of_life()
            self._prepared[image.source] = replace(image, fitted=None)
            if image.fitted is not None:
                yield image.source, image.fitted

    def _classified(self, source: SourceSlice) -> ClassifiedSlice:
        image, output = self._prepared[source], self._said.get(source)
        return ClassifiedSlice(
            source,
            None if image.lung_fraction is None else round(image.lung_fraction, 4),
            None if output is None else tuple(float(value) for value in output.probabilities),
            note=image.error,
        )

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
        maps = work.activation(image.source)
        shown = None if maps is None else tuple(map(tuple, contrast(maps, likeliest).round(3).tolist()))
        yield replace(image, key_rank=ranks[index], outlines=outlines(work.lungs(image.source)), activation=shown)


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


def outlines(lungs: Lungs) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the outer borders of the lungs of a slice as polygons of (column, row), the largest first.

    Coordinates are those of PS3.3 C.10.5.1.2: (0.5, 0.5) is the middle of the first pixel.
    """
    blocks, (rows, columns) = lungs.blocks, lungs.shape
    left, top, width, height = cv2.boundingRect(blocks)
    padded = np.pad(blocks[top : top + height, left : left + width], 1).astype(np.float64)
    lines, offsets = contourpy.contour_generator(z=padded, fill_type="OuterOffset").filled(0.5, np.inf)
    polygons = []
    for points, ends in zip(lines, offsets, strict=True):
        # Without the holes, and without the padding; the centre of a block lies half a block in.
        border = (points[ends[0] : ends[1]] - 1 + 0.5 + (left, top)) * lungs.block
        np.minimum(border, (columns, rows), out=border)  # the last blocks may reach beyond the slice
        polygons.append((polygon_area(border), border))
    polygons.sort(key=lambda polygon: -polygon[0])
    smallest = _SMALLEST_OUTLINE * float(blocks.sum()) * lungs.block**2
    kept = [border for area, border in polygons if area >= smallest] or [border for _area, border in polygons[:1]]
    return tuple(_thinned(border) for border in kept)


def _thinned(border: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    step = max(1, -(-len(border) // _OUTLINE_POINTS))
    return tuple((round(float(x), 1), round(float(y), 1)) for x, y in border[:-1:step])
