"""DICOM audit messages (PS3.15 A.5): who did what, when, with which study, as XML."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree import ElementTree as ET


@dataclass(frozen=True)
class Code:
    """A code of the scheme DCM (PS3.16 annex D)."""

    value: str
    meaning: str


# Events (CID 400) and their types (CID 401).
APPLICATION_ACTIVITY = Code("110100", "Application Activity")
INSTANCES_ACCESSED = Code("110103", "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = Code("110104", "DICOM Instances Transferred")
STUDY_DELETED = Code("110105", "DICOM Study Deleted")
SECURITY_ALERT = Code("110113", "Security Alert")
APPLICATION_START = Code("110120", "Application Start")
APPLICATION_STOP = Code("110121", "Application Stop")
NODE_AUTHENTICATION = Code("110126", "Node Authentication")
SOFTWARE_CONFIGURATION = Code("110131", "Software Configuration")
OBJECT_ATTRIBUTES_CHANGED = Code("110135", "Object Security Attributes Changed")

# Roles of participants (CID 402).
APPLICATION = Code("110150", "Application")
DESTINATION = Code("110152", "Destination Role ID")
SOURCE = Code("110153", "Source Role ID")

_STUDY = Code("110180", "Study Instance UID")
_SERIES = Code("112002", "Series Instance UID")
_NODE = Code("110182", "Node ID")

# Event outcomes (RFC 3881 5.1.4).
SUCCESS, MINOR_FAILURE, SERIOUS_FAILURE = 0, 4, 8


@dataclass(frozen=True)
class Participant:
    """A person or process that took part; `address` is an IP address, or empty."""

    user_id: str
    is_requestor: bool
    role: Code | None = None
    address: str = ""


@dataclass(frozen=True)
class AuditMessage:
    """One event. action: C, R, U, D or E. studies, series: UIDs. others: what else it was about, by name."""

    event: Code
    action: str
    outcome: int
    at: datetime
    participants: Sequence[Participant]
    kind: Code | None = None
    description: str = ""
    studies: Sequence[str] = ()
    series: Sequence[str] = ()
    others: Sequence[str] = ()

    def xml(self, source_id: str) -> bytes:
        """Return the message as XML in UTF-8. source_id: of the system that reports it."""
        root = ET.Element("AuditMessage")
        event = ET.SubElement(
            root,
            "EventIdentification",
            EventActionCode=self.action,
            EventDateTime=self.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            EventOutcomeIndicator=str(self.outcome),
        )
        _code(event, "EventID", self.event)
        if self.kind is not None:
            _code(event, "EventTypeCode", self.kind)
        if self.description:
            ET.SubElement(event, "EventOutcomeDescription").text = self.description
        for participant in self.participants:
            _participant(root, participant)
        source = ET.SubElement(root, "AuditSourceIdentification", AuditSourceID=source_id)
        # 4: application server process (RFC 3881 5.4.3).
        ET.SubElement(
            source,
            "AuditSourceTypeCode",
            {"csd-code": "4", "codeSystemName": "DCM", "originalText": "Application Server"},
        )
        for study in self.studies:
            _object(root, study, _STUDY, role="3")
        for series in self.series:
            _object(root, series, _SERIES, role="3")
        for other in self.others:
            _object(root, other, _NODE, role="4")
        encoded: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        return encoded


def _participant(root: ET.Element, participant: Participant) -> None:
    attributes = {"UserID": participant.user_id, "UserIsRequestor": str(participant.is_requestor).lower()}
    if participant.address:
        attributes |= {"NetworkAccessPointID": participant.address, "NetworkAccessPointTypeCode": "2"}
    element = ET.SubElement(root, "ActiveParticipant", attributes)
    if participant.role is not None:
        _code(element, "RoleIDCode", participant.role)


def _object(root: ET.Element, name: str, kind: Code, *, role: str) -> None:
    element = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=name,
        ParticipantObjectTypeCode="2",
        ParticipantObjectTypeCodeRole=role,
    )
    _code(element, "ParticipantObjectIDTypeCode", kind)
    ET.SubElement(element, "ParticipantObjectName").text = name


def _code(parent: ET.Element, name: str, code: Code) -> None:
    ET.SubElement(parent, name, {"csd-code": code.value, "codeSystemName": "DCM", "originalText": code.meaning})
