"""Data sets of tiny slices, made without files."""

import hashlib
from collections.abc import Mapping

import numpy as np

from training.dataset import BACKGROUND, LabelledSlices
from training.sources import CLASSES


def labelled_slices(
    counts: Mapping[str, Mapping[str, int]],
    *,
    size: int = 32,
    background: tuple[str, ...] = (),
    seed: int = 0,
    phantoms: bool = False,
) -> LabelledSlices:
    """Return slices as {class: {patient: how many}}. UIP is bright, all others dark, with noise."""
    rng = np.random.default_rng(seed)
    kinds = [kind for kind, patients in counts.items() for number in patients.values() for _ in range(number)]
    patients = [name for each in counts.values() for name, number in each.items() for _ in range(number)]
    classes = tuple(name for name in CLASSES if name in counts and name not in background)
    densities = rng.normal(-800, 60, (len(kinds), size, size))
    densities[np.array(kinds) == "UIP"] += 300
    images = densities.astype(np.int16)
    return LabelledSlices(
        classes=classes,
        images=images,
        kinds=np.array(kinds),
        labels=np.array([classes.index(kind) if kind in classes else BACKGROUND for kind in kinds]),
        patients=np.array(patients),
        exams=np.array(patients),
        boxes=np.tile(np.array([4, 4, size - 4, size - 4], np.int32), (len(kinds), 1)),
        phantoms=np.full(len(kinds), phantoms),
        digests=tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in images),
        skipped=(),
    )


def of_the_study(size: int = 8) -> LabelledSlices:
    """Return 813 NSIP and 333 UIP slices of eight patients."""
    nsip = {"n1": 203, "n2": 203, "n3": 203, "n4": 204}
    uip = {"u1": 83, "u2": 83, "u3": 83, "u4": 84}
    return labelled_slices({"UIP": uip, "NSIP": nsip}, size=size)
