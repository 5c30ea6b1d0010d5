"""What an N-ACTION and an N-EVENT-REPORT of storage commitment say (PS3.4 tables J.3-1 and J.3-2)."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from pacs.elements import is_uid, text
from pacs.errors import Unreadable

PUSH_MODEL = str(StorageCommitmentPushModel)
# Well known: every request and every result names it (PS3.4 J.3.5).
PUSH_MODEL_INSTANCE = str(StorageCommitmentPushModelInstance)
REQUEST_COMMITMENT = 1  # the only action type
ALL_COMMITTED, SOME_FAILED = 1, 2  # event types

# Failure reasons (PS3.3 C.14.1.1).
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_CONFLICT = 0x0119


@dataclass(frozen=True)
class Reference:
    """An instance that a commitment is about."""

    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """The question whether somebody keeps these instances."""

    transaction_uid: str
    references: tuple[Reference, ...]

    @classmethod
    def read(cls, dataset: Dataset) -> "CommitmentRequest":
        """Read the action information of an N-ACTION. Raises Unreadable."""
        references = _references(dataset, "ReferencedSOPSequence")
        if not references:
            raise Unreadable("no instance is referenced")
        return cls(_transaction(dataset), references)

    def dataset(self) -> Dataset:
        """Return the action information."""
        dataset = Dataset()
        dataset.TransactionUID = self.transaction_uid
        dataset.ReferencedSOPSequence = _items(self.references)
        return dataset


@dataclass(frozen=True)
class CommitmentResult:
    """The answer: what is kept, and what is not, with its failure reason (PS3.3 C.14.1.1)."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...] = ()

    @property
    def event_type(self) -> int:
        """The event type of its N-EVENT-REPORT."""
        return SOME_FAILED if self.failed else ALL_COMMITTED

    @classmethod
    def read(cls, dataset: Dataset) -> "CommitmentResult":
        """Read the event information of an N-EVENT-REPORT. Raises Unreadable."""
        failed = []
        for reference, item in zip(
            _references(dataset, "FailedSOPSequence"), dataset.get("FailedSOPSequence") or [], strict=True
        ):
            reason = item.get("FailureReason")
            failed.append((reference, reason if isinstance(reason, int) else PROCESSING_FAILURE))
        return cls(_transaction(dataset), _references(dataset, "ReferencedSOPSequence"), tuple(failed))

    def dataset(self) -> Dataset:
        """Return the event information."""
        dataset = Dataset()
        dataset.TransactionUID = self.transaction_uid
        if self.committed:
            dataset.ReferencedSOPSequence = _items(self.committed)
        if self.failed:
            dataset.FailedSOPSequence = _items(reference for reference, _reason in self.failed)
            for item, (_reference, reason) in zip(dataset.FailedSOPSequence, self.failed, strict=True):
                item.FailureReason = reason
        return dataset


def _transaction(dataset: Dataset) -> str:
    uid = text(dataset, "TransactionUID")
    if not is_uid(uid):
        raise Unreadable("TransactionUID is missing or no valid UID")
    return uid


def _references(dataset: Dataset, keyword: str) -> tuple[Reference, ...]:
    found = []
    for item in dataset.get(keyword) or []:
        reference = Reference(text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID"))
        if not (is_uid(reference.sop_class_uid) and is_uid(reference.sop_uid)):
            raise Unreadable(f"{keyword} names an instance without valid UIDs")
        found.append(reference)
    return tuple(found)


def _items(references: Iterable[Reference]) -> list[Dataset]:
    items = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_uid
        items.append(item)
    return items
