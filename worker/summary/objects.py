"""The drawn objects as DICOM."""

from pacs.report import Document
from pacs.report.capture import (
    HEAT_MAP_SERIES_NUMBER,
    PDF_SERIES_NUMBER,
    SUMMARY_SERIES_NUMBER,
    Place,
    build_capture,
    build_pdf,
)
from worker.objects import HEAT_MAP, PDF, SUMMARY
from worker.summary.heat_map import draw_heat_map, evidence_scale
from worker.summary.material import Material
from worker.summary.page import draw_page, print_page
from worker.summary.wording import WORDING


def build_object(name: str, material: Material) -> Document:
    """Build an object other than the report."""
    exam = material.exam
    if name == SUMMARY:
        place = Place(name, SUMMARY_SERIES_NUMBER, exam.revision)
        return build_capture(exam, place, draw_page(material), exam.key_slices)
    if name == PDF:
        title = WORDING[exam.language].title
        return build_pdf(exam, Place(name, PDF_SERIES_NUMBER, exam.revision), print_page(material), title)
    number = int(name.removeprefix(HEAT_MAP))
    shown = material.slices[number - 1]
    place = Place(name, HEAT_MAP_SERIES_NUMBER, exam.revision * 100 + number)
    return build_capture(exam, place, draw_heat_map(shown, evidence_scale(material)), (shown.key,), axial=True)
