"""We are asked to commit: a request is on disk before it is answered, and its result goes out until it has arrived."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.association import Association

from pacs.commitment.messages import (
    CLASS_CONFLICT,
    NO_SUCH_INSTANCE,
    PROCESSING_FAILURE,
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    CommitmentRequest,
    CommitmentResult,
    Reference,
)
from pacs.commitment.outlet import Outlet
from pacs.durable import Mailbox, sync_folder
from pacs.spool import Spool

logger = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 2.0, 3600.0
_GIVE_UP_SECONDS = 7 * 86400
_TIMEOUT_SECONDS = 30
_ANSWER_SECONDS = 5.0
_MOST_PENDING = 1000


@dataclass(frozen=True)
class Requestor:
    """Who asked, by AE title and address."""

    ae_title: str
    address: str


@dataclass
class _Pending:
    """A request whose result has not arrived yet. asked_at: since the epoch; next_at: monotonic; both in seconds."""

    path: Path
    requestor: Requestor
    request: CommitmentRequest
    asked_at: float
    outlet: Outlet | None = None
    attempts: int = 0
    next_at: float = 0.0


def _read(kept: Any) -> tuple[CommitmentRequest, Requestor, float]:
    references = tuple(Reference(**each) for each in kept["references"])
    request = CommitmentRequest(str(kept["transaction_uid"]), references)
    return request, Requestor(**kept["requestor"]), float(kept["asked_at"])


class CommitmentProvider:
    """Answers for what lies in the spool.

    folder: where requests wait. ports: of requestors that take results on an association that we open; to others the
    result goes on the one they asked by. told: is given each requestor and result that has arrived.
    """

    def __init__(
        self,
        spool: Spool,
        folder: Path,
        *,
        ae_title: str,
        ports: Mapping[Requestor, int],
        tls: ssl.SSLContext | None = None,
        told: Callable[[Requestor, CommitmentResult], None] = lambda _requestor, _result: None,
    ) -> None:
        self._spool, self._ae_title = spool, ae_title
        self._mailbox = Mailbox(folder, _read, "request for storage commitment")
        self._ports, self._tls, self._told = ports, tls, told
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take up what an earlier process left, and answer in a thread of its own."""
        self._mailbox.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        for letter in self._mailbox.letters():
            request, requestor, asked_at = letter.content
            self._pending.append(_Pending(letter.path, requestor, request, asked_at))
        self._thread = threading.Thread(target=self._run, name="storage commitment", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Answer no more; what is open is taken up with the next start."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def take(self, requestor: Requestor, request: CommitmentRequest, association: Association) -> bool:
        """Keep a request, durably; its result follows. False where too many wait already. Raises OSError."""
        if len(self._pending) >= _MOST_PENDING:
            return False
        asked_at = time.time()
        path = self._mailbox.put(asdict(request) | {"requestor": asdict(requestor), "asked_at": asked_at})
        with self._lock:
            self._pending.append(_Pending(path, requestor, request, asked_at, Outlet.of(association)))
        self._wake.set()
        return True

    def judge(self, request: CommitmentRequest) -> CommitmentResult:
        """Say which instances are durable in the spool, under the class that the request names."""
        uids = {reference.sop_uid for reference in request.references}
        found, contested = self._spool.find(uids), self._spool.contested(uids)
        for folder in {path.parent for path in found.values()}:
            sync_folder(folder)  # whoever wrote them may not have come that far yet
        committed, failed = [], []
        for reference in request.references:
            # Of what came with several contents nobody knows which one is meant.
            failure = PROCESSING_FAILURE if reference.sop_uid in contested else None
            failure = failure or _failure(reference, found.get(reference.sop_uid))
            if failure is None:
                committed.append(reference)
            else:
                failed.append((reference, failure))
        return CommitmentResult(request.transaction_uid, tuple(committed), tuple(failed))

    def _run(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                waiting = list(self._pending)
            for pending in waiting:
                if pending.next_at <= time.monotonic() and not self._stopping.is_set():
                    try:
                        self._answer(pending)
                    except Exception:  # one that fails, as on a disk that went away, must not end the thread
                        logger.exception("A request for storage commitment could not be answered.")
                        self._put_off(pending)
            self._wake.wait(0.5)
            self._wake.clear()

    def _answer(self, pending: _Pending) -> None:
        result = self.judge(pending.request)
        if self._report(pending, result):
            self._end(pending)
            self._told(pending.requestor, result)
        elif pending.outlet is None and pending.requestor not in self._ports:
            logger.error(
                "%s takes no result of its storage commitment: it closed its association, and its peer has no port.",
                pending.requestor.ae_title,
            )
            self._end(pending)
        elif time.time() - pending.asked_at > _GIVE_UP_SECONDS:
            logger.error("%s took no result of a storage commitment for a week.", pending.requestor.ae_title)
            self._end(pending)
        else:
            self._put_off(pending)

    def _put_off(self, pending: _Pending) -> None:
        """Try again later; what else its requestor asked must not hold up the others until then."""
        pending.attempts += 1
        seconds = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(pending.attempts - 1, 20))
        with self._lock:
            for each in self._pending:
                if each.requestor == pending.requestor:
                    each.next_at = max(each.next_at, time.monotonic() + seconds)

    def _end(self, pending: _Pending) -> None:
        pending.path.unlink(missing_ok=True)
        with self._lock:
            self._pending.remove(pending)

    def _report(self, pending: _Pending, result: CommitmentResult) -> bool:
        """Send the result; False where it did not arrive."""
        port = self._ports.get(pending.requestor)
        if port is not None and self._report_anew(pending.requestor, port, result):
            return True
        outlet = pending.outlet
        if outlet is not None and outlet.is_open:
            return outlet.send(result, _ANSWER_SECONDS)
        pending.outlet = None
        return False

    def _report_anew(self, requestor: Requestor, port: int, result: CommitmentResult) -> bool:
        entity = AE(self._ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT_SECONDS
        entity.connection_timeout = _TIMEOUT_SECONDS
        entity.add_requested_context(PUSH_MODEL, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        tls = None if self._tls is None else (self._tls, requestor.address)
        try:
            association = entity.associate(
                requestor.address,
                port,
                ae_title=requestor.ae_title,
                # The provider of the service opens the association (PS3.4 J.3.3, PS3.7 D.3.3.4).
                ext_neg=[build_role(PUSH_MODEL, scu_role=False, scp_role=True)],
                tls_args=tls,
            )
        except OSError as error:
            logger.warning("%s takes no result of its commitment: %s.", requestor.ae_title, error.strerror or error)
            return False
        if not association.is_established:
            logger.warning("%s takes no association for the result of its commitment.", requestor.ae_title)
            return False
        try:
            return _send(association, result)
        finally:
            if association.is_established:
                association.release()


def _send(association: Association, result: CommitmentResult) -> bool:
    try:
        status, _reply = association.send_n_event_report(
            result.dataset(), result.event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE
        )
    except (RuntimeError, ValueError) as error:
        logger.warning("The result of a storage commitment was not sent: %s", error)
        return False
    answer = status.get("Status")
    if answer == 0:
        return True
    logger.warning("The result of a storage commitment was answered with %s.", "nothing" if answer is None else answer)
    return False


def _failure(reference: Reference, path: Path | None) -> int | None:
    """Return why an instance is not committed, None where it is."""
    if path is None:
        return NO_SUCH_INSTANCE
    try:
        sop_class = read_file_meta_info(path).MediaStorageSOPClassUID
    except FileNotFoundError:
        return NO_SUCH_INSTANCE
    except Exception:  # pydicom raises whatever it likes on garbage
        logger.exception("An instance of the spool cannot be read.")
        return PROCESSING_FAILURE
    return None if sop_class == reference.sop_class_uid else CLASS_CONFLICT
