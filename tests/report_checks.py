"""What checks a report: DCMTK, dicom3tools, and assertions of our own where no tool looks."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.servers import need

# DCMTK 3.6.7 says this of every dataset that it converts to UTF-8.
_UTF8_REMARK = "The VR checker does not support this Specific Character Set: ISO_IR 192"
# And this of every Key Object Selection.
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
    names = [_name(node) for node in _nodes(report)]
    for needed in (("121049", "DCM"), ("121012", "DCM"), ("121058", "DCM"), ("111028", "DCM"), ("126010", "DCM"),
                   ("111001", "DCM"), ("111003", "DCM"), ("111023", "DCM"), ("111013", "DCM")):  # fmt: skip
        assert needed in names, needed
    tracking = [node.UID for node in _nodes(report) if _name(node) == ("112040", "DCM")]
    assert tracking
    assert len(set(tracking)) == len(tracking)
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    groups = [node for node in _nodes(report) if _name(node) == ("125007", "DCM")]
    for group in groups:
        drawn = [node for node in _nodes(group) if node.get("ValueType") == "SCOORD"]
        assert drawn, "a group without coordinates hides the whole report in a viewer"
    referenced = {
        node.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for node in _nodes(report)
        if node.get("ValueType") == "IMAGE"
    }
    assert referenced <= evidence
    equipment = report.ContributingEquipmentSequence
    assert [item.PurposeOfReferenceCodeSequence[0].CodeValue for item in equipment] == ["109102"]
    assert equipment[0].DeviceUID


def _nodes(node: Dataset) -> Iterator[Dataset]:
    for child in node.get("ContentSequence", ()):
        yield child
        yield from _nodes(child)


def _name(node: Dataset) -> tuple[str, str]:
    names = node.get("ConceptNameCodeSequence")
    return (names[0].CodeValue, names[0].CodingSchemeDesignator) if names else ("", "")


def _run(command: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, errors="replace", check=False
    )
