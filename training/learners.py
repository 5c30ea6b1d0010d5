"""Two ways to learn: the last layer on features that were computed once (the study's), or the whole network."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.architectures import FeaturesOf, HounsfieldClassifier, split_last_layer
from models.familiarity import Familiarity
from models.preprocessing import Preprocessing
from training.dataset import BACKGROUND, LabelledSlices
from training.examples import Examples, FeatureExamples, RandomExamples, ViewExamples, augmented, whole
from training.familiarity import fit_familiarity
from training.features import FeatureCache, Features, Request
from training.fitting import (
    UNWATCHED,
    Course,
    Machine,
    Progress,
    Schedule,
    fit_network,
    loss_and_accuracy,
    predict_logits,
)
from training.predictions import Predictions, predictions

Indices = NDArray[np.int64]
_TRIED_SLICES = 4


@dataclass(frozen=True)
class Views:
    """What a slice is shown as. study: itself and its three synthetic images; random: a new view in every epoch.

    window, full_epochs: of random views; see `training.examples.RandomExamples`.
    """

    kind: Literal["study", "random"] = "study"
    window: int = 352
    full_epochs: int = 2


@dataclass(frozen=True)
class Fitted:
    """A network that learned. network: torchvision's, to be exported; accuracies: on the examples of the loop."""

    network: nn.Module
    familiarity: Familiarity
    course: Course
    training_accuracy: float
    validation_accuracy: float | None
    examples: tuple[int, int]


class Learner(Protocol):
    """Learns from some slices of a data set, and says what it thinks of others."""

    def prepare(self, indices: Indices, trained: Indices) -> None:
        """Compute beforehand what learning from `trained` and judging `indices` need."""
        ...

    def prepared(self, indices: Indices, trained: Indices) -> bool:
        """Whether nothing is left for `prepare` to do that would take time."""
        ...

    def expected_seconds(self, indices: Indices, trained: Indices, learned_from: int) -> float:
        """Return about how long `prepare` and fits on `learned_from` slices in all will take, after trying a few."""
        ...

    def fit(
        self,
        training: Indices,
        validation: Indices,
        *,
        epochs: int | None = None,
        checkpoint: Path | None = None,
        progress: Progress = UNWATCHED,
    ) -> Fitted:
        """Learn from `training`; `validation` chooses the epoch, else `epochs` says how many."""
        ...

    def judge(self, fitted: Fitted, indices: Indices) -> Predictions:
        """Return what a network says of whole slices."""
        ...


class LastLayerLearner:
    """Trains the last layer; the features of all views are computed once and kept."""

    def __init__(
        self,
        network: nn.Module,
        data: LabelledSlices,
        cache: FeatureCache,
        schedule: Schedule,
        *,
        weighted: bool,
        on_feature: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self._network = network
        self._data = data
        self._cache = cache
        self._schedule = schedule
        self._weighted = weighted
        self._on_feature = on_feature

    def requests(self, indices: Indices, trained: Indices) -> list[Request]:
        """Return the views that are needed to learn from `trained` and to judge `indices`."""
        return [*augmented(self._data, trained, self._schedule.seed), *whole(np.setdiff1d(indices, trained))]

    def prepare(self, indices: Indices, trained: Indices) -> None:
        """Compute the features that are not on disk yet."""
        self._cache.compute(self.requests(indices, trained), self._on_feature)

    def prepared(self, indices: Indices, trained: Indices) -> bool:
        """Whether all features are on disk."""
        return not self._cache.missing(self.requests(indices, trained))

    def expected_seconds(self, indices: Indices, trained: Indices, learned_from: int) -> float:
        """Return about how long the missing features will take; the fits themselves take seconds."""
        missing = self._cache.missing(self.requests(indices, trained))
        return self._cache.expected_seconds(missing) if missing else 0.0

    def fit(
        self,
        training: Indices,
        validation: Indices,
        *,
        epochs: int | None = None,
        checkpoint: Path | None = None,
        progress: Progress = UNWATCHED,
    ) -> Fitted:
        """Train the last layer."""
        network = copy.deepcopy(self._network)
        _backbone, head = split_last_layer(network)
        examples = self._examples(training)
        validating = self._examples(validation) if len(validation) else None
        schedule = _shortened(self._schedule, epochs)
        weights = class_weights(self._data, training) if self._weighted else None
        machine = Machine(torch.device("cpu"))
        course = fit_network(
            head, examples, validating, schedule, machine,
            class_weights=weights, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        seen = np.concatenate([training, validation])
        features = self._cache.load(whole(seen))
        familiarity = _familiarity(features, self._data, seen)
        return _fitted(network, familiarity, course, head, examples, validating, machine)

    def judge(self, fitted: Fitted, indices: Indices) -> Predictions:
        """Return what a network says of whole slices."""
        _backbone, head = split_last_layer(fitted.network)
        features = self._cache.load(whole(indices))
        with torch.inference_mode():
            logits = head.eval()(torch.from_numpy(features)).double().numpy()
        distances = exam_distances(fitted.familiarity, features, self._data.exams[indices])
        return predictions(self._data, indices, logits, distances)

    def _examples(self, indices: Indices) -> FeatureExamples:
        requests = augmented(self._data, indices, self._schedule.seed)
        return FeatureExamples(self._cache.load(requests), self._data.targets[[request.index for request in requests]])


class WholeNetworkLearner:
    """Trains every parameter, on the views of the study or on random ones."""

    def __init__(
        self,
        network: nn.Module,
        data: LabelledSlices,
        preprocessing: Preprocessing,
        schedule: Schedule,
        views: Views,
        machine: Machine,
        *,
        weighted: bool,
        frozen: bool = False,
    ) -> None:
        """`frozen` trains the last layer only, without keeping features: the plain loop."""
        self._network = network
        self._data = data
        self._preprocessing = preprocessing
        self._schedule = schedule
        self._views = views
        self._machine = machine
        self._weighted = weighted
        self._frozen = frozen

    def prepare(self, indices: Indices, trained: Indices) -> None:
        """Nothing can be computed beforehand."""

    def prepared(self, indices: Indices, trained: Indices) -> bool:
        """Nothing was computed beforehand."""
        return False

    def expected_seconds(self, indices: Indices, trained: Indices, learned_from: int) -> float:
        """Return about how long the fits will take, after one step on a few slices."""
        model = HounsfieldClassifier(copy.deepcopy(self._network), self._preprocessing, frozen=self._frozen)
        tried = trained[:_TRIED_SLICES]
        schedule = replace(self._schedule, epochs=1, batch=_TRIED_SLICES, selectable_from=1)
        seconds = []
        for _ in range(2):  # the first warms up
            started = time.monotonic()
            fit_network(model, self._examples(tried, tried[:0], schedule)[0], None, schedule, self._machine)
            seconds.append(time.monotonic() - started)
        return seconds[-1] / len(tried) * learned_from * self._schedule.epochs

    def fit(
        self,
        training: Indices,
        validation: Indices,
        *,
        epochs: int | None = None,
        checkpoint: Path | None = None,
        progress: Progress = UNWATCHED,
    ) -> Fitted:
        """Train the network."""
        network = copy.deepcopy(self._network)
        model = HounsfieldClassifier(network, self._preprocessing, frozen=self._frozen)
        schedule = _shortened(self._schedule, epochs)
        weights = class_weights(self._data, training) if self._weighted else None
        examples, validating = self._examples(training, validation, schedule)
        course = fit_network(
            model, examples, validating, schedule, self._machine,
            class_weights=weights, checkpoint=checkpoint, progress=progress,
        )  # fmt: skip
        seen = np.concatenate([training, validation])
        features, _logits = self._run(model, seen)
        familiarity = _familiarity(features, self._data, seen)
        shown: Examples = examples
        if self._views.kind == "random":
            shown = ViewExamples(self._data, whole(training))
        return _fitted(network, familiarity, course, model, shown, validating, self._machine)

    def judge(self, fitted: Fitted, indices: Indices) -> Predictions:
        """Return what a network says of whole slices."""
        model = HounsfieldClassifier(fitted.network, self._preprocessing).to(self._machine.device).eval()
        features, logits = self._run(model, indices)
        distances = exam_distances(fitted.familiarity, features, self._data.exams[indices])
        return predictions(self._data, indices, logits.astype(np.float64), distances)

    def _examples(self, training: Indices, validation: Indices, schedule: Schedule) -> tuple[Examples, Examples | None]:
        if self._views.kind == "random":
            full_from = schedule.epochs - min(self._views.full_epochs, schedule.epochs) + 1
            examples = RandomExamples(self._data, training, window=self._views.window, full_from=full_from)
            return examples, ViewExamples(self._data, whole(validation)) if len(validation) else None
        seed = schedule.seed
        validating = ViewExamples(self._data, augmented(self._data, validation, seed)) if len(validation) else None
        return ViewExamples(self._data, augmented(self._data, training, seed)), validating

    def _run(self, model: HounsfieldClassifier, indices: Indices) -> tuple[Features, Features]:
        """Return features and logits of whole slices."""
        examples = ViewExamples(self._data, whole(indices))
        features = predict_logits(FeaturesOf(model), examples, self._machine)
        with torch.inference_mode():
            logits = model.head.to(self._machine.device)(features.to(self._machine.device)).float().cpu()
        return features.numpy(), logits.numpy()


def exam_distances(familiarity: Familiarity, features: Features, exams: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return for each slice how far its exam lies from each class, (slices, classes)."""
    distances = np.zeros((len(exams), len(familiarity.centres)))
    for exam in set(exams.tolist()):
        distances[exams == exam] = familiarity.distances(features[exams == exam])
    return distances


def _familiarity(features: Features, data: LabelledSlices, seen: Indices) -> Familiarity:
    """Where the exams lie that a fit has seen, those among them that chose the epoch."""
    return fit_familiarity(features, data.labels[seen], data.exams[seen], len(data.classes))


def class_weights(data: LabelledSlices, training: Indices) -> Tensor:
    """Return a weight for each class, so that all weigh the same together and a slice weighs 1 on average."""
    labels = data.labels[training]
    counts = np.bincount(labels[labels != BACKGROUND], minlength=len(data.classes))
    return torch.from_numpy((counts.sum() / (len(counts) * counts)).astype(np.float32))


def _shortened(schedule: Schedule, epochs: int | None) -> Schedule:
    """A rate that rises and falls once needs the whole course."""
    if epochs is None or schedule.pace == "one-cycle":
        return schedule
    return replace(schedule, epochs=epochs, selectable_from=min(schedule.selectable_from, epochs))


def _fitted(
    network: nn.Module,
    familiarity: Familiarity,
    course: Course,
    module: nn.Module,
    examples: Examples,
    validating: Examples | None,
    machine: Machine,
) -> Fitted:
    def accuracy(shown: Examples) -> float:
        return loss_and_accuracy(predict_logits(module, shown, machine), shown.targets)[1]

    return Fitted(
        network=network.cpu().eval(),
        familiarity=familiarity,
        course=course,
        training_accuracy=accuracy(examples),
        validation_accuracy=None if validating is None else accuracy(validating),
        examples=(len(examples.targets), 0 if validating is None else len(validating.targets)),
    )
