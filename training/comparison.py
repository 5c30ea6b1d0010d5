"""The architectures side by side: the study's Table 1, what it is worth by patient and by a control, and costs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.classifier import Classifier
from training.card import interval, percent
from training.control import Control, control_by_slice
from training.dataset import LabelledSlices
from training.errors import DatasetError
from training.metrics import INTERVALS
from training.recipe import Run, Trained
from training.worth import behind, worth

_ROUNDS = 3
_TIMED_SLICES = 8


@dataclass(frozen=True)
class Row:
    """One architecture. seconds: of learning and judging; features_kept: whether they were on disk from before.

    size: of the bundle's network in bytes. control: the split by slice under permuted labels; None where
    `without_control` says why there is none.
    """

    architecture: str
    start: str
    parameters: int
    study: Mapping[str, Any]
    patient: Mapping[str, Any] | None
    sentence: str | None
    seconds: float
    features_kept: bool
    size: int
    slices_per_second: float
    control: Control | None = None
    without_control: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row as it stands in `comparison.json`."""
        return {**self.__dict__, "control": None if self.control is None else self.control.as_json()}


def compare(
    runs: Sequence[tuple[Callable[[], Run], Path]],
    on_trained: Callable[[Trained], None] = lambda _trained: None,
    *,
    draws: int = 3,
) -> list[Row]:
    """Train each network and write its bundle; a network is made when its turn comes.

    draws: of the control under permuted labels, which learns and judges a split by slice for each.

    Ctrl-C ends the comparison; what was compared until then stays. Raises KeyboardInterrupt where nothing was.
    """
    rows: list[Row] = []
    for make, output in runs:
        try:
            run = make()
            kept = run.features_kept()
            started = time.monotonic()
            trained = run.train(output)
            seconds = time.monotonic() - started
        except KeyboardInterrupt:
            if rows:
                break
            raise
        if trained.bundle.description.metrics["interrupted"]:
            if rows:
                break
            raise KeyboardInterrupt
        metrics = trained.bundle.description.metrics
        rows.append(
            Row(
                architecture=run.recipe.architecture,
                start=str(run.recipe.start),
                parameters=trained.parameters,
                study=metrics["study"],
                patient=metrics.get("patient"),
                sentence=trained.sentence,
                seconds=round(seconds, 1),
                features_kept=kept,
                size=trained.bundle.network.with_suffix(".bin").stat().st_size,
                slices_per_second=round(slices_per_second(trained.bundle, run.data), 1),
            )
        )
        on_trained(trained)
        try:
            rows[-1] = _with_control(rows[-1], run, draws)
        except KeyboardInterrupt:
            rows[-1] = replace(rows[-1], without_control="No control by permuted labels: it was stopped.")
            break
    return rows


def _with_control(row: Row, run: Run, draws: int) -> Row:
    if not draws:
        return replace(row, without_control="No control by permuted labels: none was asked for.")
    try:
        return replace(row, control=control_by_slice(run, draws))
    except DatasetError as error:  # too few patients to permute, or too few slices
        return replace(row, without_control=str(error))


def _reached(row: Row) -> str:
    return "none" if row.control is None else percent(row.control.accuracy)


def _kept(row: Row) -> str:
    return ", features from before" if row.features_kept else ""


def winner(rows: Sequence[Row]) -> Row:
    """Return the study's choice: the best validation accuracy of the split by slice, then the fewest parameters."""
    return min(rows, key=lambda row: (-(row.study["validation_accuracy"] or 0.0), row.parameters))


def slices_per_second(bundle: Bundle, data: LabelledSlices) -> float:
    """Return how many slices a second the bundle classifies here: the median of three rounds."""
    classifier = Classifier(bundle)
    shown = [data.images[index] for index in range(min(_TIMED_SLICES, len(data)))]
    classifier.probabilities(shown)
    rates = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        classifier.probabilities(shown)
        rates.append(len(shown) / (time.perf_counter() - started))
    return statistics.median(rates)


def as_markdown(rows: Sequence[Row], command: str, data: LabelledSlices) -> str:
    """Return the comparison as a page."""
    best = winner(rows)
    counts = ", ".join(f"{count.slices} slices of {count.patients} patients {count.name}" for count in data.counts())
    first = rows[0].study
    sizes = (
        f"By slice: {first['training_images']} training and {first['validation_images']} validation images, "
        f"{first['test_slices']} test slices."
    )
    lines = [
        "# Four networks compared" if len(rows) == 4 else "# Networks compared",
        "",
        f"{counts}. {sizes}",
        "",
        "## By slice, as the study did (its Table 1)",
        "",
        "| network | started from | training | validation | test | labels permuted | parameters |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.architecture} | {row.start} | {percent(row.study['training_accuracy'])} | "
            f"{percent(row.study['validation_accuracy'])} | {interval(row.study['slices']['accuracy'])} | "
            f"{_reached(row)} | {row.parameters:,} |"
            for row in rows
        ),
        "",
        f"Tested: slices of {behind(first['slices']['patients'])}. {worth(first['slices'], leaked=True)}",
        "Training and validation are images that the network learned from, and that its epoch was chosen by.",
        "",
        *(f"- {row.architecture}: {row.control.sentence if row.control else row.without_control}" for row in rows),
        "",
        f"The winner by the study's rule (best validation accuracy, then fewest parameters): **{best.architecture}**.",
        "The rule goes by slices of patients whom the network knows: it does not tell which suits a new patient.",
        "",
        "## By patient",
        "",
    ]
    measured = [(row, row.patient) for row in rows if row.patient is not None]
    if not measured:
        lines.append(
            "Not measured: a class has too few patients to hold one out. So nothing above is worth anything "
            "for a patient that the networks have not seen."
        )
    else:
        figures = measured[0][1]["slices"]
        lines += [
            "| network | slices right | by slice, labels permuted | area (ROC) | with a verdict | right, of those |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {row.architecture} | {interval(found['slices']['accuracy'])} | {_reached(row)} | "
                f"{interval(found['slices']['auc'], part=True)} | {interval(found['exams']['coverage'])} | "
                f"{interval(found['exams']['accuracy_of_decided'])} |"
                for row, found in measured
            ),
            "",
            f"Tested: slices of {behind(figures['patients'])}. {worth(figures, leaked=False)}".rstrip(),
            "",
            *(f"- {row.architecture}: {row.sentence}" for row in rows if row.sentence),
        ]
    lines += [
        "",
        "## What they cost",
        "",
        "| network | trained in | size of the network | slices a second |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row.architecture} | {row.seconds:.0f} s{_kept(row)} | {row.size / 1e6:.1f} MB | "
            f"{row.slices_per_second:.1f} |"
            for row in rows
        ),
        "",
        f"Made by `{command}`. {INTERVALS}",
        "",
    ]
    return "\n".join(lines)
