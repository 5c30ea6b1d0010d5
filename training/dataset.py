"""Labelled slices: read from their sources, brought to the network's input, and kept in one file of int16."""

import hashlib
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.lung_mask import find_lungs
from models.preprocessing import Preprocessing
from models.resizing import fit
from pacs.errors import Rejected
from pacs.pixels import decode_all
from pacs.selection import select
from pacs.series import group_by_series, read_series
from training.errors import DatasetError
from training.phantom import is_phantom
from training.skipped import Skipped
from training.sources import CLASSES, Source

BACKGROUND = -1  # in `labels`: a slice of no class, about which the network learns to be undecided
_MIN_SLICES = 1
# Pictures, volumes and archives that people keep slices in; whatever has another name may be DICOM.
_FOREIGN = frozenset(
    {".gif", ".webp", ".jp2", ".heic", ".svg", ".pdf", ".nii", ".gz", ".nrrd", ".mha", ".mhd", ".npy", ".npz", ".zip"}
)


@dataclass(frozen=True)
class ClassCount:
    """How much of a class was read."""

    name: str
    slices: int
    series: int
    patients: int


@dataclass(frozen=True)
class LabelledSlices:
    """The slices of a data set.

    images: int16 (slices, size, size) in HU, mapped from a file. kinds: the name of what each slice was labelled;
    labels: index into `classes`, or BACKGROUND. patients, exams: name of the patient and the series of each slice.
    phantoms: whether every image of its series says that it shows a phantom.
    boxes: lungs as (top, left, bottom, right). digests: sha256 of each image. skipped: (file or folder, why).
    """

    classes: tuple[str, ...]
    images: NDArray[np.int16]
    kinds: NDArray[np.str_]
    labels: NDArray[np.int64]
    patients: NDArray[np.str_]
    exams: NDArray[np.str_]
    boxes: NDArray[np.int32]
    phantoms: NDArray[np.bool_]
    digests: tuple[str, ...]
    skipped: tuple[tuple[Path, str], ...]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all slices and their classes, whatever their order."""
        lines = sorted(f"{digest} {kind}" for digest, kind in zip(self.digests, self.kinds, strict=True))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """What the network shall say, (slices, classes): certainty, or of the background as much of each class."""
        targets = np.full((len(self), len(self.classes)), 1 / len(self.classes), dtype=np.float32)
        named = self.labels != BACKGROUND
        targets[named] = np.eye(len(self.classes), dtype=np.float32)[self.labels[named]]
        return targets

    def counts(self) -> list[ClassCount]:
        """Return what was read of each class."""
        kinds = sorted(set(self.kinds.tolist()), key=CLASSES.index)
        rows = [(kind, self.kinds == kind) for kind in kinds]
        return [
            ClassCount(kind, int(of.sum()), len(set(self.exams[of])), len(set(self.patients[of]))) for kind, of in rows
        ]


@dataclass(frozen=True)
class _Row:
    patient: str
    exam: str
    image: NDArray[np.int16]
    box: tuple[int, ...]
    origin: Path
    phantom: bool = False


def load(
    sources: Sequence[Source],
    preprocessing: Preprocessing,
    *,
    background: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    threads: int = 2,
    progress: Callable[[int], None] = lambda _done: None,
) -> LabelledSlices:
    """Read the slices that show enough lung. `progress` is told the number of sources done.

    The classes in `background` are not named by the network. `classes`: those of a network that learned already; all
    others are background. Raises DatasetError where there are not two classes to tell apart, or where one slice stands
    under two patients or classes.
    """
    kinds_found = {source.label for source in sources}
    if classes is None:
        classes = tuple(name for name in CLASSES if name in kinds_found and name not in background)
        if len(classes) < 2:
            raise DatasetError(
                f"The data set holds {f'one class only ({classes[0]})' if classes else 'no class'}: two are needed to "
                "tell apart, as in a folder with UIP/ and NSIP/."
            )
    expected = [name for name in classes if name in kinds_found]
    skipped = Skipped()
    rows: list[tuple[str, str, str, tuple[int, ...], bool, str]] = []
    seen: dict[str, _Seen] = {}
    holders: dict[str, str] = {}
    with tempfile.TemporaryFile() as file:
        # What outweighs the rest is read first: the rest's own word for the same slices is passed over.
        for done, source in enumerate(sorted(sources, key=lambda each: not each.outweighs), start=1):
            skipped.of(source.label)
            for row in _slices(source, preprocessing, threads, skipped):
                content = row.image.tobytes()
                digest = hashlib.sha256(content).hexdigest()
                if holders.setdefault(row.exam, row.patient) != row.patient:
                    raise DatasetError(f"The series of {row.origin} stands under two patients: one is wrong.")
                if digest in seen:
                    _check_same(row, source, seen[digest])
                    skipped.add(row.origin, "the same slice was read before")
                    continue
                seen[digest] = _Seen(source.label, row.patient, row.origin, source.outweighs)
                file.write(content)
                rows.append((source.label, row.patient, row.exam, row.box, row.phantom, digest))
            progress(done)
        if not rows:
            raise DatasetError(f"No slice of the data set can be learned from: {skipped.reasons()}.")
        file.flush()
        shape = (len(rows), preprocessing.size, preprocessing.size)
        images = np.memmap(file, dtype=np.int16, mode="r", shape=shape)
    kinds, patients, exams, boxes, phantoms, digests = zip(*rows, strict=True)
    missing = [name for name in expected if name not in kinds]
    if missing:
        reasons = " ".join(f"Of {name}: {skipped.reasons(name)}." for name in missing)
        raise DatasetError(f"No slice of {', '.join(missing)} can be learned from. {reasons}")
    return LabelledSlices(
        classes=tuple(classes),
        images=images,
        kinds=np.array(kinds),
        labels=np.array([classes.index(kind) if kind in classes else BACKGROUND for kind in kinds]),
        patients=np.array(patients),
        exams=np.array(exams),
        boxes=np.array(boxes, dtype=np.int32),
        phantoms=np.array(phantoms),
        digests=digests,
        skipped=tuple(skipped.listed),
    )


@dataclass(frozen=True)
class _Seen:
    label: str
    patient: str
    origin: Path
    outweighs: bool


def _check_same(row: _Row, source: Source, known: _Seen) -> None:
    """What outweighs may correct the class of a slice, never whose it is: that decides who is held out."""
    corrected = known.outweighs and not source.outweighs
    if row.patient != known.patient or (source.label != known.label and not corrected):
        raise DatasetError(
            f"{row.origin} and {known.origin} are the same slice under two patients or classes: one is wrong."
        )


def several_names(data: LabelledSlices) -> list[str]:
    """Return the patients who stand under more than one class: rarely meant."""
    kinds = Counter(patient for patient, _kind in set(zip(data.patients.tolist(), data.kinds.tolist(), strict=True)))
    return sorted(patient for patient, count in kinds.items() if count > 1)


def _slices(source: Source, preprocessing: Preprocessing, threads: int, skipped: Skipped) -> Iterator[_Row]:
    if source.pictures:
        yield from _pictures(source, preprocessing, skipped)
        return
    foreign = [path for path in source.files if path.suffix.lower() in _FOREIGN]
    skipped.extend((path, f"{path.suffix.lower()} is not read: give DICOM, or PNG of 8 bits") for path in foreign)
    groups, unreadable = group_by_series(path for path in source.files if path not in foreign)
    skipped.extend(unreadable)
    for paths in groups:
        yield from _series(source, paths, preprocessing, threads, skipped)


def _series(
    source: Source,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    threads: int,
    skipped: Skipped,
) -> Iterator[_Row]:
    folder = paths[0].parent
    try:
        series = read_series(paths)
        selection = select(series, min_slices=_MIN_SLICES)
    except Rejected as error:
        skipped.add(folder, str(error))
        return
    skipped.extend(series.unreadable)
    patient = unicodedata.normalize("NFC", source.patient or series.header.patient.patient_id)
    if not patient:
        raise DatasetError(
            f"The series in {folder} names no patient: without one nobody knows whose slices are on which side of a "
            "split. Write a table with the columns path, label, patient."
        )
    phantom = is_phantom(series.header.series_uid, series.slices)
    for decoded in decode_all(selection.slices, threads=threads):
        spacing = decoded.source.pixel_spacing
        if decoded.hu is None or spacing is None:
            skipped.add(decoded.source.path, decoded.error)
            continue
        lungs = find_lungs(decoded.hu, spacing)
        if lungs.fraction(spacing) < preprocessing.min_lung_fraction:
            skipped.without_lung(decoded.source.path)
            continue
        box = _box(fit(lungs.mask.astype(np.int16), spacing, preprocessing.size) > 0)
        image = fit(decoded.hu, spacing, preprocessing.size)
        yield _Row(patient, series.header.series_uid, image, box, decoded.source.path, phantom)


def _pictures(source: Source, preprocessing: Preprocessing, skipped: Skipped) -> Iterator[_Row]:
    """Pictures carry a window already; black to white is taken as the window of the network."""
    low, high = preprocessing.window
    for path in source.files:
        try:
            with Image.open(path) as picture:
                reason = _unfit(picture)
                if reason:
                    skipped.add(path, reason)
                    continue
                grey = np.asarray(picture.convert("L"), dtype=np.float32)
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
            skipped.add(path, str(error))
            continue
        hu = np.rint(low + grey / 255 * (high - low)).astype(np.int16)
        image = fit(hu, (1.0, 1.0), preprocessing.size)
        patient = unicodedata.normalize("NFC", source.patient or path.parent.name)
        # Folders are often numbered anew in each class: the class belongs to the name.
        yield _Row(patient, f"{source.label} {patient} {path.parent.name}", image, (0, 0, *image.shape), path)


def _unfit(picture: Image.Image) -> str:
    """Say why a picture is no slice that a window was chosen for; empty where it may be one."""
    stored = " ".join(str(tile[3]) for tile in getattr(picture, "tile", ()))  # Pillow drops the low bytes of colours
    if picture.mode.startswith(("I", "F")) or "16" in stored:
        return "has more than 8 bits, which says nothing of its window: give the DICOM"
    if getattr(picture, "n_frames", 1) > 1:
        return "holds several pictures: write each slice into a file of its own"
    return ""


def _box(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
