"""Whether a series is an axial chest CT that can be classified, and which of its slices are looked at.

Choosing goes by header alone; whether lungs are in it is seen later, from the pixels.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from pacs.errors import Rejected
from pacs.series import CT_CLASSES, Series, SeriesHeader, SourceSlice

# Values of Image Type (PS3.3 C.8.2.1.1.1) that are no cross-section of the patient.
_LOCALIZERS = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM"})
_DERIVED = frozenset({"MIP", "MINIP", "MIN_IP", "MAXIP", "PROJECTION IMAGE", "VOLREN", "VRT", "SSD"})
_PAGES = frozenset({"DOSE_INFO", "DOSE INFO", "SCREEN SAVE", "SCREENSAVE", "REPORT", "PATIENT PROTOCOL"})

AXIAL_COSINE = 0.9  # |normal · z|: a gantry tilted by up to 25° still counts as axial
_SAME_POSITION_MM = 0.01


@dataclass(frozen=True)
class Note:
    """How many images are not among those that are looked at, and the code of the reason."""

    code: str
    count: int


@dataclass(frozen=True)
class Selection:
    """The slices to look at, from foot to head along the normal, and how many were left out and why."""

    header: SeriesHeader
    slices: tuple[SourceSlice, ...]
    notes: tuple[Note, ...]


def select(series: Series, *, min_slices: int) -> Selection:
    """Choose the slices to look at, ordered along the body. Raises Rejected with the reason.

    Localizers and pages within the series are left out. Of phases (breathing in and out, before and after contrast)
    the one with the most images stays; of images at one position the one from the largest acquisition, then the lowest
    instance number.
    """
    header = series.header
    slices = [image for image in series.slices if image.sop_class_uid in CT_CLASSES]
    notes = [Note("unreadable", len(series.unreadable))] if series.unreadable else []
    if header.modality != "CT" or not slices:
        raise Rejected("not_ct", f"The series is not CT but {header.modality or 'of no stated modality'}.")
    slices = _without(slices, _LOCALIZERS, "localizer", "The series holds localizers only.", notes)
    slices = _without(slices, _PAGES, "page", "The series holds dose or protocol pages only.", notes)
    slices = _without(slices, _DERIVED, "projection", "The series is a projection (such as MIP), not slices.", notes)
    if any(image.orientation is None or image.position is None or image.pixel_spacing is None for image in slices):
        raise Rejected("no_geometry", "Images lack position, orientation or pixel spacing.")
    orientations = np.array([image.orientation for image in slices])
    if np.abs(orientations - orientations[0]).max() > 0.01:
        raise Rejected("mixed_orientation", "The images of the series have more than one orientation.")
    normal = slices[0].normal
    if normal is None or abs(normal[2]) < AXIAL_COSINE:
        raise Rejected("not_axial", "The images are not axial.")
    ordered = _one_each_position(_one_phase(slices, notes), notes)
    if len(ordered) < min_slices:
        raise Rejected("too_few_slices", f"The series has {len(ordered)} slices; at least {min_slices} are needed.")
    return Selection(header, tuple(ordered), tuple(notes))


def may_be_selected(image: SourceSlice, header: SeriesHeader) -> bool:
    """Whether nothing in the headers of an image and its series keeps it from being looked at."""
    normal = image.normal
    return (
        header.modality == "CT"
        and image.sop_class_uid in CT_CLASSES
        and (_LOCALIZERS | _PAGES | _DERIVED).isdisjoint(image.image_type)
        and None not in (image.position, image.pixel_spacing)
        and normal is not None
        and abs(normal[2]) >= AXIAL_COSINE
    )


def _without(
    slices: list[SourceSlice], kinds: frozenset[str], code: str, sentence: str, notes: list[Note]
) -> list[SourceSlice]:
    kept = [image for image in slices if not kinds.intersection(image.image_type)]
    if not kept:
        raise Rejected(code, sentence)
    if len(kept) < len(slices):
        notes.append(Note(code, len(slices) - len(kept)))
    return kept


def _one_phase(slices: list[SourceSlice], notes: list[Note]) -> list[SourceSlice]:
    """Leave out phases: acquisitions that show mostly the same part of the body as a larger one.

    Acquisitions that follow each other along the body, down to one for each slice, belong together.
    """
    acquisitions: dict[tuple[int | None, int | None], list[SourceSlice]] = {}
    for image in slices:
        acquisitions.setdefault((image.temporal_position, image.acquisition_number), []).append(image)
    kept: list[SourceSlice] = []
    extents: list[tuple[float, float]] = []
    for key in sorted(acquisitions, key=lambda key: (-len(acquisitions[key]), key[0] or 0, key[1] or 0)):
        images = acquisitions[key]
        low, high = min(image.position_mm or 0.0 for image in images), max(image.position_mm or 0.0 for image in images)
        shared = sum(max(0.0, min(high, other_high) - max(low, other_low)) for other_low, other_high in extents)
        if high - low > 0 and shared > (high - low) / 2:
            continue
        kept.extend(images)
        extents.append((low, high))
    if len(kept) < len(slices):
        notes.append(Note("other_phase", len(slices) - len(kept)))
    return kept


def _one_each_position(slices: list[SourceSlice], notes: list[Note]) -> list[SourceSlice]:
    acquisitions = Counter(image.acquisition_number for image in slices)

    def order(image: SourceSlice) -> tuple[int, int, float, str]:
        position = round((image.position_mm or 0.0) / _SAME_POSITION_MM)
        number = image.instance_number if image.instance_number is not None else float("inf")
        return position, -acquisitions[image.acquisition_number], number, image.sop_uid

    kept: list[SourceSlice] = []
    for image in sorted(slices, key=order):
        if kept and abs((image.position_mm or 0.0) - (kept[-1].position_mm or 0.0)) < _SAME_POSITION_MM:
            continue
        kept.append(image)
    if len(kept) < len(slices):
        notes.append(Note("same_position", len(slices) - len(kept)))
    return kept
