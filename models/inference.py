"""OpenVINO on the CPU: one slice a request, several requests at once, results in the order of the slices."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

# Flags of Linux. Without one of these, sums of int8 products overflow 16 bits (OpenVINO, "saturation issue").
_INT8 = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
# So many slices are started one after the other: whoever prepares one drives the network out of a core's cache.
_BURST = 12
# Key, request, and the slice that the request reads: it is not copied.
_Running = tuple[Any, openvino.InferRequest, NDArray[np.int16]]


def multiplies_int8() -> bool:
    """Whether this processor multiplies int8 without losing anything."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return not _INT8.isdisjoint(flags)


class CompiledNetwork:
    """A compiled network. Make it after a fork, never before: OpenVINO's threads do not survive one."""

    def __init__(self, network: "Path | openvino.Model", options: Mapping[str, str] | None = None) -> None:
        """Compile a network. Raises RuntimeError where OpenVINO cannot run it."""
        self._compiled = openvino.Core().compile_model(
            network, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", **(options or {})}
        )
        # More than run at once: the network never waits for the next slice while one is there.
        count = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) + _BURST
        self._requests = [self._compiled.create_infer_request() for _ in range(count)]

    @property
    def precision(self) -> str:
        """The arithmetic that the processor runs the network in: `f32`, or `bf16` where it has that."""
        return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string())

    @property
    def input_shape(self) -> list[int]:
        """The shape of the input."""
        return list(self._compiled.input(0).shape)

    @property
    def output_shapes(self) -> list[list[int]]:
        """The shapes of the outputs, in their order."""
        return [list(output.shape) for output in self._compiled.outputs]

    def stream(
        self, inputs: Iterable[tuple[Any, NDArray[np.int16]]]
    ) -> Iterator[tuple[Any, tuple[NDArray[np.float32], ...]]]:
        """Run (key, slice) pairs as they come; yield (key, outputs of one slice each) in their order.

        A slice is int16 of shape (size, size) in HU, and must not change until its outputs have come: it is
        not copied where it is contiguous and writable.
        No more slices are held than there are requests.
        """
        # Requests that are waited for, no callbacks: those need the interpreter's lock, which whoever ends a
        # queue of them may hold, and then both wait for ever.
        free = list(self._requests)
        running: deque[_Running] = deque()
        try:
            for key, image in inputs:
                if not free:
                    for _ in range(_BURST):
                        yield self._finish(running, free)
                request = free.pop()
                given = np.ascontiguousarray(image[None, None], dtype=np.int16)
                request.set_input_tensor(openvino.Tensor(given, shared_memory=given.flags.writeable))
                request.start_async()
                running.append((key, request, given))
            while running:
                yield self._finish(running, free)
        finally:
            for _key, request, _image in running:
                request.wait()

    def _finish(
        self, running: "deque[_Running]", free: "list[openvino.InferRequest]"
    ) -> tuple[Any, tuple[NDArray[np.float32], ...]]:
        """Wait for the request that was started first."""
        key, request, _image = running.popleft()
        request.wait()
        free.append(request)
        outputs = len(self._compiled.outputs)
        return key, tuple(request.get_output_tensor(index).data[0].copy() for index in range(outputs))
