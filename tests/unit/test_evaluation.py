"""Figures of predictions against values worked out by hand or by other means."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, roc_auc_score

from models.familiarity import Familiarity, load_familiarity
from models.guard import Guard
from models.verdict import OperatingPoint
from training.calibration import (
    UncalibratedError,
    abstention_curve,
    calibrate,
    choose_operating_point,
    expected_calibration_error,
    fit_temperature,
)
from training.familiarity import fit_familiarity
from training.intervals import counting_by_class, counting_for, counting_in_pairs
from training.metrics import area_under_curve, brier_scores, exam_figures, slice_accuracy, slice_figures, with_interval
from training.outcomes import ExamOutcome, exam_verdicts
from training.predictions import Predictions

KNOWN = Guard("patients", {"UIP": 20, "NSIP": 20}, {"UIP": 2.0, "NSIP": 2.0})


def said(
    probabilities: list[float],
    kinds: list[str],
    patients: list[str] | None = None,
    distances: list[float] | None = None,
) -> Predictions:
    """Return predictions of UIP with these probabilities."""
    uip = np.clip(np.array(probabilities, dtype=np.float64), 1e-9, 1 - 1e-9)
    names = np.array(patients or [f"p{index}" for index in range(len(kinds))])
    return Predictions(
        classes=("UIP", "NSIP"),
        logits=np.log(np.stack([uip, 1 - uip], axis=1)),
        distances=np.tile(np.array(distances or [1.0] * len(kinds))[:, None], (1, 2)),
        indices=np.arange(len(kinds)),
        labels=np.array([{"UIP": 0, "NSIP": 1}.get(kind, -1) for kind in kinds]),
        kinds=np.array(kinds),
        patients=names,
        exams=names,
        phantoms=np.zeros(len(kinds), dtype=bool),
    )


def test_slice_figures_by_hand() -> None:
    # UIP: 3 right of 4; NSIP: 1 right of 2; a background slice counts nowhere.
    predictions = said([0.9, 0.8, 0.7, 0.4, 0.2, 0.6, 0.99], ["UIP"] * 4 + ["NSIP"] * 2 + ["normal"])
    figures = slice_figures(predictions, predictions)
    assert figures["slices"] == 6
    assert figures["accuracy"]["value"] == pytest.approx(4 / 6, abs=1e-4)
    assert figures["balanced_accuracy"]["value"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert figures["confusion"] == [[3, 1], [1, 1]]
    assert figures["sensitivity"] == {"UIP": 0.75, "NSIP": 0.5}
    assert figures["specificity"] == {"UIP": 0.5, "NSIP": 0.75}
    # Pairs of a UIP and an NSIP slice with the UIP one above: all 4 against 0.2, 3 against 0.6.
    assert figures["auc"]["value"] == pytest.approx(7 / 8)
    expected = np.mean([0.1**2, 0.2**2, 0.3**2, 0.6**2, 0.2**2, 0.6**2])
    assert figures["brier"]["value"] == pytest.approx(expected, abs=1e-4)
    json.dumps(figures, allow_nan=False)


def test_brier_scores_are_those_of_the_library() -> None:
    rng = np.random.default_rng(0)
    probability, labels = rng.random(50), rng.integers(0, 2, 50)
    ours = brier_scores(np.stack([1 - probability, probability], axis=1), labels)
    assert ours.mean() == pytest.approx(brier_score_loss(labels, probability))


def test_a_missing_class_gives_null_and_no_crash() -> None:
    predictions = said([0.9, 0.2], ["UIP", "UIP"])
    figures = slice_figures(predictions, predictions)
    assert slice_figures(said([0.9], ["normal"]), said([0.9], ["normal"])) == {"slices": 0}
    assert figures["auc"] == {"value": None, "low": None, "high": None}
    assert figures["sensitivity"] == {"UIP": 0.5, "NSIP": None}
    json.dumps(figures, allow_nan=False)


def test_calibration_error_by_hand() -> None:
    # 10 slices at 0.95, 8 right; 10 at 0.62, 5 right.
    certain = np.array([[0.95, 0.05]] * 10 + [[0.62, 0.38]] * 10)
    labels = np.array([0] * 8 + [1] * 2 + [0] * 5 + [1] * 5)
    assert expected_calibration_error(certain, labels) == pytest.approx(0.5 * 0.15 + 0.5 * 0.12)


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 1.5, (4000, 1)) * np.array([[1.0, -1.0]])
    labels = (rng.random(4000) > np.exp(log_softmax(honest, axis=1))[:, 0]).astype(int)
    overconfident = said([0.5] * 4000, ["UIP"] * 4000)
    shouted = Predictions(
        overconfident.classes, honest * 3, overconfident.distances, overconfident.indices, labels,
        np.array(["UIP", "NSIP"])[labels], overconfident.patients, overconfident.exams,
        overconfident.phantoms,
    )  # fmt: skip
    temperature = fit_temperature(shouted)
    assert temperature == pytest.approx(3, rel=0.1)
    before = expected_calibration_error(shouted.probabilities, labels)
    assert expected_calibration_error(shouted.scaled(temperature).probabilities, labels) < before / 3


def test_intervals_are_by_patient_not_by_slice() -> None:
    # Two patients a class, one of them all wrong: 3 right of 4, however many slices there are.
    kinds = ["UIP"] * 200 + ["NSIP"] * 200
    patients = ["a"] * 100 + ["b"] * 100 + ["c"] * 100 + ["d"] * 100
    figure = with_interval(said([0.9] * 100 + [0.1] * 100 + [0.1] * 200, kinds, patients), slice_accuracy)
    exact = binomtest(3, 4).proportion_ci(0.95)
    assert figure.value == 0.75
    assert (figure.low, figure.high) == pytest.approx((exact.low, exact.high))


def test_a_patient_with_most_of_the_slices_stands_for_few() -> None:
    kinds, patients = ["UIP"] * 97 + ["NSIP"] * 3, ["a"] * 96 + ["b", "c", "d", "e"]
    uneven = with_interval(said([0.9] * 97 + [0.1] * 3, kinds, patients), slice_accuracy)
    assert uneven.low == pytest.approx(0.025 ** (1 / (100**2 / (96**2 + 4))), abs=1e-6)
    assert counting_for(["a", "b", "a", "b", "c", "c"]) == pytest.approx(3)
    labels = np.array([0, 0, 0, 0, 1])
    assert counting_by_class(np.array(["a", "b", "c", "d", "e"]), labels) == pytest.approx(4 / (1 / 4 + 1))
    assert counting_in_pairs(np.array(["a", "b", "c", "d", "e"]), labels) == pytest.approx(2 / (1 / 4 + 1))


def test_no_figure_of_few_patients_claims_certainty() -> None:
    figure = with_interval(said([0.9] * 4 + [0.1] * 4, ["UIP"] * 4 + ["NSIP"] * 4), slice_accuracy)
    assert (figure.value, figure.high) == (1.0, 1.0)
    assert figure.low == pytest.approx(0.025 ** (1 / 8), abs=1e-6)  # Clopper and Pearson, 8 of 8
    assert with_interval(said([0.9], ["UIP"]), slice_accuracy).low is None
    # One patient a class says nothing of others.
    one_each = said([0.9, 0.4, 0.1], ["UIP", "UIP", "NSIP"], ["a", "a", "b"])
    assert with_interval(one_each, slice_accuracy).low is None
    # Six patients of whom every one gives the same figure, neither 0 nor 1.
    alike = said([0.9, 0.4] * 3 + [0.1, 0.6] * 3, ["UIP"] * 6 + ["NSIP"] * 6, [f"p{n // 2}" for n in range(12)])
    figures = slice_figures(alike, alike)
    for name in ("accuracy", "balanced_accuracy", "brier", "auc"):
        assert figures[name]["high"] - figures[name]["low"] > 0.5, name
    assert figures["patients"] == {"UIP": 3, "NSIP": 3}


def test_exams_of_one_patient_are_not_counted_twice() -> None:
    exams = [
        ExamOutcome(f"e{n}", f"p{n // 5}", ("UIP", "NSIP")[n // 10], "UIP", "", 0.9, "UIP", 1.0) for n in range(20)
    ]
    figures = exam_figures(exams, ("UIP", "NSIP"))
    exact = binomtest(2, 4).proportion_ci(0.95)
    assert figures["patients"] == {"UIP": 2, "NSIP": 2}
    assert figures["accuracy"] == {"value": 0.5, "low": round(exact.low, 4), "high": round(exact.high, 4)}


def test_exam_figures_count_abstentions_and_background() -> None:
    predictions = said([0.9, 0.55, 0.1, 0.95, 0.9], ["UIP", "UIP", "NSIP", "NSIP", "normal"], distances=[1, 1, 1, 1, 9])
    point = OperatingPoint(commit=0.6, min_slices=1)
    figures = exam_figures(exam_verdicts(predictions, point, KNOWN), predictions.classes)
    assert figures["exams"] == 4
    assert figures["coverage"]["value"] == 0.75
    assert figures["accuracy_of_decided"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["confusion"] == [[1, 0, 1], [1, 1, 0]]
    assert figures["background_indeterminate"]["value"] == 1.0


def test_the_operating_point_keeps_clear_of_what_it_must_not_name() -> None:
    kinds = ["UIP"] * 10 + ["NSIP"] * 10 + ["normal"] * 10
    certain = [0.9] * 10 + [0.1] * 10 + [0.66] * 10
    point = choose_operating_point(said(certain, kinds, distances=[1.0] * 20 + [1.1] * 10), KNOWN)
    assert 0.70 < point.commit < 0.88
    lax = choose_operating_point(said(certain[:20], kinds[:20]), KNOWN)
    assert 0.6 <= lax.commit < 0.9
    # Whom the guard keeps silent about asks for nothing.
    strange = choose_operating_point(said(certain, kinds, distances=[1.0] * 20 + [2.1] * 10), KNOWN)
    assert strange.commit == lax.commit


def test_limits_come_from_the_farthest_exam_of_each_patient() -> None:
    kinds = ["UIP"] * 40 + ["NSIP"] * 40
    patients = [f"u{number // 2}" for number in range(40)] + [f"n{number // 2}" for number in range(40)]
    distances = [1.0, 5.0] * 20 + [0.5, 0.25] * 20
    given = said([0.9] * 39 + [0.4] + [0.1] * 39 + [0.6], kinds, patients, distances)
    guard = calibrate(given).guard
    assert guard == Guard("patients", {"UIP": 20, "NSIP": 20}, {"UIP": 5.0, "NSIP": 0.5})
    few = calibrate(given.rows(np.arange(80) >= 4)).guard
    assert (few.limits, few.missing) == (None, {"UIP": 1})
    assert calibrate(given, reproduces=True).guard.reproduces


def test_phantoms_never_count_where_patients_are_to_be_known() -> None:
    kinds = ["UIP"] * 40 + ["NSIP"] * 40
    half = np.arange(80) % 2 == 0
    both = replace(said([0.9] * 39 + [0.4] + [0.1] * 39 + [0.6], kinds), phantoms=half)
    # Twenty patients a class are enough: they alone count.
    assert calibrate(both).guard.patients == {"UIP": 20, "NSIP": 20}
    assert calibrate(both).guard.knows == "patients"
    # Fifteen of NSIP are not: then it is the phantoms that are known, and patients count for nothing.
    fewer = both.rows((np.arange(80) < 70) | half)
    guard = calibrate(fewer).guard
    assert (guard.knows, guard.patients) == ("phantoms", {"UIP": 20, "NSIP": 20})
    alone = calibrate(fewer.rows(~fewer.phantoms)).guard
    assert (alone.knows, alone.limits, alone.missing) == ("patients", None, {"NSIP": 4})


def test_answers_that_have_nothing_to_do_with_the_truth_cannot_be_calibrated() -> None:
    inverted = said([0.1] * 20 + [0.9] * 20, ["UIP"] * 20 + ["NSIP"] * 20)
    with pytest.raises(UncalibratedError, match="they say nothing of the class"):
        calibrate(inverted)


def test_few_patients_that_are_all_right_do_not_make_the_model_sure() -> None:
    def certainty(patients: int) -> float:
        every = said([0.9] * patients + [0.1] * patients, ["UIP"] * patients + ["NSIP"] * patients)
        return float(every.scaled(fit_temperature(every)).probabilities.max())

    assert certainty(8) == pytest.approx(9 / 10, abs=1e-3)
    assert certainty(40) == pytest.approx(41 / 42, abs=1e-3)


def test_every_patient_weighs_the_same() -> None:
    """Nine slices of one patient who is wrong weigh no more than one slice of another."""
    kinds = ["UIP"] * 10 + ["NSIP"] * 10
    once = said([0.8] * 9 + [0.2] + [0.2] * 9 + [0.8], kinds)
    names = [f"u{n}" for n in range(10)] + ["u9"] * 8 + [f"n{n}" for n in range(10)]
    again = said([0.8] * 9 + [0.2] * 9 + [0.2] * 9 + [0.8], ["UIP"] * 18 + ["NSIP"] * 10, names)
    assert fit_temperature(again) == pytest.approx(fit_temperature(once), rel=0.01)


def test_coverage_falls_and_accuracy_rises_along_the_abstention_curve() -> None:
    rows = abstention_curve(said([0.99, 0.9, 0.55, 0.45, 0.1], ["UIP", "UIP", "NSIP", "NSIP", "NSIP"]))
    coverages = [coverage for _commit, coverage, _accuracy in rows]
    assert coverages == sorted(coverages, reverse=True)
    assert rows[0][2] < rows[-1][2] == 1.0


def test_the_area_is_that_of_pairs() -> None:
    predictions = said([0.9, 0.3, 0.5, 0.1], ["UIP", "UIP", "NSIP", "NSIP"])
    assert area_under_curve(predictions.logits, predictions.labels) == 0.75
    three = np.eye(3)[[0, 1, 2, 2]] * 5
    assert area_under_curve(three, np.array([0, 1, 2, 2])) == 1.0
    assert np.isnan(area_under_curve(three, np.array([0, 1, 1, 1])))
    rng = np.random.default_rng(0)
    logits, labels = rng.integers(0, 4, (200, 3)).astype(float), rng.integers(0, 3, 200)  # with ties
    expected = roc_auc_score(labels, softmax(logits, axis=1), multi_class="ovr")
    assert area_under_curve(logits, labels) == pytest.approx(expected)


def test_distances_tell_strangers_from_the_exams_of_training(tmp_path: object) -> None:
    rng = np.random.default_rng(0)
    centres = np.zeros((2, 40))
    centres[1, 0] = 10

    def exam(label: int, slices: int = 6) -> Any:
        return (centres[label] + rng.normal(0, 1, 40) + rng.normal(0, 2, (slices, 40))).astype(np.float32)

    shown = [exam(number % 2) for number in range(60)]
    features = np.concatenate(shown)
    labels = np.repeat(np.arange(60) % 2, 6)
    exams = np.repeat([f"e{number}" for number in range(60)], 6)
    familiarity = fit_familiarity(features, labels, exams, 2)
    usual = [familiarity.distances(exam(number % 2)).min() for number in range(40)]
    stranger = exam(0)
    stranger[:, 20] += 25
    between = exam(0)
    between[:, 0] += 5
    assert 0.7 < np.median(usual) < 2
    assert familiarity.distances(stranger).min() > 2 * max(usual)
    assert familiarity.distances(between).min() > np.median(usual)
    assert isinstance(familiarity, Familiarity)


def test_the_number_of_slices_does_not_move_the_distance() -> None:
    rng = np.random.default_rng(3)
    shown = [rng.normal(0, 0.3, 60) + rng.normal(0, 2, (12, 60)) for _ in range(40)]
    features = np.concatenate(shown).astype(np.float32)
    exams = np.repeat([f"e{number}" for number in range(40)], 12)
    familiarity = fit_familiarity(features, np.repeat(np.arange(40) % 2, 12), exams, 2)

    def usual(slices: int) -> float:
        drawn = [(rng.normal(0, 0.3, 60) + rng.normal(0, 2, (slices, 60))).astype(np.float32) for _ in range(60)]
        return float(np.mean([familiarity.distances(exam).min() for exam in drawn]))

    many = [usual(slices) for slices in (8, 13, 40, 300)]
    assert max(many) < 1.1 * min(many), many
    # Of fewer slices a mean is less sure, and the exam lies farther.
    assert usual(3) > 1.2 * max(many)


def test_distances_come_back_from_disk(tmp_path: object) -> None:
    from pathlib import Path

    from models.errors import BundleError

    file = Path(str(tmp_path)) / "familiarity.npz"
    features = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    made = fit_familiarity(features, np.arange(12) % 2, np.array([f"e{n // 2}{n % 2}" for n in range(12)]), 2)
    made.save(file)
    assert load_familiarity(file).distances(features) == pytest.approx(made.distances(features))
    file.write_bytes(b"garbage")
    with pytest.raises(BundleError):
        load_familiarity(file)


def test_temperature_does_not_sharpen_what_must_stay_undecided() -> None:
    # Named slices alone would ask for a temperature near 0.
    named = said([0.8] * 50 + [0.2] * 50, ["UIP"] * 50 + ["NSIP"] * 50)
    with_background = said([0.8] * 50 + [0.2] * 50 + [0.6] * 100, ["UIP"] * 50 + ["NSIP"] * 50 + ["normal"] * 100)
    assert fit_temperature(named) < 0.4
    assert 0.4 < fit_temperature(with_background) < 1.0
