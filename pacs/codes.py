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


def short_name(name: str, language: Language) -> str:
    """Return what radiologists call a class, or `indeterminate`, in a language."""
    known = _SHORT.get(name)
    return name if known is None else known[LANGUAGES.index(language)]
