"""C-FIND, and C-GET or C-MOVE (PS3.4 annex C)."""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    _STORAGE_CLASSES,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from pacs.acceptance import CT_TRANSFER_SYNTAXES
from pacs.errors import QueryError
from pacs.intake import SUCCESS
from pacs.listener import announced_by
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
from pacs.series import CT_CLASSES

_SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_FIND, _GET, _MOVE = (
    str(StudyRootQueryRetrieveInformationModelFind),
    str(StudyRootQueryRetrieveInformationModelGet),
    str(StudyRootQueryRetrieveInformationModelMove),
)
_CT = {str(sop_class): tuple(map(str, CT_TRANSFER_SYNTAXES)) for sop_class in sorted(CT_CLASSES)}
# All classes whose modality is SR or KO: what was not proposed cannot come, and counts as failed.
_DOCUMENTS = {
    sop_class: (*map(str, _SYNTAXES), str(DeflatedExplicitVRLittleEndian))
    for name, sop_class in sorted(_STORAGE_CLASSES.items())
    if name.endswith("SRStorage") or name in ("ProcedureLogStorage", "KeyObjectSelectionDocumentStorage")
}
_PENDING = (0xFF00, 0xFF01)
_CONNECT_SECONDS = 10


class DimseSource:
    """An archive at host and port. retrieve: `get` on the same association, or `move` to our listener.

    calling_ae: our AE title, which with `move` the archive must know with the listener's address.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        ae_title: str,
        calling_ae: str,
        *,
        retrieve: Literal["get", "move"] = "get",
        timeout: float = 60,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self._host, self._port, self._ae_title, self._calling_ae = host, port, ae_title, calling_ae
        self._retrieve, self._timeout = retrieve, timeout
        self._tls = None if tls is None else (tls, host)

    def studies(self, query: StudyQuery) -> list[FoundStudy]:
        """Return the studies that match."""
        return with_uid(map(read_study, self._find("STUDY", STUDY_KEYS, query.filters())))

    def series(self, study_uid: str) -> list[FoundSeries]:
        """Return the series of a study."""
        found = self._find("SERIES", SERIES_KEYS, {"StudyInstanceUID": study_uid})
        return [read_found_series(answer, study_uid) for answer in found]

    def fetch(self, series: FoundSeries, receiver: Receiver) -> None:
        """Have a series handed over; with `move` it comes by way of the listener."""
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "SERIES"
        identifier.StudyInstanceUID, identifier.SeriesInstanceUID = series.study_uid, series.series_uid
        if self._retrieve == "move":
            with self._associate([_MOVE]) as association:
                self._follow(association.send_c_move(identifier, self._calling_ae, _MOVE))
            return

        def store(event: Any) -> int:
            announced = announced_by(event, receiver.sender, receiver.ae_title)
            return receiver.take(announced, event.encoded_dataset(include_meta=False))

        with self._associate([_GET], store, _CT) as association:
            self._follow(association.send_c_get(identifier, _GET))

    def read(self, series: FoundSeries) -> list[Dataset]:
        """Return the structured reports and key objects of a series. Raises PartlyRead where some are missing.

        It asks by C-GET whatever `retrieve` says: they are for us, now.
        """
        identifier = Dataset()
        identifier.QueryRetrieveLevel = "SERIES"
        identifier.StudyInstanceUID, identifier.SeriesInstanceUID = series.study_uid, series.series_uid
        found: list[bytes | None] = []

        def keep(event: Any) -> int:
            content = event.encoded_dataset()
            found.append(content if len(content) <= LONGEST_REPORT else None)
            return SUCCESS

        def retrieved() -> Iterator[bytes | None]:
            failure: QueryError | None = None
            try:
                with self._associate([_GET], keep, _DOCUMENTS) as association:
                    self._follow(association.send_c_get(identifier, _GET))
            except QueryError as error:
                failure = error
            yield from found
            if failure is not None:
                raise failure

        return read_all(retrieved(), series)

    def check(self) -> None:
        """Send a C-ECHO, and see that it can be asked."""
        with self._associate([str(Verification), _FIND, _GET if self._retrieve == "get" else _MOVE]) as association:
            accepted = {context.abstract_syntax for context in association.accepted_contexts}
            if association.send_c_echo().get("Status") != 0:
                raise QueryError(f"{self.name} did not answer the C-ECHO with success.")
            if _FIND not in accepted or not accepted & {_GET, _MOVE}:
                raise QueryError(f"{self.name} offers no C-FIND, or no C-{self._retrieve.upper()}.")

    def _find(self, level: str, keys: Sequence[str], filters: dict[str, str]) -> list[Dataset]:
        identifier = Dataset()
        for keyword in keys:
            setattr(identifier, keyword, None)
        for keyword, value in filters.items():
            setattr(identifier, keyword, value)
        identifier.QueryRetrieveLevel = level
        found: list[Dataset] = []
        with self._associate([_FIND]) as association:
            for status, answer in association.send_c_find(identifier, _FIND):
                code = status.get("Status")
                if code in _PENDING and answer is not None:
                    found.append(answer)
                elif code not in (0x0000, *_PENDING):
                    raise QueryError(f"{self.name} answered the C-FIND of {self._calling_ae} with {_named(code)}.")
        return found

    def _follow(self, answers: Iterator[tuple[Dataset, Dataset | None]]) -> None:
        """Read the answers to a retrieval to their end."""
        last = Dataset()
        for status, _identifier in answers:
            last = status
        code = last.get("Status")
        failed = last.get("NumberOfFailedSuboperations") or 0
        if code != 0x0000 or failed:
            raise QueryError(f"{self.name} ended the retrieval with {_named(code)}, {failed} instances failed.")

    @contextmanager
    def _associate(
        self, classes: Sequence[str], store: Any = None, stored: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> Iterator[Association]:
        entity = AE(self._calling_ae)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self._timeout
        entity.connection_timeout = min(_CONNECT_SECONDS, self._timeout)
        contexts = [build_context(each, [str(syntax) for syntax in _SYNTAXES]) for each in classes]
        roles: list[Any] = []
        for sop_class, syntaxes in stored.items():
            # A context for each: one that lists them all lets the archive choose, and perhaps transcode.
            contexts += [build_context(sop_class, syntax) for syntax in syntaxes]
            roles.append(build_role(sop_class, scp_role=True))
        try:
            association = entity.associate(
                self._host, self._port, contexts, ae_title=self._ae_title, max_pdu=0, ext_neg=roles, tls_args=self._tls,
                evt_handlers=[(evt.EVT_C_STORE, store)] if store is not None else [],
            )  # fmt: skip
        except OSError as error:
            raise QueryError(f"{self.name} ({self._host}:{self._port}): {error.strerror or error}.") from error
        if not association.is_established:
            raise QueryError(f"{self.name} ({self._host}:{self._port}) takes no association of {self._calling_ae}.")
        try:
            yield association
        except (RuntimeError, ValueError) as error:
            raise QueryError(f"{self.name}: the association ended, or does not allow this.") from error
        finally:
            if association.is_established:
                association.release()


def _named(code: int | None) -> str:
    return "nothing" if code is None else f"0x{code:04X}"
