"""The network at work: a bundle run by OpenVINO on the CPU."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from models.activation import add_activation
from models.bundle import Bundle, open_bundle
from models.errors import BundleError
from models.familiarity import load_familiarity
from models.inference import CompiledNetwork, multiplies_int8
from models.verdict import WHOLE, Coverage, Exam, ExamVerdict, decide

_FLOAT = {"INFERENCE_PRECISION_HINT": "f32"}


@dataclass(frozen=True)
class SliceOutput:
    """What the network says of one slice: calibrated probabilities (classes,) and features (features,).

    activation: maps (classes, height, width) of where the evidence comes from; None where the network has none.
    """

    probabilities: NDArray[np.float64]
    features: NDArray[np.float32]
    activation: NDArray[np.float32] | None = None


class Classifier:
    """A compiled bundle. Make it after a fork, never before: OpenVINO's threads do not survive one."""

    def __init__(
        self, bundle: Bundle, *, network: Path | None = None, exact: bool = False, asked: bool = False
    ) -> None:
        """Compile the network that serves: the one in int8 where the bundle has it and the processor multiplies so.

        network: another file of the bundle's network. exact: in 32-bit arithmetic. asked: whether what the bundle says
        of unknowns is known to whoever opens it, and it may speak; otherwise it abstains on everything unless it holds
        answers that passed. Raises BundleError where the IR does not fit the manifest.
        """
        self.bundle = bundle
        description = bundle.description
        passed = description.battery is not None and description.battery.get("passed") is True
        self.guard = description.guard if asked or passed else None
        if network is None:
            network = bundle.quantised if bundle.quantised and multiplies_int8() and not exact else bundle.network
        self._quantised = network != bundle.network
        try:
            read = openvino.Core().read_model(network)
            self._explains = add_activation(read)
            # What is left of an int8 network in floating point is the same on every machine, as its gate asked it.
            self._network = CompiledNetwork(read, _FLOAT if exact or self._quantised else None)
        except RuntimeError as error:
            raise BundleError(f"{network} cannot be run: {error}") from error
        size, classes = bundle.description.preprocessing.size, len(bundle.description.classes)
        if self._network.input_shape != [1, 1, size, size]:
            raise BundleError(f"{network} takes {self._network.input_shape}, not (1, 1, {size}, {size}).")
        self._familiarity = load_familiarity(bundle.familiarity)
        expected = [[1, classes], [1, self._familiarity.centres.shape[1]]]
        if self._network.output_shapes[:2] != expected:
            raise BundleError(f"{network} gives {self._network.output_shapes}, not {expected}.")

    @classmethod
    def open(cls, folder: Path, *, asked: bool = False) -> "Classifier":
        """Open and compile the bundle in `folder`; `asked` as above."""
        return cls(open_bundle(folder), asked=asked)

    @property
    def precision(self) -> str:
        """The arithmetic that the processor runs the network in: `int8`, `f32`, or `bf16` where it has that."""
        return "int8" if self._quantised else self._network.precision

    def stream(self, inputs: Iterable[tuple[Any, NDArray[np.int16]]]) -> Iterator[tuple[Any, SliceOutput]]:
        """Classify (key, slice) pairs as they come; yield (key, output) in their order.

        A slice is int16 of shape (size, size) in HU, and must not change until its output has come: it is not copied.
        No more slices are held than there are requests.
        """
        for key, (probabilities, features, *maps) in self._network.stream(inputs):
            yield key, SliceOutput(probabilities.astype(np.float64), features, maps[0] if self._explains else None)

    def probabilities(self, slices: Iterable[NDArray[np.int16]]) -> NDArray[np.float64]:
        """Return the probabilities (slices, classes) of slices (size, size) in HU, in their order."""
        rows = [output.probabilities for _key, output in self.stream((None, image) for image in slices)]
        return np.array(rows).reshape(len(rows), len(self.bundle.description.classes))

    def distances(self, outputs: Iterable[SliceOutput]) -> NDArray[np.float64]:
        """Return how far the exam whose slices, foot to head, gave these outputs lies from each class, (classes,)."""
        return self._familiarity.distances(np.array([output.features for output in outputs]))

    def decide(
        self, outputs: Iterable[SliceOutput], *, phantom: bool = False, coverage: Coverage = WHOLE
    ) -> ExamVerdict:
        """Return what is said of the exam whose slices, foot to head, gave these outputs, at least one.

        phantom: whether every image of it says that it is a phantom; whatever does not is a patient.
        """
        outputs = list(outputs)
        description = self.bundle.description
        exam = Exam(np.array([output.probabilities for output in outputs]), self.distances(outputs), phantom, coverage)
        return decide(description.class_names, exam, description.operating_point, self.guard)
