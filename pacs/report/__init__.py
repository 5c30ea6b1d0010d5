"""The report of an exam: what it is given (`exam`), its header (`header`), tree (`content`), bytes (`cover`).

Root TID 1500 (PS3.16), as the IHE AI Results profile asks. Beside it pictures and pages (`capture`), the notice that
there is no result (`notice`), and the note that takes all of it back (`rejection`).
"""

from pacs.report.cover import SR_CLASSES, SR_SERIES_NUMBER, Document
from pacs.report.document import build_report
from pacs.report.exam import Algorithm, ClassFinding, KeySlice, Predecessor, ReportedExam, ReportedInstance

__all__ = [
    "SR_CLASSES",
    "SR_SERIES_NUMBER",
    "Algorithm",
    "ClassFinding",
    "Document",
    "KeySlice",
    "Predecessor",
    "ReportedExam",
    "ReportedInstance",
    "build_report",
]
