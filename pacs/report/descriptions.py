"""Descriptions of series, of which viewers show the first 16 characters: they must not read as their opposite.

Hence verdict and kind of object stand in these, and no sentence with a "not" is cut there.
"""

from typing import Literal

from pacs.codes import LANGUAGES, Language, short_name
from pacs.report.exam import ReportedExam
from pacs.report.percentages import percentage

Kind = Literal["sr", "page", "maps", "pdf"]
VISIBLE = 16  # characters of a description that the panels of viewers show

_KINDS: dict[Kind, tuple[str, str, str]] = {
    "sr": ("SR", "SR", "SR"),
    "page": ("page", "pág.", "pág."),
    "maps": ("maps", "mapa", "mapa"),
    "pdf": ("PDF", "PDF", "PDF"),
}
_AI: dict[Language, str] = {"en": "AI", "pt-BR": "IA", "es": "IA"}
_ABSTAINS: dict[Language, str] = {"en": "AI abstains", "pt-BR": "IA abstém-se", "es": "IA no decide"}
_NOT_CLASSIFIED: dict[Language, str] = {"en": "Not classified", "pt-BR": "Não classificado", "es": "No clasificado"}
_WITHDRAWN: dict[Language, str] = {
    "en": "Withdrawn result of AI (do not use it)",
    "pt-BR": "Retirado: resultado de IA (não o use)",
    "es": "Retirado: resultado de IA (no lo use)",
}
_REMINDER: dict[Language, str] = {
    "en": "{} (decision support, not for diagnosis)",
    "pt-BR": "{} (apoio à decisão, não é diagnóstico)",
    "es": "{} (apoyo a la decisión, no es diagnóstico)",
}


def describe(exam: ReportedExam, kind: Kind) -> str:
    """Return the description of the series in which an object of a kind stands."""
    language = exam.language
    name = _KINDS[kind][LANGUAGES.index(language)]
    if not exam.committed:
        return _REMINDER[language].format(f"{_ABSTAINS[language]} {name}")
    certainty = "" if exam.certainty is None else f" {percentage(exam.certainty, 0):.0f}%"
    return _REMINDER[language].format(f"{short_name(exam.verdict, language)}{certainty} {_AI[language]} {name}")


def describe_notice(language: Language) -> str:
    """Return the description of a notice that there is no result."""
    return _REMINDER[language].format(f"{_NOT_CLASSIFIED[language]} {_AI[language]}")


def describe_withdrawn(language: Language) -> str:
    """Return the description of a note that takes objects back."""
    return _WITHDRAWN[language]
