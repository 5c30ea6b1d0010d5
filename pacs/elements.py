"""Single values out of received datasets, which may hold anything: what cannot be read counts as absent.

Plain text and numbers are taken as the bytes say: what pydicom makes of them takes longer than to decode a slice.
"""

import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

_INTEGER = re.compile(r"[+-]?\d{1,12}")
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")
_NUMERIC, _MULTIPLE = frozenset({"DS", "IS"}), frozenset({"DS", "IS", "CS"})
_TEXT = frozenset({"AE", "AS", "DA", "DT", "LO", "SH", "TM", "UI"}) | _MULTIPLE
_SHORT = frozenset({"SS", "US"})
_ESCAPE = b"\x1b"  # begins another character set (PS3.5 6.1.2.5)


def text(dataset: Dataset, keyword: str) -> str:
    """Return a value as text without padding; empty where it is absent or unreadable."""
    try:
        value = _value(dataset, keyword)
        if value is None:
            return ""
        if isinstance(value, str) and value.isascii():  # as nearly all are
            return value.replace("\0", "").strip()
        parts = value if isinstance(value, (MultiValue, list)) else [value]
        joined = "\\".join(str(part).strip() for part in parts)
    except Exception:  # pydicom decodes here, and raises whatever it likes on what it cannot decode
        return ""
    # Neither NUL nor half a surrogate pair can be stored or sent on.
    return joined.replace("\0", "").encode("utf-8", "ignore").decode("utf-8").strip()


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return a whole number, or None where the value is none."""
    value = text(dataset, keyword)
    return int(value) if _INTEGER.fullmatch(value) else None


def floats(value: Any, count: int) -> tuple[float, ...] | None:
    """Return so many finite numbers, or None where the value holds anything else."""
    items = list(value) if isinstance(value, (MultiValue, list, tuple)) else [value]
    try:
        numbers = tuple(float(item) for item in items)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def words(value: Any) -> tuple[str, ...]:
    """Return the values of a coded string in capitals."""
    items = value if isinstance(value, (MultiValue, list, tuple)) else [value or ""]
    return tuple(str(item).strip().upper() for item in items)


def first(groups: Sequence[Dataset], *keywords: str) -> Any:
    """Return the first value that any of the datasets has for any of the keywords, or None."""
    for keyword in keywords:
        for group in groups:
            try:
                value = _value(group, keyword)
            except Exception:  # as in `text`: what cannot be decoded is absent
                continue
            if value is not None and value != "":
                return value
    return None


def is_uid(value: str) -> bool:
    """Whether the value is a valid UID (PS3.5 chapter 9), and so safe as the name of a file."""
    return 0 < len(value) <= 64 and _UID.fullmatch(value) is not None


@cache
def _tag(keyword: str) -> BaseTag | None:
    tag = tag_for_keyword(keyword)
    return None if tag is None else Tag(tag)


def _value(dataset: Dataset, keyword: str) -> Any:
    """Return a value as pydicom does, but numbers that are text as that text. Raises what pydicom raises."""
    tag = _tag(keyword)
    element: Any = None if tag is None else dataset.get_item(tag)  # typed as if it were always there, and never raw
    if element is None and tag is not None:
        return None
    plain = _plain(element) if isinstance(element, RawDataElement) else None
    return dataset.get(keyword) if plain is None else plain


def _plain(element: RawDataElement) -> int | str | list[str] | None:
    """Return the value of an element whose bytes say it plainly, None where pydicom must tell."""
    kind, raw = element.VR or dictionary_VR(element.tag), element.value or b""
    if kind in _SHORT and len(raw) == 2:
        return int.from_bytes(raw, "little" if element.is_little_endian else "big", signed=kind == "SS")
    if kind not in _TEXT or not raw.isascii() or _ESCAPE in raw:
        return None
    value = raw.decode("ascii").rstrip("\0 ")
    parts = value.split("\\")
    if kind in _NUMERIC and value:
        try:
            list(map(float, parts))
        except ValueError:
            return None
    if len(parts) == 1:
        return value
    return parts if kind in _MULTIPLE else None
