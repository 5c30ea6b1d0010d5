"""One Store transaction: each part is taken in as an instance that came by C-STORE would be."""

import logging

from pacs.acceptance import accepted
from pacs.errors import Unreadable
from pacs.intake import (
    CANNOT_UNDERSTAND,
    SUCCESS,
    Happening,
    Intake,
    Sender,
)
from pacs.part10 import take_apart
from pacs.stow.answer import Answer, Outcome, answer
from pacs.stow.parts import Malformed

logger = logging.getLogger(__name__)

# PS3.18 table 10.5.3-3: reasons that C-STORE has no use for.
_CLASS_NOT_SUPPORTED = 0x0122
_SYNTAX_NOT_SUPPORTED = 0xC122


class StoreRequest:
    """The parts of one request. study_uid: the only study that is taken; None takes any.

    ae_title: ours, for the file meta information.
    """

    def __init__(self, intake: Intake, sender: Sender, ae_title: str, study_uid: str | None = None) -> None:
        self._intake, self._sender, self._ae_title, self._study_uid = intake, sender, ae_title, study_uid
        self._outcomes: list[Outcome] = []
        self._received: dict[str, int] = {}

    def take(self, content: bytes | None) -> None:
        """Take the next part; None stands for one that was too long or of another type, and was not kept."""
        # To come again would not help: it is not want of room.
        outcome = Outcome(CANNOT_UNDERSTAND) if content is None else self._take(content)
        if outcome.status != SUCCESS:
            logger.warning("A part from %s is refused with 0x%04X.", self._sender.name, outcome.status)
        self._outcomes.append(outcome)

    def answer(self) -> Answer:
        """Return the answer to what was taken. Raises Malformed where that was nothing."""
        if not self._outcomes:
            raise Malformed(400, "The body has no part.")
        return answer(self._outcomes)

    def happening(self) -> Happening | None:
        """Return what an audit trail keeps of this request; None where nothing was stored."""
        if not self._received:
            return None
        return Happening("received", self._sender.name, self._sender.address, received=dict(self._received))

    def _take(self, content: bytes) -> Outcome:
        try:
            announced, encoded = take_apart(content, self._sender.name[:16], self._ae_title)
        except Unreadable as error:
            logger.warning("A part from %s is refused: %s.", self._sender.name, error)
            return Outcome(CANNOT_UNDERSTAND)
        sop_class, sop_uid = announced.sop_class_uid, announced.sop_uid
        syntaxes = accepted().get(sop_class)
        if syntaxes is None:
            return Outcome(_CLASS_NOT_SUPPORTED, sop_class, sop_uid)
        if announced.syntax not in syntaxes:
            return Outcome(_SYNTAX_NOT_SUPPORTED, sop_class, sop_uid)
        taken = self._intake.take(announced, encoded, self._sender, self._study_uid)
        if taken.instance is not None and taken.status == SUCCESS:
            uid = taken.instance.study_uid
            self._received[uid] = self._received.get(uid, 0) + 1
        return Outcome(taken.status, sop_class, sop_uid)
