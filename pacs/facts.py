"""What a rule may ask of a series: who, why, how it was scanned. Read from one instance, before its pixels."""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs.elements import first, floats, text

_SENDER = "SourceApplicationEntityTitle"
# Where an instance, or its Request Attributes (PS3.3 table 10-9), says what was asked for and why.
_CODES = (
    "ProcedureCodeSequence", "RequestedProcedureCodeSequence", "ReasonForRequestedProcedureCodeSequence",
    "AdmittingDiagnosesCodeSequence", "ScheduledProtocolCodeSequence", "PerformedProtocolCodeSequence",
)  # fmt: skip
_DESCRIPTIONS = (
    "StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription",
    "ReasonForTheRequestedProcedure", "ReasonForStudy", "AdmittingDiagnosesDescription",
    "PerformedProcedureStepDescription", "ScheduledProcedureStepDescription",
)  # fmt: skip
_REQUEST = "RequestAttributesSequence"


@dataclass(frozen=True)
class SeriesFacts:
    """What is absent is empty or None. codes: (value, scheme, meaning) of procedure and reason. thickness in mm."""

    patient_id: str
    sender: str
    body_part: str
    kernel: str
    thickness: float | None
    slices: int
    description: str
    codes: tuple[tuple[str, str, str], ...] = ()
    descriptions: tuple[str, ...] = ()


def read_facts(dataset: Dataset, slices: int) -> SeriesFacts:
    """Read the facts of a series of so many instances from one of them."""
    parts = [dataset, *_items(dataset, _REQUEST)]
    shared = _items(dataset, "SharedFunctionalGroupsSequence")
    measures = [inner for group in shared for inner in _items(group, "PixelMeasuresSequence")]
    reconstructions = [inner for group in shared for inner in _items(group, "CTReconstructionSequence")]
    thickness = floats(first([dataset, *measures], "SliceThickness"), 1)
    kernels = [text(each, "ConvolutionKernel") for each in (dataset, *reconstructions)]
    codes = [
        (text(code, "CodeValue"), text(code, "CodingSchemeDesignator"), text(code, "CodeMeaning"))
        for part in parts
        for keyword in _CODES
        for code in _items(part, keyword)
    ]
    return SeriesFacts(
        patient_id=text(dataset, "PatientID"),
        sender=text(getattr(dataset, "file_meta", Dataset()), _SENDER),
        body_part=text(dataset, "BodyPartExamined"),
        kernel=next(filter(None, kernels), ""),
        thickness=thickness[0] if thickness else None,
        slices=slices,
        description=text(dataset, "SeriesDescription"),
        codes=tuple(dict.fromkeys(codes)),
        descriptions=tuple(_said(parts)),
    )


def _said(parts: list[Dataset]) -> Iterator[str]:
    for part in parts:
        for keyword in _DESCRIPTIONS:
            value = text(part, keyword)
            if value:
                yield value


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where it is absent or cannot be read."""
    try:
        return list(dataset.get(keyword) or ())
    except Exception:  # pydicom parses here, and raises whatever it likes on garbage
        return []
