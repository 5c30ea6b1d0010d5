"""The report of an exam: what it is given (`exam`), its header (`header`), tree (`content`) and bytes (`document`).

Root TID 1500 (PS3.16), as the IHE AI Results profile asks.
"""

from pacs.report.document import SR_CLASSES, SR_SERIES_NUMBER, Document, build_report
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
