"""What checks a report: DCMTK, dicom3tools, and assertions of our own where no tool looks."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.servers import need

# DCMTK 3.6.7 says this of every dataset that it converts to UTF-8.
_UTF8_REMARK = "The VR checker does not support this Specific Character Set: ISO_IR 192"
_PIXELMED = [Path("/usr/share/java") / name for name in ("pixelmed.jar", "commons-codec.jar", "vecmath.jar")]
_VALIDATE = Path(__file__).parent / "validators" / "ValidateReports.java"
# Its style sheets are larger than Java 17 takes as it comes.
_XPATH_LIMITS = " ".join(f"-Djdk.xml.xpath{limit}Limit=0" for limit in ("TotalOp", "ExprGrp", "ExprOp"))
# DCMTK says this of every Key Object Selection.
_TEMPLATE_REMARK = "Check for template constraints not yet supported"


def check_with_tools(report: Path, sources: Sequence[Path]) -> None:
    """Assert that no tool finds a fault in a report, alone and beside its images."""
    check_object_with_tools(report, sources)
    check_content(dcmread(report))


def check_object_with_tools(report: Path, sources: Sequence[Path]) -> None:
    """Assert that no tool finds a fault in a structured document of any kind, alone and beside its images."""
    verified = _run([need("dciodvfy", "dicom3tools"), report])
    assert verified.returncode == 0, verified.stderr
    assert not [
        line for line in verified.stderr.splitlines() + verified.stdout.splitlines() if line.startswith("Error")
    ], verified
    dumped = _run([need("/usr/bin/dsrdump", "dcmtk"), "+U8", report])
    assert dumped.returncode == 0, dumped.stderr
    remarks = (_UTF8_REMARK, _TEMPLATE_REMARK)
    said = [line for line in dumped.stderr.splitlines() if line.strip()]
    assert [line for line in said if not any(remark in line for remark in remarks)] == []
    if sources:
        beside = _run([need("dcentvfy", "dicom3tools"), report, *sources])
        said = (beside.stderr + beside.stdout).splitlines()
        assert [line for line in said if line.strip() and "AccessionNumber" not in line] == []


def check_with_pixelmed(reports: Sequence[Path]) -> None:
    """Assert that PixelMed's validator finds no error in reports; one virtual machine looks at all of them."""
    java = need("java", "default-jdk-headless")
    need("javac", "default-jdk-headless")  # the validator is started from source
    if not _PIXELMED[0].is_file():
        pytest.skip(f"{_PIXELMED[0]} is missing: apt-get install libpixelmed-java")
    command = [java, "-cp", ":".join(map(str, _PIXELMED)), str(_VALIDATE), *map(str, reports)]
    # Style sheets are compiled for one run: what makes a long one fast costs twice the time of it.
    options = {"JAVA_TOOL_OPTIONS": f"{_XPATH_LIMITS} -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | options)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 0, said
    assert len([line for line in said if "IOD validation complete" in line]) == len(reports), said
    assert [line for line in said if "Error" in line or "xception" in line] == []


def check_content(report: Dataset) -> None:
    """Assert what none of the tools notices."""
    assert report.Modality == "SR"
    assert _name(report) == ("126000", "DCM")
    assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert report.PreliminaryFlag in ("PRELIMINARY", "FINAL")
    assert report.SeriesNumber == 990
    assert report.SeriesDate == report.ContentDate
    assert report.TimezoneOffsetFromUTC
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99RETICULA"
    names = [_name(node) for node in nodes(report)]
    for needed in (("121049", "DCM"), ("121012", "DCM"), ("121058", "DCM"), ("111028", "DCM"), ("126010", "DCM"),
                   ("111001", "DCM"), ("111003", "DCM"), ("111023", "DCM")):  # fmt: skip
        assert needed in names, needed
    tracking = [node.UID for node in nodes(report) if _name(node) == ("112040", "DCM")]
    assert tracking
    assert len(set(tracking)) == len(tracking)
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    containers = [node for node in (report, *nodes(report)) if node.get("ValueType") == "CONTAINER"]
    assert {node.ContinuityOfContent for node in containers} == {"SEPARATE"}
    groups = [node for node in nodes(report) if _name(node) == ("125007", "DCM")]
    for group in groups:
        drawn = [node for node in nodes(group) if node.get("ValueType") == "SCOORD"]
        assert drawn, "a group without coordinates hides the whole report in a viewer"
    referenced = {
        node.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for node in nodes(report)
        if node.get("ValueType") == "IMAGE"
    }
    assert referenced <= evidence
    equipment = report.ContributingEquipmentSequence
    assert [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in equipment] == ["109102"]
    assert equipment[0].DeviceUID


def nodes(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", ()):
        yield child
        yield from nodes(child)


def _name(node: Dataset) -> tuple[str, str]:
    names = node.get("ConceptNameCodeSequence")
    return (names[0].CodeValue, names[0].CodingSchemeDesignator) if names else ("", "")


def _run(command: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, errors="replace", check=False
    )
