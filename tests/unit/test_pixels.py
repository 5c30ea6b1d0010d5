"""Hounsfield units from every encoding that the listener accepts."""

import subprocess
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pacs.errors import Unreadable
from pacs.pixels import decode_all, hounsfield, stored_values
from pacs.series import SourceSlice, read_series
from tests.datasets import ct, write
from tests.servers import need

STORED = (np.arange(64 * 48, dtype=np.int16).reshape(64, 48) % 1500).astype(np.int16)


def decode(tmp_path: Path, dataset: Dataset) -> Any:
    return hounsfield(read_series(write(tmp_path, dataset)).slices[0])


def enhanced(volume: Any) -> Dataset:
    """An Enhanced CT of frames (frames, rows, columns); its intercept is -1000."""
    dataset = ct(pixels=volume[0], SOPClassUID=EnhancedCTImageStorage, NumberOfFrames=len(volume), RescaleSlope=None)
    del dataset.RescaleIntercept
    dataset.PixelData = np.asarray(volume).tobytes()
    shared, rescale = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "1", "-1000", "HU"
    shared.PixelValueTransformationSequence = Sequence([rescale])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence([Dataset() for _ in volume])
    return dataset


def test_rescale_gives_hounsfield_units(tmp_path: Path) -> None:
    hu = decode(tmp_path, ct(pixels=STORED, RescaleSlope="2", RescaleIntercept="-1000.5"))
    assert hu.dtype == np.int16
    assert hu.shape == (64, 48)
    assert np.abs(hu - (STORED * 2 - 1000.5)).max() <= 0.5


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_syntaxes(tmp_path: Path, syntax: Any) -> None:
    dataset = ct(pixels=STORED)
    dataset.file_meta.TransferSyntaxUID = syntax
    assert np.array_equal(decode(tmp_path, dataset), STORED - 1024)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_syntaxes_that_pydicom_encodes(tmp_path: Path, syntax: Any) -> None:
    dataset = ct(pixels=STORED, PixelRepresentation=0)
    dataset.compress(syntax, generate_instance_uid=False)
    assert np.array_equal(decode(tmp_path, dataset), STORED - 1024)


@pytest.mark.parametrize("plugin", ["gdcm", "pyjpegls"])
@pytest.mark.parametrize(("syntax", "error"), [(JPEGLSLossless, 0), (JPEGLSNearLossless, 3)])
def test_jpeg_ls_by_each_decoder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID, error: int, plugin: str
) -> None:
    """Where Python is newer than the wheels of one, the other decodes."""
    dataset = ct(pixels=STORED, PixelRepresentation=0)
    dataset.compress(syntax, generate_instance_uid=False, jls_error=error)
    decoder = get_decoder(syntax)
    assert set(decoder.available_plugins) == {"gdcm", "pyjpegls"}
    monkeypatch.setattr(decoder, "_available", {plugin: decoder._available[plugin]})
    assert np.abs(decode(tmp_path, dataset) - (STORED - 1024)).max() <= error


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"])
def test_jpeg_lossless(tmp_path: Path, syntax: str) -> None:
    assert np.array_equal(decode(tmp_path, gdcm_encoded(tmp_path, syntax, ct(pixels=STORED))), STORED - 1024)


def test_lossy_jpeg_of_8_bits(tmp_path: Path) -> None:
    smooth = _ramp(250).astype(np.uint8)
    dataset = ct(pixels=smooth, BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0)
    hu = decode(tmp_path, gdcm_encoded(tmp_path, "1.2.840.10008.1.2.4.50", dataset))
    assert np.abs(hu + 1024 - smooth.astype(int)).max() <= 6


def test_lossy_jpeg_of_12_bits(tmp_path: Path) -> None:
    smooth = _ramp(4000).astype(np.uint16)
    (plain,) = write(tmp_path, ct(pixels=smooth, BitsStored=12, HighBit=11, PixelRepresentation=0))
    encoded = tmp_path / "extended.dcm"
    subprocess.run([need("/usr/bin/dcmcjpeg", "dcmtk"), "+ee", plain, encoded], check=True)
    assert dcmread(encoded).file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.51"
    hu = hounsfield(read_series([encoded]).slices[0])
    assert np.abs(hu + 1024 - smooth.astype(int)).max() <= 8


def _ramp(highest: int) -> Any:
    ramp = np.add.outer(np.arange(64), np.arange(48))
    return ramp * highest // ramp.max()


def gdcm_encoded(tmp_path: Path, syntax: str, dataset: Dataset) -> Dataset:
    """Encode with GDCM; pydicom has no JPEG encoder."""
    (source,) = write(tmp_path / "source", dataset)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    kinds = {
        "1.2.840.10008.1.2.4.50": gdcm.TransferSyntax.JPEGBaselineProcess1,
        "1.2.840.10008.1.2.4.57": gdcm.TransferSyntax.JPEGLosslessProcess14,
        "1.2.840.10008.1.2.4.70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    }
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    target = tmp_path / "encoded.dcm"
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    encoded = dcmread(target)
    assert encoded.file_meta.TransferSyntaxUID == syntax
    return encoded


def test_monochrome1_means_the_same_units(tmp_path: Path) -> None:
    hu = decode(tmp_path, ct(pixels=STORED, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(hu, STORED - 1024)


def test_unsigned_twelve_bits(tmp_path: Path) -> None:
    stored = (STORED.astype(np.uint16) * 2) & 0xFFF
    hu = decode(tmp_path, ct(pixels=stored, PixelRepresentation=0, BitsStored=12, HighBit=11))
    assert np.array_equal(hu, stored.astype(np.int16) - 1024)


def test_padding_becomes_air(tmp_path: Path) -> None:
    stored = STORED.copy()
    stored[:5] = -2000
    hu = decode(tmp_path, ct(pixels=stored, PixelPaddingValue=-2000, RescaleIntercept="0"))
    assert set(hu[:5].ravel()) == {-1024}
    assert np.array_equal(hu[5:], STORED[5:])
    limits = {"PixelPaddingValue": -2100, "PixelPaddingRangeLimit": -1900}
    ranged = decode(tmp_path / "r", ct(pixels=stored, RescaleIntercept="0", **limits))
    assert np.array_equal(ranged, hu)


@pytest.mark.parametrize(
    "values",
    [{"RescaleSlope": None}, {"RescaleIntercept": ""}, {"RescaleSlope": "0"}, {"RescaleType": "OD"},
     {"PixelData": b"12"}, {"Rows": 63}, {"Rows": 60000, "Columns": 60000}],
)  # fmt: skip
def test_what_gives_no_hounsfield_units_is_said(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        decode(tmp_path, ct(pixels=STORED, **values))


def test_one_corrupt_slice_costs_that_slice_only(tmp_path: Path) -> None:
    datasets = [ct(number, pixels=STORED) for number in range(1, 30)]
    datasets[7].PixelData = b"\x00" * 100
    broken = ct(12, pixels=STORED)
    broken.file_meta.TransferSyntaxUID = JPEG2000Lossless
    broken.PixelData = encapsulate([b"\xff\x4f\xff\x51garbage"])
    broken["PixelData"].VR = "OB"
    datasets[11] = broken
    slices: tuple[SourceSlice, ...] = read_series(write(tmp_path, *datasets)).slices
    decoded = list(decode_all(slices, threads=4, ahead=3))
    assert [one.source for one in decoded] == list(slices)
    assert [index for index, one in enumerate(decoded) if one.hu is None] == [7, 11]
    assert all(one.error for one in decoded if one.hu is None)


def test_frames_of_an_enhanced_ct_decode_one_by_one(tmp_path: Path) -> None:
    volume = np.stack([STORED, STORED + 10, STORED + 20])
    dataset = enhanced(volume)
    for syntax in (None, RLELossless):
        if syntax is not None:
            dataset.compress(syntax, generate_instance_uid=False)
        slices = read_series(write(tmp_path / str(syntax), dataset)).slices
        assert [image.frame for image in slices] == [1, 2, 3]
        for image, stored in zip(slices, volume, strict=True):
            assert np.array_equal(hounsfield(image), stored - 1000)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("bits", [12, 16])
def test_pixels_are_decoded_where_they_lie_as_from_the_whole_file(tmp_path: Path, syntax: Any, bits: int) -> None:
    dataset = ct(pixels=STORED, BitsStored=bits, HighBit=bits - 1)
    if syntax.is_compressed:
        dataset.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        dataset.PixelData = STORED.astype(">i2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    (path,) = write(tmp_path, dataset)
    (image,) = read_series([path]).slices
    assert image.pixels is not None
    assert np.array_equal(stored_values(path, image.pixels, None), stored_values(path, None, None))
    assert np.array_equal(stored_values(path, image.pixels, None), STORED)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Unreadable):
        hounsfield(image)


@pytest.mark.filterwarnings("ignore:Expected")
@pytest.mark.parametrize("stated", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize("several", [False, True])
def test_an_encoding_that_is_not_the_stated_one_shifts_no_pixel(tmp_path: Path, stated: Any, several: bool) -> None:
    """Rows of 100 pixels: the bytes of a value representation, taken for a length, would reach far enough."""
    stored = np.arange(100 * 100, dtype=np.int16).reshape(100, 100) % 900
    dataset = enhanced([stored, stored + 1]) if several else ct(pixels=stored)
    dataset.file_meta.TransferSyntaxUID = (
        ExplicitVRLittleEndian if stated == ImplicitVRLittleEndian else ImplicitVRLittleEndian
    )
    (path,) = write(tmp_path, dataset)
    found, said = (bytes(str(uid), "ascii") for uid in (dataset.file_meta.TransferSyntaxUID, stated))
    content = path.read_bytes()
    start = content.index(b"\x02\x00\x10\x00UI")
    end = start + 8 + len(found) + len(found) % 2
    value = said + b"\0" * (len(said) % 2)
    changed = content[: start + 6] + len(value).to_bytes(2, "little") + value + content[end:]
    group_length = int.from_bytes(changed[140:144], "little") + len(changed) - len(content)
    path.write_bytes(changed[:140] + group_length.to_bytes(4, "little") + changed[144:])
    assert dcmread(path).file_meta.TransferSyntaxUID == stated
    for number, image in enumerate(read_series([path]).slices):
        assert image.pixels is None
        assert np.array_equal(hounsfield(image), stored + number - (1000 if several else 1024))
