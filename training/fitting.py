"""The loop: epochs of cross-entropy, the best one kept, and a checkpoint after each to go on from."""

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import openvino
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.errors import TrainingError
from training.examples import Examples

_EVALUATION_BATCH = 8
Select = Literal["accuracy", "loss"]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast; the defaults are the study's.

    pace: whether the learning rate stays, or rises and falls once (Smith & Topin 2018). select: what the best epoch
    is best in, on validation slices. selectable_from: the first epoch that may be the best.
    """

    epochs: int = 30
    batch: int = 32
    learning_rate: float = 1e-4
    weight_decay: float = 1e-3
    seed: int = 0
    pace: Literal["constant", "one-cycle"] = "constant"
    select: Select = "accuracy"
    selectable_from: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            rates = f"Learning rate {self.learning_rate}, weight decay {self.weight_decay}"
            raise TrainingError(f"{rates}: the first must be more than 0, the second at least 0.")


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; losses are mean cross-entropies. No validation slices, no validation figures."""

    number: int
    training_loss: float
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True)
class Course:
    """How a fit went. best: number of the epoch that was kept. interrupted: ended before its last epoch by Ctrl-C."""

    epochs: tuple[Epoch, ...]
    best: int
    interrupted: bool


@dataclass(frozen=True)
class Machine:
    """Where the arithmetic is done. autocast: in bfloat16."""

    device: torch.device
    autocast: bool = False

    @classmethod
    def for_whole_networks(cls, device: torch.device) -> "Machine":
        """Return the faster arithmetic: bfloat16 where the device multiplies it; emulated it takes ten times longer."""
        if device.type == "cuda":
            return cls(device, autocast=torch.cuda.is_bf16_supported(including_emulation=False))
        return cls(device, autocast="BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))

    def run(self, module: nn.Module, inputs: Tensor) -> Tensor:
        """Return the logits in fp32."""
        inputs = inputs.to(self.device)
        if inputs.dim() == 4:
            inputs = inputs.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            logits: Tensor = module(inputs)
        return logits.float()


@dataclass(frozen=True)
class Progress:
    """Who is told: on_batch (done, of how many), on_epoch."""

    on_batch: Callable[[int, int], None] = lambda _done, _total: None
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None


UNWATCHED = Progress()


def fit_network(
    module: nn.Module,
    training: Examples,
    validation: Examples | None,
    schedule: Schedule,
    machine: Machine,
    *,
    class_weights: Tensor | None = None,
    checkpoint: Path | None = None,
    progress: Progress = UNWATCHED,
) -> Course:
    """Train `module` in place; the best epoch on validation stays, without validation the last.

    Ctrl-C ends the fit after the last whole epoch. A checkpoint that lies there already is gone on from.
    """
    fit = _Fit(module, training, validation, schedule, machine, class_weights)
    if checkpoint is not None and checkpoint.is_file():
        fit.restore(checkpoint)
    interrupted = False
    try:
        while len(fit.history) < schedule.epochs:
            progress.on_epoch(fit.epoch(progress.on_batch))
            if checkpoint is not None:
                fit.save(checkpoint)
    except KeyboardInterrupt:
        if fit.best is None:
            raise
        interrupted = True
    return fit.finish(interrupted=interrupted)


def predict_logits(module: nn.Module, examples: Examples, machine: Machine) -> Tensor:
    """Return the logits (examples, classes) as the network works, on the CPU."""
    module.eval()
    generator = torch.Generator().manual_seed(0)
    count = len(examples.targets)
    rows = np.arange(count)
    with torch.inference_mode():
        parts = [
            machine.run(module, examples.inputs(rows[start : start + _EVALUATION_BATCH], 1, generator)).cpu()
            for start in range(0, count, _EVALUATION_BATCH)
        ]
    return torch.cat(parts)


def loss_and_accuracy(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return the mean cross-entropy of all examples, and the accuracy of those that have a class."""
    named = targets.max(dim=1).values > 1 / targets.shape[1] + 1e-6
    right = logits[named].argmax(dim=1) == targets[named].argmax(dim=1)
    return float(functional.cross_entropy(logits, targets)), float(right.float().mean())


class _Fit:
    def __init__(
        self,
        module: nn.Module,
        training: Examples,
        validation: Examples | None,
        schedule: Schedule,
        machine: Machine,
        class_weights: Tensor | None,
    ) -> None:
        self._module = module.to(machine.device).to(memory_format=torch.channels_last)
        self._training = training
        self._validation = validation
        self._schedule = schedule
        self._machine = machine
        self._weights = None if class_weights is None else class_weights.to(machine.device)
        self._batches = -(-len(training.targets) // schedule.batch)
        torch.manual_seed(schedule.seed)  # of dropout
        self._generator = torch.Generator().manual_seed(schedule.seed)
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
        self._pace = None
        if schedule.pace == "one-cycle":
            self._pace = torch.optim.lr_scheduler.OneCycleLR(
                self._optimizer, schedule.learning_rate, total_steps=self._batches * schedule.epochs, pct_start=0.2
            )
        self.history: list[Epoch] = []
        self.best: int | None = None
        self._best_state: dict[str, Any] = {}

    def epoch(self, on_batch: Callable[[int, int], None]) -> Epoch:
        number = len(self.history) + 1
        training_loss = self._learn(number, on_batch)
        loss = accuracy = None
        if self._validation is not None:
            logits = predict_logits(self._module, self._validation, self._machine)
            loss, accuracy = loss_and_accuracy(logits, self._validation.targets)
        epoch = Epoch(number, training_loss, loss, accuracy)
        self.history.append(epoch)
        if number >= self._schedule.selectable_from and (
            self.best is None or self._merit(epoch) > self._merit(self.history[self.best - 1])
        ):
            self.best = number
            self._best_state = copy.deepcopy(self._module.state_dict())
        return epoch

    def _learn(self, number: int, on_batch: Callable[[int, int], None]) -> float:
        self._module.train()
        count, size = len(self._training.targets), self._schedule.batch
        order = torch.randperm(count, generator=self._generator).numpy()
        total = 0.0
        for batch in range(self._batches):
            rows = np.sort(order[batch * size : (batch + 1) * size])
            if len(rows) == 1 < count:  # BatchNorm has nothing to compare a single example with
                continue
            logits = self._machine.run(self._module, self._training.inputs(rows, number, self._generator))
            targets = self._training.targets[torch.from_numpy(rows)].to(self._machine.device)
            loss = functional.cross_entropy(logits, targets, weight=self._weights)
            if not torch.isfinite(loss):
                raise TrainingError("The loss is no number any more: take a smaller --learning-rate.")
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            if self._pace is not None:
                self._pace.step()
            total += float(loss.detach()) * len(rows)
            on_batch(batch + 1, self._batches)
        return total / count

    def _merit(self, epoch: Epoch) -> tuple[float, float]:
        """The larger the better. Without validation every epoch is better than the one before."""
        if epoch.validation_loss is None or epoch.validation_accuracy is None:
            return float(epoch.number), 0.0
        accuracy = epoch.validation_accuracy if self._schedule.select == "accuracy" else 0.0
        return accuracy, -epoch.validation_loss

    def finish(self, *, interrupted: bool) -> Course:
        if self.best is None:
            raise TrainingError("No epoch was finished that may be kept: train for more of them.")
        self._module.load_state_dict(self._best_state)
        self._module.eval()
        return Course(tuple(self.history), self.best, interrupted)

    def save(self, file: Path) -> None:
        state = {
            "schedule": asdict(self._schedule),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
            "best_state": self._best_state,
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "pace": None if self._pace is None else self._pace.state_dict(),
            "generator": self._generator.get_state(),
            "dropout": torch.get_rng_state(),
        }
        workshop = file.with_suffix(".new")
        torch.save(state, workshop)
        workshop.replace(file)

    def restore(self, file: Path) -> None:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            if state["schedule"] != asdict(self._schedule):
                raise TrainingError(f"{file} was made with another schedule: remove it, or give the same options.")
            self._module.load_state_dict(state["module"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._pace is not None:
                self._pace.load_state_dict(state["pace"])
            self._generator.set_state(state["generator"])
            torch.set_rng_state(state["dropout"])
            self.history = [Epoch(**epoch) for epoch in state["history"]]
            self.best, self._best_state = state["best"], state["best_state"]
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(f"{file} is no checkpoint that can be gone on from: remove it.") from error
