"""`reticula train` and its parts on small data: from labelled slices to a bundle that serves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.architectures import ARCHITECTURES, HounsfieldClassifier, build
from models.bundle import open_bundle
from models.classifier import Classifier
from models.export import export_network
from models.preprocessing import Preprocessing
from tests.slices import labelled_slices
from training.augmentation import random_views
from training.dataset import LabelledSlices
from training.examples import RandomExamples
from training.features import FeatureCache, Request
from training.fitting import UNWATCHED, Epoch, Machine, Progress, Schedule
from training.learners import Fitted, LastLayerLearner, Views, WholeNetworkLearner
from training.phantom import PhantomExam, write_phantoms
from training.recipe import Recipe, Run
from training.views import WHOLE, View
from training.weights import Start, make_network
from worker.main import app

CPU = torch.device("cpu")
SIZE = 64
QUICK = ("--size", SIZE, "--epochs", 2)


def reticula(folder: Path, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-P", "-m", "worker.main", *map(str, arguments)],
        capture_output=True, text=True, timeout=220, check=False, cwd=folder, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight phantoms in the study's proportion of slices."""
    folder = tmp_path_factory.mktemp("eight")
    write_phantoms(folder, seed=7, exams=8, totals={"NSIP": 56, "UIP": 24}, conditions=("NSIP", "UIP"))
    return folder


@pytest.fixture
def data() -> LabelledSlices:
    return labelled_slices({"UIP": {"u1": 5, "u2": 5, "u3": 5}, "NSIP": {"n1": 5, "n2": 5, "n3": 5}}, size=SIZE)


def last_layer(data: LabelledSlices, folder: Path, schedule: Schedule) -> LastLayerLearner:
    network = make_network("mobilenet_v2", 2, Start("scratch"), 0)
    cache = FeatureCache(folder, data, network, Preprocessing(size=SIZE), CPU)
    return LastLayerLearner(network, data, cache, schedule, weighted=False)


def test_cached_features_train_the_same_last_layer_as_the_plain_loop(tmp_path: Path, imagenet_weights: Path) -> None:
    """Same batches, same dropout, same epochs: only the features come from the disk."""
    data = labelled_slices({"UIP": {"u1": 4, "u2": 3}, "NSIP": {"n1": 4, "n2": 3}}, size=SIZE)
    network = make_network("mobilenet_v2", 2, Start("file", imagenet_weights), 0)
    schedule = Schedule(epochs=3, batch=8, learning_rate=1e-2)
    preprocessing = Preprocessing(size=SIZE)
    cache = FeatureCache(tmp_path, data, network, preprocessing, CPU)
    cached = LastLayerLearner(network, data, cache, schedule, weighted=False)
    plain = WholeNetworkLearner(
        network, data, preprocessing, schedule, Views("study"), Machine(CPU), weighted=False, frozen=True
    )
    training, validation = np.array([0, 1, 2, 3, 7, 8, 9, 10]), np.array([4, 5, 11, 12])
    cached.prepare(validation, np.concatenate([training, validation]))
    one, other = cached.fit(training, validation), plain.fit(training, validation)
    for first, second in zip(one.course.epochs, other.course.epochs, strict=True):
        assert first.training_loss == pytest.approx(second.training_loss, abs=1e-4)
        assert first.validation_loss == pytest.approx(second.validation_loss, abs=1e-4)
        assert first.validation_accuracy == second.validation_accuracy
    assert one.course.best == other.course.best
    weights = [fitted.network.state_dict()["classifier.1.weight"] for fitted in (one, other)]
    assert torch.allclose(weights[0], weights[1], atol=1e-4)
    assert not torch.allclose(weights[0], network.state_dict()["classifier.1.weight"], atol=1e-3)
    said = [learner.judge(fitted, validation) for learner, fitted in ((cached, one), (plain, other))]
    assert np.allclose(said[0].logits, said[1].logits, atol=1e-3)
    for name, tensor in network.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(tensor, other.network.state_dict()[name]), name


def test_features_are_computed_once_and_known_by_content(tmp_path: Path, data: LabelledSlices) -> None:
    network = make_network("mobilenet_v2", 2, Start("scratch"), 0)
    requests = [Request(0, WHOLE), Request(1, View(mirrored=True)), Request(0, WHOLE)]
    told: list[tuple[int, int]] = []
    cache = FeatureCache(tmp_path, data, network, Preprocessing(size=SIZE), CPU)
    cache.compute(requests, lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]
    first = cache.load(requests)
    assert first.shape == (3, 1280)
    again = FeatureCache(tmp_path, data, network, Preprocessing(size=SIZE), CPU)
    assert again.missing(requests) == []
    other = make_network("mobilenet_v2", 2, Start("scratch"), 1)
    assert len(FeatureCache(tmp_path, data, other, Preprocessing(size=SIZE), CPU).missing(requests)) == 2
    file = next(tmp_path.rglob("*.npy"))
    file.write_bytes(b"half a fi")
    assert np.allclose(again.load(requests), first)


def test_the_same_seed_gives_the_same_network(tmp_path: Path, data: LabelledSlices) -> None:
    def weight(seed: int) -> torch.Tensor:
        learner = last_layer(data, tmp_path, Schedule(epochs=2, batch=8, seed=seed))
        learner.prepare(np.arange(0), np.arange(30))
        fitted = learner.fit(np.arange(0, 30, 2), np.arange(1, 30, 2))
        learned: torch.Tensor = fitted.network.state_dict()["classifier.1.weight"]
        return learned

    assert torch.equal(weight(1), weight(1))
    assert not torch.equal(weight(1), weight(2))


def test_a_stopped_fit_goes_on_as_if_it_had_not_been(tmp_path: Path, data: LabelledSlices) -> None:
    learner = last_layer(data, tmp_path / "cache", Schedule(epochs=5, batch=8, learning_rate=1e-3, pace="one-cycle"))
    learner.prepare(np.arange(0), np.arange(30))
    training, validation = np.arange(0, 30, 2), np.arange(1, 30, 2)
    whole = learner.fit(training, validation)
    checkpoint = tmp_path / "fit.pt"

    def stop(epoch: Epoch) -> None:
        if epoch.number == 3:
            raise KeyboardInterrupt

    stopped = learner.fit(training, validation, checkpoint=checkpoint, progress=Progress(on_epoch=stop))
    assert stopped.course.interrupted
    assert len(stopped.course.epochs) == 3
    resumed = learner.fit(training, validation, checkpoint=checkpoint)
    assert resumed.course == whole.course
    names = ("classifier.1.weight", "classifier.1.bias")
    for name in names:
        assert torch.equal(resumed.network.state_dict()[name], whole.network.state_dict()[name])


def test_ctrl_c_before_the_first_epoch_keeps_nothing(tmp_path: Path, data: LabelledSlices) -> None:
    learner = last_layer(data, tmp_path, Schedule(epochs=2, batch=8))
    learner.prepare(np.arange(0), np.arange(30))

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learner.fit(np.arange(15), np.arange(15, 30), progress=Progress(on_batch=stop))


def test_the_whole_network_learns_on_random_views(data: LabelledSlices) -> None:
    network = make_network("mobilenet_v2", 2, Start("scratch"), 0)
    schedule = Schedule(epochs=2, batch=8, learning_rate=1e-3, pace="one-cycle", select="loss", selectable_from=2)
    learner = WholeNetworkLearner(
        network, data, Preprocessing(size=SIZE), schedule, Views("random", 48, 1), Machine(CPU, autocast=True),
        weighted=True,
    )  # fmt: skip
    fitted: Fitted = learner.fit(np.arange(0, 30, 2), np.arange(1, 30, 2), progress=UNWATCHED)
    assert fitted.course.best == 2
    assert fitted.examples == (15, 15)
    before, after = network.state_dict(), fitted.network.state_dict()
    assert not torch.equal(before["features.0.0.weight"], after["features.0.0.weight"])
    assert len(learner.judge(fitted, np.arange(4))) == 4
    examples = RandomExamples(data, np.arange(4), window=48, full_from=2)
    generator = torch.Generator().manual_seed(0)
    assert [examples.inputs(np.arange(4), epoch, generator).shape[-1] for epoch in (1, 2)] == [48, SIZE]


def test_train_prints_both_figures_and_writes_a_bundle_that_serves(
    eight: Path, tmp_path: Path, imagenet_weights: Path
) -> None:
    done = reticula(tmp_path, "train", eight, "--output", "b", "--weights", imagenet_weights, *QUICK, "--version", "7")
    assert done.returncode == 0, done.stderr
    by_patient, by_slice, sentence, where = done.stdout.strip().splitlines()
    assert by_patient.startswith("By patient: ")
    assert by_slice.startswith("By slice: ")
    assert " to " in by_patient
    assert "of 48 test slices" in by_patient
    assert "by slice" in sentence
    assert "With 8 patients neither figure says much" in sentence
    assert "b" in where
    description = open_bundle(tmp_path / "b").description
    assert (description.name, description.version, description.architecture) == ("uip-nsip", "7", "mobilenet_v2")
    assert description.command.startswith("reticula train")
    metrics = description.metrics
    assert metrics["patient"]["folds"] == 4
    assert metrics["patient"]["slices"]["slices"] == 48
    assert metrics["study"]["test_slices"] == round(48 * 134 / 666)
    assert metrics["study"]["training_images"] == 4 * (48 - round(48 * 134 / 666) - round(48 * 110 / 666))
    assert len(description.data["patients_by_side"]["training"]) == 8
    assert description.data["limits"]
    card = (tmp_path / "b" / "card.md").read_text(encoding="utf-8")
    for word in ("Intended use", "Limits", "by patient", "calibration error", "weights of mobilenet_v2-imagenet1k"):
        assert word in card
    figures = {path.name for path in (tmp_path / "b" / "figures").iterdir()}
    assert figures == {
        "augmentation.png", "learning.png", "roc.png", "reliability.png", "confusion.png", "abstention.png",
        "most-wrong.png",
    }  # fmt: skip
    assert "PHANTOM" not in (tmp_path / "b" / "bundle.json").read_text(encoding="utf-8")
    probabilities = Classifier.open(tmp_path / "b").probabilities([np.zeros((SIZE, SIZE), np.int16)])
    assert probabilities.sum() == pytest.approx(1, abs=1e-3)
    again = reticula(tmp_path, "train", eight, "--output", "b", "--weights", imagenet_weights, *QUICK)
    assert (again.returncode, "exists already" in again.stderr) == (1, True)

    measured = reticula(tmp_path, "evaluate", "b", eight, "--output", "figures", "--json")
    assert measured.returncode == 0, measured.stderr
    content = json.loads(measured.stdout)
    assert content["slices"]["slices"] == 80
    assert content["exams"]["exams"] == 8
    assert any("learned from 8 of the 8 patients" in warning for warning in content["warnings"])
    assert (tmp_path / "figures" / "roc.png").stat().st_size > 1000


def test_compare_prints_the_table_of_the_study_and_names_the_winner(eight: Path, tmp_path: Path) -> None:
    small = ("--from-scratch", "--size", 32, "--epochs", 1, "--folds", 1)
    two = ("--architecture", "mobilenet_v2", "--architecture", "efficientnet_b0")
    done = reticula(tmp_path, "compare", eight, "--output", "c", *small, *two, "--json")
    assert done.returncode == 0, done.stderr
    assert "in all" in done.stderr
    content = json.loads(done.stdout)
    networks = {row["architecture"]: row for row in content["networks"]}
    best = max(row["study"]["validation_accuracy"] for row in networks.values())
    expected = min(
        (row for row in networks.values() if row["study"]["validation_accuracy"] == best),
        key=lambda row: row["parameters"],
    )
    assert content["winner"] == expected["architecture"]
    page = (tmp_path / "c" / "comparison.md").read_text(encoding="utf-8")
    assert "2,226,434" in page
    assert "## By patient" in page


def test_four_architectures_are_trained_exported_and_serve(tmp_path: Path) -> None:
    data = labelled_slices({"UIP": {"u1": 3, "u2": 3, "u3": 3}, "NSIP": {"n1": 3, "n2": 3, "n3": 3}}, size=32)
    parameters = {}
    for name in ARCHITECTURES:
        recipe = Recipe(
            name=name, version="1", architecture=name, start=Start("scratch"), protocol="study", fine_tune="last",
            balance="undersample", folds=None, views=Views(), schedule=Schedule(epochs=1), device="cpu", both=False,
            limits="", command="",
        )  # fmt: skip
        trained = Run(recipe, data, tmp_path / "features").train(tmp_path / name)
        parameters[name] = trained.parameters
        assert trained.bundle.description.architecture == name
        probabilities = Classifier(trained.bundle).probabilities([data.images[0]])
        assert probabilities.sum() == pytest.approx(1, abs=1e-3)
        shutil.rmtree(tmp_path / name)
    assert parameters == {
        "mobilenet_v2": 2_226_434, "vgg16": 134_268_738, "resnet50": 23_512_130, "efficientnet_b0": 4_010_110,
    }  # fmt: skip


def test_without_a_network_nothing_is_silently_random(eight: Path, tmp_path: Path) -> None:
    """Downloads are refused by a proxy that is not there: the sentence says what to do."""
    done = reticula(
        tmp_path, "train", eight, "--output", "b", *QUICK,
        https_proxy="http://127.0.0.1:9", TORCH_HOME=str(tmp_path / "torch"),
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot be downloaded" in done.stderr
    assert "--from-scratch" in done.stderr
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--protocol", "random"), "--protocol"),
        (("--architecture", "alexnet"), "--architecture"),
        (("--fine-tune", "some"), "--fine-tune"),
        (("--balance", "no"), "--balance"),
        (("--device", "tpu"), "--device"),
    ],
)
def test_wrong_options_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], sentence: str
) -> None:
    for variable in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setenv(variable, "1")  # else the command would start itself again
    done = CliRunner().invoke(app, ["train", str(tmp_path), "--output", "b", "--from-scratch", *options])
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_ctrl_c_keeps_the_best_epoch_and_resume_goes_on(eight: Path, tmp_path: Path) -> None:
    arguments = ("train", str(eight), "--output", "b", "--from-scratch", "--fine-tune", "all", "--one", "--folds", "1",
                 "--size", "64", "--epochs", "400", "--batch", "4", "--learning-rate", "0.001")  # fmt: skip
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        # A shell has what it runs in the background ignore the signal, and so would its children.
        ["env", "--default-signal=INT", sys.executable, "-P", "-m", "worker.main", *arguments],
        cwd=tmp_path, stderr=log, stdout=log,
    )  # fmt: skip
    checkpoint = tmp_path / ".b.run" / "patient-1.pt"
    deadline = time.monotonic() + 120
    try:
        while not checkpoint.exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        log.close()
    metrics = open_bundle(tmp_path / "b").description.metrics
    assert metrics["interrupted"]
    stopped_at = len(metrics["epochs"])
    assert 1 <= stopped_at < 400
    refused = reticula(tmp_path, *arguments[:-1], "0.002", "--resume")
    assert (refused.returncode, "other options" in refused.stderr) == (1, True), refused.stderr
    checkpoint_state = torch.load(checkpoint, weights_only=True)
    assert len(checkpoint_state["history"]) >= stopped_at


def test_a_run_whose_patients_were_corrected_is_not_gone_on_with(tmp_path: Path) -> None:
    """The split follows the patients: an old network would be tested on slices that it has learned."""
    counts = {"UIP": {"u1": 4, "u2": 4, "u3": 4}, "NSIP": {"n1": 4, "n2": 4, "n3": 4}}
    data = labelled_slices(counts, size=SIZE)
    patients = data.patients.copy()
    patients[:8] = patients[:8][::-1]
    for changed in (data, replace(data, patients=patients)):
        recipe = Recipe(
            name="r", version="1", architecture="mobilenet_v2", start=Start("scratch"), protocol="patient",
            fine_tune="last", balance="undersample", folds=1, views=Views(), schedule=Schedule(epochs=1), device="cpu",
            both=False, limits="", command="",
        )  # fmt: skip
        run = Run(recipe, changed, tmp_path / "features")
        assert run.resumable(tmp_path / "out") is False
        if changed is data:
            run._checkpoints(tmp_path / "out", resume=False)
            assert run.resumable(tmp_path / "out") is True


def test_kill_9_in_mid_training_loses_no_finished_epoch(eight: Path, tmp_path: Path) -> None:
    arguments = ("train", str(eight), "--output", "b", "--from-scratch", "--fine-tune", "all", "--one", "--folds", "1",
                 "--size", "64", "--epochs", "3", "--batch", "4")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.main", *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    checkpoint = tmp_path / ".b.run" / "patient-1.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait(10)
    assert not (tmp_path / "b").exists()
    done = reticula(tmp_path, *arguments, "--resume")
    assert done.returncode == 0, done.stderr
    metrics = open_bundle(tmp_path / "b").description.metrics
    assert [len(metrics["epochs"]), metrics["interrupted"]] == [3, False]
    assert not (tmp_path / ".b.run").exists()


def test_the_exported_network_says_what_the_trained_one_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, preprocessing, temperature = build("mobilenet_v2", 2).eval(), Preprocessing(size=128), 1.7
    with torch.no_grad():
        network.classifier[1].weight.mul_(30)  # type: ignore[index, union-attr]
    export_network(network, preprocessing, temperature, tmp_path)
    image = np.random.default_rng(0).integers(-1500, 600, (128, 128), dtype=np.int16)
    model = HounsfieldClassifier(network, preprocessing).eval()
    with torch.inference_mode():
        features = model.features(torch.from_numpy(image[None, None]).float())
        expected = torch.softmax(model.head(features) / temperature, 1)
    import openvino

    compiled = openvino.Core().compile_model(tmp_path / "network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    probabilities, exported_features = compiled(image[None, None]).values()
    assert np.allclose(probabilities, expected.numpy(), atol=2e-3)
    assert np.allclose(exported_features, features.numpy(), atol=2e-3)


def test_views_stay_over_the_lungs_and_fill_with_air() -> None:
    images = torch.full((6, 1, 128, 128), -1024.0)
    images[:, :, 40:90, 30:100] = -200.0
    boxes = np.tile([40, 30, 90, 100], (6, 1))
    views = random_views(images, boxes, 64, torch.Generator().manual_seed(0))
    assert views.shape == (6, 1, 64, 64)
    assert (views.mean(dim=(1, 2, 3)) > -700).all()
    assert views.min() >= -1024 - 41


def test_phantoms_of_totals_show_lung_in_every_slice(phantoms: tuple[Path, list[PhantomExam]], eight: Path) -> None:
    from models.lung_mask import lung_fraction, lung_mask
    from pacs.pixels import decode_all
    from pacs.series import read_series

    truth: dict[str, Any] = json.loads((eight / "truth.json").read_text(encoding="utf-8"))
    counts: dict[str, int] = {}
    for exam in truth.values():
        counts[exam["label"]] = counts.get(exam["label"], 0) + exam["slices"]
        series = read_series(sorted((eight / exam["folder"]).glob("*.dcm")))
        for decoded in decode_all(series.slices[:: len(series.slices) - 1], threads=1):
            assert decoded.hu is not None
            assert decoded.source.pixel_spacing is not None
            mask = lung_mask(decoded.hu, decoded.source.pixel_spacing)
            assert lung_fraction(mask, decoded.source.pixel_spacing) > Preprocessing().min_lung_fraction
    assert counts == {"NSIP": 56, "UIP": 24}
    assert phantoms[1]
