"""Decoders that pydicom lacks, or has none of that leaves the other threads alone, as plugins for it."""

from pacs.codecs import jpeg_2000, jpeg_extended


def register() -> None:
    """Give pydicom the plugins; once is enough."""
    jpeg_2000.register()
    jpeg_extended.register()


__all__ = ["register"]
