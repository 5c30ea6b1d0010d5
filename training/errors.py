"""The exceptions of this package."""


class TrainingError(Exception):
    """Base of everything this package raises on purpose; the message is a sentence that says what to do."""


class DatasetError(TrainingError):
    """A data set that cannot be trained on."""
