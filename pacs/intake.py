"""What becomes of a received instance, whichever way it came: read, checked, stored, told of, and its status."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pacs.discreet import said
from pacs.elements import is_uid
from pacs.errors import Unreadable
from pacs.head import inflates_beyond, read_uids
from pacs.part10 import Announced, file_head
from pacs.spool import InstanceStore, ReceivedInstance, Stored, is_disk_full

logger = logging.getLogger(__name__)

# C-STORE statuses (PS3.4 table B.2-1, PS3.7 C), which are the failure reasons of STOW-RS too (PS3.18 table 10.5.3-3).
SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True)
class Sender:
    """Who sends, by AE title or account, and from which address."""

    name: str
    address: str


@dataclass(frozen=True)
class Happening:
    """Something that an audit trail keeps. reason: why it was rejected. received: instances by study UID."""

    kind: Literal["rejected", "received", "conflict"]
    calling: str
    address: str
    reason: str = ""
    received: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """The status of an instance; `instance` where it could be read."""

    status: int
    instance: ReceivedInstance | None = None


class Intake:
    """Takes instances into a store. longest: bytes that a deflated dataset may have when it is inflated.

    `witness` is told what an audit trail keeps.
    """

    def __init__(self, store: InstanceStore, longest: int, witness: Callable[[Happening], None]) -> None:
        self._store, self._longest, self._witness = store, longest, witness

    def take(self, announced: Announced, encoded: bytes, sender: Sender, study_uid: str | None = None) -> Taken:
        """Take an encoded dataset.

        study_uid: the study that it must be of; None takes any.
        """
        try:
            instance = read_instance(announced, encoded, self._longest)
        except Unreadable as error:
            logger.warning("An instance from %s is refused: %s", sender.name, error)
            return Taken(CANNOT_UNDERSTAND)
        if instance.sop_class_uid != announced.sop_class_uid:
            logger.warning("An instance from %s is refused: it is not of the class announced.", sender.name)
            return Taken(DOES_NOT_MATCH, instance)
        if instance.sop_uid != announced.sop_uid:
            logger.warning("An instance from %s is refused: it is not the one announced.", sender.name)
            return Taken(DOES_NOT_MATCH, instance)
        if study_uid not in (None, instance.study_uid):
            logger.warning("An instance from %s is refused: it is of another study.", sender.name)
            return Taken(DOES_NOT_MATCH, instance)
        try:
            outcome = self._store.store(instance)
        except OSError as error:
            logger.error("Instance %s from %s was not stored: %s", instance.sop_uid, sender.name, error.strerror)  # noqa: TRY400
            return Taken(OUT_OF_RESOURCES if is_disk_full(error) else PROCESSING_FAILURE, instance)
        if outcome in (Stored.CONFLICT, Stored.REFUSED, Stored.REVISED):
            what = f"Instance {instance.sop_uid} came again with other content: {outcome.value}"
            logger.warning("%s (from %s).", what, sender.name)
            self._witness(Happening("conflict", sender.name, sender.address, what))
        return Taken(DUPLICATE_INSTANCE if outcome is Stored.REFUSED else SUCCESS, instance)


def read_instance(announced: Announced, encoded: bytes, longest: int) -> ReceivedInstance:
    """Read the UIDs of a dataset and put file meta information with them before it.

    longest: bytes that a deflated dataset may have when it is inflated. Raises Unreadable.
    """
    try:
        uids = read_uids(encoded, announced.syntax, _IDENTIFYING)
    except Exception as error:  # pydicom raises whatever it likes on garbage
        raise Unreadable(f"the dataset cannot be read ({said(error)})") from error
    for keyword, uid in uids.items():
        if not is_uid(uid):
            raise Unreadable(f"{keyword} is {'missing' if not uid else 'not a valid UID'}")
    if announced.syntax.is_deflated and inflates_beyond(encoded, longest):
        raise Unreadable(f"it inflates to more than {longest >> 20} MB")
    own = replace(announced, sop_class_uid=uids["SOPClassUID"], sop_uid=uids["SOPInstanceUID"])
    return ReceivedInstance(
        sop_class_uid=uids["SOPClassUID"],
        sop_uid=uids["SOPInstanceUID"],
        study_uid=uids["StudyInstanceUID"],
        series_uid=uids["SeriesInstanceUID"],
        content=file_head(own) + encoded,
    )
