"""The report: valid for tools that are not ours, the same bytes each time, and nothing invented."""

import dataclasses
import re
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from models.verdict import ReasonCode
from pacs import codes
from pacs.codes import Language
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
from pacs.report.descriptions import VISIBLE, Kind, describe, describe_notice, describe_withdrawn
from pacs.report.notice import UnreportedExam, build_notice
from pacs.report.percentages import percentage
from pacs.report.reader import read_report
from pacs.series import read_series
from tests.datasets import ct, write
from tests.report_checks import check_content, check_with_pixelmed, check_with_tools, nodes

LUNGS = (((10.0, 10.0), (30.0, 10.0), (30.0, 40.0), (10.0, 40.0)), ((40.0, 10.0), (60.0, 10.0), (50.0, 40.0)))


def reported(
    tmp_path: Path, *, slices: int = 6, keys: int = 3, header: dict[str, Any] | None = None, **values: Any
) -> ReportedExam:
    paths = write(tmp_path / "source", *(ct(number, **(header or {})) for number in range(1, slices + 1)))
    series = read_series(paths)
    instances = tuple(ReportedInstance(image.sop_uid, image.sop_class_uid) for image in series.slices)
    key_slices = tuple(
        KeySlice(
            instance=instance, frame=None, instance_number=image.instance_number, outlines=LUNGS,
            probabilities=(("UIP", 0.9), ("NSIP", 0.1)),
            rows=image.rows, columns=image.columns, position=image.position or (0, 0, 0),
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


ABSTAINS: dict[str, Any] = {"verdict": "indeterminate", "certainty": None, "reason_code": "unfamiliar"}
KINDS: tuple[Kind, ...] = ("sr", "page", "maps", "pdf")


def name_of(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""


def groups(report: Dataset) -> list[Dataset]:
    (measurements,) = [item for item in report.ContentSequence if name_of(item) == "126010"]
    return list(measurements.ContentSequence)


def numbers(group: Dataset) -> list[Dataset]:
    return [item for item in group.ContentSequence if item.ValueType == "NUM"]


def findings(group: Dataset) -> list[str]:
    return [item.ConceptCodeSequence[0].CodeValue for item in group.ContentSequence if name_of(item) == "121071"]


def tracking(report: Dataset) -> list[str]:
    return [item.UID for group in groups(report) for item in group.ContentSequence if name_of(item) == "112040"]


def built(exam: ReportedExam, sop_class: str = SR_CLASSES[0]) -> Dataset:
    return dcmread(BytesIO(build_report(exam, sop_class).content))


@pytest.mark.parametrize("sop_class", SR_CLASSES)
@pytest.mark.parametrize("language", codes.LANGUAGES)
@pytest.mark.parametrize("verdict", ["UIP", "none"])
def test_tools_find_no_fault(tmp_path: Path, sop_class: str, language: str, verdict: str) -> None:
    exam = reported(tmp_path, language=language, **({} if verdict == "UIP" else ABSTAINS))
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
    assert report.SeriesDescription == "UIP 93% AI SR (decision support, not for diagnosis)"
    assert (read.reason_code, read.reason, read.verified) == ("", "", False)
    assert (report.ContentDate, report.ContentTime, report.TimezoneOffsetFromUTC) == ("20260102", "030405", "-0300")
    assert (report.PatientID, report.PatientName, report.AccessionNumber) == ("P1", "Silva^Ana", "A1")
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert built(dataclasses.replace(exam, final=True)).PreliminaryFlag == "FINAL"


def test_an_indeterminate_exam_names_no_class(tmp_path: Path) -> None:
    exam = reported(tmp_path, **ABSTAINS)
    report = built(exam)
    read = read_report(report)
    assert (read.impression[:2], read.certainty, read.probabilities) == (("82334004", "SCT"), None, {})
    assert (read.reason_code, read.reason) == ("unfamiliar", "Unlike the exams that the model was trained on")
    assert report.SeriesDescription == "AI abstains SR (decision support, not for diagnosis)"
    codes_of = [element.value for element in report.iterall() if element.keyword == "CodeValue"]
    assert not {"RID5333", "RID5341", "233703007", "111013", "111012", "121071", "PROB-UIP"} & set(codes_of)
    assert "%" not in codes_of, "nothing is stated in percent"
    (group,) = groups(report)
    names = [item.ConceptNameCodeSequence[0].CodeMeaning for item in numbers(group)]
    assert names == [
        "No verdict, not for diagnosis",
        "Unlike the exams that the model was trained on",
        "Slices in the series",
        "Slices classified",
    ]
    research = dataclasses.replace(exam, research=True)
    assert read_report(built(research)).probabilities == {"UIP": 0.93, "NSIP": 0.07}


def test_a_verdict_has_the_disease_as_finding_and_each_slice_the_named_probabilities(tmp_path: Path) -> None:
    exam = reported(tmp_path)
    other = dataclasses.replace(exam.key_slices[2], probabilities=(("UIP", 0.2), ("NSIP", 0.8)))
    report = built(dataclasses.replace(exam, key_slices=(*exam.key_slices[:2], other)))
    assert [findings(group) for group in groups(report)] == [["233703007"], ["RID5333"], []]
    for group in groups(report)[1:]:
        assert [item.ConceptNameCodeSequence[0].CodeValue for item in numbers(group)] == ["PROB-UIP", "PROB-NSIP"]
    normal = ClassFinding("normal", "17621005", "SCT", "Normal", 0.9, 6)
    healthy = built(dataclasses.replace(exam, classes=(*exam.classes, normal), verdict="normal"))
    assert findings(groups(healthy)[0]) == ["17621005"], "no disease where the verdict is none"


def test_nothing_reads_as_quite_sure(tmp_path: Path) -> None:
    exam = reported(tmp_path)
    classes = tuple(
        dataclasses.replace(known, probability=value) for known, value in zip(exam.classes, (1.0, 0.0), strict=True)
    )
    report = built(dataclasses.replace(exam, certainty=0.9999, classes=classes))
    assert report.SeriesDescription.startswith("UIP 99% AI SR")
    stated = [float(item.MeasuredValueSequence[0].NumericValue) for item in numbers(groups(report)[0])[:3]]
    assert stated == [99.99, 0.01, 99.99]
    assert (percentage(0.5, 0), percentage(1e-9, 1), percentage(0.123456, 2)) == (50, 0.1, 12.35)


def test_tracking_uids_stay_and_nothing_else_does(tmp_path: Path) -> None:
    exam = reported(tmp_path)
    again = dataclasses.replace(
        exam, revision=2, certainty=0.7, algorithm=dataclasses.replace(exam.algorithm, sha256="cd" * 32)
    )
    header = dataclasses.replace(exam.header, series_uid="1.2.3.4")
    assert tracking(built(exam)) == tracking(built(again))
    assert built(exam).SOPInstanceUID != built(again).SOPInstanceUID
    assert not set(tracking(built(exam))) & set(tracking(built(dataclasses.replace(exam, header=header))))


@pytest.mark.parametrize("values", [{}, {"verdict": "indeterminate", "certainty": None, "reason_code": "demo_model"}])
def test_limits_and_what_was_overruled_stand_in_every_report(tmp_path: Path, values: dict[str, Any]) -> None:
    exam = reported(tmp_path, language="pt-BR", doubts=("thick_slices",), **values)
    algorithm = dataclasses.replace(exam.algorithm, limits="Only phantoms – no patients.", despite="it is urgent")
    report = built(dataclasses.replace(exam, algorithm=algorithm))
    said = {element.value for element in report.iterall() if element.keyword == "TextValue"}
    assert "Limites do modelo: Only phantoms – no patients." in said
    assert "Ativado apesar de reprovado nos testes: it is urgent" in said
    assert "espessos demais" in str(report)


def test_reports_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """They stated certainty and probabilities of an abstention, and no reason at first."""
    report = built(reported(tmp_path))
    (impression,) = [item for item in groups(report)[0].ContentSequence if name_of(item) == "111023"]
    impression.ConceptCodeSequence[0].CodeValue = "82334004"
    read = read_report(report)
    assert (read.certainty, read.reason_code, read.probabilities["UIP"]) == (None, "", 0.93)


def test_the_first_letters_of_a_description_do_not_read_as_their_opposite(tmp_path: Path) -> None:
    for language in codes.LANGUAGES:
        exam = reported(tmp_path / language, language=language)
        for shown in (exam, dataclasses.replace(exam, verdict="NSIP"), dataclasses.replace(exam, **ABSTAINS)):
            said = [describe(shown, kind) for kind in KINDS]
            seen = [each[:VISIBLE] for each in said]
            assert len(set(seen)) == len(KINDS), seen
            assert all(len(each) <= 64 for each in said)
            for each in seen:
                if shown.committed:
                    assert each.startswith(f"{codes.short_name(shown.verdict, language)} 93% ")
                    assert not set(re.split(r"\W+", each)) & {"not", "não", "no", "nã", "n"}, each
                else:
                    assert not any(codes.short_name(known.name, language) in each for known in exam.classes)
        assert describe_withdrawn(language)[:VISIBLE].startswith({"en": "Withdrawn"}.get(language, "Retirado"))
        assert max(len(describe_withdrawn(language)), len(describe_notice(language))) <= 64


def test_the_region_that_viewers_draw_lies_on_the_left_of_the_image(tmp_path: Path) -> None:
    """OHIF writes the numbers to the right of the first region: beside a lung on the right they leave the picture."""
    crumb, left, right = (
        tuple((x + dx, y * size) for x, y in ((0.0, 0.0), (20.0, 0.0), (20.0, 30.0), (0.0, 30.0)))
        for dx, size in ((1.0, 0.1), (5.0, 1.0), (40.0, 1.2))
    )
    made = reported(tmp_path)
    keys = tuple(dataclasses.replace(key, outlines=(right, crumb, left)) for key in made.key_slices)
    report = built(dataclasses.replace(made, key_slices=keys))
    regions = [node.GraphicData for node in nodes(report) if node.get("ValueType") == "SCOORD"]
    assert {region[0] for region in regions[:1]} == {5.0}
    assert sorted({region[0] for region in regions}) == [1.0, 5.0, 40.0]


def test_a_slice_whose_lungs_touch_is_not_drawn_first(tmp_path: Path) -> None:
    made = reported(tmp_path)
    both = ((1.0, 1.0), (63.0, 1.0), (63.0, 60.0), (1.0, 60.0))
    first, *others = made.key_slices
    keys = (dataclasses.replace(first, outlines=(both,)), *others)
    report = built(dataclasses.replace(made, key_slices=keys))
    regions = [node.GraphicData for node in nodes(report) if node.get("ValueType") == "SCOORD"]
    assert max(regions[0][::2]) == 30.0
    assert any(max(region[::2]) == 63.0 for region in regions), "it is there all the same"


@pytest.mark.timeout(600)  # its style sheets take four seconds a report, on a machine that is not busy
@pytest.mark.parametrize("language", codes.LANGUAGES)
def test_the_validator_of_pixelmed_finds_no_error(tmp_path: Path, language: Language) -> None:
    paths: list[Path] = []
    made = reported(tmp_path, language=language, slices=3, keys=2)
    later = Predecessor(SR_CLASSES[0], "1.2.3.9", "1.2")
    exams = [
        dataclasses.replace(made, doubts=("thick_slices", "other_kernel"), revision=2, predecessor=later),
        dataclasses.replace(made, **ABSTAINS),
    ]
    notice = UnreportedExam(
        made.header, made.instances, 1, failed=False, reason_code="no_lungs", ended_at=made.classified_at,
        software="0", language=made.language, final=False,
    )  # fmt: skip
    for sop_class in SR_CLASSES:
        documents = [build_report(exam, sop_class) for exam in exams] + [build_notice(notice, sop_class)]
        for document in documents:
            paths.append(tmp_path / f"{len(paths)}.dcm")
            paths[-1].write_bytes(document.content)
    check_with_pixelmed(paths)


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
        for reason in get_args(ReasonCode):
            exam = reported(
                tmp_path / language / f"x{reason}", language=language, reason_code=reason,
                verdict="indeterminate" if reason else "UIP", certainty=None if reason else 0.9,
                doubts=("thick_slices", "other_kernel", "unknown_kernel"),
            )  # fmt: skip
            normal = ClassFinding("normal", "17621005", "SCT", "Normal", 0.0, 0)
            other = ClassFinding("other", "74964007", "SCT", "Other", 0.0, 0)
            report = built(dataclasses.replace(exam, classes=(*exam.classes, normal, other)))
            for element in report.iterall():
                for item in element.value if element.VR == "SQ" else ():
                    if "CodeValue" in item:
                        expected = codes.translation(item.CodeValue, item.CodingSchemeDesignator, language)
                        assert item.CodeMeaning == expected, item
