"""The exceptions of this package.

WorkerError             base; the message is a sentence that says what to do
├── SettingsError       a setting is wrong
├── NotFoundError       what was named does not exist
├── BusyError           it is being worked on: try again when that is done
├── LeaseLostError      another worker has the exam now: what was computed is thrown away
└── UnavailableError    database, broker or disk is away: try again later
"""


class WorkerError(Exception):
    """Base of everything this package raises on purpose."""


class SettingsError(WorkerError):
    """A setting is wrong."""


class NotFoundError(WorkerError):
    """What was named does not exist."""


class BusyError(WorkerError):
    """What was named is being worked on: try again when that is done."""


class LeaseLostError(WorkerError):
    """Another worker has the exam now: what was computed is thrown away."""


class UnavailableError(WorkerError):
    """The database, the broker or the disk is away: try again later."""
