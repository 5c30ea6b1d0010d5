"""An int8 network beside a bundle's own: folding, what it is made from, and the gate that it must pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.architectures import ARCHITECTURES, FoldedClassifier, HounsfieldClassifier, build
from models.bundle import QUANTISED, Bundle, open_bundle
from models.classifier import Classifier
from models.errors import BundleError
from models.preprocessing import Preprocessing
from tests.bundles import make_bundle, tiny_data
from tests.slices import labelled_slices
from training import quantisation
from training.assembly import quantise_bundle


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


@pytest.mark.usefixtures("small_gate")
def test_what_passes_the_gate_serves(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A network that learned nothing suffers from rounding: what counts here is what becomes of one that passes.
    monkeypatch.setattr(quantisation, "MOST_DIFFERENCE", 0.5)
    decide = Classifier.decide
    monkeypatch.setattr(Classifier, "decide", lambda self, outputs: replace(decide(self, outputs), verdict="UIP"))
    monkeypatch.setattr("models.classifier.multiplies_int8", lambda: True)
    made = quantise_bundle(bundle, tmp_path / "int8", tiny_data(), version="2", seed=0)
    gate = made.description.quantisation
    assert gate is not None
    assert gate["kept"] is True, gate["sentence"]
    assert (gate["slices"], gate["patients"], gate["phantoms"], gate["exams"]) == (96, 24, 0, 24)
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
@pytest.mark.parametrize("fails", ["difference", "verdict"])
def test_what_does_not_pass_is_not_kept(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    if fails == "difference":
        monkeypatch.setattr(quantisation, "MOST_DIFFERENCE", 1e-9)
    else:
        monkeypatch.setattr(quantisation, "MOST_DIFFERENCE", 1.0)
        decide = Classifier.decide

        def other(self: Classifier, outputs: object) -> object:
            decided = decide(self, outputs)  # type: ignore[arg-type]
            return replace(decided, verdict="other") if self.precision == "int8" else decided

        monkeypatch.setattr(Classifier, "decide", other)
    made = quantise_bundle(bundle, tmp_path / "float", tiny_data(), version="2", seed=0)
    gate = made.description.quantisation
    assert gate is not None
    assert gate["kept"] is False
    assert ("24 of 24 verdicts change" in gate["sentence"]) == (fails == "verdict")
    assert made.quantised is None
    assert not list(made.folder.glob("*int8*"))
    assert Classifier(made).precision != "int8"


def test_a_network_that_cannot_be_quantised_costs_no_bundle(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_given: object) -> object:
        raise RuntimeError("no kernel for this layer\nand a trace")

    monkeypatch.setattr(quantisation, "_int8", fail)
    made = quantise_bundle(bundle, tmp_path / "float", tiny_data(), version="2", seed=0)
    assert made.quantised is None
    assert "could not be made or run so (no kernel for this layer)" in (made.folder / "card.md").read_text("utf-8")


@pytest.mark.usefixtures("small_gate")
def test_phantoms_stand_in_for_patients_who_are_too_few(bundle: Bundle, tmp_path: Path) -> None:
    data = labelled_slices({"UIP": {"a": 10, "b": 10}, "NSIP": {"c": 10, "d": 10}})
    gate = quantise_bundle(bundle, tmp_path / "few", data, version="2", seed=0).description.quantisation
    assert gate is not None
    assert (gate["calibration_slices"], gate["patients"], gate["phantoms"]) == (20, 2, 18)
    assert gate["slices"] == 20 + 18 * 4


def test_a_manifest_that_promises_an_int8_network_must_name_it(bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    from models.bundle import seal_bundle

    shutil.copytree(bundle.folder, tmp_path / "copy")
    with pytest.raises(BundleError, match="int8"):
        seal_bundle(tmp_path / "copy", replace(bundle.description, quantisation={"kept": True}))
