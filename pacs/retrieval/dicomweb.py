"""QIDO-RS and WADO-RS (PS3.18 chapters 10.6 and 10.4). The bytes of an instance are taken as they come."""

import re
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
# How a server says that there is more; 299 stands before other warnings too.
_MORE = re.compile(r"\b299\b.*additional results", re.IGNORECASE)


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
        return with_uid(map(read_study, self._everything("/studies", filters, "StudyInstanceUID")))

    def series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study, all of them."""
        asked = [("includefield", keyword) for keyword in SERIES_KEYS]
        found = self._everything(f"/studies/{study_uid}/series", asked, "SeriesInstanceUID", short=True)
        return [read_found_series(answer, study_uid) for answer in found]

    def _everything(
        self, path: str, filters: Sequence[tuple[str, str | int]], keyword: str, *, short: bool = False
    ) -> list[Dataset]:
        """Return all answers, page by page, each once by the UID in `keyword`.

        A server may have a smaller page than was asked for, so that only an empty page is certainly the last. `short`:
        for lists that hardly ever fill a page, a page that is not full is the last unless the server says otherwise.
        """
        found: dict[str, Dataset] = {}
        rows, first, in_vain = 0, set[str](), 0
        while True:
            page, more = self._ask(path, [*filters, ("limit", _PAGE), ("offset", rows)])
            uids = {str(answer.get(keyword, "")) for answer in page}
            in_vain = in_vain + 1 if uids <= found.keys() else 0
            if page and rows and (uids == first or in_vain > 1):
                return self._without_offset(path, filters, list(found.values()), full=more or len(page) >= _PAGE)
            first = first or uids
            found |= {str(answer.get(keyword, "")): answer for answer in page}
            rows += len(page)
            if not page or (short and len(page) < _PAGE and not more):
                return list(found.values())

    def _without_offset(
        self, path: str, filters: Sequence[tuple[str, str | int]], found: list[Dataset], *, full: bool
    ) -> list[Dataset]:
        """Return what a server has that gives the same page again: it knows no offset, so it is asked for everything.

        full: whether its page was as long as it may be, so that there is more. The server may have a limit of its own.
        """
        everything, more = self._ask(path, filters)
        if len(everything) > len(found) and not more:
            return everything
        if full or more:
            raise QueryError(
                f"{self.name} handed over {len(found)} answers, has more, and does not know the parameter 'offset' by "
                "which to ask for them: ask for fewer days at a time."
            )
        return found

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
            more = _MORE.search(answer.headers.get("Warning", "")) is not None
            return [Dataset.from_json(item) for item in answer.json()], more
        except Exception as error:  # pydicom raises whatever it likes on what is no DICOM
            raise QueryError(
                f"{self.name} ({self._url}) sent what cannot be read ({type(error).__name__}): is it the DICOMweb root?"
            ) from error
