"""Which SOP classes are taken in, and in which transfer syntaxes: the same for C-STORE and STOW-RS."""

from functools import cache

from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts

from pacs.series import CT_CLASSES

# What `pacs.pixels` decodes.
CT_TRANSFER_SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
)


@cache
def accepted() -> dict[str, tuple[str, ...]]:
    """Return the transfer syntaxes of each SOP class: CT in those that are decoded, others, to lie aside, in any."""
    every = tuple(str(syntax) for syntax in ALL_TRANSFER_SYNTAXES)
    decoded = tuple(str(syntax) for syntax in CT_TRANSFER_SYNTAXES)
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    return {each: decoded if UID(each) in CT_CLASSES else every for each in classes}
