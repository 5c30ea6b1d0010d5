"""What becomes of an instance that was fetched: the same as of one that was sent to us, at a polite pace."""

import logging
import time

from pacs.errors import Unreadable
from pacs.intake import CANNOT_UNDERSTAND, SUCCESS, Intake, Sender
from pacs.part10 import Announced, take_apart

logger = logging.getLogger(__name__)


class Receiver:
    """Takes instances in, so many a second at most. stored, refused: how many of each."""

    def __init__(self, intake: Intake, sender: Sender, ae_title: str, instances_a_second: float) -> None:
        self._intake, self._sender, self.ae_title = intake, sender, ae_title
        self._pause, self._next = 1 / instances_a_second, 0.0
        self.stored = self.refused = 0

    def take_file(self, content: bytes | None) -> None:
        """Take an instance in the DICOM File Format; None stands for one that was too long."""
        try:
            announced, encoded = take_apart(content or b"", self.sender, self.ae_title)
        except Unreadable as error:
            logger.warning("An instance from %s is refused: %s.", self._sender.name, error)
            self._count(CANNOT_UNDERSTAND)
            return
        self.take(announced, encoded)

    @property
    def sender(self) -> str:
        """Who sends, as an AE title."""
        return self._sender.name[:16]

    def take(self, announced: Announced, encoded: bytes) -> int:
        """Take an encoded dataset and return its status, as for C-STORE."""
        status = self._intake.take(announced, encoded, self._sender).status
        self._count(status)
        return status

    def _count(self, status: int) -> None:
        if status == SUCCESS:
            self.stored += 1
        else:
            self.refused += 1
        # Whoever hands over waits for this, and so keeps the pace.
        now = time.monotonic()
        time.sleep(max(0.0, self._next - now))
        self._next = max(now, self._next) + self._pause
