"""Nobody helps to calibrate a model whom its weights have learned from, whichever way it was made."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, open_bundle
from tests.bundles import SIZE, make_bundle, patients, tiny_data
from tests.slices import labelled_slices
from training.calibration import UncalibratedError
from training.dataset import LabelledSlices
from training.guarding import guard_bundle
from training.recipe import Observer
from training.retraining import retrain, split
from training.sides import Sides


def by_lot(data: LabelledSlices, seed: int) -> LabelledSlices:
    """Return the data with labels of patients drawn by lot: they say nothing."""
    rng = np.random.default_rng(seed)
    names = np.unique(data.patients)
    labels = dict(zip(names.tolist(), rng.permutation(np.arange(len(names)) % 2).tolist(), strict=True))
    drawn = np.array([labels[name] for name in data.patients.tolist()])
    return replace(data, labels=drawn, kinds=np.array(data.classes)[drawn])


def candidate(active: Bundle, data: LabelledSlices, folder: Path) -> Bundle:
    made, _held_out = retrain(
        active, data, folder / "candidate", folder / "features", version="2", fine_tune="last", epochs=20,
        command="reticula retrain", observer=Observer(), battery=0,
    )  # fmt: skip
    return made


def test_whom_the_parent_learned_from_calibrates_nothing(tmp_path: Path) -> None:
    """Labels by lot: the parent knows its own by heart, and says nothing true of anybody else."""
    few = by_lot(tiny_data(12), 1)
    active = make_bundle(tmp_path / "active", few, epochs=40, rate=1e-2)
    assert active.description.guard is not None
    assert active.description.guard.limits is None
    more = by_lot(labelled_slices({f"{kind}": {f"new-{kind}-{n}": 4 for n in range(20)} for kind in ("UIP", "NSIP")},
                                  size=SIZE, seed=9), 2)  # fmt: skip
    arrays: Any = {
        name: np.concatenate([getattr(few, name), getattr(more, name)])
        for name in ("images", "kinds", "labels", "patients", "exams", "boxes", "phantoms")
    }
    both = replace(few, **arrays, digests=(*few.digests, *more.digests))
    held = sum(Sides.of(active).side(name) == "test" for name in set(more.patients.tolist()))
    assert held
    try:
        later = candidate(active, both, tmp_path / "later").description.guard
    except UncalibratedError:
        return  # nothing is made of labels that say nothing
    assert later is not None
    assert sum(later.patients.values()) <= 40 - held
    assert later.limits is None


def test_folds_of_a_retraining_test_new_patients_alone(tmp_path: Path) -> None:
    from training.retraining import _folds

    active = make_bundle(tmp_path / "active", tiny_data(6))
    data = labelled_slices(
        {kind: {**{f"{kind}-{n}": 4 for n in range(6)}, **{f"new-{kind}-{n}": 4 for n in range(30)}}
         for kind in ("UIP", "NSIP")}, size=SIZE,
    )  # fmt: skip
    sides = Sides.of(active)
    parts = split(data, sides)
    folds = _folds(data, parts, sides, 0)
    tested = {name for fold in folds for name in data.patients[fold.test].tolist()}
    held = set(data.patients[parts.test].tolist())
    assert tested
    assert held
    assert all(name.startswith("new-") for name in tested)
    assert not tested & held
    learned = {name for fold in folds for name in data.patients[fold.training].tolist()}
    assert set(patients(("UIP",), 6)["UIP"]) <= learned


def test_a_guard_is_made_from_strangers_who_are_never_held_out_again(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle", tiny_data(6), epochs=20, rate=1e-2)
    strangers = labelled_slices(
        {kind: {**{f"{kind}-{n}": 4 for n in range(6)}, **{f"new-{kind}-{n}": 4 for n in range(25)}}
         for kind in ("UIP", "NSIP")}, size=SIZE, seed=4,
    )  # fmt: skip
    made = guard_bundle(bundle, tmp_path / "guarded", strangers, version="2", battery=0)
    description = open_bundle(made.folder).description
    assert description.guard is not None
    assert description.guard.patients == {"UIP": 25, "NSIP": 25}
    main = description.metrics["patient"]
    assert main["test_patients"] == main["exams"]["exams"] == 50
    assert main["temperature"] == description.temperature
    before, after = Sides.of(bundle), Sides.of(made)
    asked = {name for name in strangers.patients.tolist() if name.startswith("new-")}
    assert before.learned_from(asked) == 0
    assert after.learned_from(asked) == 50
    # Asked again with the same exams nobody is left whom it does not know.
    with pytest.raises(Exception, match="fewer than two patients"):
        guard_bundle(made, tmp_path / "again", strangers, version="3", battery=0)
