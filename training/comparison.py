"""The architectures side by side: the study's Table 1, what it is worth by patient, and what each costs."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.classifier import Classifier
from training.card import interval, percent
from training.dataset import LabelledSlices
from training.metrics import INTERVALS
from training.recipe import Run, Trained

_ROUNDS = 3
_TIMED_SLICES = 8


@dataclass(frozen=True)
class Row:
    """One architecture. seconds: of learning and judging; features_kept: whether they were on disk from before.

    size: of the bundle's network in bytes.
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

    def as_json(self) -> dict[str, Any]:
        """Return the row as it stands in `comparison.json`."""
        return {**self.__dict__}


def compare(
    runs: Sequence[tuple[Callable[[], Run], Path]],
    on_trained: Callable[[Trained], None] = lambda _trained: None,
) -> list[Row]:
    """Train each network and write its bundle; a network is made when its turn comes.

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
    return rows


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
        "| network | started from | training | validation | test | parameters |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.architecture} | {row.start} | {percent(row.study['training_accuracy'])} | "
            f"{percent(row.study['validation_accuracy'])} | {interval(row.study['slices']['accuracy'])} | "
            f"{row.parameters:,} |"
            for row in rows
        ),
        "",
        f"The winner by the study's rule (best validation accuracy, then fewest parameters): **{best.architecture}**.",
        "",
        "## By patient",
        "",
    ]
    if all(row.patient is None for row in rows):
        lines.append("Not measured: a class has too few patients to hold one out.")
    else:
        lines += [
            "| network | slices right | area under ROC | exams with a verdict | exams right, of those |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {row.architecture} | {interval(row.patient['slices']['accuracy'])} | "
                f"{interval(row.patient['slices']['auc'], part=True)} | {interval(row.patient['exams']['coverage'])} | "
                f"{interval(row.patient['exams']['accuracy_of_decided'])} |"
                for row in rows
                if row.patient is not None
            ),
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
