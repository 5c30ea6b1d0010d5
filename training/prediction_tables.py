"""Predictions as CSV, beside the figures that were made of them: anyone can work these out again.

`…slices.csv`, a line for each slice: `patient`, `exam`, `slice` (running number in the exam), `truth` (what it was
labelled), `logit_C` of each class C before scaling, `probability_C` after it, `distance_C` of its exam from the exams
of C in training. Accuracy, area, Brier and calibration are those of lines whose truth is one of the C.

`…exams.csv`, a line for each exam: `patient`, `exam`, `truth`, `verdict` (`indeterminate` for an abstention, with its
`reason`), `called` (the likeliest class, whether or not it was said) with its mean probability `certainty` and its
`distance`. Coverage is the
part of exams with a class whose verdict is not `indeterminate`.

Numbers are written so that they read back the same. A bundle is passed on: there patients and exams are running numbers
in the order of the lines. A person's own evaluation may name them, to look them up.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.outcomes import ExamOutcome
from training.predictions import Predictions


def write_predictions(
    folder: Path, test: Predictions, scaled: Predictions, exams: Sequence[ExamOutcome],
    *, prefix: str = "", named: bool = False,
) -> None:  # fmt: skip
    """Write both tables into `folder`; test: before scaling. `named`: patients and series as they are called."""
    patients, series = _Names(named=named), _Names(named=named)
    keys = [(str(patient), str(exam)) for patient, exam in zip(test.patients, test.exams, strict=True)]
    probabilities = scaled.probabilities
    within: dict[tuple[str, str], int] = {}
    rows: list[list[object]] = []
    for row, key in enumerate(keys):
        within[key] = within.get(key, 0) + 1
        rows.append([
            patients[key[0]], series[key[1]], within[key], str(test.kinds[row]), *map(float, test.logits[row]),
            *map(float, probabilities[row]), *map(float, test.distances[row]),
        ])  # fmt: skip
    header = ["patient", "exam", "slice", "truth"]
    header += [f"{what}_{name}" for what in ("logit", "probability", "distance") for name in test.classes]
    _write(folder / f"{prefix}slices.csv", header, rows)
    _write(
        folder / f"{prefix}exams.csv",
        ["patient", "exam", "truth", "verdict", "reason", "called", "certainty", "distance"],
        (
            [patients[each.patient], series[each.exam], each.truth, each.verdict, each.reason, each.called,
             each.certainty, each.distance]
            for each in exams
        ),
    )  # fmt: skip


class _Names:
    """What stands for a name: itself, or the number of its first appearance."""

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self._numbers: dict[str, int] = {}

    def __getitem__(self, name: str) -> str:
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        return name if self._named else str(number)


def _write(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)
