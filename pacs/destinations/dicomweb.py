"""STOW-RS to a PACS (PS3.18 chapter 10.5)."""

import re
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from retrying import RetryError

from pacs.destinations.destination import Offer
from pacs.errors import DeliveryError, Refused, Retry, UnsupportedClass
from pacs.report import Document

# Failure Reason (0008,1197), PS3.3 C.14.1.1 and PS3.18 table 10.5.3-3.
_UNSUPPORTED = frozenset({0x0122})
_TRY_AGAIN_REASONS = frozenset({0x0110})
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
        self._session = requests.Session()
        self._session.verify = verify if isinstance(verify, bool) else str(verify)
        if isinstance(auth, tuple):
            self._session.auth = auth
        elif auth is not None:
            self._session.headers["Authorization"] = f"Bearer {auth}"

    def deliver(self, offer: Offer) -> Document:
        """Store the object in the first SOP class that the server takes."""
        refusal: Refused | None = None
        for sop_class in offer.sop_classes:
            document = offer.document(sop_class)
            try:
                self._store(document)
            except UnsupportedClass as error:
                refusal = error
                continue
            return document
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
        except requests.HTTPError:
            pass  # judged below, from the answer
        except (requests.RequestException, RetryError) as error:
            raise Retry(f"{self.name} ({self._url}) cannot be reached: {type(error).__name__}.") from error
        except (ValueError, KeyError, InvalidDicomError, SyntaxError) as error:
            if not answers or not answers[-1].ok:
                raise Retry(f"{self.name}: the answer to STOW-RS cannot be read ({error}).") from error
        finally:
            self._session.hooks["response"] = []
        self._judge(answers[-1], document)

    def _judge(self, answer: requests.Response, document: Document) -> None:
        reasons = _failure_reasons(answer, document.sop_uid)
        if answer.ok and not reasons:
            return
        shown = ", ".join(f"0x{reason:04X}" for reason in reasons)
        sentence = f"{self.name} answered {answer.status_code} {answer.reason}" + (f", reason {shown}." if shown else ".")
        if any(reason in _UNSUPPORTED or reason >> 8 == 0xA9 for reason in reasons):
            raise UnsupportedClass(sentence)
        if reasons:
            busy = all(reason >> 8 == 0xA7 or reason in _TRY_AGAIN_REASONS for reason in reasons)
            raise Retry(sentence) if busy else Refused(sentence)
        # Credentials and addresses are a matter of configuration: what is mended there must not need a resend.
        if answer.status_code >= 500 or answer.status_code in _TRY_AGAIN_STATUSES:
            raise Retry(sentence)
        if answer.status_code == 415:
            raise UnsupportedClass(sentence)
        raise Refused(sentence)


def _failure_reasons(answer: requests.Response, sop_uid: str) -> list[int]:
    """Return the failure reasons that the answer names for our instance; none where it says nothing."""
    try:
        content = answer.json()
        datasets: Sequence[Dataset] = [Dataset.from_json(item) for item in (content if isinstance(content, list) else [content])]
    except (ValueError, TypeError, KeyError, AttributeError):
        return _failure_reasons_xml(answer)
    reasons = []
    for dataset in datasets:
        for item in dataset.get("FailedSOPSequence") or []:
            if item.get("ReferencedSOPInstanceUID", sop_uid) == sop_uid:
                reasons.append(int(item.get("FailureReason", 0x0110)))
    return reasons


def _failure_reasons_xml(answer: requests.Response) -> list[int]:
    """A server that answers in XML only: 00081198 marks a failure; its reason stands in 00081197."""
    if b"00081198" not in answer.content:
        return []
    found = re.search(rb'tag="00081197".*?<Value[^>]*>(\d+)</Value>', answer.content, re.DOTALL)
    return [int(found[1]) if found else 0x0110]
