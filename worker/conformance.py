"""The DICOM Conformance Statement in the outline of PS3.2 annex A, written from code and settings: it cannot lie."""

from collections.abc import Iterable, Iterator, Sequence

from pydicom.uid import (
    UID,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from pacs import codes
from pacs.acceptance import CT_TRANSFER_SYNTAXES, accepted
from pacs.commitment import PUSH_MODEL
from pacs.intake import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH,
    DUPLICATE_INSTANCE,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
)
from pacs.meanings import PRIVATE_SCHEME
from pacs.report import SR_CLASSES, SR_SERIES_NUMBER
from pacs.report.capture import HEAT_MAP_SERIES_NUMBER, PDF_SERIES_NUMBER, SUMMARY_SERIES_NUMBER
from pacs.report.document import TEMPLATE
from pacs.report.rejection import NOTE_SERIES_NUMBER, Grounds
from pacs.retrieval.query import SERIES_KEYS, STUDY_KEYS
from pacs.series import CT_CLASSES
from pacs.tls import CIPHERS
from worker.settings import Settings
from worker.version import __version__

_REPORT_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_STATUSES = (
    (SUCCESS, "stored, durably on disk; or the same instance was stored before"),
    (PROCESSING_FAILURE, "the disk does not take it for another reason than room"),
    (DUPLICATE_INSTANCE, "the UID is taken by other content, and such instances are refused by setting"),
    (OUT_OF_RESOURCES, "there is too little room on the disk"),
    (DOES_NOT_MATCH, "class or instance are not those announced"),
    (CANNOT_UNDERSTAND, "the dataset cannot be read, or its UIDs are missing or not valid"),
)


def statement(settings: Settings) -> str:
    """Return the statement of an installation as Markdown."""
    return "\n".join(
        [
            "# DICOM Conformance Statement",
            "",
            f"Reticula {__version__}. Written by `reticula conformance` from the code and the settings.",
            "",
            *_overview(),
            *_networking(settings),
            *_dicomweb(settings),
            *_media(),
            *_character_sets(),
            *_security(settings),
            *_annexes(),
        ]
    )


def _overview() -> Iterator[str]:
    yield "## 1 Overview"
    yield ""
    yield "Reticula takes chest CT in, classifies it, and sends reports. It is no archive, and not a medical device."
    yield ""
    rows: list[tuple[str, str, str, str]] = [("Verification", str(Verification), "yes", "yes")]
    rows += [(UID(each).name, each, "no", "yes") for each in sorted(map(str, CT_CLASSES))]
    others = len(accepted()) - len(CT_CLASSES) - 1
    rows.append((f"{others} other storage SOP classes, laid aside and not used", "PS3.4 annex B", "no", "yes"))
    sent = (*SR_CLASSES, SecondaryCaptureImageStorage, EncapsulatedPDFStorage)
    rows += [(UID(each).name, str(each), "yes", "laid aside") for each in sent]
    notes = KeyObjectSelectionDocumentStorage
    rows.append((UID(notes).name, str(notes), "rejection notes", "rejection notes; others are laid aside"))
    rows.append((UID(PUSH_MODEL).name, PUSH_MODEL, "by setting", "yes"))
    models = (
        StudyRootQueryRetrieveInformationModelFind,
        StudyRootQueryRetrieveInformationModelGet,
        StudyRootQueryRetrieveInformationModelMove,
    )
    rows += [(UID(each).name, str(each), "by setting", "no") for each in models]
    yield from _table(("SOP class", "UID", "as SCU", "as SCP"), rows)


def _networking(settings: Settings) -> Iterator[str]:
    listener = settings.listener
    yield "## 2 Networking"
    yield ""
    yield "### 2.1 Associations that are accepted"
    yield ""
    rows = [
        ("AE title", listener.ae_title),
        ("Address and port", f"{listener.host}:{listener.port}"),
        (
            "Calling AE titles",
            ", ".join(f"{peer.ae_title} from {peer.address}" for peer in settings.peers)
            or "any, from this machine only",
        ),
        ("Associations at once", f"{listener.max_associations}, of one peer {listener.max_associations_per_peer}"),
        ("Maximum PDU length", f"{listener.max_pdu_bytes} bytes"),
        ("Longest instance", f"{listener.max_instance_mb} MB"),
        ("Negotiation, and a PDU, may take", f"{listener.negotiation_seconds:g} s, {listener.idle_seconds:g} s"),
        ("Asynchronous operations", "not supported"),
        ("Implementation class UID", str(PYNETDICOM_IMPLEMENTATION_UID)),
        ("Implementation version name", PYNETDICOM_IMPLEMENTATION_VERSION),
    ]
    yield from _table(("", ""), rows)
    yield "Transfer syntaxes of CT:"
    yield ""
    yield from _table(("transfer syntax", "UID"), [(syntax.name, str(syntax)) for syntax in CT_TRANSFER_SYNTAXES])
    yield "Statuses of C-STORE:"
    yield ""
    yield from _table(("status", "meaning"), [(f"0x{status:04X}", meaning) for status, meaning in _STATUSES])
    yield "An association is rejected for good (result 1) where the calling AE title and address are not"
    yield "among the peers (reason 3)"
    yield "or another AE title is called (reason 7), and for now (result 2, source 3) where there is no"
    yield "room or the intake is closed"
    yield "(reason 1) or there are too many associations (reason 2)."
    yield ""
    yield "### 2.2 Associations that are opened"
    yield ""
    destinations = [
        (
            each.name,
            each.kind,
            f"{each.host}:{each.port} {each.ae_title}" if each.kind == "dimse" else each.url,
            ", ".join(each.objects),
        )
        for each in settings.destinations
    ]
    yield (
        "Reports are sent in "
        + " or ".join(syntax.name for syntax in _REPORT_SYNTAXES)
        + ", in the first SOP class that is accepted:"
    )
    yield " then ".join(UID(each).name for each in SR_CLASSES) + "."
    yield ""
    yield from _table(("destination", "kind", "where", "objects"), destinations or [("none", "", "", "")])
    sources = [
        (
            each.name,
            f"{each.host}:{each.port} {each.ae_title}, C-{each.retrieve.upper()}" if each.kind == "dimse" else each.url,
        )
        for each in settings.sources
    ]
    yield (
        "Archives are asked at the levels STUDY and SERIES (Study Root) for "
        + ", ".join((*STUDY_KEYS, *SERIES_KEYS))
        + "."
    )
    yield ""
    yield from _table(("source", "where"), sources or [("none", "")])


def _dicomweb(settings: Settings) -> Iterator[str]:
    yield "## 3 DICOMweb"
    yield ""
    http = settings.http
    yield f"STOW-RS is {'served' if http.enabled else 'not served, by setting'} at"
    yield f"`http://{http.host}:{http.port}/dicom-web/studies`"
    yield 'and `/studies/{study}`: `multipart/related; type="application/dicom"` and `application/dicom`, answered as'
    yield "`application/dicom+json` or `application/dicom+xml`; metadata and bulk data apart are not"
    yield "taken. SOP classes, transfer syntaxes"
    yield "and limits are those of section 2.1. As user agent: STOW-RS, QIDO-RS for studies and series,"
    yield "WADO-RS for series."
    yield ""


def _media() -> Iterator[str]:
    yield "## 4 Media"
    yield ""
    yield "None."
    yield ""


def _character_sets() -> Iterator[str]:
    yield "## 5 Character sets"
    yield ""
    yield "Received: whatever pydicom decodes (PS3.3 C.12.1.1.2). Sent: ISO_IR 100 where Latin-1 holds"
    yield "all text, else ISO_IR 192."
    yield ""


def _security(settings: Settings) -> Iterator[str]:
    yield "## 6 Security"
    yield ""
    tls = "set" if settings.listener.tls is not None else "not set"
    yield f"TLS for the listener is {tls}; for destinations and sources as they are configured. Versions"
    yield "1.2 and 1.3 (BCP 195), certificates on"
    yield f"both sides, cipher suites of 1.2: `{CIPHERS}`. Audit messages after PS3.15 A.5 by syslog, UDP or TLS."
    yield ""


def _annexes() -> Iterator[str]:
    yield "## 7 Objects that are made"
    yield ""
    rows = [
        ("report", " or ".join(UID(each).name for each in SR_CLASSES), "SR", str(SR_SERIES_NUMBER)),
        ("summary", UID(SecondaryCaptureImageStorage).name, "OT", str(SUMMARY_SERIES_NUMBER)),
        ("key slices", UID(SecondaryCaptureImageStorage).name, "OT", str(HEAT_MAP_SERIES_NUMBER)),
        ("page", UID(EncapsulatedPDFStorage).name, "DOC", str(PDF_SERIES_NUMBER)),
        ("notice", " or ".join(UID(each).name for each in SR_CLASSES), "SR", str(SR_SERIES_NUMBER)),
        ("rejection note", UID(KeyObjectSelectionDocumentStorage).name, "KO", str(NOTE_SERIES_NUMBER)),
    ]
    yield from _table(("object", "SOP class", "Modality", "Series Number"), rows)
    yield "The report is TID 1500 (PS3.16) with TID 1411 for the exam and TID 1410 for key slices; its"
    yield f"own version is {TEMPLATE}. Of an exam without a verdict it has no finding, no certainty and, unless a"
    yield "setting asks for them, no probabilities. Tracking UIDs stay over the revisions of an exam. Of the"
    yield "pictures of a series the newest has the smallest Instance Number; a picture that says so parts them from"
    yield "those that they supersede. An exam without a verdict has no pictures of key slices."
    yield "The notice that an exam has no result is TID 2000 with a heading of conclusions. Rejection notes (IHE"
    yield f"Imaging Object Change Management) are TID 2010; titles that are understood: {', '.join(Grounds)} (DCM)."
    yield f"The private coding scheme is {PRIVATE_SCHEME} ({codes.PRIVATE_SCHEME_NAME}, {codes.ORGANISATION})."
    yield ""
    yield "## 8 Codes"
    yield ""
    yield from _table(
        ("code", "scheme", *codes.LANGUAGES), [(*key, *meanings) for key, meanings in sorted(codes.table().items())]
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
    yield ""
