"""Results of the storage commitments that we asked for: kept by the listener, brought into SQL by the sweep."""

import json
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from pacs.commitment import CommitmentResult, Reference
from pacs.durable import sync_folder, write_synced

logger = logging.getLogger(__name__)

# A result may overtake the row that waits for it; one that nobody waits for any more is dropped.
_FORGET_SECONDS = 3600
_AT_ONCE = 200


class CommitmentInbox:
    """Results in `folder` that are not in SQL yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, result: CommitmentResult) -> None:
        """Keep a result, durably. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        temporary = self._folder / f".{uuid.uuid4().hex}"
        write_synced(temporary, json.dumps(asdict(result)).encode())
        temporary.rename(self._folder / f"{uuid.uuid4().hex}.json")
        sync_folder(self._folder)

    def collect(self, settle: Callable[[CommitmentResult], bool]) -> None:
        """Hand each result to `settle`, which says whether it was waited for; that one is done."""
        for path in sorted(self._folder.glob("*.json"))[:_AT_ONCE]:
            with suppress(FileNotFoundError):  # another sweep was faster
                try:
                    result = _read(path)
                except (ValueError, KeyError, TypeError):  # not written by us
                    logger.warning("%s is no result of a storage commitment: it is set aside.", path.name)
                    path.rename(path.with_suffix(".odd"))
                    continue
                if settle(result):
                    path.unlink()
                elif time.time() - path.stat().st_mtime > _FORGET_SECONDS:
                    logger.warning("Nobody waits for the storage commitment %s.", result.transaction_uid)
                    path.unlink()


def _read(path: Path) -> CommitmentResult:
    kept = json.loads(path.read_bytes())
    return CommitmentResult(
        kept["transaction_uid"],
        tuple(Reference(**each) for each in kept["committed"]),
        tuple((Reference(**each), reason) for each, reason in kept["failed"]),
    )
