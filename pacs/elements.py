"""Single values out of received datasets, which may hold anything: what cannot be read counts as absent."""

import math
import re
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

_INTEGER = re.compile(r"[+-]?\d{1,12}")
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))*")


def text(dataset: Dataset, keyword: str) -> str:
    """Return a value as text without padding; empty where it is absent or unreadable."""
    try:
        value = dataset.get(keyword)
        if value is None:
            return ""
        parts = value if isinstance(value, MultiValue) else [value]
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
                value = group.get(keyword)
            except Exception:  # as in `text`: what cannot be decoded is absent
                continue
            if value is not None and value != "":
                return value
    return None


def is_uid(value: str) -> bool:
    """Whether the value is a valid UID (PS3.5 chapter 9), and so safe as the name of a file."""
    return 0 < len(value) <= 64 and _UID.fullmatch(value) is not None
