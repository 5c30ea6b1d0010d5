"""QIDO-RS and WADO-RS (PS3.18 chapters 10.6 and 10.4). The bytes of an instance are taken as they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Page:
    """Studies of one answer; more: whether the server says that it has others."""

    studies: list[FoundStudy]
    more: bool


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
        """Return the studies that match, all of them. Raises QueryError where the server hands over a part only."""
        filters = [*query.filters().items(), *(("includefield", keyword) for keyword in STUDY_KEYS)]
        found: dict[str, FoundStudy] = {}
        while True:
            page = self._page([*filters, ("limit", _PAGE), ("offset", len(found))])
            new = [study for study in page.studies if study.study_uid not in found]
            found |= {study.study_uid: study for study in new}
            # A server may have a smaller page than was asked for: only an empty one is the last.
            if not page.studies:
                return list(found.values())
            if not new:
                return self._without_offset(filters, page)

    def _without_offset(self, filters: Sequence[tuple[str, str | int]], repeated: "_Page") -> list[FoundStudy]:
        """Return what a server has that gives the same page again: it knows no offset, so it is asked for everything.

        It may have a limit of its own; then more studies are left than anybody can ask for.
        """
        if len(repeated.studies) < _PAGE and not repeated.more:
            return repeated.studies
        everything = self._page(filters)
        if everything.more or len(everything.studies) <= len(repeated.studies):
            raise QueryError(
                f"{self.name} handed over {len(everything.studies)} studies, has more, and does not know the parameter "
                "'offset' by which to ask for them: ask for fewer days at a time."
            )
        return everything.studies

    def _page(self, parameters: Sequence[tuple[str, str | int]]) -> "_Page":
        datasets, more = self._ask("/studies", parameters)
        return _Page(with_uid(map(read_study, datasets)), more)

    def series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        asked = [("includefield", keyword) for keyword in SERIES_KEYS]
        found, more = self._ask(f"/studies/{study_uid}/series", asked)
        if more:
            raise QueryError(f"{self.name} has more series of a study than the {len(found)} that it handed over.")
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

    def _ask(self, path: str, parameters: Sequence[tuple[str, str | int]]) -> tuple[list[Dataset], bool]:
        """Return what was found, and whether the server says that there is more (PS3.18 8.3.4.4: Warning 299)."""
        # Wild cards stay as they are: there are servers that take %2A to the letter.
        url = f"{self._url}{path}?{urlencode(parameters, safe='*', quote_via=quote)}"
        try:
            answer = self._session.get(url, headers={"Accept": "application/dicom+json"}, timeout=self._timeout)
        except requests.RequestException as error:
            raise QueryError(f"{self.name} ({self._url}) cannot be reached: {type(error).__name__}.") from error
        if answer.status_code == 204:
            return [], False
        if answer.status_code != 200:
            raise QueryError(f"{self.name} ({self._url}) answered {answer.status_code} {answer.reason}.")
        try:
            return [Dataset.from_json(item) for item in answer.json()], "299" in answer.headers.get("Warning", "")
        except Exception as error:  # pydicom raises whatever it likes on what is no DICOM
            raise QueryError(
                f"{self.name} ({self._url}) sent what cannot be read ({type(error).__name__}): is it the DICOMweb root?"
            ) from error
