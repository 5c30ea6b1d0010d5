"""The exceptions of this package.

ModelError          base; the message is a sentence
└── BundleError     a bundle that is incomplete, altered or of an unknown format
"""


class ModelError(Exception):
    """Base of everything this package raises on purpose."""


class BundleError(ModelError):
    """A bundle that is incomplete, altered or of an unknown format."""
