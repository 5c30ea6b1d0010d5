"""What the demo compares: a report may say no more and no less than SQL."""

import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from pacs.report import SR_CLASSES, ReportedExam, build_report
from pacs.report.reader import read_report
from tests.unit.test_report import ABSTAINS, reported
from worker.demo import _differences


def as_stored(exam: ReportedExam) -> dict[str, Any]:
    """What `exams show --json` says of a reported exam."""
    return {
        "verdict": exam.verdict,
        "certainty": exam.certainty,
        "probabilities": {known.name: known.probability for known in exam.classes},
        "patient_id": exam.header.patient.patient_id,
        "slices": [{"sop_uid": each.sop_uid, "classified": True} for each in exam.instances],
    }


def faults(exam: ReportedExam, stored: dict[str, Any]) -> list[str]:
    """What the demo finds wrong with the report of an exam."""
    report = read_report(dcmread(BytesIO(build_report(exam, SR_CLASSES[0]).content)))
    return list(_differences(stored, report))


@pytest.mark.parametrize("values", [{}, ABSTAINS], ids=["verdict", "abstention"])
def test_a_report_that_says_what_sql_says_has_no_fault(tmp_path: Path, values: dict[str, Any]) -> None:
    exam = reported(tmp_path, **values)
    assert faults(exam, as_stored(exam)) == []


def test_a_report_that_says_more_or_other_things_is_found(tmp_path: Path) -> None:
    exam = reported(tmp_path)
    silent = dataclasses.replace(exam, **ABSTAINS)
    assert faults(dataclasses.replace(silent, research=True), as_stored(silent))
    assert faults(dataclasses.replace(silent, reason_code=""), as_stored(silent))
    assert faults(exam, as_stored(silent))
    assert faults(silent, as_stored(exam))
    assert faults(dataclasses.replace(exam, certainty=0.92), as_stored(exam))
