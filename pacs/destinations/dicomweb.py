"""STOW-RS to a PACS (PS3.18 chapter 10.5)."""

from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.web import _load_xml_dataset
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.destinations.destination import Offer, Sent
from pacs.dicomweb import make_session
from pacs.errors import DeliveryError, Refused, Retry, UnsupportedClass
from pacs.report import Document

# Failure Reason (0008,1197), PS3.3 C.14.1.1 and PS3.18 table 10.5.3-3.
_DUPLICATE_INSTANCE = 0x0111  # it has this very UID already: an earlier attempt arrived
_UNSUPPORTED = frozenset({0x0122})
_TRY_AGAIN_REASONS = frozenset({0x0110, 0x0124})
_TRY_AGAIN_STATUSES = frozenset({401, 403, 404, 407, 408, 425, 429})


class DicomwebDestination:
    """A STOW-RS origin server. `auth` is (user, password) or a bearer token; `verify` as in requests."""

    def __init__(
        self,
        name: str,
        url: str,
        auth: tuple[str, str] | str | None = None,
        verify: bool | Path = True,
        timeout: float = 30,
    ) -> None:
        self.name = name
        self._url, self._timeout = url.rstrip("/"), timeout
        self._session = make_session(auth, verify)

    def deliver(self, offer: Offer) -> Sent:
        """Store the object in the first SOP class that the server takes."""
        refusal: Refused | None = None
        for sop_class in offer.sop_classes:
            document = offer.document(sop_class)
            try:
                self._store(document)
            except UnsupportedClass as error:
                refusal = error
                continue
            return Sent(document)
        raise refusal or UnsupportedClass(f"{self.name} takes none of the report's SOP classes.")

    def check(self) -> None:
        """Ask for one study by QIDO-RS. Raises DeliveryError."""
        try:
            answer = self._session.get(f"{self._url}/studies", params={"limit": "1"}, timeout=self._timeout)
        except requests.RequestException as error:
            raise DeliveryError(f"{self.name} ({self._url}) cannot be reached: {type(error).__name__}.") from error
        if answer.status_code not in (200, 204):
            raise DeliveryError(f"{self.name} ({self._url}) answered {answer.status_code} {answer.reason}.")

    def _store(self, document: Document) -> None:
        answers: list[requests.Response] = []

        def keep(response: requests.Response, *_args: Any, **_options: Any) -> requests.Response:
            answers.append(response)
            return response

        # The client raises by status before it looks at what the server says of each instance: look ourselves.
        client = DICOMwebClient(self._url, session=self._session, callback=keep, timeout=self._timeout)
        client.set_http_retry_params(retry=False)
        self._session.headers["Accept"] = "application/dicom+json"
        dataset = dcmread(BytesIO(document.content))
        try:
            client.store_instances([dataset], study_instance_uid=dataset.StudyInstanceUID)
        except Exception as error:  # the client raises whatever it likes on odd answers; they are judged below
            if not answers:
                raise Retry(f"{self.name} ({self._url}) cannot be reached: {type(error).__name__}.") from error
        finally:
            self._session.hooks["response"] = []
        self._judge(answers[-1], document)

    def _judge(self, answer: requests.Response, document: Document) -> None:
        """Believe in success only where the server names our instance as stored (PS3.18 table 10.5.3-2)."""
        stored, reasons = _outcome(answer, document.sop_uid)
        if answer.history or answer.request.method != "POST":
            raise Retry(f"{self.name} redirects STOW-RS to {answer.url}: set the destination's url to where it leads.")
        if (answer.ok and stored and not reasons) or _DUPLICATE_INSTANCE in reasons:
            return
        shown = ", ".join(f"0x{reason:04X}" for reason in reasons)
        sentence = f"{self.name} answered {answer.status_code} {answer.reason}" + (
            f", reason {shown}." if shown else "."
        )
        if any(reason in _UNSUPPORTED or reason >> 8 == 0xA9 for reason in reasons):
            raise UnsupportedClass(sentence)
        if reasons:
            busy = all(reason >> 8 == 0xA7 or reason in _TRY_AGAIN_REASONS for reason in reasons)
            raise Retry(sentence) if busy else Refused(sentence)
        if answer.ok:
            raise Retry(
                f"{sentence[:-1]}, but does not say that it stored the report; is {self._url} its DICOMweb root?"
            )
        # Credentials and addresses are a matter of configuration: what is mended there must not need a resend.
        if answer.status_code >= 500 or answer.status_code in _TRY_AGAIN_STATUSES:
            raise Retry(sentence)
        if answer.status_code == 415:
            raise UnsupportedClass(sentence)
        raise Refused(sentence)


def _outcome(answer: requests.Response, sop_uid: str) -> tuple[bool, list[int]]:
    """Return whether the answer names our instance as stored, and the failure reasons that it names."""
    stored = False
    reasons: list[int] = []
    for dataset in _datasets(answer):
        stored |= any(
            item.get("ReferencedSOPInstanceUID") == sop_uid for item in dataset.get("ReferencedSOPSequence") or []
        )
        failed = [*(dataset.get("FailedSOPSequence") or []), *(dataset.get("OtherFailuresSequence") or [])]
        reasons.extend(
            int(item.get("FailureReason") or 0x0110)
            for item in failed
            if item.get("ReferencedSOPInstanceUID", sop_uid) == sop_uid
        )
    return stored, reasons


def _datasets(answer: requests.Response) -> list[Dataset]:
    """Read an answer in JSON (PS3.18 F) or XML (PS3.19 A); nothing where it is neither."""
    try:
        if b"NativeDicomModel" in answer.content:
            return [_load_xml_dataset(ET.fromstring(answer.content))]  # noqa: S314 – of a configured server
        content = answer.json()
        return [Dataset.from_json(item) for item in (content if isinstance(content, list) else [content])]
    except Exception:  # an answer that is no DICOM
        return []
