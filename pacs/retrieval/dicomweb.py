"""QIDO-RS and WADO-RS (PS3.18 chapters 10.6 and 10.4). The bytes of an instance are taken as they come."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

import requests
from pydicom.dataset import Dataset

from pacs.dicomweb import make_session
from pacs.errors import QueryError
from pacs.retrieval.query import (
    LONGEST_REPORT,
    SERIES_KEYS,
    STUDY_KEYS,
    FoundSeries,
    FoundStudy,
    StudyQuery,
    read_all,
    read_found_series,
    read_study,
    with_uid,
)
from pacs.retrieval.receiver import Receiver
from pacs.stow.parts import Malformed, PartReader

_PIECE = 1 << 20
_PAGE = 500


class DicomwebSource:
    """An origin server. `auth` is (user, password) or a bearer token; `verify` as in requests.

    longest: bytes that an instance may have.
    """

    def __init__(
        self,
        name: str,
        url: str,
        auth: tuple[str, str] | str | None = None,
        verify: bool | Path = True,
        timeout: float = 60,
        longest: int = 1 << 30,
    ) -> None:
        self.name = name
        self._url, self._timeout, self._longest = url.rstrip("/"), timeout, longest
        self._session = make_session(auth, verify)

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        """Return the studies that match."""
        filters = [*query.filters().items(), *(("includefield", keyword) for keyword in STUDY_KEYS)]
        found: dict[str, FoundStudy] = {}
        while True:
            page = with_uid(
                map(read_study, self._ask("/studies", [*filters, ("limit", _PAGE), ("offset", len(found))]))
            )
            new = [study for study in page if study.study_uid not in found]
            found |= {study.study_uid: study for study in new}
            # A server may have a smaller page, and one that knows no offset gives the same one again and again.
            if not new:
                return list(found.values())

    def series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        found = self._ask(f"/studies/{study_uid}/series", [("includefield", keyword) for keyword in SERIES_KEYS])
        return [read_found_series(answer, study_uid) for answer in found]

    def fetch(self, series: FoundSeries, receiver: Receiver) -> None:
        """Retrieve a series in whatever transfer syntax it is kept."""
        for part in self._parts(series, self._longest):
            receiver.take_file(part)

    def read(self, series: FoundSeries) -> list[Dataset]:
        """Return the structured reports and key objects of a series. Raises PartlyRead where some are missing."""
        return read_all(self._parts(series, LONGEST_REPORT), series)

    def _parts(self, series: FoundSeries, longest: int) -> Iterator[bytes | None]:
        url = f"{self._url}/studies/{series.study_uid}/series/{series.series_uid}"
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        try:
            with self._session.get(url, headers={"Accept": accept}, stream=True, timeout=self._timeout) as answer:
                if answer.status_code != 200:
                    raise QueryError(f"{self.name} answered {answer.status_code} {answer.reason}.")
                reader = PartReader(answer.headers.get("Content-Type", ""), longest)
                for chunk in answer.iter_content(_PIECE):
                    yield from reader.feed(chunk)
                yield from reader.end()
        except requests.RequestException as error:
            raise QueryError(f"{self.name} ({self._url}) cannot be reached: {type(error).__name__}.") from error
        except Malformed as error:
            raise QueryError(f"{self.name} sent what cannot be read: {error}") from error

    def check(self) -> None:
        """Ask for one study."""
        self._ask("/studies", [("limit", 1)])

    def _ask(self, path: str, parameters: Sequence[tuple[str, str | int]]) -> list[Dataset]:
        # Wild cards stay as they are: there are servers that take %2A to the letter.
        url = f"{self._url}{path}?{urlencode(parameters, safe='*', quote_via=quote)}"
        try:
            answer = self._session.get(url, headers={"Accept": "application/dicom+json"}, timeout=self._timeout)
        except requests.RequestException as error:
            raise QueryError(f"{self.name} ({self._url}) cannot be reached: {type(error).__name__}.") from error
        if answer.status_code == 204:
            return []
        if answer.status_code != 200:
            raise QueryError(f"{self.name} ({self._url}) answered {answer.status_code} {answer.reason}.")
        try:
            return [Dataset.from_json(item) for item in answer.json()]
        except Exception as error:  # pydicom raises whatever it likes on what is no DICOM
            raise QueryError(
                f"{self.name} ({self._url}) sent what cannot be read ({type(error).__name__}): is it the DICOMweb root?"
            ) from error
