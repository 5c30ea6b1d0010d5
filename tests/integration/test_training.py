"""`reticula train` on small data: from labelled exams to a bundle that serves."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from models.architectures import ARCHITECTURES, HounsfieldClassifier, build
from models.bundle import open_bundle
from models.classifier import Classifier
from models.export import export_network
from models.preprocessing import Preprocessing
from training.augmentation import random_views
from training.dataset import find_sources, load
from training.errors import DatasetError, TrainingError
from training.phantom import PhantomExam
from training.recipe import load_weights
from training.splits import split_patients


def train(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", "train", *map(str, arguments)],
        capture_output=True, text=True, timeout=220, check=False,
    )  # fmt: skip


def test_train_writes_a_bundle_that_serves(tmp_path: Path, phantoms: tuple[Path, list[PhantomExam]]) -> None:
    output = tmp_path / "bundle"
    done = train(phantoms[0], "--output", output, "--from-scratch", "--epochs", 1, "--window", 64, "--batch", 4,
                 "--version", "7", "--validation", 0)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Epoch 1" in done.stderr
    description = open_bundle(output).description
    assert (description.name, description.version) == ("uip-nsip", "7")
    assert description.command.startswith("reticula train")
    assert description.data["exams"] == 2
    probabilities = Classifier.open(output).probabilities([np.zeros((512, 512), np.int16)])
    assert probabilities.sum() == pytest.approx(1, abs=1e-3)
    again = train(phantoms[0], "--output", output, "--from-scratch")
    assert (again.returncode, "exists already" in again.stderr) == (1, True)


def test_where_to_start_must_be_said(tmp_path: Path) -> None:
    done = train(tmp_path, "--output", tmp_path / "b")
    assert done.returncode == 2
    assert "--from-scratch" in done.stderr


def test_the_exported_network_says_what_the_trained_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, preprocessing = build("mobilenet_v2", 2).eval(), Preprocessing(size=128)
    with torch.no_grad():
        network.classifier[1].weight.mul_(30)  # type: ignore[index, union-attr]
    export_network(network, preprocessing, tmp_path)
    image = np.random.default_rng(0).integers(-1500, 600, (128, 128), dtype=np.int16)
    with torch.inference_mode():
        expected = torch.softmax(
            HounsfieldClassifier(network, preprocessing)(torch.from_numpy(image[None, None]).float()), 1
        )
    import openvino

    compiled = openvino.Core().compile_model(tmp_path / "network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.allclose(compiled(image[None, None])[0], expected.numpy(), atol=2e-3)


def test_mobilenet_has_the_parameters_of_the_study() -> None:
    assert sum(parameter.numel() for parameter in build("mobilenet_v2", 2).parameters()) == 2_226_434
    with pytest.raises(ValueError, match="Unknown architecture"):
        build("alexnet", 2)
    assert "mobilenet_v2" in ARCHITECTURES


def test_imagenet_weights_start_all_but_the_last_layer(imagenet_weights: Path) -> None:
    torch.manual_seed(0)
    network, untouched = build("mobilenet_v2", 2), build("mobilenet_v2", 2)
    before = network.state_dict()["classifier.1.weight"].clone()
    load_weights(network, imagenet_weights)
    assert torch.equal(network.state_dict()["classifier.1.weight"], before)
    assert not torch.equal(network.state_dict()["features.0.0.weight"], untouched.state_dict()["features.0.0.weight"])


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"features.0.0.weight": torch.zeros(1)}, file)
    with pytest.raises(TrainingError, match="does not fit"):
        load_weights(build("mobilenet_v2", 2), file)
    file.write_bytes(b"garbage")
    with pytest.raises(TrainingError, match="no weights"):
        load_weights(build("mobilenet_v2", 2), file)


def test_folders_of_pictures_and_portuguese_names(tmp_path: Path) -> None:
    for name in ("PIU", "pine"):
        folder = tmp_path / name / f"patient-{name}"
        folder.mkdir(parents=True)
        for number in range(2):
            Image.fromarray(np.full((40, 40), 100 + number, np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "PIU" / "patient-PIU" / "broken.png").write_bytes(b"no picture")
    data = load(find_sources(tmp_path), Preprocessing(size=64))
    assert data.classes == ("UIP", "NSIP")
    assert data.labels.tolist() == [1, 1, 0, 0] or data.labels.tolist() == [0, 0, 1, 1]
    assert set(data.patients) == {"patient-PIU", "patient-pine"}
    assert [path.name for path, _why in data.skipped] == ["broken.png"]
    # Grey 100 of 255 in the window from -1350 to 150.
    assert abs(int(data.images[0, 32, 32]) - (-1350 + 1500 * 100 / 255)) <= 7


def _one_class(folder: Path) -> Path:
    (folder / "UIP").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / "UIP" / "a.png")
    return folder


@pytest.mark.parametrize("make", [lambda p: p / "none", lambda p: p, _one_class])
def test_nothing_to_train_on_is_a_clear_refusal(tmp_path: Path, make: Any) -> None:
    with pytest.raises(DatasetError) as caught:
        find_sources(make(tmp_path))
    assert str(caught.value).endswith(".")


def test_a_wrong_truth_file_is_a_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps({"1.2": {"label": "COPD"}}), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"truth\.json"):
        find_sources(tmp_path)


def test_patients_are_kept_whole() -> None:
    patients = np.array([f"p{index // 5}" for index in range(100)])
    labels = np.array([index // 50 for index in range(100)])
    training, validation = split_patients(labels, patients, validation=0.3, seed=1)
    assert sorted([*training, *validation]) == list(range(100))
    assert not set(patients[training]) & set(patients[validation])
    assert [len(set(patients[validation][labels[validation] == label])) for label in (0, 1)] == [3, 3]
    assert len(split_patients(labels, np.array(["a"] * 50 + ["b"] * 50), validation=0.5, seed=1)[1]) == 0


def test_views_stay_over_the_lungs_and_fill_with_air() -> None:
    images = torch.full((6, 1, 128, 128), -1024.0)
    images[:, :, 40:90, 30:100] = -200.0
    boxes = np.tile([40, 30, 90, 100], (6, 1))
    views = random_views(images, boxes, 64, torch.Generator().manual_seed(0))
    assert views.shape == (6, 1, 64, 64)
    assert (views.mean(dim=(1, 2, 3)) > -700).all()
    assert views.min() >= -1024 - 41
