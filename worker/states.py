"""The states of a series and of a delivery, as scripts outside read them."""

from enum import StrEnum


class State(StrEnum):
    """Where a revision of a series stands.

    receiving → queued → classifying → classified → reported, and aside rejected and failed.
    """

    RECEIVING = "receiving"
    QUEUED = "queued"
    CLASSIFYING = "classifying"
    CLASSIFIED = "classified"
    REPORTED = "reported"
    REJECTED = "rejected"
    FAILED = "failed"


class DeliveryState(StrEnum):
    """Where an object on its way to a destination stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    REFUSED = "refused"


class Completeness(StrEnum):
    """What closed a series."""

    QUIET_PERIOD = "quiet_period"
    MAXIMUM_WAIT = "maximum_wait"
    EXPECTED_COUNT = "expected_count"
    REPROCESS = "reprocess"


# Nothing more will happen to a revision in these unless somebody asks for it; late instances open the next one.
WITHOUT_RESULT = (State.REJECTED, State.FAILED)
AT_REST = (State.CLASSIFIED, State.REPORTED, State.REJECTED, State.FAILED)
