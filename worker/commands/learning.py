"""What the commands that train share: torch, the data set, options, and how a run is shown while it goes on."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.progress import Progress as Bars
from rich.table import Table

from worker import console
from worker.commands.context import application
from worker.errors import WorkerError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.preprocessing import Preprocessing
    from training.dataset import LabelledSlices
    from training.fitting import Epoch
    from training.recipe import Observer
    from training.sources import Source
    from worker.label_check import LabelCheck
    from worker.tables import ModelVersion

# Without these, glibc gives the memory of every batch back to the system and asks for it again.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "4294967296"}
Choice = TypeVar("Choice", bound=str)

Dataset = Annotated[
    Path,
    typer.Argument(
        help="Folder with UIP/ and NSIP/, CSV table (path, label, patient), phantoms; or 'labels': what "
        "radiologists labelled here."
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="Start from this file (.safetensors, .pth), or a folder of files by architecture.")
]
FromScratch = Annotated[bool, typer.Option("--from-scratch", help="Start from random weights where there are none.")]
FineTuneOption = Annotated[str, typer.Option(help="What learns: the last layer ('last') or everything ('all').")]
BalanceOption = Annotated[
    str, typer.Option(help="Classes of unequal size: 'undersample' to the smallest, 'weights', or 'none'.")
]
FoldsOption = Annotated[
    int | None,
    typer.Option(help="Parts of a cross-validation by patient; 1: a single split (default: by their number).", min=1),
]
Epochs = Annotated[int, typer.Option(help="Times through the data, at most.", min=1)]
Batch = Annotated[int, typer.Option(help="Images in a step.", min=2)]
LearningRate = Annotated[float, typer.Option(help="Learning rate of Adam.")]
WeightDecay = Annotated[float, typer.Option(help="L2 penalty.")]
SeedOption = Annotated[int, typer.Option(help="Makes a run repeatable.", min=0)]
Size = Annotated[int, typer.Option(help="Side of the network's input in pixels.", min=32)]
DeviceOption = Annotated[str, typer.Option(help="'auto' takes a GPU where there is one; 'cpu', 'cuda'.")]
Int8Option = Annotated[
    bool,
    typer.Option(
        "--int8/--no-int8",
        help="Make an int8 network too, about half as much faster; it serves if no verdict changes by it.",
    ),
]
BackgroundOption = Annotated[
    list[str] | None,
    typer.Option("--background", help="A class that is never named: the model learns to be undecided about it."),
]
ConfirmLabels = Annotated[str | None, typer.Option(help="Learn from labels that look wrong all the same, and say why.")]
BatteryOption = Annotated[
    int | None,
    typer.Option(
        "--battery",
        help="How many exams of each kind the model is asked about that it must not name (default: the setting "
        "training.battery, 30); with fewer than 30 none passes.",
        min=0,
    ),
]
UnknownsOption = Annotated[
    Path | None,
    typer.Option(
        "--unknowns", help="A folder of exams that it must not name (default: the setting training.unknowns)."
    ),
]
LABELLED = "labels"
LIMITS = "Trained on the data below and on nothing else; the figures hold for patients like these."


def chosen(value: str, allowed: Sequence[Choice], option: str) -> Choice:
    """Return an option's value as one of those allowed; exits with 2 otherwise."""
    for known in allowed:
        if value == known:
            return known
    raise typer.BadParameter(f"{option} is {value!r}: it must be one of {', '.join(allowed)}.")


def need_torch() -> None:
    """Start again with a tuned allocator if that is missing. Raises WorkerError where torch is not installed."""
    if not _ALLOCATOR.keys() <= os.environ.keys():
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**_ALLOCATOR, **os.environ})  # noqa: S606
    if any(find_spec(name) is None for name in ("torch", "torchvision", "sklearn", "PIL", "nncf")):
        raise WorkerError("Training needs torch: install Reticula with the extra 'training', as the README says.")


def command_line() -> str:
    """Return how this command was called."""
    return shlex.join(["reticula", *sys.argv[1:]])


def feature_cache() -> Path:
    """Return where features are kept."""
    return application().settings.data_dir / "features"


def weights_setting(weights: Path | None, *, from_scratch: bool) -> Path | None:
    """Return where weights are taken from: the option, else the setting, unless random ones are asked for."""
    if weights is not None or from_scratch:
        return weights
    return application().settings.training.weights


def battery_setting(battery: int | None) -> int:
    """Return how many exams of each kind a model is asked about."""
    return application().settings.training.battery if battery is None else battery


def unknowns_setting(unknowns: Path | None) -> Path | None:
    """Return the site's own exams that a model must not name. Raises WorkerError where there is no such folder."""
    folder = unknowns or application().settings.training.unknowns
    if folder is not None and not folder.is_dir():
        raise WorkerError(f"{folder} is no folder of exams: mend --unknowns, or the setting training.unknowns.")
    return folder


def sources_of(dataset: Path) -> "list[Source]":
    """Return what a data set holds; `labels` are the labelled exams of the database."""
    from training.overlooked import overlooked
    from training.sources import find_sources
    from worker.retraining import labelled_exams

    if str(dataset) != LABELLED or dataset.exists():
        for sentence in overlooked(dataset):
            console.err.print(sentence, markup=False)
        return find_sources(dataset)
    sources, unusable = labelled_exams(application())
    for series_uid, why in unusable:
        console.err.print(f"Labelled series {series_uid} is left out: {why}")
    if not sources:
        raise WorkerError("No exam is labelled: do so with 'reticula exams label'.")
    return sources


def looked_at(model: "ModelVersion | None") -> "LabelCheck":
    """Look at the labels, and say what was found. model: what they are compared with."""
    from worker.label_check import check_labels

    with application().database.read() as session:
        found = check_labels(session, model)
    for sentence in found.sentences():
        console.err.print(sentence, markup=False)
    return found


def labels_checked(dataset: Path, confirmed: str | None) -> None:
    """Look at the labels of the database where these are what is learned from. Raises WorkerError as `retrain` does."""
    from worker import retraining

    if str(dataset) != LABELLED or dataset.exists():
        return
    app = application()
    with app.database.read() as session:
        active = app.registry.active(session)
    looked_at(active)
    retraining.checked(app, active, (confirmed or "").strip() or None)


def read_dataset(
    sources: "Sequence[Source]",
    preprocessing: "Preprocessing",
    background: Sequence[str] | None,
    bars: Bars,
    classes: Sequence[str] | None = None,
) -> "LabelledSlices":
    """Read a data set under a progress bar, and say what was read and what was not."""
    from training import dataset
    from training.sources import CLASSES

    for name in background or ():
        chosen(name, CLASSES, "--background")
    reading = bars.add_task("Reading", total=len(sources))
    data = dataset.load(
        sources,
        preprocessing,
        background=background or (),
        classes=classes,
        threads=os.cpu_count() or 1,
        progress=lambda done: bars.update(reading, completed=done),
    )
    for path, why in data.skipped:
        console.err.print(f"Left out {path}: {why}", markup=False)
    for patient in dataset.several_names(data):
        console.err.print(f"Patient {patient} stands under more than one class.", markup=False)
    table = Table("class", "slices", "series", "patients")
    for count in data.counts():
        background_mark = " (background)" if count.name not in data.classes else ""
        table.add_row(count.name + background_mark, str(count.slices), str(count.series), str(count.patients))
    console.err.print(table)
    return data


@dataclass
class _Shown:
    """The bar of what goes on now."""

    bars: Bars
    stage: str = ""

    def __post_init__(self) -> None:
        self.task = self.bars.add_task("Starting", total=None)

    def on_stage(self, name: str) -> None:
        self.stage = name
        self.bars.reset(self.task, description=name, total=None)

    def on_count(self, done: int, total: int) -> None:
        self.bars.update(self.task, completed=done, total=total)

    def on_epoch(self, epoch: "Epoch") -> None:
        self.bars.reset(self.task, description=f"{self.stage}, epoch {epoch.number + 1}")
        if epoch.number % 5 == 0 or epoch.number == 1:
            console.err.print(
                f"{self.stage}, epoch {epoch.number}: training loss {epoch.training_loss:.3f}, validation loss "
                f"{_figure(epoch.validation_loss)}, accuracy {_figure(epoch.validation_accuracy)}"
            )


@contextmanager
def shown_run() -> "Iterator[tuple[Bars, Observer]]":
    """Show a run's stages, batches and epochs on stderr while the block runs."""
    from training.fitting import Progress
    from training.recipe import Observer

    with console.progress() as bars:
        shown = _Shown(bars)
        yield (
            bars,
            Observer(
                on_count=shown.on_count,
                progress=Progress(on_batch=shown.on_count, on_epoch=shown.on_epoch),
                on_stage=shown.on_stage,
            ),
        )


def what_it_says(bundle: "Bundle", battery: "Mapping[str, Any] | None" = None) -> Iterator[str]:
    """Yield whether a bundle says anything, of whom, and what it said of what it must not name.

    battery: its answers, where it does not hold them itself.
    """
    from models.verdict import silent_about_all

    description = bundle.description
    answers = description.battery if battery is None else battery
    silence = silent_about_all(description.guard)
    if silence is None and answers is None:
        silence = silent_about_all(None)
    if silence is not None:
        yield f"It gives no verdict on anybody: {silence[1]}."
    elif description.guard is not None:
        knows = description.guard.knows
        others = "; whatever does not say that it is one is indeterminate" if knows == "phantoms" else ""
        yield f"It gives verdicts on {knows} like those that it knows{others}."
    if answers is not None and not answers["silent"]:
        yield answers["sentence"]


def duration(seconds: float) -> str:
    """Return a length of time as a person says it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
