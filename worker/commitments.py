"""Results of the storage commitments that we asked for: kept by the listener, brought into SQL by the sweep."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pacs.commitment import CommitmentResult, Reference
from pacs.durable import Mailbox

logger = logging.getLogger(__name__)

# A result may overtake the row that waits for it; one that nobody waits for any more is dropped.
_FORGET_SECONDS = 3600
_AT_ONCE = 200


class CommitmentInbox:
    """Results in `folder` that are not in SQL yet."""

    def __init__(self, folder: Path) -> None:
        self._mailbox = Mailbox(folder, _read, "result of a storage commitment")

    def put(self, result: CommitmentResult) -> None:
        """Keep a result, durably. Raises OSError."""
        self._mailbox.put(asdict(result))

    def collect(self, settle: Callable[[CommitmentResult], bool]) -> None:
        """Hand each result to `settle`, which says whether it was waited for; that one is done."""
        for letter in self._mailbox.letters(_AT_ONCE):
            if settle(letter.content):
                letter.remove()
                continue
            with suppress(FileNotFoundError):  # another sweep was faster
                if time.time() - letter.path.stat().st_mtime > _FORGET_SECONDS:
                    logger.warning("Nobody waits for the storage commitment %s.", letter.content.transaction_uid)
                    letter.remove()


def _read(kept: Any) -> CommitmentResult:
    return CommitmentResult(
        str(kept["transaction_uid"]),
        tuple(Reference(**each) for each in kept["committed"]),
        tuple((Reference(**each), int(reason)) for each, reason in kept["failed"]),
    )
