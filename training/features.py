"""What a frozen network says of each view of a slice, computed once and kept on disk by content.

fp32, BatchNorm and dropout as at work. A file is named by a hash of network, slice and view: what changed is
computed anew, and two runs share what they have in common.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.architectures import HounsfieldClassifier, split_last_layer
from models.export import feature_network
from models.inference import CompiledNetwork
from models.preprocessing import Preprocessing
from training.dataset import LabelledSlices
from training.views import View, render

Features = NDArray[np.float32]
_AHEAD = 8
_TRIES = 4
_EXPIRE_SECONDS = 30 * 24 * 3600
_GPU_BATCH = 16
# So many views of so many pixels a side take torch as long as the conversion that OpenVINO needs.
_LITTLE, _SIDE = 64, 512


@dataclass(frozen=True)
class Request:
    """A view of a slice: its index in the data set, and what is done to it."""

    index: int
    view: View


class Extractor(Protocol):
    """Computes features."""

    def run(self, images: Iterable[NDArray[np.int16]]) -> Iterator[Features]:
        """Yield the features of slices (size, size) in HU, in their order."""
        ...


class CompiledExtractor:
    """OpenVINO in fp32: three times as fast as torch on a CPU, once the network is converted, which takes seconds."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        self._network = CompiledNetwork(feature_network(network, preprocessing), {"INFERENCE_PRECISION_HINT": "f32"})

    def run(self, images: Iterable[NDArray[np.int16]]) -> Iterator[Features]:
        """Yield the features of slices."""
        for _key, (features,) in self._network.stream((None, image) for image in images):
            yield features


class TorchExtractor:
    """torch in fp32, on a GPU, or on a CPU where there is little to compute."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, device: torch.device) -> None:
        self._device = device
        self._batch = (
            _GPU_BATCH if device.type != "cpu" else max(1, min(_GPU_BATCH, (_SIDE // preprocessing.size) ** 2))
        )
        model = HounsfieldClassifier(network, preprocessing, frozen=True).to(device).eval()
        self._model = model.to(memory_format=torch.channels_last)

    def run(self, images: Iterable[NDArray[np.int16]]) -> Iterator[Features]:
        """Yield the features of slices."""
        waiting = iter(images)
        while batch := list(islice(waiting, self._batch)):
            hounsfield = torch.from_numpy(np.stack(batch)).float()[:, None].to(self._device)
            with torch.inference_mode():
                yield from self._model.features(hounsfield).cpu().numpy()


class FeatureCache:
    """Features of one network on disk. Broken or foreign files are computed again."""

    def __init__(
        self, folder: Path, data: LabelledSlices, network: nn.Module, preprocessing: Preprocessing, device: torch.device
    ) -> None:
        self._data = data
        self._network = network
        self._preprocessing = preprocessing
        self._device = device
        self._compiled: CompiledExtractor | None = None
        self._identity = _identity(network, preprocessing, device)
        self._folder = folder / self._identity[:16]
        _backbone, head = split_last_layer(network)
        self._width = next(head.parameters()).shape[1]
        _expire(folder, self._folder)

    def missing(self, requests: Iterable[Request]) -> list[Request]:
        """Return the requests that are not on disk yet."""
        return [request for request in dict.fromkeys(requests) if not self._file(request).is_file()]

    def extractor(self, views: int) -> Extractor:
        """Return what computes the features of so many views soonest."""
        little = views * max(self._preprocessing.size, _SIDE // 4) ** 2 <= _LITTLE * _SIDE**2
        if self._device.type != "cpu" or (little and self._compiled is None):
            return TorchExtractor(self._network, self._preprocessing, self._device)
        if self._compiled is None:
            self._compiled = CompiledExtractor(self._network, self._preprocessing)
        return self._compiled

    def expected_seconds(self, requests: Sequence[Request]) -> float:
        """Return about how long the features of these views will take, after trying the first."""
        images = [self._render(request) for request in requests[:1]]
        extractor = self.extractor(len(requests))
        list(extractor.run(images))  # warms up
        started = time.monotonic()
        list(extractor.run(images * _TRIES))
        return (time.monotonic() - started) / _TRIES * len(requests)

    def compute(
        self, requests: Sequence[Request], progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> None:
        """Compute and keep what is missing. `progress` is told (done, total)."""
        missing = self.missing(requests)
        if not missing:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(1) as pool:
            found = self.extractor(len(missing)).run(_ahead(pool, self._render, missing))
            for done, (request, features) in enumerate(zip(missing, found, strict=True), start=1):
                self._keep(request, features)
                progress(done, len(missing))

    def load(self, requests: Sequence[Request]) -> Features:
        """Return the features (requests, features) of requests that were computed."""
        rows = []
        for request in requests:
            try:
                rows.append(self._read(request))
            except (OSError, ValueError, EOFError):  # taken away or broken meanwhile
                self._file(request).unlink(missing_ok=True)
                self.compute([request])
                rows.append(self._read(request))
        return np.stack(rows)

    def _read(self, request: Request) -> Features:
        features = np.load(self._file(request), allow_pickle=False)
        if features.shape != (self._width,) or features.dtype != np.float32:
            raise ValueError("These are no features of this network.")
        return np.asarray(features)

    def _render(self, request: Request) -> NDArray[np.int16]:
        return render(self._data.images[request.index], request.view)

    def _file(self, request: Request) -> Path:
        view = hashlib.sha256(repr(request.view).encode()).hexdigest()
        digest = self._data.digests[request.index]
        return self._folder / digest[:2] / f"{digest[2:34]}-{view[:12]}.npy"

    def _keep(self, request: Request, features: Features) -> None:
        file = self._file(request)
        file.parent.mkdir(exist_ok=True)
        workshop = file.with_name(f".{uuid.uuid4().hex}.npy")
        np.save(workshop, features)
        workshop.replace(file)


def _expire(folder: Path, kept: Path) -> None:
    """Remove the features of networks that nobody has used for a month; note that `kept` is used."""
    if kept.is_dir():
        os.utime(kept)
    for other in folder.iterdir() if folder.is_dir() else ():
        if other != kept and time.time() - other.stat().st_mtime > _EXPIRE_SECONDS:
            shutil.rmtree(other, ignore_errors=True)


def _identity(network: nn.Module, preprocessing: Preprocessing, device: torch.device) -> str:
    """Hash of everything that decides the features of an image."""
    digest = hashlib.sha256(f"{type(network).__name__} {preprocessing} {device.type}".encode())
    backbone, _head = split_last_layer(network)
    for name, tensor in backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _ahead(
    pool: ThreadPoolExecutor, make: Callable[[Request], NDArray[np.int16]], requests: Iterable[Request]
) -> Iterator[NDArray[np.int16]]:
    """Make images beside the caller, a few ahead of it; yield them in order."""
    waiting = iter(requests)
    futures = deque(pool.submit(make, request) for request in islice(waiting, _AHEAD))
    while futures:
        yield futures.popleft().result()
        futures.extend(pool.submit(make, request) for request in islice(waiting, 1))
