"""What every destination can do."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pacs.report import Document


@dataclass(frozen=True)
class Offer:
    """An object in the SOP classes that it can be had in, the best first; `document` makes one of them."""

    sop_classes: Sequence[str]
    document: Callable[[str], Document]


class Destination(Protocol):
    """A PACS that takes objects."""

    def deliver(self, offer: Offer) -> Document:
        """Send the object in the first SOP class that is taken, and return what was sent.

        Raises Retry where the destination is away or busy, Refused where it will never take the object.
        """
        ...

    def check(self) -> None:
        """See whether the destination answers. Raises DeliveryError with the reason."""
        ...
