"""The exceptions of this package: what can be retried apart from what cannot.

PacsError
├── Rejected        the input is not what this product works on; `code` is stable, the message is a sentence
├── Unreadable      bytes that cannot be understood or decoded
├── ListenError     the address cannot be listened on
├── QueryError      an archive could not be asked, or refused
│   └── PartlyRead  it handed over a part of what was asked for
├── TlsError        certificate, key or authorities cannot be used
└── DeliveryError   a destination did not take an object
    ├── Retry       try again later
    └── Refused     it will never take this object
        └── UnsupportedClass   it does not take this SOP class; another one may do
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset  # every command imports this module, and few of them read DICOM


class PacsError(Exception):
    """Base of everything this package raises on purpose."""


class Rejected(PacsError):
    """A series that is not to be classified."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Unreadable(PacsError):
    """Bytes that cannot be understood or decoded."""


class ListenError(PacsError):
    """The address cannot be listened on."""


class QueryError(PacsError):
    """An archive could not be asked, or refused."""


class PartlyRead(QueryError):
    """An archive handed over a part of what was asked for: `datasets`."""

    def __init__(self, sentence: str, datasets: "Sequence[Dataset]") -> None:
        super().__init__(sentence)
        self.datasets = tuple(datasets)


class TlsError(PacsError):
    """Certificate, key or authorities cannot be used."""


class DeliveryError(PacsError):
    """A destination did not take an object."""


class Retry(DeliveryError):
    """The destination is away, busy or full: try again later."""


class Refused(DeliveryError):
    """The destination will never take this object as it is."""


class UnsupportedClass(Refused):
    """The destination does not take this SOP class."""
