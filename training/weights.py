"""Where a network starts: weights from a file, torchvision's ImageNet weights, or random ones, never silently."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from models.architectures import build
from training.errors import TrainingError

_SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Start:
    """Where a network starts. file: the weights' file, for the kinds `file` and `bundle`.

    bundle: a network that has learned already, its last layer too; only a retraining, which knows whom it has learned
    from, goes on from one.
    """

    kind: Literal["file", "bundle", "imagenet", "scratch"]
    file: Path | None = None

    def __str__(self) -> str:
        """Say it as the card does."""
        if self.file is not None:
            return f"weights of {self.file.name}"
        return "torchvision's ImageNet weights" if self.kind == "imagenet" else "random weights"


def find_start(architecture: str, weights: Path | None, *, from_scratch: bool) -> Start:
    """Return where an architecture starts. `weights`: a file, or a folder of files named after architectures.

    Without weights they are torchvision's by download, unless `from_scratch` says that random ones are meant. Raises
    TrainingError for a folder without a file for the architecture, unless from_scratch allows that.
    """
    if weights is None:
        return Start("scratch" if from_scratch else "imagenet")
    if weights.is_dir():
        names = (architecture, architecture.replace("_", ""))
        found = sorted(
            path for path in weights.iterdir() if path.suffix in _SUFFIXES and path.name.lower().startswith(names)
        )
        if found:
            return Start("file", _of_no_bundle(found[0]))
        if from_scratch:
            return Start("scratch")
        raise TrainingError(
            f"{weights} holds no weights for {architecture} ({architecture}*.safetensors or .pth): add them, or say "
            "--from-scratch for what has none."
        )
    if not weights.is_file():
        raise TrainingError(f"{weights} does not exist: give a file of weights, or a folder of them.")
    return Start("file", _of_no_bundle(weights))


def _of_no_bundle(file: Path) -> Path:
    """Refuse the weights of a bundle: they have learned from patients whom a new split would hold out."""
    if (file.parent / "bundle.json").exists():
        raise TrainingError(
            f"{file} belongs to a bundle, which knows patients that this training would test it on: go on "
            "from it with 'reticula retrain', or give ImageNet weights."
        )
    return file


def make_network(architecture: str, classes: int, start: Start, seed: int) -> nn.Module:
    """Return a network as it starts: the last layer, and with `scratch` all of it, random after the seed."""
    torch.manual_seed(seed)
    network = build(architecture, classes)
    if start.file is not None:
        load_weights(network, start.file, last_layer=start.kind == "bundle")
    elif start.kind == "imagenet":
        _fill(network, _download(architecture), f"torchvision's weights for {architecture}", last_layer=False)
    return network


def load_weights(network: nn.Module, path: Path, *, last_layer: bool) -> None:
    """Load a state dict; without `last_layer`, or where it has another shape, that one keeps its random start.

    Raises TrainingError where the file is unreadable or made for another architecture.
    """
    try:
        if path.suffix in (".pth", ".pt"):
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        else:
            tensors = load_file(path)
    except Exception as error:  # torch's unpickler raises whatever it likes on what it did not write
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path} holds no weights that can be read: {reason}") from error
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise TrainingError(f"{path} holds something else than the tensors of a network.")
    _fill(network, tensors, str(path), last_layer=last_layer)


def _fill(network: nn.Module, tensors: dict[str, Tensor], origin: str, *, last_layer: bool) -> None:
    own = network.state_dict()
    last = {name for name in own if name.rsplit(".", 1)[0] == list(own)[-1].rsplit(".", 1)[0]}
    fitting = {
        name: value.to(own[name].dtype)
        for name, value in tensors.items()
        if name in own and value.shape == own[name].shape and (last_layer or name not in last)
    }
    missing = set(own) - set(fitting) - last
    # Files from before BatchNorm counted its batches lack these.
    missing = {name for name in missing if not name.endswith("num_batches_tracked")}
    if missing:
        raise TrainingError(
            f"{origin} does not fit this architecture: {len(missing)} tensors are missing, {min(missing)} among them."
        )
    network.load_state_dict({**own, **fitting})


def _download(architecture: str) -> dict[str, Tensor]:
    weights = get_model_weights(architecture).DEFAULT
    # The study's networks are those of the first ImageNet weights.
    weights = getattr(type(weights), "IMAGENET1K_V1", weights)
    try:
        tensors: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise TrainingError(
            f"ImageNet weights for {architecture} cannot be downloaded ({error}): give a file with --weights, or say "
            "--from-scratch."
        ) from error
    return tensors


def settle_statistics(model: nn.Module, images: Tensor, batch: int = 8) -> None:
    """Give BatchNorm of a random network the statistics of `images` (N, 1, size, size) in HU.

    A frozen random network would else multiply its signal away: its BatchNorm has seen nothing yet.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
        layer.train()
    with torch.no_grad():
        for start in range(0, len(images), batch):
            model(images[start : start + batch])
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
