"""Small bundles for tests: a network for slices of 32 × 32 that learned from tiny data, without files."""

import shutil
from dataclasses import replace
from pathlib import Path

from models.bundle import Bundle, open_bundle, seal_bundle
from tests.slices import labelled_slices
from training.battery import KINDS, Battery, Count
from training.dataset import LabelledSlices
from training.fitting import Schedule
from training.learners import Views
from training.recipe import Recipe, Run
from training.unknowns import ALTERATIONS
from training.weights import Start

SIZE = 32
# What a bundle holds that names nothing that it must not.
PASSED = Battery(0, {kind: Count(30, 0) for kind in KINDS}, {name: Count(60, 0) for name in ALTERATIONS}).as_json()


def patients(classes: tuple[str, ...], count: int, slices: int = 4) -> dict[str, dict[str, int]]:
    """Return `count` patients of each class."""
    return {name: {f"{name}-{number}": slices for number in range(count)} for name in classes}


def tiny_data(count: int = 24, seed: int = 0) -> LabelledSlices:
    """Return slices of `count` patients of each class."""
    return labelled_slices(patients(("UIP", "NSIP"), count), size=SIZE, seed=seed)


def make_bundle(
    folder: Path,
    data: LabelledSlices | None = None,
    *,
    epochs: int = 1,
    rate: float = 1e-4,
    int8: bool = False,
    answers: bool = True,
) -> Bundle:
    """Train the last layer of a random network for an epoch. answers: as if it had passed its battery."""
    recipe = Recipe(
        name="tiny", version="1", architecture="mobilenet_v2", start=Start("scratch"), protocol="patient",
        fine_tune="last", balance="none", folds=None, views=Views(),
        schedule=Schedule(epochs=epochs, learning_rate=rate), device="cpu", both=False, int8=int8, limits="For tests.",
        command="reticula train",
    )  # fmt: skip
    run = Run(recipe, tiny_data() if data is None else data, folder.parent / "features")
    bundle = run.train(folder).bundle
    return seal_bundle(bundle.folder, replace(bundle.description, battery=PASSED)) if answers else bundle


def another_version(bundle: Bundle, folder: Path, version: str, parent: str | None = None) -> Bundle:
    """Copy a bundle under another version."""
    shutil.copytree(bundle.folder, folder)
    seal_bundle(folder, replace(bundle.description, version=version, parent=parent))
    return open_bundle(folder)
