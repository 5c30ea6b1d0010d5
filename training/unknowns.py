"""Exams that a model must not name, or must name rightly, as the network gets them: phantoms, and the site's own."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.lung_mask import find_lungs
from models.preprocessing import Preprocessing
from models.resizing import AIR_HU, fit
from pacs.errors import Rejected
from pacs.pixels import decode_all
from pacs.selection import select
from pacs.series import group_by_series, read_series
from training.phantom.slices import plan_exam, render

Images = list[NDArray[np.int16]]
SLICES = 8  # of an exam: as many as distances are measured over
ALTERATIONS = ("turned", "shifted", "blurred")
_FEW = 12  # exams: fewer are drawn before processes of their own have started


@dataclass(frozen=True)
class Drawing:
    """A phantom to be drawn: one of the conditions, a seed, its number."""

    condition: str
    seed: int
    exam: int


def draw_all(drawings: Sequence[Drawing], preprocessing: Preprocessing) -> Iterator[Images]:
    """Yield each phantom's slices with enough lung, int16 (size, size) in HU, in the order of the drawings.

    They are drawn on all cores, a few ahead of whoever takes them.
    """
    cores = os.cpu_count() or 1
    if len(drawings) < _FEW or cores == 1:
        yield from (_draw(drawing, preprocessing) for drawing in drawings)
        return
    with ProcessPoolExecutor(cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        ahead = 4 * cores
        waiting = [pool.submit(_draw, drawing, preprocessing) for drawing in drawings[:ahead]]
        try:
            for number in range(len(drawings)):
                yield waiting.pop(0).result()
                if number + ahead < len(drawings):
                    waiting.append(pool.submit(_draw, drawings[number + ahead], preprocessing))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _draw(drawing: Drawing, preprocessing: Preprocessing) -> Images:
    plan = plan_exam(drawing.condition, drawing.seed, drawing.exam, SLICES, lungs=True)
    spacing = plan.scan.pixel_spacing, plan.scan.pixel_spacing
    return _with_lung(((image.hu, spacing) for image in render(plan)), preprocessing)


def altered(images: Images, alteration: str, rng: np.random.Generator) -> Images:
    """Return the slices of one exam turned by 10 to 30°, shifted by 5 to 12 % of their side, or blurred."""
    size = images[0].shape[0] if images else 0
    if alteration == "turned":
        degrees = float(rng.choice([-1, 1]) * rng.uniform(10, 30))
        return [
            np.asarray(ndimage.rotate(image, degrees, reshape=False, order=1, cval=AIR_HU), dtype=np.int16)
            for image in images
        ]
    if alteration == "shifted":
        by = tuple((rng.choice([-1, 1], 2) * rng.uniform(0.05, 0.12, 2) * size).round().astype(int).tolist())
        return [np.asarray(ndimage.shift(image, by, order=0, cval=AIR_HU), dtype=np.int16) for image in images]
    sigma = float(rng.uniform(1.0, 2.0)) * size / 512
    return [np.asarray(ndimage.gaussian_filter(image, sigma), dtype=np.int16) for image in images]


def read_site(folder: Path, preprocessing: Preprocessing) -> Iterator[tuple[str, Images]]:
    """Yield series UID and slices of the exams in a folder that the site says are none of the model's business.

    An exam that is refused, or has no slice with enough lung, is never classified: it has no slices.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    groups, _unreadable = group_by_series(files)
    for paths in groups:
        try:
            series = read_series(paths)
            selection = select(series, min_slices=1)
        except Rejected:
            yield paths[0].parent.name, []
            continue
        decoded = decode_all(selection.slices, threads=os.cpu_count() or 1)
        shown = (
            (each.hu, each.source.pixel_spacing)
            for each in decoded
            if each.hu is not None and each.source.pixel_spacing is not None
        )
        yield series.header.series_uid, _with_lung(shown, preprocessing)


def _with_lung(slices: Iterable[tuple[NDArray[np.int16], tuple[float, float]]], preprocessing: Preprocessing) -> Images:
    return [
        fit(hu, spacing, preprocessing.size)
        for hu, spacing in slices
        if find_lungs(hu, spacing).fraction(spacing) >= preprocessing.min_lung_fraction
    ]
