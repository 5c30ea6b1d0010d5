"""What is drawn: the report's own content, the curve along the body, and the pixels of the key slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from models.lung_mask import find_lungs
from models.resizing import spread
from pacs.errors import Unreadable
from pacs.head import read_head
from pacs.pixels import hounsfield
from pacs.report import KeySlice, ReportedExam
from pacs.series import read_slices
from worker.tables import Classification, SliceResult

_INPUT = 512  # what the activation maps are spread over; only proportions count


@dataclass(frozen=True)
class Curve:
    """The slices of an exam from foot to head. positions in mm; probabilities (slices, classes), NaN where none.

    lung: part of each slice that is lung, 0 to 1.
    """

    positions: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    lung: NDArray[np.float64]


@dataclass(frozen=True)
class ShownSlice:
    """A key slice. hu: (rows, columns).

    activation: of the same shape, what speaks for the likeliest class within the lungs, 0 elsewhere; None without one.
    """

    key: KeySlice
    position_mm: float
    hu: NDArray[np.int16]
    activation: NDArray[np.float32] | None


@dataclass(frozen=True)
class Material:
    """All that a page shows. slices: from foot to head."""

    exam: ReportedExam
    curve: Curve
    slices: tuple[ShownSlice, ...]

    @property
    def likeliest(self) -> int:
        """The index of the class that the activation speaks for."""
        return max(range(len(self.exam.classes)), key=lambda index: self.exam.classes[index].probability)


def gather(session: Session, row: Classification, exam: ReportedExam, files: Mapping[str, Path]) -> Material:
    """Gather the material of an exam. files: by SOP Instance UID. Raises OSError, Unreadable."""
    slices = list(
        session.scalars(
            select(SliceResult).where(SliceResult.classification_id == row.id).order_by(SliceResult.position)
        )
    )
    names = [known.name for known in exam.classes]
    curve = Curve(
        positions=np.array([image.position_mm or 0.0 for image in slices]),
        probabilities=np.array([_values(image, names) for image in slices]),
        lung=np.array([image.lung_fraction or 0.0 for image in slices]),
    )
    keys = {(key.instance.sop_uid, key.frame): key for key in exam.key_slices}
    shown = [
        _shown(image, keys[image.sop_uid, image.frame], files[image.sop_uid], evident=exam.committed)
        for image in slices
        if (image.sop_uid, image.frame) in keys
    ]
    return Material(exam, curve, tuple(shown))


def _values(image: SliceResult, names: Sequence[str]) -> list[float]:
    return [float("nan") if image.probabilities is None else image.probabilities[name] for name in names]


def _shown(image: SliceResult, key: KeySlice, path: Path, *, evident: bool) -> ShownSlice:
    """Return a key slice; `evident`: whether there is a verdict to show evidence for."""
    sources = [source for source in read_slices(read_head(path), path) if source.frame == image.frame]
    if not sources:
        raise Unreadable(f"{path.name} does not hold the slice that was classified.")
    hu, activation = hounsfield(sources[0]), None
    if evident and image.activation is not None:
        values = np.array(image.activation, dtype=np.float32)
        # A map is much coarser than its slice: what of it lies beside the lungs is no evidence.
        lungs = find_lungs(hu, key.pixel_spacing).mask
        activation = spread(values, (hu.shape[0], hu.shape[1]), key.pixel_spacing, _INPUT) * lungs
    return ShownSlice(key, image.position_mm or 0.0, hu, activation)
