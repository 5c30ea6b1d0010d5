"""The answer to a Store transaction: what was stored, what was not and why (PS3.18 section 10.5.3)."""

import json
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs.intake import OUT_OF_RESOURCES, SUCCESS

JSON, XML = "application/dicom+json", "application/dicom+xml"

OK, ACCEPTED, CONFLICT, UNAVAILABLE = 200, 202, 409, 503


@dataclass(frozen=True)
class Answer:
    """The status of HTTP and the dataset that goes with it."""

    status: int
    dataset: Dataset


@dataclass(frozen=True)
class Outcome:
    """What became of one part; without UIDs where they could not be read. status: as for C-STORE."""

    status: int
    sop_class_uid: str = ""
    sop_uid: str = ""


def answer(outcomes: list[Outcome]) -> Answer:
    """Return the answer (tables 10.5.3-1 and 10.5.3-2)."""
    stored = [each for each in outcomes if each.status == SUCCESS]
    failed = [each for each in outcomes if each.status != SUCCESS]
    dataset = Dataset()
    dataset.RetrieveURL = ""  # nothing is retrieved from here
    if stored:
        dataset.ReferencedSOPSequence = Sequence(map(_reference, stored))
    named = [each for each in failed if each.sop_uid]
    if named:
        dataset.FailedSOPSequence = Sequence(map(_failure, named))
    others = [each for each in failed if not each.sop_uid]
    if others:
        dataset.OtherFailuresSequence = Sequence(map(_failure, others))
    if not failed:
        return Answer(OK, dataset)
    if stored:
        return Answer(ACCEPTED, dataset)
    # All for want of room: the sender does well to come again.
    full = all(each.status == OUT_OF_RESOURCES for each in failed)
    return Answer(UNAVAILABLE if full else CONFLICT, dataset)


def as_json(dataset: Dataset) -> bytes:
    """Return a dataset in the DICOM JSON Model (PS3.18 annex F)."""
    return json.dumps(dataset.to_json_dict()).encode()


def as_xml(dataset: Dataset) -> bytes:
    """Return a dataset of UIDs, numbers and sequences in the Native DICOM Model (PS3.19 annex A)."""
    root = ET.Element("NativeDicomModel", {"xmlns": "http://dicom.nema.org/PS3.19/models/NativeDICOM"})
    _write(root, dataset)
    written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _write(parent: ET.Element, dataset: Dataset) -> None:
    for element in dataset:
        attribute = ET.SubElement(
            parent,
            "DicomAttribute",
            {"tag": f"{element.tag:08X}", "vr": element.VR, "keyword": element.keyword},
        )
        if element.VR == "SQ":
            for number, item in enumerate(element.value, 1):
                _write(ET.SubElement(attribute, "Item", {"number": str(number)}), item)
        elif element.value not in (None, ""):
            ET.SubElement(attribute, "Value", {"number": "1"}).text = str(element.value)


def _reference(outcome: Outcome) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = outcome.sop_class_uid, outcome.sop_uid
    item.RetrieveURL = ""
    return item


def _failure(outcome: Outcome) -> Dataset:
    item = Dataset()
    if outcome.sop_uid:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = outcome.sop_class_uid, outcome.sop_uid
    item.FailureReason = outcome.status
    return item
