"""The loop: epochs of cross-entropy, the best one kept by its loss on validation patients."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from training.augmentation import random_views
from training.dataset import LabelledSlices

_EVALUATION_BATCH = 8


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. `window`: side of the views in all epochs but the last `full_epochs`."""

    epochs: int
    full_epochs: int
    window: int
    batch: int
    learning_rate: float
    weight_decay: float
    seed: int


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; losses are mean cross-entropies."""

    number: int
    training_loss: float
    validation_loss: float | None
    validation_accuracy: float | None


def fit_network(
    model: nn.Module,
    data: LabelledSlices,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    schedule: Schedule,
    *,
    on_batch: Callable[[int, int], None] = lambda _batch, _batches: None,
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> list[Epoch]:
    """Train `model` (HU in, logits out) in place on the slices with the indices `training`.

    Of the full-size epochs the one with the lowest validation loss stays; without validation the last.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    batches = -(-len(training) // schedule.batch)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, total_steps=batches * schedule.epochs, pct_start=0.2
    )
    model.to(memory_format=torch.channels_last)
    history: list[Epoch] = []
    best: tuple[float, dict[str, torch.Tensor]] | None = None
    for number in range(1, schedule.epochs + 1):
        full = number > schedule.epochs - schedule.full_epochs
        window = data.images.shape[-1] if full else schedule.window
        model.train()
        total = 0.0
        order = training[torch.randperm(len(training), generator=generator).numpy()]
        for batch in range(batches):
            chosen = np.sort(order[batch * schedule.batch : (batch + 1) * schedule.batch])
            images = torch.from_numpy(data.images[chosen]).float()[:, None]
            views = random_views(images, data.boxes[chosen], window, generator)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(views.to(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), torch.from_numpy(data.labels[chosen]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            pace.step()
            total += float(loss.detach()) * len(chosen)
            on_batch(batch + 1, batches)
        validation_loss = accuracy = None
        if len(validation):
            logits = predict_logits(model, data, validation)
            labels = torch.from_numpy(data.labels[validation])
            validation_loss = float(functional.cross_entropy(logits, labels))
            accuracy = float((logits.argmax(dim=1) == labels).float().mean())
            if full and (best is None or validation_loss < best[0]):
                best = validation_loss, copy.deepcopy(model.state_dict())
        history.append(Epoch(number, total / len(training), validation_loss, accuracy))
        on_epoch(history[-1])
    if best is not None:
        model.load_state_dict(best[1])
    model.eval()
    return history


def predict_logits(model: nn.Module, data: LabelledSlices, indices: NDArray[np.int64]) -> torch.Tensor:
    """Return the logits (slices, classes) of whole slices, in the order of `indices`."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(indices), _EVALUATION_BATCH):
            images = torch.from_numpy(data.images[indices[start : start + _EVALUATION_BATCH]]).float()[:, None]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                parts.append(model(images.to(memory_format=torch.channels_last)).float())
    return torch.cat(parts)
