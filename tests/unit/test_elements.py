"""Values that are taken as their bytes say are those that pydicom gives."""

import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from pacs.elements import first, floats, integer, text, words

_KEYWORDS = {
    "PatientID": "LO", "AccessionNumber": "SH", "StudyDate": "DA", "StudyTime": "TM", "StudyInstanceUID": "UI",
    "InstanceNumber": "IS", "PixelSpacing": "DS", "RescaleSlope": "DS", "ImageType": "CS", "PatientName": "PN",
    "PatientAge": "AS", "Rows": "US", "PatientComments": "LT", "PixelPaddingValue": "SS",
}  # fmt: skip
_BYTES = st.one_of(
    st.lists(st.sampled_from([*b"0123456789.+-eE\\ \0AXYZ^=", 0x1B, 0xE9]), max_size=12).map(bytes),
    st.binary(max_size=6),
)


def test_short_numbers_are_read_in_either_order() -> None:
    for keyword, value, expected in (("PixelPaddingValue", b"\xfc\x18", -1000), ("Rows", b"\x02\0", 512)):
        tag = Tag(keyword)
        big = RawDataElement(tag, _KEYWORDS[keyword], 2, value, 0, False, False)
        assert integer(Dataset({tag: big}), keyword) == expected


def raw(keyword: str, value: bytes, *, implicit: bool = False) -> Dataset:
    tag = Tag(keyword)
    kind = None if implicit else _KEYWORDS[keyword]
    return Dataset({tag: RawDataElement(tag, kind, len(value), value, 0, implicit, True)})


def converted(keyword: str, value: bytes, *, implicit: bool) -> Dataset:
    """The same dataset after pydicom has converted the value, or without it where it cannot."""
    dataset = raw(keyword, value, implicit=implicit)
    try:
        _ = dataset[keyword].value
    except Exception:
        return Dataset()
    return dataset


@given(st.sampled_from(sorted(_KEYWORDS)), _BYTES, st.booleans())
@example("PixelSpacing", b"0.7\\0.7 ", False)
@example("PixelSpacing", b"0,7\\0,7", False)
@example("ImageType", b"ORIGINAL\\PRIMARY\\ axial ", True)
@example("PatientID", b"a\\b", False)
@example("PatientID", b"\x1b$B", False)
@example("Rows", b"\0\2", True)
@example("Rows", b"\0\xff", False)
@example("PixelPaddingValue", b"\x18\xfc", False)
@example("PixelPaddingValue", b"\x18\xfc\x18\xfc", False)
@settings(max_examples=400, deadline=None, database=None)
def test_a_value_is_what_pydicom_gives(keyword: str, value: bytes, implicit: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = raw(keyword, value, implicit=implicit), converted(keyword, value, implicit=implicit)
        if _KEYWORDS[keyword] not in ("IS", "DS"):  # numbers are taken as they are written
            assert text(ours, keyword) == text(theirs, keyword)
        assert integer(raw(keyword, value, implicit=implicit), keyword) == integer(theirs, keyword)
        if _KEYWORDS[keyword] == "CS":
            assert words(first([raw(keyword, value, implicit=implicit)], keyword)) == words(first([theirs], keyword))
        for count in (1, 2):
            numbers = floats(first([raw(keyword, value, implicit=implicit)], keyword), count)
            assert numbers == floats(first([theirs], keyword), count)


@pytest.mark.parametrize("value", [b"", b" ", b"\0\0"])
def test_a_value_that_cannot_be_read_leaves_the_word_to_the_next(value: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert floats(first([raw("RescaleSlope", value), raw("RescaleSlope", b"2")], "RescaleSlope"), 1) == (2.0,)
