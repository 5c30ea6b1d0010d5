"""How a phantom is told from a patient: whatever does not say that it is a phantom is a patient."""

import hashlib
from collections.abc import Iterable
from typing import Protocol


class Marked(Protocol):
    """What is asked of an image: its UID, its number, and whether its header says that it shows a phantom."""

    @property
    def sop_uid(self) -> str:
        """SOP Instance UID."""
        ...

    @property
    def instance_number(self) -> int | None:
        """Instance Number."""
        ...

    @property
    def quality_control(self) -> bool:
        """Quality Control Image (PS3.3 C.7.6.1)."""
        ...


def phantom_uid(*parts: object) -> str:
    """Return a UUID-derived UID (PS3.5 B.2) from a hash of the parts: the same parts, the same UID."""
    digest = hashlib.sha256("\x1f".join(map(str, ("reticula phantom", *parts))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def is_phantom(series_uid: str, images: Iterable[Marked]) -> bool:
    """Whether every image of a series says that it is a phantom of ours; without images none does.

    It does so by Quality Control Image and by a SOP Instance UID that follows from series and number: no scanner writes
    that by chance.
    """
    seen = False
    for image in images:
        seen = True
        if not image.quality_control or image.sop_uid != phantom_uid(series_uid, image.instance_number):
            return False
    return seen
