"""Every number of the study, and that no patient stands on both sides where none may."""

from collections import Counter

import numpy as np
import pytest
import torch

from models.architectures import build, parameter_count
from models.resizing import AIR_HU
from tests.slices import labelled_slices, of_the_study
from training.errors import DatasetError
from training.examples import augmented, whole
from training.fitting import Schedule
from training.protocols import balanced, patient_splits, study_split
from training.views import ROTATION_DEGREES, SYNTHETIC, WHOLE, View, render, views_of


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_study_draws_splits_and_multiplies_its_slices(seed: int) -> None:
    data = of_the_study()
    assert Counter(data.kinds.tolist()) == {"NSIP": 813, "UIP": 333}
    chosen = balanced(data, "undersample", seed)
    assert Counter(data.kinds[chosen].tolist()) == {"NSIP": 333, "UIP": 333}
    split = study_split(data, chosen, seed)
    assert [len(split.training), len(split.validation), len(split.test)] == [422, 110, 134]
    for part, each in ((split.training, 211), (split.validation, 55), (split.test, 67)):
        assert Counter(data.kinds[part].tolist()) == {"NSIP": each, "UIP": each}
    assert sorted(np.concatenate([split.training, split.validation, split.test])) == chosen.tolist()
    assert len(augmented(data, split.training, seed)) == 1688
    assert len(augmented(data, split.validation, seed)) == 440
    assert len(whole(split.test)) == 134


def test_the_loop_has_the_numbers_of_the_study() -> None:
    schedule = Schedule()
    assert (schedule.epochs, schedule.batch, schedule.learning_rate, schedule.weight_decay) == (30, 32, 1e-4, 1e-3)
    assert (schedule.pace, schedule.select) == ("constant", "accuracy")
    assert parameter_count(build("mobilenet_v2", 2)) == 2_226_434


def test_another_seed_draws_other_slices_and_the_same_one_the_same() -> None:
    data = of_the_study()
    first, again, other = (balanced(data, "undersample", seed) for seed in (3, 3, 4))
    assert first.tolist() == again.tolist() != other.tolist()


@pytest.mark.parametrize("slices", [20, 90, 1500])
def test_other_sizes_are_split_in_the_same_proportions(slices: int) -> None:
    data = labelled_slices({"UIP": {"a": slices}, "NSIP": {"b": slices}}, size=4)
    split = study_split(data, balanced(data, "undersample", 0), 0)
    assert len(split.test) == pytest.approx(2 * slices * 134 / 666, abs=1)
    assert len(split.validation) == pytest.approx(2 * slices * 110 / 666, abs=1)


def test_too_few_slices_for_the_study_are_a_clear_refusal() -> None:
    data = labelled_slices({"UIP": {"a": 2}, "NSIP": {"b": 2}}, size=4)
    with pytest.raises(DatasetError, match="too few"):
        study_split(data, balanced(data, "undersample", 0), 0)


def test_weights_instead_of_undersampling_use_every_slice() -> None:
    data = of_the_study()
    assert len(balanced(data, "weights", 0)) == len(balanced(data, "none", 0)) == 1146


def test_background_is_drawn_down_to_as_much_as_the_rest() -> None:
    data = labelled_slices({"UIP": {"a": 5}, "NSIP": {"b": 9}, "normal": {"c": 40}}, size=4, background=("normal",))
    chosen = balanced(data, "undersample", 0)
    assert Counter(data.kinds[chosen].tolist()) == {"UIP": 5, "NSIP": 5, "normal": 10}
    assert data.targets[data.kinds == "normal"].tolist() == [[0.5, 0.5]] * 40


@pytest.mark.parametrize(("patients", "folds"), [(2, 2), (4, 4), (9, 5), (30, 5)])
def test_patients_are_kept_whole_and_each_is_tested_once(patients: int, folds: int) -> None:
    data = labelled_slices(
        {"UIP": {f"u{n}": 3 for n in range(patients)}, "NSIP": {f"n{n}": 4 for n in range(patients)}}, size=4
    )
    splits = patient_splits(data, np.arange(len(data)), None, seed=5)
    assert len(splits) == folds
    for split in splits:
        sides = [set(data.patients[part].tolist()) for part in (split.training, split.validation, split.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))
        assert set(data.kinds[split.training].tolist()) == {"UIP", "NSIP"}
        assert len(np.concatenate([split.training, split.validation, split.test])) == len(data)
    if folds > 1:
        assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(data)))
    if folds > 2:
        assert sorted(np.concatenate([split.validation for split in splits])) == list(range(len(data)))


def test_one_patient_a_class_cannot_be_held_out() -> None:
    data = labelled_slices({"UIP": {"a": 5}, "NSIP": {"b": 5, "c": 5}}, size=4)
    with pytest.raises(DatasetError, match="--protocol study"):
        patient_splits(data, np.arange(len(data)), None, 0)


def test_synthetic_images_are_one_crop_one_mirror_image_and_one_rotation() -> None:
    for digest in (f"{number:064x}" for number in range(1, 3000, 7)):
        plain, crop, mirrored, turned = views_of(digest * 4, 3)
        assert plain == WHOLE
        top, left, side = crop.crop
        assert 0.8 <= side <= 0.95
        assert 0 <= min(top, left) <= max(top, left) <= 1 - side + 1e-4
        assert mirrored == View(mirrored=True)
        assert 0 < abs(turned.degrees) <= ROTATION_DEGREES
    assert SYNTHETIC == 3
    assert views_of("ab" * 32, 1) == views_of("ab" * 32, 1) != views_of("ab" * 32, 2)


def test_views_do_to_a_slice_what_they_say() -> None:
    _rows, columns = np.mgrid[:64, :64]
    image = (columns * 10 - 900).astype(np.int16)
    assert render(image, WHOLE) is image
    assert np.array_equal(render(image, View(mirrored=True)), image[:, ::-1])
    crop = render(image, View(crop=(0.25, 0.5, 0.5)))
    assert crop.shape == image.shape
    assert abs(int(crop[10, 0]) - int(image[0, 32])) <= 10
    assert abs(int(crop[10, -1]) - int(image[0, 63])) <= 10
    turned = render(np.full((64, 64), 50, np.int16), View(degrees=15.0))
    assert turned[32, 32] == 50
    assert turned[0, 0] == AIR_HU


def test_class_weights_even_out_the_classes() -> None:
    from training.learners import class_weights

    weights = class_weights(of_the_study(), np.arange(1146))
    assert torch.allclose(weights * torch.tensor([333.0, 813.0]), torch.tensor([573.0, 573.0]))
