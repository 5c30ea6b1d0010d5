"""Predictions as CSV: whoever has the tables finds the figures that stand in the JSON."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from models.guard import Guard
from models.verdict import OperatingPoint
from training.metrics import exam_figures, slice_figures
from training.outcomes import exam_verdicts
from training.prediction_tables import write_predictions
from training.predictions import Predictions


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


KNOWN = Guard("patients", {"UIP": 20, "NSIP": 20}, {"UIP": 10.0, "NSIP": 10.0})


@pytest.fixture
def said() -> Predictions:
    rng = np.random.default_rng(4)
    labels = np.repeat([0, 0, 1, 1, 0, 1, -1], 9)
    names = np.repeat(["Ana", "Bia", "Caio", "Davi", "Ana", "Eva", "Zé"], 9)
    logits = rng.normal(0, 1.5, (len(labels), 2))
    logits[np.arange(len(labels)), labels % 2] += 1
    return Predictions(
        ("UIP", "NSIP"), logits, np.repeat(rng.random((7, 2)), 9, axis=0), np.arange(len(labels)), labels,
        np.array(["UIP", "NSIP", "normal"])[labels], names, np.repeat([f"1.2.{n}" for n in range(7)], 9),
        np.zeros(len(labels), dtype=bool),
    )  # fmt: skip


def test_the_figures_are_worked_out_again_from_the_tables(said: Predictions, tmp_path: Path) -> None:
    scaled = said.scaled(1.7)
    exams = exam_verdicts(scaled, OperatingPoint(commit=0.6, min_slices=1), KNOWN)
    write_predictions(tmp_path, said, scaled, exams)
    slices = [row for row in read(tmp_path / "slices.csv") if row["truth"] in {"UIP", "NSIP"}]
    figures = slice_figures(said, scaled)
    right = [row["truth"] == max(("UIP", "NSIP"), key=lambda name: float(row[f"probability_{name}"])) for row in slices]
    assert sum(right) / len(right) == pytest.approx(figures["accuracy"]["value"], abs=1e-4)
    is_nsip = [row["truth"] == "NSIP" for row in slices]
    area = roc_auc_score(is_nsip, [float(row["probability_NSIP"]) for row in slices])
    assert area == pytest.approx(figures["auc"]["value"], abs=1e-4)
    brier = np.mean([(float(row["probability_NSIP"]) - of) ** 2 for row, of in zip(slices, is_nsip, strict=True)])
    assert brier == pytest.approx(figures["brier"]["value"], abs=1e-4)
    assert len({row["patient"] for row in slices}) == sum(figures["patients"].values()) == 5
    logits = [[float(row["logit_UIP"]), float(row["logit_NSIP"])] for row in slices]
    assert np.array_equal(logits, said.named.logits)

    named = [row for row in read(tmp_path / "exams.csv") if row["truth"] in {"UIP", "NSIP"}]
    told = exam_figures(exams, said.classes)
    decided = [row for row in named if row["verdict"] != "indeterminate"]
    assert 0 < len(decided) < len(named)
    assert len(decided) / len(named) == pytest.approx(told["coverage"]["value"], abs=1e-4)
    correct = sum(row["verdict"] == row["truth"] for row in decided)
    assert correct / len(decided) == pytest.approx(told["accuracy_of_decided"]["value"], abs=1e-4)


def test_nobody_is_named_in_what_is_passed_on(said: Predictions, tmp_path: Path) -> None:
    exams = exam_verdicts(said, OperatingPoint(min_slices=1), KNOWN)
    write_predictions(tmp_path / "passed", said, said, exams, prefix="by-patient-")
    text = "".join((tmp_path / "passed" / f"by-patient-{name}.csv").read_text() for name in ("slices", "exams"))
    assert not [name for name in (*said.patients, *said.exams) if name in text]
    # The same number is the same patient in both tables.
    slices = {row["exam"]: row["patient"] for row in read(tmp_path / "passed" / "by-patient-slices.csv")}
    assert {row["exam"]: row["patient"] for row in read(tmp_path / "passed" / "by-patient-exams.csv")} == slices
    assert list(slices.values()) == ["1", "2", "3", "4", "1", "5", "6"]
    write_predictions(tmp_path, said, said, exams, named=True)
    assert [row["patient"] for row in read(tmp_path / "exams.csv")][-1] == "Zé"
    assert read(tmp_path / "slices.csv")[0]["exam"] == "1.2.0"
