"""The drawn objects as DICOM."""

from pacs.report import Document
from pacs.report.capture import (
    HEAT_MAP_SERIES_NUMBER,
    PDF_SERIES_NUMBER,
    SUMMARY_SERIES_NUMBER,
    Place,
    build_capture,
    build_pdf,
    newest_first,
)
from pacs.report.descriptions import Kind
from worker.objects import HEAT_MAP, PDF, SUMMARY, SUPERSEDED_PAGES
from worker.summary.heat_map import draw_capture
from worker.summary.material import Material
from worker.summary.page import draw_page, print_page
from worker.summary.superseded import draw_superseded
from worker.summary.wording import WORDING

_LAST = 99  # the number within a revision of what parts it from the one before


def build_object(name: str, material: Material) -> Document:
    """Build an object other than the report."""
    exam = material.exam
    newest = newest_first(exam.revision)
    if name == SUMMARY:
        place = Place(name, "page", SUMMARY_SERIES_NUMBER, newest)
        return build_capture(exam, place, draw_page(material), exam.key_slices)
    if name == PDF:
        title = WORDING[exam.language].title
        return build_pdf(exam, Place(name, "pdf", PDF_SERIES_NUMBER, newest), print_page(material), title)
    if not name.startswith(HEAT_MAP):
        kind: Kind = "page" if name == SUPERSEDED_PAGES else "maps"
        series = SUMMARY_SERIES_NUMBER if kind == "page" else HEAT_MAP_SERIES_NUMBER
        parting = Place(name, kind, series, newest_first(exam.revision, _LAST))
        return build_capture(exam, parting, draw_superseded(exam), exam.key_slices)
    number = int(name.removeprefix(HEAT_MAP))
    shown = material.slices[number - 1]
    place = Place(name, "maps", HEAT_MAP_SERIES_NUMBER, newest_first(exam.revision, number))
    return build_capture(exam, place, draw_capture(material, shown), (shown.key,), axial=True)
