"""Who a patient is, as SQL keeps it: what the header says, or by setting no more than a keyed hash of it."""

import hashlib
import hmac
from dataclasses import replace
from pathlib import Path

from pacs.series import Patient, SeriesHeader
from worker.errors import SettingsError

# No number of a hospital begins so.
_MARK = "hmac:"
_LEAST_BYTES = 16


class Identities:
    """Turns what a header says into what SQL keeps. key: of the hash (HMAC-SHA256, RFC 2104); None keeps it as it is.

    The same key gives the same patient the same hash, so exams of one patient still belong together.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key

    @classmethod
    def from_file(cls, path: Path) -> "Identities":
        """Read the key. Raises SettingsError."""
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"The key of [privacy] key_file cannot be read: {error.strerror} ({path}).") from error
        if len(key) < _LEAST_BYTES:
            raise SettingsError(f"The key in {path} is too short: 'openssl rand -hex 32' makes a good one.")
        return cls(key)

    @property
    def are_hashed(self) -> bool:
        """Whether SQL holds hashes: then the header that a report repeats is read from the received files."""
        return self._key is not None

    def number(self, value: str) -> str:
        """Return what SQL keeps of a number that tells who somebody is."""
        if self._key is None or not value:
            return value
        return _MARK + hmac.new(self._key, value.encode(), hashlib.sha256).hexdigest()[:40]

    def patient(self, patient: Patient) -> Patient:
        """Return what SQL keeps of a patient: a hash of the number, of the name only where there is no number."""
        if self._key is None:
            return patient
        number, name = patient.identity
        return Patient(self.number(number), patient.issuer, self.number(name), "", "")

    def header(self, header: SeriesHeader) -> SeriesHeader:
        """Return what SQL keeps of a header."""
        if self._key is None:
            return header
        return replace(
            header,
            patient=self.patient(header.patient),
            accession_number=self.number(header.accession_number),
            referring_physician="",
            study_id="",
            study_date=_moment(header.study_date),
            study_time=_moment(header.study_time),
            context="{}",
        )


def _moment(value: str) -> str:
    """A date or time; what else somebody wrote there is not kept."""
    return value if value.replace(".", "").isdigit() else ""


def is_hashed(number: str) -> bool:
    """Whether a patient number from SQL is a hash."""
    return number.startswith(_MARK)
