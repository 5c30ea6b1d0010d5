"""The network at work: a bundle run by OpenVINO on the CPU, one slice a request, several requests at once."""

from collections import deque
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
        count = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests = [self._compiled.create_infer_request() for _ in range(count)]

    @classmethod
    def open(cls, folder: Path) -> "Classifier":
        """Open and compile the bundle in `folder`."""
        return cls(open_bundle(folder))

    @property
    def precision(self) -> str:
        """The arithmetic that the processor runs the network in: `f32`, or `bf16` where it has that."""
        return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    def stream(self, inputs: Iterable[tuple[Any, NDArray[np.int16]]]) -> Iterator[tuple[Any, NDArray[np.float64]]]:
        """Classify (key, slice) pairs as they come; yield (key, probabilities) in their order.

        A slice is int16 of shape (size, size) in HU, the probabilities are of shape (classes,). No more slices
        are held than there are requests.
        """
        # Requests that are waited for, no callbacks: those need the interpreter's lock, which whoever ends a
        # queue of them may hold, and then both wait for ever.
        free = list(self._requests)
        running: deque[tuple[Any, openvino.InferRequest]] = deque()
        try:
            for key, image in inputs:
                if not free:
                    yield self._finish(running, free)
                request = free.pop()
                request.start_async({0: image[None, None]})
                running.append((key, request))
            while running:
                yield self._finish(running, free)
        finally:
            for _key, request in running:
                request.wait()

    def probabilities(self, slices: Iterable[NDArray[np.int16]]) -> NDArray[np.float64]:
        """Return the probabilities (slices, classes) of slices (size, size) in HU, in their order."""
        rows = [row for _key, row in self.stream((None, image) for image in slices)]
        return np.array(rows).reshape(len(rows), len(self.bundle.description.classes))

    @staticmethod
    def _finish(
        running: "deque[tuple[Any, openvino.InferRequest]]", free: "list[openvino.InferRequest]"
    ) -> tuple[Any, NDArray[np.float64]]:
        """Wait for the request that was started first."""
        key, request = running.popleft()
        request.wait()
        free.append(request)
        return key, request.get_output_tensor(0).data[0].astype(np.float64)
