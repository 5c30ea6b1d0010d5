"""JPEG Extended (1.2.840.10008.1.2.4.51) with 12 bits, as a decoder plugin for pydicom.

pydicom's own plugins refuse it. GDCM decodes it within a grey level or two of DCMTK's encoder.
"""

import gdcm
from pydicom.pixels.decoders.base import DecodeRunner, JPEGExtended12BitDecoder

_LABEL = "gdcm-12-bit"


def is_available(_uid: str) -> bool:
    """Tell pydicom that the plugin can be used."""
    return True


DECODER_DEPENDENCIES = {"1.2.840.10008.1.2.4.51": ("gdcm",)}


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """Decode one frame of a single-channel image to stored values of 16 bits, little endian."""
    if runner.bits_stored != 12 or runner.samples_per_pixel != 1:
        raise ValueError("Only single-channel images of 12 bits are decoded here.")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(source)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(str(runner.photometric_interpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, runner.pixel_representation))
    # GDCM gives its char* as text.
    return bytes(image.GetBuffer().encode("utf-8", "surrogateescape"))


def register() -> None:
    """Give pydicom the plugin; once is enough."""
    if _LABEL not in JPEGExtended12BitDecoder.available_plugins:
        JPEGExtended12BitDecoder.add_plugin(_LABEL, (__name__, "decode_frame"))
