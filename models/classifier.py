"""The network at work: a bundle run by OpenVINO on the CPU, one slice a request, several requests at once."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from models.bundle import Bundle, open_bundle
from models.errors import BundleError


class Classifier:
    """A compiled bundle. Make it after a fork, never before: OpenVINO's threads do not survive one."""

    def __init__(self, bundle: Bundle) -> None:
        """Compile the network. Raises BundleError where the IR does not fit the manifest."""
        self.bundle = bundle
        core = openvino.Core()
        try:
            self._compiled = core.compile_model(bundle.network, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
        except RuntimeError as error:
            raise BundleError(f"{bundle.network} cannot be run: {error}") from error
        size, classes = bundle.description.preprocessing.size, len(bundle.description.classes)
        if list(self._compiled.input(0).shape) != [1, 1, size, size]:
            raise BundleError(f"{bundle.network} takes {self._compiled.input(0).shape}, not (1, 1, {size}, {size}).")
        if list(self._compiled.output(0).shape) != [1, classes]:
            raise BundleError(f"{bundle.network} gives {self._compiled.output(0).shape}, not (1, {classes}).")

    @classmethod
    def open(cls, folder: Path) -> "Classifier":
        """Open and compile the bundle in `folder`."""
        return cls(open_bundle(folder))

    @property
    def precision(self) -> str:
        """The arithmetic that the processor runs the network in: `f32`, or `bf16` where it has that."""
        return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    @property
    def requests(self) -> int:
        """How many slices are best on their way at once."""
        return int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def stream(self, inputs: Iterable[tuple[Any, NDArray[np.int16]]]) -> Iterator[tuple[Any, NDArray[np.float64]]]:
        """Classify (key, slice) pairs as they come; yield (key, probabilities), in the order of completion.

        A slice is int16 of shape (size, size) in HU, the probabilities are of shape (classes,). No more slices
        are held than there are requests.
        """
        done: list[tuple[Any, NDArray[np.float64]]] = []

        def collect(request: Any, key: Any) -> None:
            done.append((key, request.get_output_tensor(0).data[0].astype(np.float64)))

        queue = openvino.AsyncInferQueue(self._compiled, self.requests)
        queue.set_callback(collect)
        for key, image in inputs:
            queue.start_async({0: image[None, None]}, key)
            while done:
                yield done.pop(0)
        queue.wait_all()
        yield from done

    def probabilities(self, slices: Iterable[NDArray[np.int16]]) -> NDArray[np.float64]:
        """Return the probabilities (slices, classes) of slices (size, size) in HU, in their order."""
        rows = sorted(self.stream(enumerate(slices)), key=lambda row: int(row[0]))
        return np.array([row for _key, row in rows]).reshape(len(rows), len(self.bundle.description.classes))
