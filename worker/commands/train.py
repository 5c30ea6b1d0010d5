"""`reticula train`: from a folder of labelled exams to a bundle. The one command that needs torch."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from worker import console
from worker.errors import WorkerError

_LIMITS = "Trained on the data below and on nothing else; the figures hold for patients like these."
# Without these, glibc gives the memory of every batch back to the system and asks for it again.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}


def train(
    dataset: Annotated[Path, typer.Argument(help="Folder with UIP/ and NSIP/, or phantoms with truth.json.")],
    output: Annotated[Path, typer.Option(help="Folder of the new bundle; it must not exist.")],
    weights: Annotated[Path | None, typer.Option(help="Start from these weights (.safetensors).")] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Start from random weights.")] = False,
    architecture: Annotated[str, typer.Option(help="The network.")] = "mobilenet_v2",
    name: Annotated[str, typer.Option(help="Name of the model.")] = "uip-nsip",
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    epochs: Annotated[int, typer.Option(help="Times through the data.", min=1)] = 10,
    full_epochs: Annotated[int, typer.Option(help="The last of them see whole slices.", min=1)] = 2,
    window: Annotated[int, typer.Option(help="Side in pixels of what the others see.", min=64)] = 352,
    batch: Annotated[int, typer.Option(help="Slices in a step.", min=2)] = 16,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate of Adam.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="L2 penalty.")] = 1e-5,
    validation: Annotated[float, typer.Option(help="Part of the patients held out.", min=0, max=0.9)] = 0.15,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.")] = 0,
    limits: Annotated[str, typer.Option(help="What the card warns of.")] = _LIMITS,
) -> None:
    """Train the network on labelled exams and write a bundle.

    Example: reticula train exams/ --output bundles/uip-nsip-2 --weights mobilenet_v2.safetensors
    """
    if (weights is None) == (not from_scratch):
        raise typer.BadParameter("Say where to start: either --weights FILE or --from-scratch.")
    if not _ALLOCATOR.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**_ALLOCATOR, **os.environ})  # noqa: S606
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise WorkerError(
            "Training needs torch: install Reticula with the extra 'training', as the README says."
        ) from error
    from models.preprocessing import Preprocessing
    from models.verdict import OperatingPoint
    from training import dataset as labelled
    from training import recipe as recipes
    from training.fitting import Epoch, Schedule

    recipe = recipes.Recipe(
        name=name,
        version=version,
        architecture=architecture,
        weights=weights,
        validation=validation,
        schedule=Schedule(epochs, min(full_epochs, epochs), window, batch, learning_rate, weight_decay, seed),
        operating_point=OperatingPoint(),
        limits=limits,
        command=shlex.join(["reticula", *sys.argv[1:]]),
    )
    sources = labelled.find_sources(dataset)
    with console.progress() as bars:
        reading = bars.add_task("Reading", total=len(sources))
        data = labelled.load(
            sources,
            Preprocessing(),
            threads=os.cpu_count() or 1,
            progress=lambda done: bars.update(reading, completed=done),
        )
        for path, why in data.skipped:
            console.err.print(f"Left out {path}: {why}", markup=False)
        fitting = bars.add_task("Epoch 1", total=None)

        def show(epoch: Epoch) -> None:
            console.err.print(
                f"Epoch {epoch.number}: training loss {epoch.training_loss:.3f}, validation loss "
                f"{_figure(epoch.validation_loss)}, accuracy {_figure(epoch.validation_accuracy)}"
            )
            bars.reset(fitting, description=f"Epoch {epoch.number + 1}")

        bundle = recipes.train(
            recipe,
            data,
            output,
            on_epoch=show,
            on_batch=lambda done, total: bars.update(fitting, completed=done, total=total),
        )
    console.say(f"Bundle {bundle.description.name} {bundle.description.version} lies in {bundle.folder}.")


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
