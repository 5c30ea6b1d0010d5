"""What every destination can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pacs.report import Document


@dataclass(frozen=True)
class Offer:
    """An object in the SOP classes that it can be had in, the best first; `document` makes one of them.

    transaction_uid: of the storage commitment that is to be asked for; None where none is.
    """

    sop_classes: Sequence[str]
    document: Callable[[str], Document]
    transaction_uid: str | None = None


@dataclass(frozen=True)
class Sent:
    """What a destination took. committed: False where storage commitment was asked for and its result will come."""

    document: Document
    committed: bool = True


class Destination(Protocol):
    """A PACS that takes objects."""

    def deliver(self, offer: Offer) -> Sent:
        """Send the object in the first SOP class that is taken, and return what was sent.

        Raises Retry where the destination is away, busy or does not commit itself, Refused where it will never take the
        object.
        """
        ...

    def check(self) -> None:
        """See whether the destination answers. Raises DeliveryError with the reason."""
        ...
