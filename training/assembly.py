"""From a network that learned to a bundle on disk: export, distances, figures, card."""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from models.architectures import build
from models.bundle import CARD, FAMILIARITY, QUANTISED, Bundle, Description, open_bundle, seal_bundle
from models.classifier import Classifier
from models.export import export_network
from models.verdict import silent_about_all
from training.battery import ask
from training.card import write_card
from training.dataset import LabelledSlices
from training.errors import TrainingError
from training.experiment import Measured
from training.figures import draw_evaluation, draw_training
from training.learners import Fitted
from training.prediction_tables import write_predictions
from training.protocols import Indices
from training.quantisation import Gate, quantise
from training.sides import Sides

FIGURES = "figures"


def write_bundle(
    output: Path,
    description: Description,
    fitted: Fitted,
    data: LabelledSlices,
    measured: Sequence[Measured],
    *,
    seed: int,
    replace: bool = False,
    int8: Indices | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Bundle:
    """Make the bundle beside its place and rename it there: a broken run leaves no half bundle.

    The figures are those of the first protocol that was measured. `replace` takes an earlier bundle away. int8: slices
    that were learned from, to make an int8 network by; None for none. `progress` is told how its gate gets on.
    """
    with _workshop(output, replace=replace) as workshop:
        export_network(fitted.network, description.preprocessing, description.temperature, workshop)
        fitted.familiarity.save(workshop / FAMILIARITY)
        draw_training(data, measured[0].courses, seed, workshop / FIGURES)
        draw_evaluation(data, measured[0].test, measured[0].scaled, workshop / FIGURES)
        for each in measured:
            prefix = "by-slice-" if each.protocol == "study" else "by-patient-"
            write_predictions(workshop / FIGURES, each.test, each.scaled, each.exams, prefix=prefix)
        if int8 is not None:
            try:
                description = _quantised(workshop, description, data, int8, seed, progress)
            except KeyboardInterrupt:  # the network that learned is kept without it
                gate = Gate.not_asked("it was stopped before that was judged", seed)
                description = dataclasses.replace(description, quantisation=asdict(gate))
        _seal(workshop, description)
    return open_bundle(output)


def quantise_bundle(
    bundle: Bundle,
    output: Path,
    data: LabelledSlices,
    *,
    version: str,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Bundle:
    """Make a bundle anew from the weights of another, with an int8 network.

    data: what it was trained on, of which only patients calibrate that it learned from. What it says of unknowns is to
    be asked anew. Raises TrainingError where it knows none of them.
    """
    sides = Sides.of(bundle)
    trained = [name for name in np.unique(data.patients).tolist() if sides.trained(name)]
    if not trained:
        raise TrainingError(f"{bundle.folder} was trained on none of these patients: give the data set that it was.")
    learned = np.flatnonzero(np.isin(data.patients, trained))
    description = dataclasses.replace(bundle.description, version=version, quantisation=None, battery=None)
    network = build(description.architecture, len(description.classes))
    network.load_state_dict(load_file(bundle.weights))
    with _workshop(output) as workshop:
        shutil.copytree(bundle.folder, workshop, dirs_exist_ok=True)
        drop_quantised(workshop)
        export_network(network, description.preprocessing, description.temperature, workshop)
        description = _quantised(workshop, description, data, learned, seed, progress)
        _seal(workshop, description)
    return open_bundle(output)


def drop_quantised(folder: Path) -> None:
    """Remove the int8 network of a bundle whose other network is made anew."""
    for name in (QUANTISED, Path(QUANTISED).with_suffix(".bin").name):
        (folder / name).unlink(missing_ok=True)


def ask_bundle(
    bundle: Bundle,
    *,
    exams: int,
    unknowns: Path | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Bundle:
    """Ask a bundle what it says of what it must not name, and keep the answers in it."""
    answers = ask(Classifier(bundle, asked=True), exams=exams, unknowns=unknowns, progress=progress)
    description = dataclasses.replace(bundle.description, battery=answers.as_json())
    with remade(bundle, bundle.folder, description):
        pass
    return open_bundle(bundle.folder)


@contextmanager
def remade(bundle: Bundle, output: Path, description: Description) -> Iterator[Path]:
    """Give a copy of a bundle's files to change; when the block ends well it becomes `output`, sealed and described."""
    with _workshop(output, replace=output == bundle.folder) as workshop:
        shutil.copytree(bundle.folder, workshop, dirs_exist_ok=True)
        yield workshop
        _seal(workshop, description)


@contextmanager
def _workshop(output: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a folder beside `output` that becomes it when the block ends well."""
    output.parent.mkdir(parents=True, exist_ok=True)
    workshop = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        workshop.chmod(0o755)
        yield workshop
        if replace and output.exists():
            shutil.rmtree(output)
        workshop.rename(output)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _quantised(
    workshop: Path,
    description: Description,
    data: LabelledSlices,
    learned: Indices,
    seed: int,
    progress: Callable[[int, int], None],
) -> Description:
    """Try an int8 network; return the description with what its gate found."""
    if silent_about_all(description.guard) is not None:
        gate = Gate.not_asked("the model gives no verdict on anybody, so none could change", seed)
        return dataclasses.replace(description, quantisation=asdict(gate))
    (workshop / CARD).touch()  # it is written when everything is known, and a bundle has one
    gate = quantise(seal_bundle(workshop, description), data, learned, seed, progress)
    return dataclasses.replace(description, quantisation=asdict(gate))


def _seal(workshop: Path, description: Description) -> None:
    (workshop / CARD).write_text(write_card(description), encoding="utf-8")
    seal_bundle(workshop, description)
