"""Learning itself on small data: features kept on disk, seeds, stopping and going on, the export."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.architectures import HounsfieldClassifier, build
from models.export import export_network
from models.preprocessing import Preprocessing
from tests.slices import labelled_slices
from training.augmentation import random_views
from training.dataset import LabelledSlices
from training.examples import RandomExamples
from training.features import CompiledExtractor, FeatureCache, Request, TorchExtractor
from training.fitting import UNWATCHED, Epoch, Machine, Progress, Schedule
from training.learners import Fitted, LastLayerLearner, Views, WholeNetworkLearner
from training.views import WHOLE, View
from training.weights import Start, make_network

CPU = torch.device("cpu")
SIZE = 64


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


def test_features_are_the_same_whoever_computes_them() -> None:
    network = make_network("mobilenet_v2", 2, Start("scratch"), 0)
    images = list(labelled_slices({"UIP": {"u1": 5}}, size=SIZE).images)
    compiled = CompiledExtractor(network, Preprocessing(size=SIZE))
    eager = TorchExtractor(network, Preprocessing(size=SIZE), CPU)
    one, other = (np.stack(list(extractor.run(images))) for extractor in (compiled, eager))
    assert one.shape == other.shape == (5, 1280)
    assert np.allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max())


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


@pytest.mark.parametrize("capabilities", [["FP32"], ["FP32", "BF16"]])
def test_bfloat16_is_taken_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[str]
) -> None:
    class Core:
        def get_property(self, *_asked: str) -> list[str]:
            return capabilities

    monkeypatch.setattr("training.fitting.openvino.Core", Core)
    assert Machine.for_whole_networks(CPU).autocast == ("BF16" in capabilities)
