"""Storage commitment, push model (PS3.4 annex J): asked of us, and asked by us."""

from pacs.commitment.messages import (
    PUSH_MODEL,
    PUSH_MODEL_INSTANCE,
    REQUEST_COMMITMENT,
    CommitmentRequest,
    CommitmentResult,
    Reference,
)
from pacs.commitment.provider import CommitmentProvider, Requestor
from pacs.commitment.service import CommitmentService, take_report

__all__ = [
    "PUSH_MODEL",
    "PUSH_MODEL_INSTANCE",
    "REQUEST_COMMITMENT",
    "CommitmentProvider",
    "CommitmentRequest",
    "CommitmentResult",
    "CommitmentService",
    "Reference",
    "Requestor",
    "take_report",
]
