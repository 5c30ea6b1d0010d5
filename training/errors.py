"""The exceptions of this package.

TrainingError       base; the message is a sentence that says what to do
└── DatasetError    a data set that cannot be trained on
"""


class TrainingError(Exception):
    """Base of everything this package raises on purpose."""


class DatasetError(TrainingError):
    """A data set that cannot be trained on."""
