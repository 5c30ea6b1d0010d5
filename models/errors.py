"""The exceptions of this package."""


class ModelError(Exception):
    """Base of everything this package raises on purpose."""


class BundleError(ModelError):
    """A bundle that is incomplete, altered or of an unknown format."""
