"""An int8 network beside a bundle's own: folding, what it is made from, and the gate that it must pass."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from models.architectures import ARCHITECTURES, FoldedClassifier, HounsfieldClassifier, build
from models.bundle import QUANTISED, Bundle, open_bundle, seal_bundle
from models.classifier import Classifier
from models.errors import BundleError
from models.preprocessing import Preprocessing
from tests.bundles import make_bundle, tiny_data
from tests.slices import labelled_slices
from training import quantisation
from training.assembly import quantise_bundle
from training.dataset import LabelledSlices
from training.errors import TrainingError
from training.quantisation import Gate
from training.sides import Sides


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_folding_changes_nothing_along_the_border_either(architecture: str) -> None:
    torch.manual_seed(1)
    network = build(architecture, 2).eval()
    preprocessing = Preprocessing(size=64)
    plain, folded = HounsfieldClassifier(network, preprocessing), FoldedClassifier(network, preprocessing)
    first = next(each for each in folded.modules() if isinstance(each, nn.Conv2d))
    assert first.in_channels == 2
    hounsfield = torch.randint(-2000, 2000, (3, 1, 64, 64)).float()
    with torch.inference_mode():
        expected = plain.eval().features(hounsfield)
        found = folded.eval().features(hounsfield)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_no_patient_calibrates_and_is_asked() -> None:
    data = tiny_data(count=200)
    learned = np.arange(0, len(data), 2)
    calibration, held = quantisation.divide(data, learned, 3)
    assert len(calibration) == quantisation.CALIBRATION_SLICES
    assert set(calibration) <= set(learned)
    assert not set(data.patients[calibration]) & set(data.patients[held])
    of_nobody = set(range(len(data))) - set(held)
    assert set(data.patients[list(of_nobody)]) == set(data.patients[calibration])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "plain", epochs=2)


@pytest.fixture
def small_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "GATE_SLICES", 90)
    monkeypatch.setattr(quantisation, "_PHANTOM_SLICES", 4)
    # Which verdicts a network that learned nothing gives is chance.
    monkeypatch.setattr(quantisation, "GATE_VERDICTS", 0)
    monkeypatch.setattr(quantisation, "multiplies_int8", lambda: True)


@pytest.mark.usefixtures("small_gate")
def test_what_passes_the_gate_serves(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A network that learned nothing suffers from rounding: what counts here is what becomes of one that passes.
    monkeypatch.setattr(quantisation, "MOST_DIFFERENCE", 0.5)
    decide = Classifier.decide
    monkeypatch.setattr(
        Classifier, "decide",
        lambda self, outputs, **known: replace(decide(self, outputs, **known), verdict="UIP", reason_code=""),
    )  # fmt: skip
    monkeypatch.setattr("models.classifier.multiplies_int8", lambda: True)
    made = quantise_bundle(bundle, tmp_path / "int8", tiny_data(), version="2", seed=0)
    gate = made.description.quantisation
    assert gate is not None
    assert gate["kept"] is True, gate["sentence"]
    assert gate["slices"] == 4 * gate["patients"] == 4 * gate["exams"] >= 96
    assert (gate["phantoms"], gate["seed"]) == (0, 0)
    assert gate["sentence"] in (made.folder / "card.md").read_text(encoding="utf-8")
    assert made.quantised == made.folder / QUANTISED
    quantised, exact = Classifier(made), Classifier(made, exact=True)
    assert (quantised.precision, exact.precision) == ("int8", "f32")
    images = tiny_data(seed=1).images[:8]
    difference = np.abs(quantised.probabilities(images) - exact.probabilities(images))
    assert difference.max() > 0
    (_key, output) = next(iter(quantised.stream([(None, images[0])])))
    assert output.activation is not None

    monkeypatch.setattr("models.classifier.multiplies_int8", lambda: False)
    assert Classifier(made).precision != "int8"
    (made.folder / QUANTISED).write_text("<net/>", encoding="utf-8")
    with pytest.raises(BundleError, match="altered"):
        open_bundle(made.folder)


@pytest.mark.usefixtures("small_gate")
@pytest.mark.parametrize("fails", ["difference", "verdict", "reason", "no verdicts"])
def test_what_does_not_pass_is_not_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    if fails == "difference":
        monkeypatch.setattr(quantisation, "MOST_DIFFERENCE", 1e-9)
    else:
        monkeypatch.setattr(quantisation, "MOST_DIFFERENCE", 1.0)
        decide = Classifier.decide

        def other(self: Classifier, outputs: Any, **known: Any) -> object:
            decided = replace(decide(self, outputs, **known), verdict="indeterminate", reason_code="unfamiliar")
            if self.precision != "int8" or fails == "no verdicts":
                return decided
            return replace(decided, verdict="UIP") if fails == "verdict" else replace(decided, reason_code="undecided")

        monkeypatch.setattr(Classifier, "decide", other)
        monkeypatch.setattr(quantisation, "GATE_VERDICTS", 1 if fails == "no verdicts" else 0)
    made = quantise_bundle(bundle, tmp_path / "float", tiny_data(), version="2", seed=0)
    gate = made.description.quantisation
    assert gate is not None
    assert gate["kept"] is False
    if fails != "difference":  # there the verdicts are the network's own
        assert gate["verdicts_changed"] == (gate["exams"] if fails in ("verdict", "reason") else 0)
        assert ("verdicts changed" in gate["sentence"]) == (fails in ("verdict", "reason"))
    assert ("too few of these exams have a verdict" in gate["sentence"]) == (fails == "no verdicts")
    assert made.quantised is None
    assert not list(made.folder.glob("*int8*"))
    assert Classifier(made).precision != "int8"


def test_exams_of_all_classes_are_asked_and_one_that_is_too_long_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantisation, "_MOST_GATE_SLICES", 40)
    data = labelled_slices(
        {"UIP": {f"u{n}": 4 for n in range(30)}, "NSIP": {"long": 60} | {f"n{n}": 4 for n in range(9)}}
    )
    for seed in range(5):
        exams = quantisation._exams(data, np.arange(len(data)), seed)
        assert sum(map(len, exams)) == 40
        kinds = [str(data.kinds[rows[0]]) for rows in exams]
        assert {kinds.count("UIP"), kinds.count("NSIP")} <= {4, 5, 6}
        assert all(len(rows) == 4 for rows in exams)


def test_only_patients_of_training_calibrate(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_data(30)  # six more of each class than it has learned from
    given: list[set[str]] = []

    def stop(_bundle: Bundle, data: LabelledSlices, learned: NDArray[np.int64], *_others: object) -> Gate:
        given.append(set(data.patients[learned].tolist()))
        raise KeyboardInterrupt

    monkeypatch.setattr("training.assembly.quantise", stop)
    with pytest.raises(KeyboardInterrupt):
        quantise_bundle(bundle, tmp_path / "made", data, version="2", seed=0)
    assert not list(tmp_path.iterdir()), "who stops it wants nothing"
    sides = Sides.of(bundle)
    assert given == [{name for name in set(data.patients.tolist()) if sides.trained(name)}]
    assert 0 < len(given[0]) < len(set(data.patients.tolist()))
    others = labelled_slices({"UIP": {"a": 4}, "NSIP": {"b": 4}})
    with pytest.raises(TrainingError, match="trained on none of these patients"):
        quantise_bundle(bundle, tmp_path / "made", others, version="2", seed=0)


def test_stopped_while_it_quantises_a_training_keeps_its_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_given: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(quantisation, "_int8", stop)
    monkeypatch.setattr(quantisation, "multiplies_int8", lambda: True)
    made = make_bundle(tmp_path / "made", int8=True)
    assert made.quantised is None
    assert "int8: it was stopped" in (made.folder / "card.md").read_text("utf-8")


def test_without_vnni_nothing_is_judged(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantisation, "multiplies_int8", lambda: False)
    made = quantise_bundle(bundle, tmp_path / "float", tiny_data(), version="2", seed=0)
    assert made.quantised is None
    assert "no VNNI" in (made.folder / "card.md").read_text("utf-8")


@pytest.mark.usefixtures("small_gate")
@pytest.mark.parametrize("fails", ["network", "disk"])
def test_a_network_that_cannot_be_quantised_costs_no_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def fail(*_given: object) -> object:
        raise RuntimeError("no kernel for this layer\nand a trace")

    def fill(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    if fails == "network":
        monkeypatch.setattr(quantisation, "_int8", fail)
    else:
        monkeypatch.setattr(quantisation, "MOST_DIFFERENCE", 1.0)
        decide = Classifier.decide
        monkeypatch.setattr(
            Classifier, "decide",
            lambda self, outputs, **known: replace(decide(self, outputs, **known), verdict="UIP", reason_code=""),
        )  # fmt: skip
        monkeypatch.setattr(quantisation, "copyfile", fill)
    made = quantise_bundle(bundle, tmp_path / "float", tiny_data(), version="2", seed=0)
    assert made.quantised is None
    assert not list(made.folder.glob("*int8*"))
    why = "no kernel for this layer" if fails == "network" else "No space left"
    card = (made.folder / "card.md").read_text("utf-8")
    assert "could not be made or run so" in card
    assert why in card


@pytest.mark.usefixtures("small_gate")
def test_phantoms_stand_in_for_patients_who_are_too_few(bundle: Bundle, tmp_path: Path) -> None:
    data = labelled_slices({"UIP": {"a": 10, "b": 10}, "NSIP": {"c": 10, "d": 10}})
    shutil.copytree(bundle.folder, tmp_path / "copy")
    gate = quantisation.quantise(open_bundle(tmp_path / "copy"), data, np.arange(len(data)), seed=0)
    assert (gate.calibration_slices, gate.patients, gate.phantoms) == (20, 2, 18)
    assert gate.slices == 20 + 18 * 4


def test_a_manifest_that_promises_an_int8_network_must_name_it(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.folder, tmp_path / "copy")
    with pytest.raises(BundleError, match="int8"):
        seal_bundle(tmp_path / "copy", replace(bundle.description, quantisation={"kept": True}))
