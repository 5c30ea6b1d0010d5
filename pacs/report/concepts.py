"""Codes as content items have them."""

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from pacs import codes
from pacs.codes import Language, translation
from pacs.meanings import PRIVATE_SCHEME


def concept(value: str, scheme: str, language: Language = "en") -> CodedConcept:
    """Return a concept of the table in `pacs.codes`."""
    return CodedConcept(value, scheme, codes.meaning(value, scheme, language))


def private(value: str, language: Language, fallback: str) -> CodedConcept:
    """Return one of our own concepts; `fallback` names what belongs to a class that the table does not hold."""
    return CodedConcept(value, PRIVATE_SCHEME, translation(value, PRIVATE_SCHEME, language) or fallback)


def translate(root: Dataset, language: Language) -> None:
    """Give every code of a tree its meaning in a language."""
    for element in root.iterall():
        if element.keyword == "CodeMeaning":
            continue
        if element.VR == "SQ":
            for item in element.value:
                if "CodeValue" in item and "CodingSchemeDesignator" in item:
                    known = translation(item.CodeValue, item.CodingSchemeDesignator, language)
                    if known is not None:
                        item.CodeMeaning = known
