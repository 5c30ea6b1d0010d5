"""The report: valid for tools that are not ours, the same bytes each time, and nothing invented."""

import dataclasses
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs import codes
from pacs.errors import Rejected
from pacs.report import (
    SR_CLASSES,
    Algorithm,
    ClassFinding,
    KeySlice,
    Predecessor,
    ReportedExam,
    ReportedInstance,
    build_report,
)
from pacs.report.reader import read_report
from pacs.series import read_series
from tests.datasets import ct, write
from tests.report_checks import check_content, check_with_tools

LUNGS = (((10.0, 10.0), (30.0, 10.0), (30.0, 40.0), (10.0, 40.0)), ((40.0, 10.0), (60.0, 10.0), (50.0, 40.0)))


def reported(
    tmp_path: Path, *, slices: int = 6, keys: int = 3, header: dict[str, Any] | None = None, **values: Any
) -> ReportedExam:
    paths = write(tmp_path / "source", *(ct(number, **(header or {})) for number in range(1, slices + 1)))
    series = read_series(paths)
    instances = tuple(ReportedInstance(image.sop_uid, image.sop_class_uid) for image in series.slices)
    key_slices = tuple(
        KeySlice(
            instance=instance, frame=None, instance_number=image.instance_number, called="UIP", probability=0.9,
            outlines=LUNGS, rows=image.rows, columns=image.columns, position=image.position or (0, 0, 0),
            orientation=image.orientation or (1, 0, 0, 0, 1, 0), pixel_spacing=image.pixel_spacing or (1, 1),
            thickness=image.thickness,
        )
        for instance, image in list(zip(instances, series.slices, strict=True))[:keys]
    )  # fmt: skip
    exam = ReportedExam(
        header=series.header, revision=1, completeness="quiet_period",
        instance_count=slices, expected_count=None, instances=instances, key_slices=key_slices,
        verdict="UIP", certainty=0.93, reason_code="",
        classes=(
            ClassFinding("UIP", "RID5333", "RADLEX", "Usual interstitial pneumonia", 0.93, 5),
            ClassFinding("NSIP", "RID5341", "RADLEX", "Nonspecific interstitial pneumonia", 0.07, 1),
        ),
        slice_count=slices, slices_classified=slices,
        algorithm=Algorithm("demo", "1", "ab" * 32, "0.1.0", ("commit 0.6",)),
        classified_at=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=-3))),
        predecessor=None, scope_rule=None, corrected=(), language="en", final=False,
    )  # fmt: skip
    return dataclasses.replace(exam, **values)


def built(exam: ReportedExam, sop_class: str = SR_CLASSES[0]) -> Dataset:
    return dcmread(BytesIO(build_report(exam, sop_class).content))


@pytest.mark.parametrize("sop_class", SR_CLASSES)
@pytest.mark.parametrize("language", codes.LANGUAGES)
def test_tools_find_no_fault(tmp_path: Path, sop_class: str, language: str) -> None:
    exam = reported(tmp_path, language=language)
    path = tmp_path / "report.dcm"
    path.write_bytes(build_report(exam, sop_class).content)
    check_with_tools(path, sorted((tmp_path / "source").glob("*.dcm")))


def test_the_same_exam_gives_the_same_bytes_and_any_change_another_uid(tmp_path: Path) -> None:
    exam = reported(tmp_path)
    first, second = (build_report(exam, SR_CLASSES[0]) for _ in range(2))
    assert first == second
    others = [
        dataclasses.replace(exam, certainty=0.94),
        dataclasses.replace(exam, revision=2),
        dataclasses.replace(exam, language="es"),
        dataclasses.replace(exam, final=True),
        dataclasses.replace(exam, algorithm=dataclasses.replace(exam.algorithm, sha256="cd" * 32)),
        dataclasses.replace(exam, instances=exam.instances[:-1]),
        dataclasses.replace(exam, predecessor=Predecessor(SR_CLASSES[0], "1.2.3", "1.2")),
    ]
    uids = {build_report(other, SR_CLASSES[0]).sop_uid for other in others}
    uids |= {first.sop_uid, build_report(exam, SR_CLASSES[1]).sop_uid}
    assert len(uids) == len(others) + 2
    assert {built(other).SeriesInstanceUID for other in others} == {built(exam).SeriesInstanceUID}


def test_it_says_what_it_was_given(tmp_path: Path) -> None:
    exam = reported(tmp_path)
    report = built(exam)
    read = read_report(report)
    assert read.impression == ("RID5333", "RADLEX", "Usual interstitial pneumonia")
    assert (read.certainty, read.probabilities) == (0.93, {"UIP": 0.93, "NSIP": 0.07})
    assert read.sop_uids == {instance.sop_uid for instance in exam.instances}
    assert report.SeriesDescription == "UIP 93% AI, not for diagnosis"
    assert (report.ContentDate, report.ContentTime, report.TimezoneOffsetFromUTC) == ("20260102", "030405", "-0300")
    assert (report.PatientID, report.PatientName, report.AccessionNumber) == ("P1", "Silva^Ana", "A1")
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert built(dataclasses.replace(exam, final=True)).PreliminaryFlag == "FINAL"


def test_an_indeterminate_exam_names_no_class(tmp_path: Path) -> None:
    report = built(reported(tmp_path, verdict="indeterminate", certainty=0.55, reason_code="unfamiliar"))
    assert read_report(report).impression[:2] == ("82334004", "SCT")
    assert "Unlike the exams that the model was trained on" in str(report)
    assert "REASON" not in str(built(reported(tmp_path / "sure", verdict="UIP")))
    assert report.SeriesDescription == "Indeterminate AI, not for diagnosis"


def test_a_later_revision_names_the_report_that_it_replaces(tmp_path: Path) -> None:
    report = built(reported(tmp_path, revision=2, predecessor=Predecessor(SR_CLASSES[0], "1.2.3.9", "1.2")))
    predecessor = report.PredecessorDocumentsSequence[0]
    item = predecessor.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert item.ReferencedSOPInstanceUID == "1.2.3.9"
    assert predecessor.StudyInstanceUID == report.StudyInstanceUID


@pytest.mark.parametrize(
    "header",
    [
        {"StudyDate": None, "AccessionNumber": None, "StudyTime": None, "StudyID": None},
        {"PatientBirthDate": None, "PatientSex": None, "PatientID": None},
        {"StudyDate": "20230231", "PatientBirthDate": "1960.01.01"},
        {"StudyTime": "25:00", "PatientSex": "X"},
        {"PatientSex": "f"},
        {"AccessionNumber": "12345678901234567890"},
        {"PatientName": "Silva^^^^^Jr"},
        {"PatientName": "A" * 90},
        {"SliceThickness": None},
        {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Conceição^João"},
        {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Łukasiewicz^Jan"},
        {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": "Yamada^Tarou=山田^太郎"},
        {"PatientWeight": "70", "PatientAge": "060Y", "EthnicGroup": "", "PatientComments": "SSc – ILD"},
        {"SeriesNumber": "7", "StudyDescription": "x" * 64},
    ],
)
@pytest.mark.filterwarnings(
    "ignore:.*(is not valid|Invalid value|exceeds the maximum|character set|cannot encode|Failed)"
)
def test_odd_headers_give_a_valid_report(tmp_path: Path, header: dict[str, Any]) -> None:
    if header.get("PatientComments"):
        header = {**header, "SpecificCharacterSet": "ISO_IR 192"}
    path = tmp_path / "report.dcm"
    exam = reported(tmp_path, header=header)
    path.write_bytes(build_report(exam, SR_CLASSES[0]).content)
    check_with_tools(path, [])
    report = dcmread(path)
    if "SpecificCharacterSet" in header and "PatientName" in header:
        assert report.PatientName == exam.header.patient.name
    if "PatientComments" in header:
        assert report.PatientComments == "SSc – ILD"
    if header.get("StudyDate") == "20230231":
        assert (report.StudyDate, report.PatientBirthDate) == ("", "19600101")


def test_an_unknown_thickness_does_not_stand_in_the_report(tmp_path: Path) -> None:
    thick = built(reported(tmp_path / "a"))
    unknown = built(reported(tmp_path / "b", header={"SliceThickness": None}))
    assert "Slice Thickness" in str(thick)
    assert "Slice Thickness" not in str(unknown)


def test_large_and_enhanced_evidence(tmp_path: Path) -> None:
    exam = reported(tmp_path, slices=300, keys=6)
    document = build_report(exam, SR_CLASSES[0])
    assert len(document.content) < 150_000
    check_content(dcmread(BytesIO(document.content)))


def test_what_cannot_be_reported_is_refused(tmp_path: Path) -> None:
    exam = reported(tmp_path)
    for broken in (
        dataclasses.replace(exam, instances=()),
        dataclasses.replace(exam, key_slices=()),
        dataclasses.replace(exam, key_slices=(dataclasses.replace(exam.key_slices[0], outlines=()),)),
    ):
        with pytest.raises(Rejected):
            build_report(broken, SR_CLASSES[0])


def test_every_code_has_a_meaning_in_every_language(tmp_path: Path) -> None:
    for language in codes.LANGUAGES:
        for reason in ("", "few_slices", "unfamiliar", "undecided"):
            exam = reported(
                tmp_path / language / f"x{reason}", language=language, reason_code=reason,
                verdict="indeterminate" if reason else "UIP",
            )  # fmt: skip
            normal = ClassFinding("normal", "17621005", "SCT", "Normal", 0.0, 0)
            other = ClassFinding("other", "74964007", "SCT", "Other", 0.0, 0)
            report = built(dataclasses.replace(exam, classes=(*exam.classes, normal, other)))
            for element in report.iterall():
                for item in element.value if element.VR == "SQ" else ():
                    if "CodeValue" in item:
                        expected = codes.translation(item.CodeValue, item.CodingSchemeDesignator, language)
                        assert item.CodeMeaning == expected, item
