"""Exams for the measurements: phantoms that pass for patients, unknowns, and real CT, as the network gets them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.preprocessing import Preprocessing
from training.battery import KINDS
from training.dataset import LabelledSlices
from training.phantom.disease import DISEASES
from training.sources import CLASSES
from training.unknowns import Drawing, Images, draw_all, read_site

PREPROCESSING = Preprocessing()
_ALIASES = {"emphysema": "other", "consolidation": "other", "nodules": "other"}


@dataclass(frozen=True)
class ShownExam:
    """An exam as the network gets it. kind: what it shows; name: whose it is."""

    kind: str
    name: str
    images: Images


def draw(kinds: Mapping[str, int], seed: int) -> list[ShownExam]:
    """Draw so many exams of each kind; no other seed gives the same."""
    drawings = [Drawing(kind, seed + 97 * place, number) for place, (kind, count) in enumerate(kinds.items())
                for number in range(count)]  # fmt: skip
    drawn = draw_all(drawings, PREPROCESSING)
    return [
        ShownExam(each.condition, f"{each.condition}-{each.seed}-{each.exam}", images)
        for each, images in zip(drawings, drawn, strict=True)
    ]


def unknowns(each: int, seed: int) -> list[ShownExam]:
    """Draw so many of every kind that must not be named."""
    return draw(dict.fromkeys(KINDS, each), seed)


def known(each: int, seed: int) -> list[ShownExam]:
    """Draw so many UIP and NSIP phantoms."""
    return draw(dict.fromkeys(DISEASES, each), seed)


def real(folder: Path) -> list[ShownExam]:
    """Return the real series in a folder: none of them shows UIP or NSIP."""
    return [ShownExam("real CT", name, images) for name, images in read_site(folder, PREPROCESSING)]


def as_patients(exams: Sequence[ShownExam], labels: Mapping[str, str] | None = None) -> LabelledSlices:
    """Return exams as a data set of patients, one each. labels: what a reader said that is not the truth.

    Classes beside UIP and NSIP are background.
    """
    said = labels or {}
    rows = [
        (image, said.get(exam.name, _ALIASES.get(exam.kind, exam.kind)), exam.name)
        for exam in exams
        for image in exam.images
    ]
    kinds = np.array([kind for _image, kind, _name in rows])
    names = np.array([name for _image, _kind, name in rows])
    classes = tuple(name for name in CLASSES if name in DISEASES)
    images = np.array([image for image, _kind, _name in rows])
    side = images.shape[-1]
    return LabelledSlices(
        classes=classes,
        images=images,
        kinds=kinds,
        labels=np.array([classes.index(kind) if kind in classes else -1 for kind in kinds.tolist()]),
        patients=names,
        exams=names,
        boxes=np.tile(np.array([0, 0, side, side], dtype=np.int32), (len(rows), 1)),
        phantoms=np.zeros(len(rows), dtype=bool),
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images),
        skipped=(),
    )


def inverted(exams: Iterable[ShownExam]) -> dict[str, str]:
    """Return labels that are all the other one."""
    other = dict(zip(DISEASES, reversed(DISEASES), strict=True))
    return {exam.name: other[exam.kind] for exam in exams if exam.kind in other}


def at_random(exams: Sequence[ShownExam], part: float, seed: int) -> dict[str, str]:
    """Return labels of which this part is wrong (0.5: drawn by lot, as many of each class)."""
    rng = np.random.default_rng(seed)
    wrong: dict[str, str] = {}
    flipped = inverted(exams)
    for kind in DISEASES:
        of_kind = [exam.name for exam in exams if exam.kind == kind]
        for name in rng.permutation(of_kind)[: round(part * len(of_kind))].tolist():
            wrong[name] = flipped[name]
    return wrong
