"""Mask, input, verdict and bundle."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.bundle import open_bundle, seal_bundle
from models.classifier import Classifier
from models.errors import BundleError
from models.guard import Guard, conformal_limit
from models.lung_mask import Lungs, _median_is_above, block_mean, find_lungs
from models.resizing import fit
from models.verdict import Coverage, Exam, ExamVerdict, OperatingPoint, decide
from tests.unit.test_report import LUNGS
from training.phantom.disease import DISEASES
from training.phantom.slices import plan_exam, render
from worker.classification import outlines
from worker.registry import demo_bundle


@pytest.mark.parametrize("disease", DISEASES)
@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_mask_finds_healthy_and_diseased_lungs(disease: str, seed: int) -> None:
    plan = plan_exam(disease, seed, 0, slices=9)
    spacing = (plan.scan.pixel_spacing, plan.scan.pixel_spacing)
    for image in render(plan):
        lungs = find_lungs(image.hu, spacing)
        mask = lungs.mask.astype(bool)
        assert mask.shape == image.hu.shape
        if image.lungs.mean() < 0.05:
            assert lungs.fraction(spacing) < 0.2
            continue
        overlap = 2 * (mask & image.lungs).sum() / (mask.sum() + image.lungs.sum())
        # Honeycombs close to the pleura are partly taken for chest wall.
        assert overlap > (0.75 if disease == "UIP" else 0.9), f"z {image.z}: Dice {overlap:.2f}"


def test_no_body_no_lungs() -> None:
    for value in (-1024, 40):
        assert not find_lungs(np.full((300, 200), value, np.int16), (0.7, 0.7)).mask.any()


def test_a_spacing_that_cannot_be_costs_nothing() -> None:
    (image,) = render(plan_exam("NSIP", 3, 0, slices=1, lungs=True))
    for spacing in (1e-7, 1e-320):
        assert find_lungs(image.hu, (spacing, spacing)).mask.shape == image.hu.shape


def test_blocks_average_and_repeat_the_edge() -> None:
    image = np.arange(15, dtype=np.int16).reshape(3, 5)
    assert block_mean(image, 1).tolist() == image.tolist()
    assert block_mean(image, 2).tolist() == [[3, 5, 6.5], [10.5, 12.5, 14]]


@pytest.mark.parametrize("shape", [(512, 512), (1024, 1024), (256, 256), (512, 400), (768, 512), (333, 777)])
def test_any_matrix_becomes_the_input_with_its_proportions(shape: tuple[int, int]) -> None:
    spacing = (0.5, 0.5)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radius = min(shape) / 4
    disc = np.hypot(rows - shape[0] / 2, columns - shape[1] / 2) < radius
    image = np.where(disc, 40, -1000).astype(np.int16)
    result = fit(image, spacing, 512)
    assert result.shape == (512, 512)
    assert result.dtype == np.int16
    found = result > -480
    expected = 2 * radius * 512 / max(shape)
    assert found.any(axis=1).sum() == pytest.approx(expected, abs=3)
    assert found.any(axis=0).sum() == pytest.approx(expected, abs=3)


def test_pixels_that_are_not_square_keep_their_proportions() -> None:
    image = np.full((256, 512), 40, np.int16)
    assert (fit(image, (1.0, 0.5), 512) == 40).all()


def test_a_slice_that_fits_is_not_touched() -> None:
    image = np.random.default_rng(1).integers(-1000, 1000, (512, 512), dtype=np.int16)
    assert fit(image, (0.7, 0.7), 512) is image


CLASSES = ("UIP", "NSIP")
NEAR, FAR = np.array([1.0, 1.0]), np.array([9.0, 9.0])
PATIENTS = Guard("patients", {"UIP": 40, "NSIP": 40}, {"UIP": 2.0, "NSIP": 2.0})


@pytest.mark.parametrize(
    ("rows", "verdict", "certainty"),
    [
        ([[0.9, 0.1]] * 4, "UIP", 0.9),
        ([[0.2, 0.8]] * 4, "NSIP", 0.8),
        ([[0.55, 0.45]] * 4, "indeterminate", None),
        ([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9]], "indeterminate", None),
        ([[1.0, 0.0]] * 2, "indeterminate", None),
    ],
)
def test_verdict_and_abstention(rows: list[list[float]], verdict: str, certainty: float | None) -> None:
    decided = decide(CLASSES, Exam(np.array(rows), NEAR), OperatingPoint(commit=0.6, min_slices=3), PATIENTS)
    assert decided.verdict == verdict
    assert decided.certainty == (None if certainty is None else pytest.approx(certainty))
    assert decided.probabilities == pytest.approx(dict(zip(CLASSES, np.mean(rows, axis=0), strict=True)))
    assert sum(decided.called.values()) == len(rows)
    assert bool(decided.reason) == (verdict == "indeterminate")


def said_of(guard: Guard | None, **exam: Any) -> ExamVerdict:
    """Say what is said of an exam that is UIP without doubt, but for what is otherwise."""
    given = {"slices": np.tile([0.97, 0.03], (12, 1)), "distances": NEAR, **exam}
    return decide(CLASSES, Exam(**given), OperatingPoint(commit=0.6), guard)


def test_no_guard_and_no_limit_mean_that_nobody_is_known() -> None:
    assert said_of(PATIENTS).verdict == "UIP"
    assert said_of(None).reason_code == "unguarded"
    few = said_of(Guard("patients", {"UIP": 4, "NSIP": 19}))
    assert (few.verdict, few.reason_code, few.certainty) == ("indeterminate", "too_few_patients", None)
    assert "15 more of UIP, patients that it never learned from" in few.reason
    assert said_of(replace(PATIENTS, reproduces=True)).reason_code == "study_protocol"
    other = replace(PATIENTS, limits={"NSIP": 2.0})
    assert said_of(other).reason_code == "unfamiliar"


def test_a_model_of_phantoms_is_silent_about_whatever_does_not_say_that_it_is_one() -> None:
    demo = replace(PATIENTS, knows="phantoms")
    assert said_of(demo).reason_code == "demo_model"
    assert said_of(demo, phantom=True).verdict == "UIP"
    assert said_of(demo, phantom=True, distances=FAR).reason_code == "unfamiliar"


def test_what_is_far_from_its_class_is_strange_and_so_is_what_is_no_distance() -> None:
    assert said_of(PATIENTS, distances=np.array([2.01, 0.0])).reason_code == "unfamiliar"
    assert said_of(PATIENTS, distances=np.array([2.0, 9.0])).verdict == "UIP"
    assert said_of(PATIENTS, distances=np.array([np.nan, 0.0])).reason_code == "unfamiliar"


def test_a_verdict_needs_the_lungs_and_not_a_part_of_them() -> None:
    assert said_of(PATIENTS, coverage=Coverage(0.8, 100.0)).verdict == "UIP"
    few = said_of(PATIENTS, coverage=Coverage(5 / 53, 200.0))
    assert (few.verdict, few.reason_code) == ("indeterminate", "incomplete")
    assert "only 9%" in few.reason
    assert said_of(PATIENTS, coverage=Coverage(1.0, 60.0)).reason_code == "incomplete"
    # What is wrong with the exam is said before what is wrong with the model.
    assert said_of(None, coverage=Coverage(0.1)).reason_code == "incomplete"


def test_a_limit_needs_nineteen_patients_and_keeps_the_one_that_sets_it() -> None:
    distances = [1.62084 - 0.01 * number for number in range(19)]
    assert conformal_limit(distances[1:]) is None
    limit = conformal_limit(distances)
    assert limit is not None
    assert 1.62084 <= limit < 1.6210
    # The 39th of 40: one patient in twenty may lie beyond.
    assert conformal_limit([float(number) for number in range(1, 41)]) == 39.0


@pytest.mark.parametrize("block", [1, 2, 4])
def test_outlines_follow_the_lungs(block: int) -> None:
    blocks = np.zeros((180, 260), np.uint8)
    blocks[10:50, 20:40] = 1
    blocks[20:30, 25:30] = 0
    blocks[10:30, 60:70] = 1
    blocks[140:180, 220:260] = 1
    blocks[0, 259] = 1
    # The last blocks reach a pixel beyond the slice, where they are larger than one.
    rows, columns = (size * block - (block > 1) for size in blocks.shape)
    found = outlines(Lungs(np.packbits(blocks), (rows, columns)))
    expected = [(220, 140, 260, 180), (20, 10, 40, 50), (60, 10, 70, 30)]
    assert len(found) == len(expected)
    for polygon, corners in zip(found, expected, strict=True):
        left, top, right, bottom = (corner * block for corner in corners)
        x, y = np.array(polygon).T
        assert (x.min(), x.max()) == (pytest.approx(left), pytest.approx(min(right, columns)))
        assert (y.min(), y.max()) == (pytest.approx(top), pytest.approx(min(bottom, rows)))
        assert len(polygon) <= 101
    assert len(LUNGS) == 2


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize(("height", "drawn"), [(3, 1), (5, 2)])  # of a hundred, beside what has a hundred
def test_small_parts_of_the_lungs_are_not_drawn(block: int, height: int, drawn: int) -> None:
    blocks = np.zeros((256, 256), np.uint8)
    blocks[10:110, 20:120] = 1
    blocks[130 : 130 + height, 20:120] = 1
    assert len(outlines(Lungs(np.packbits(blocks), (256 * block, 256 * block)))) == drawn


@pytest.mark.parametrize("shape", [(1, 1), (513, 700), (100, 4096), (4097, 3), (5000, 4999)])
def test_outlines_stay_within_slices_of_any_shape(shape: tuple[int, int]) -> None:
    side = Lungs(np.zeros(0, np.uint8), shape).block
    blocks = np.ones([-(-size // side) for size in shape], np.uint8)
    (outline,) = outlines(Lungs(np.packbits(blocks), shape))
    columns, rows = np.array(outline).T
    assert 0 <= columns.min() < columns.max() <= shape[1]
    assert 0 <= rows.min() < rows.max() <= shape[0]
    assert outlines(Lungs(np.packbits(np.zeros_like(blocks)), shape)) == ()


def test_slices_however_they_lie_in_memory_give_the_same() -> None:
    (image,) = render(plan_exam("NSIP", 3, 0, slices=1, lungs=True))
    classifier = Classifier.open(demo_bundle())
    expected = classifier.probabilities([image.hu])
    sealed = image.hu.copy()
    sealed.flags.writeable = False
    mirrored, swapped = image.hu[:, ::-1].copy()[:, ::-1], image.hu.astype(">i2")
    others: list[Any] = [sealed, mirrored, np.asfortranarray(image.hu), swapped, image.hu.astype(np.float32)]
    for same in others:
        assert np.array_equal(classifier.probabilities([same]), expected)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_bundle(), tmp_path / "bundle"))


def test_the_demo_bundle_is_whole_small_and_says_how_it_was_made() -> None:
    opened = open_bundle(demo_bundle())
    description = opened.description
    assert description.class_names == ("UIP", "NSIP")
    assert "--from-scratch" in description.command
    assert description.command.startswith("reticula train")
    assert description.data["started_from"] == "random weights"
    assert "Knows phantoms only" in (demo_bundle() / "card.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in demo_bundle().iterdir()) < 10_000_000


def test_an_altered_bundle_does_not_open(bundle: Path) -> None:
    open_bundle(bundle)
    with (bundle / "network.bin").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01\x02\x03")
    with pytest.raises(BundleError, match="altered"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda manifest: manifest.update(format=1), "format 3"),
        (lambda manifest: manifest["files"].pop("network.xml"), "names no network.xml"),
        (lambda manifest: manifest["files"].update({"../x": "0"}), "outside the bundle"),
        (lambda manifest: manifest.pop("classes"), "incomplete"),
        (lambda manifest: manifest["preprocessing"].update(colour="red"), "incomplete"),
        (lambda manifest: manifest["guard"].update(knows="everybody"), "incomplete"),
        (lambda manifest: manifest["guard"]["limits"].update(UIP=float("nan")), "incomplete"),
        (lambda manifest: manifest.pop("guard"), "incomplete"),
        (lambda manifest: manifest.update(quantisation={}), "incomplete"),
        (lambda manifest: manifest.update(quantisation={"kept": True}), "no int8 network"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(bundle: Path, change: object, sentence: str) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    change(manifest)  # type: ignore[operator]
    (bundle / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=sentence):
        open_bundle(bundle)
    with pytest.raises(BundleError):
        open_bundle(bundle / "nowhere")


def test_slices_come_out_in_their_order_whatever_finished_first() -> None:
    classifier = Classifier.open(demo_bundle())
    rng = np.random.default_rng(0)
    slices = [rng.integers(-1000, 300, (512, 512), dtype=np.int16) for _ in range(7)]
    together = classifier.probabilities(slices)
    assert together.shape == (7, 2)
    assert np.allclose(together.sum(axis=1), 1, atol=1e-3)
    alone = np.concatenate([classifier.probabilities([image]) for image in slices])
    assert np.allclose(together, alone, atol=1e-6)
    assert classifier.precision in ("f32", "bf16", "f16")


@pytest.mark.parametrize("shape", [(512, 512), (513, 700), (511, 300), (1024, 1024)])
def test_lungs_have_the_area_of_their_mask(shape: tuple[int, int]) -> None:
    (image,) = render(plan_exam("NSIP", 3, 0, slices=1, lungs=True))
    spacing = (0.7, 0.7)
    hu = cv2.resize(image.hu, shape[::-1], interpolation=cv2.INTER_NEAREST)
    lungs = find_lungs(hu, spacing)
    assert lungs.mask.shape == shape
    assert 0 < lungs.fraction(spacing) == min(1, float(lungs.mask.sum()) * 0.7 * 0.7 / 40_000)


def test_the_middle_of_many_values_is_found_by_counting() -> None:
    rng = np.random.default_rng(1)
    for size in range(1, 40):
        values = rng.integers(-3, 4, (size, 1)).astype(np.float32)
        within = rng.integers(0, 2, (size, 1), dtype=np.uint8)
        within[0] = 1
        for limit in range(-4, 5):
            expected = np.median(values[within.astype(bool)]) > limit
            assert _median_is_above(limit, values, within) == expected


@pytest.mark.parametrize("shape", [(510, 257), (511, 511)])
def test_a_chequerboard_has_more_parts_than_16_bits_can_number(shape: tuple[int, int]) -> None:
    hu = np.where(np.indices(shape).sum(axis=0) % 2, 40, -900).astype(np.int16)
    assert not find_lungs(hu, (0.7, 0.7)).mask.any()


def test_a_bundle_of_the_format_before_opens_classifies_and_abstains_on_everything(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    manifest["format"] = 2
    for name in ("guard", "battery"):
        del manifest[name]
    manifest["operating_point"] = {"commit": 0.6, "min_slices": 3, "max_distance": None}
    (bundle / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    opened = open_bundle(bundle)
    assert opened.description.operating_point == OperatingPoint(commit=0.6, min_slices=3)
    for asked in (False, True):
        classifier = Classifier(opened, asked=asked)
        assert classifier.guard is None
        plan = plan_exam("UIP", 77, 0, 4, lungs=True)
        spacing = plan.scan.pixel_spacing, plan.scan.pixel_spacing
        images = [fit(image.hu, spacing, 512) for image in render(plan)]
        said = classifier.decide(output for _key, output in classifier.stream((None, image) for image in images))
        assert (said.verdict, said.reason_code, said.certainty) == ("indeterminate", "unguarded", None)
        assert sum(said.probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_a_bundle_that_nobody_asked_abstains_on_everything(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.description.guard is not None
    unasked = seal_bundle(bundle, replace(opened.description, battery=None))
    assert Classifier(unasked).guard is None
    assert Classifier(unasked, asked=True).guard == Classifier(opened).guard == opened.description.guard
