"""Coded concepts of the report and what they mean in each language. PS3.16 chapter 8; sources in the comments."""

from collections.abc import Mapping
from typing import Literal

from pacs.meanings import MEANINGS, Key

PRIVATE_SCHEME_NAME = "Reticula private codes"
ORGANISATION = "Reticula"
INDETERMINATE_CODE = "82334004"  # SCT

Language = Literal["en", "pt-BR", "es"]
LANGUAGES: tuple[Language, ...] = ("en", "pt-BR", "es")

# What radiologists call a class of the model, and the verdict that is none.
_SHORT = {
    "UIP": ("UIP", "PIU", "NIU"),
    "NSIP": ("NSIP", "PINE", "NINE"),
    "normal": ("Normal", "Normal", "Normal"),
    "other": ("Other disease", "Outra doença", "Otra enfermedad"),
    "indeterminate": ("Indeterminate", "Indeterminado", "Indeterminado"),
}

# Reasons of abstention whose private code is another one: these are taken by a criterion of completeness.
_REASON_VALUES = {"incomplete": "too_little_lung"}


def meaning(value: str, scheme: str, language: Language) -> str:
    """Return the meaning of a code in a language. Raises KeyError for a code that the report does not use."""
    return MEANINGS[value, scheme][LANGUAGES.index(language)]


def translation(value: str, scheme: str, language: Language) -> str | None:
    """Return the meaning in a language, or None where the table does not hold the code."""
    known = MEANINGS.get((value, scheme))
    return known[LANGUAGES.index(language)] if known else None


def table() -> Mapping[Key, tuple[str, str, str]]:
    """Return every (code, scheme) with its meanings, in the order of LANGUAGES."""
    return MEANINGS


def reason_value(code: str) -> str:
    """Return the private code of a reason of abstention (`models.verdict.ReasonCode`) as reports have it."""
    return _REASON_VALUES.get(code, code)


def reason_of(value: str) -> str:
    """Return the reason of abstention that a private code of a report stands for."""
    return next((code for code, stated in _REASON_VALUES.items() if stated == value), value)


def short_name(name: str, language: Language) -> str:
    """Return what radiologists call a class, or `indeterminate`, in a language."""
    known = _SHORT.get(name)
    return name if known is None else known[LANGUAGES.index(language)]
