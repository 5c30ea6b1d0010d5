"""What `reticula train` does: data set → split by patient → fitting → figures → bundle."""

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from models.architectures import HounsfieldClassifier, build
from models.bundle import CARD, KNOWN_CLASSES, Bundle, Description, seal_bundle
from models.export import export_network
from models.preprocessing import Preprocessing
from models.verdict import INDETERMINATE, OperatingPoint, decide
from training.dataset import LabelledSlices
from training.errors import TrainingError
from training.fitting import Epoch, Schedule, fit_network, predict_logits
from training.splits import split_patients


@dataclass(frozen=True)
class Recipe:
    """One training run. weights: file to start from, None for random weights. limits: what the card warns of."""

    name: str
    version: str
    architecture: str
    weights: Path | None
    validation: float
    schedule: Schedule
    operating_point: OperatingPoint
    limits: str
    command: str


def train(
    recipe: Recipe,
    data: LabelledSlices,
    output: Path,
    *,
    on_batch: Callable[[int, int], None] = lambda _batch, _batches: None,
    on_epoch: Callable[[Epoch], None] = lambda _epoch: None,
) -> Bundle:
    """Train a network and write its bundle to `output`, which must not exist yet. Raises TrainingError."""
    if output.exists():
        raise TrainingError(f"{output} exists already: name a folder that does not, or remove it.")
    torch.manual_seed(recipe.schedule.seed)
    network = build(recipe.architecture, len(data.classes))
    if recipe.weights is not None:
        load_weights(network, recipe.weights)
    preprocessing = Preprocessing(size=data.images.shape[-1])
    training, validation = split_patients(
        data.labels, data.patients, validation=recipe.validation, seed=recipe.schedule.seed
    )
    model = HounsfieldClassifier(network, preprocessing)
    history = fit_network(model, data, training, validation, recipe.schedule, on_batch=on_batch, on_epoch=on_epoch)
    metrics = {
        "split": "whole patients",
        "training": _figures(model, data, training, recipe.operating_point),
        "validation": _figures(model, data, validation, recipe.operating_point),
        "epochs": [asdict(epoch) for epoch in history],
    }
    description = Description(
        name=recipe.name,
        version=recipe.version,
        architecture=recipe.architecture,
        classes=tuple(KNOWN_CLASSES[name] for name in data.classes),
        preprocessing=preprocessing,
        operating_point=recipe.operating_point,
        metrics=metrics,
        data={
            "fingerprint": data.fingerprint,
            "slices": len(data),
            "exams": len(np.unique(data.exams)),
            "patients": len(np.unique(data.patients)),
            "started_from": recipe.weights.name if recipe.weights else "random weights",
        },
        command=recipe.command,
    )
    return _write(description, network, recipe, output)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a state dict; only the last layer may have another shape and keeps its random start.

    Raises TrainingError where the file is unreadable or made for another architecture.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"{path} holds no weights that can be read: {error}.") from error
    own = network.state_dict()
    fitting = {
        name: value.to(own[name].dtype)
        for name, value in tensors.items()
        if name in own and value.shape == own[name].shape
    }
    last = {name for name in own if name.rsplit(".", 1)[0] == list(own)[-1].rsplit(".", 1)[0]}
    missing = set(own) - set(fitting) - last
    if missing:
        raise TrainingError(
            f"{path} does not fit this architecture: {len(missing)} tensors are missing, {min(missing)} among them."
        )
    network.load_state_dict({**own, **fitting})


def _figures(model: nn.Module, data: LabelledSlices, indices: Any, point: OperatingPoint) -> dict[str, Any]:
    """Accuracy by slice and by exam, with the counts that it rests on."""
    if not len(indices):
        return {"slices": 0, "exams": 0, "patients": 0}
    probabilities = torch.softmax(predict_logits(model, data, indices), dim=1).double().numpy()
    labels, exams = data.labels[indices], data.exams[indices]
    right = wrong = 0
    for exam in np.unique(exams):
        of_exam = exams == exam
        verdict = decide(data.classes, probabilities[of_exam], point).verdict
        truth = data.classes[int(labels[of_exam][0])]
        right += verdict == truth
        wrong += verdict not in (truth, INDETERMINATE)
    count = len(np.unique(exams))
    return {
        "slices": len(indices),
        "exams": count,
        "patients": len(np.unique(data.patients[indices])),
        "slice_accuracy": round(float((probabilities.argmax(axis=1) == labels).mean()), 4),
        "exam_accuracy": round(right / count, 4),
        "exams_indeterminate": count - right - wrong,
    }


def _write(description: Description, network: nn.Module, recipe: Recipe, output: Path) -> Bundle:
    """Make the bundle beside its place and rename it there: a broken run leaves no half bundle."""
    output.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        workshop.chmod(0o755)
        export_network(network, description.preprocessing, workshop)
        (workshop / CARD).write_text(_card(description, recipe), encoding="utf-8")
        seal_bundle(workshop, description)
        workshop.rename(output)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
    return Bundle(output, seal_bundle(output, description).sha256, description)


def _card(description: Description, recipe: Recipe) -> str:
    validation = description.metrics["validation"]
    if validation["exams"]:
        measured = (
            f"On {validation['exams']} exams of {validation['patients']} patients that took no part in fitting: "
            f"{validation['slice_accuracy']:.1%} of the slices and {validation['exam_accuracy']:.1%} of the exams "
            f"right, {validation['exams_indeterminate']} exams indeterminate. The epoch was chosen on these "
            "patients, so the figure flatters a little."
        )
    else:
        measured = "Nothing was held out, so nothing is known of its accuracy."
    return f"""# {description.name} {description.version}

{description.architecture}, classes {", ".join(description.class_names)},
started from {description.data["started_from"]}.

**Limits.** {recipe.limits}

**Data.** {description.data["slices"]} slices, {description.data["exams"]} exams,
{description.data["patients"]} patients; fingerprint `{description.data["fingerprint"]}`.

**Measured.** {measured}

**Made by.** `{description.command}` (torch {torch.__version__}, {os.cpu_count()} processors)

Decision support, not a diagnosis, and not a medical device.
"""
