"""Labelled slices: read from disk, brought to the network's input, and kept in one file of int16.

A data set is a folder for each class (`UIP/`, `NSIP/`; `PIU/` and `PINE/` are the same in Portuguese) of DICOM
series or of PNG and JPEG slices, or a folder of phantoms with its `truth.json`.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.lung_mask import lung_fraction, lung_mask
from models.preprocessing import Preprocessing
from models.resizing import fit
from pacs.errors import Rejected
from pacs.pixels import decode_all
from pacs.series import read_series, select
from training.errors import DatasetError

ALIASES = {"UIP": "UIP", "PIU": "UIP", "NSIP": "NSIP", "PINE": "NSIP"}
_PICTURES = frozenset({".png", ".jpg", ".jpeg"})
_MIN_SLICES = 1


@dataclass(frozen=True)
class Source:
    """One series, or one folder of pictures, with its class."""

    label: str
    files: tuple[Path, ...]
    pictures: bool


@dataclass(frozen=True)
class LabelledSlices:
    """The slices of a data set.

    images: int16 (slices, size, size) in HU, mapped from a file. labels: index into `classes`.
    patients, exams: name of the patient and the series of each slice. boxes: lungs as (top, left, bottom, right).
    skipped: (file or folder, why).
    """

    classes: tuple[str, ...]
    images: NDArray[np.int16]
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    exams: NDArray[np.str_]
    boxes: NDArray[np.int32]
    skipped: tuple[tuple[Path, str], ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.labels)


def find_sources(folder: Path) -> list[Source]:
    """List the series of a data set with their classes. Raises DatasetError where there is nothing to train on."""
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder: give the folder of the data set.")
    truth = folder / "truth.json"
    sources = _phantoms(folder, truth) if truth.is_file() else _class_folders(folder)
    classes = {source.label for source in sources}
    if len(classes) < 2:
        raise DatasetError(
            f"{folder} holds {'one class only: ' + classes.pop() if classes else 'no labelled slices'}; "
            "give a folder with UIP/ and NSIP/ in it."
        )
    return sources


def load(
    sources: list[Source],
    preprocessing: Preprocessing,
    *,
    threads: int = 2,
    progress: Callable[[int], None] = lambda _done: None,
) -> LabelledSlices:
    """Read the slices that show enough lung. `progress` is told the number of sources done."""
    classes = tuple(sorted({source.label for source in sources}, key=("UIP", "NSIP").index))
    digest, skipped = hashlib.sha256(), list[tuple[Path, str]]()
    rows: list[tuple[int, str, str, tuple[int, ...]]] = []
    with tempfile.TemporaryFile() as file:
        for done, source in enumerate(sources, start=1):
            for patient, exam, image, box in _slices(source, preprocessing, threads, skipped):
                content = image.tobytes()
                digest.update(content)
                file.write(content)
                rows.append((classes.index(source.label), patient, exam, box))
            progress(done)
        if not rows:
            raise DatasetError("No slice of the data set shows enough lung to train on.")
        file.flush()
        shape = (len(rows), preprocessing.size, preprocessing.size)
        images = np.memmap(file, dtype=np.int16, mode="r", shape=shape)
    labels, patients, exams, boxes = zip(*rows, strict=True)
    return LabelledSlices(
        classes=classes,
        images=images,
        labels=np.array(labels),
        patients=np.array(patients),
        exams=np.array(exams),
        boxes=np.array(boxes, dtype=np.int32),
        skipped=tuple(skipped),
        fingerprint=digest.hexdigest(),
    )


def _phantoms(folder: Path, truth: Path) -> list[Source]:
    try:
        exams = json.loads(truth.read_text(encoding="utf-8"))
        return [
            Source(ALIASES[exam["label"]], tuple(sorted((folder / exam["folder"]).glob("*.dcm"))), pictures=False)
            for exam in exams.values()
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{truth} does not name the class and folder of each series: {error!r}.") from error


def _class_folders(folder: Path) -> list[Source]:
    sources = []
    for child in sorted(folder.iterdir()):
        label = ALIASES.get(child.name.upper())
        if label is None or not child.is_dir():
            continue
        for holder in (child, *sorted(path for path in child.rglob("*") if path.is_dir())):
            files = sorted(path for path in holder.iterdir() if path.is_file())
            pictures = tuple(path for path in files if path.suffix.lower() in _PICTURES)
            others = tuple(path for path in files if path.suffix.lower() not in _PICTURES)
            if pictures:
                sources.append(Source(label, pictures, pictures=True))
            if others:
                sources.append(Source(label, others, pictures=False))
    return sources


_Row = tuple[str, str, NDArray[np.int16], tuple[int, ...]]


def _slices(
    source: Source, preprocessing: Preprocessing, threads: int, skipped: list[tuple[Path, str]]
) -> Iterator[_Row]:
    if source.pictures:
        yield from _pictures(source, preprocessing, skipped)
        return
    if not source.files:
        return
    folder = source.files[0].parent
    try:
        series = read_series(source.files)
        selection = select(series, min_slices=_MIN_SLICES)
    except Rejected as error:
        skipped.append((folder, str(error)))
        return
    skipped.extend(series.unreadable)
    patient = series.header.patient.patient_id or folder.name
    for decoded in decode_all(selection.slices, threads=threads):
        spacing = decoded.source.pixel_spacing
        if decoded.hu is None or spacing is None:
            skipped.append((decoded.source.path, decoded.error))
            continue
        mask = lung_mask(decoded.hu, spacing)
        if lung_fraction(mask, spacing) < preprocessing.min_lung_fraction:
            continue
        box = _box(fit(mask.astype(np.int16), spacing, preprocessing.size) > 0)
        yield patient, series.header.series_uid, fit(decoded.hu, spacing, preprocessing.size), box


def _pictures(source: Source, preprocessing: Preprocessing, skipped: list[tuple[Path, str]]) -> Iterator[_Row]:
    """Pictures carry a window already; black to white is taken as the window of the network."""
    low, high = preprocessing.window
    for path in source.files:
        try:
            with Image.open(path) as picture:
                grey = np.asarray(picture.convert("L"), dtype=np.float32)
        except (UnidentifiedImageError, OSError) as error:
            skipped.append((path, str(error)))
            continue
        hu = np.rint(low + grey / 255 * (high - low)).astype(np.int16)
        image = fit(hu, (1.0, 1.0), preprocessing.size)
        yield path.parent.name, path.parent.name, image, (0, 0, preprocessing.size, preprocessing.size)


def _box(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
