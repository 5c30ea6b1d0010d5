"""What goes out for an exam: the report, and beside it what a destination's settings name."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.uid import (
    EncapsulatedPDFStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
)

from pacs.report import SR_CLASSES
from pacs.report.capture import HEAT_MAP_SERIES_NUMBER, PDF_SERIES_NUMBER, SUMMARY_SERIES_NUMBER, capture_series_uid
from pacs.report.cover import report_series_uid
from worker.tables import NOTICE, RETRACTION, SR

SUMMARY, HEAT_MAPS, PDF = "summary", "heatmaps", "pdf"
HEAT_MAP = "heatmap-"  # and its number
# What parts the pictures of a revision from those of the ones before, which are superseded and stay in the PACS.
SUPERSEDED_PAGES, SUPERSEDED_MAPS = "superseded-pages", "superseded-maps"


@dataclass(frozen=True)
class Drawn:
    """What there is to draw of a revision. maps: how many; of an abstention none.

    pages_before, maps_before: whether earlier revisions have some that are superseded.
    """

    maps: int
    pages_before: bool = False
    maps_before: bool = False


def objects_of(wanted: Sequence[str], drawn: Drawn) -> list[str]:
    """Return the names of the objects of an exam: each key slice is one of its own."""
    pages = [SUMMARY, *([SUPERSEDED_PAGES] if drawn.pages_before else [])]
    maps = [f"{HEAT_MAP}{number}" for number in range(1, drawn.maps + 1)]
    maps += [SUPERSEDED_MAPS] if drawn.maps_before else []
    several = {SUMMARY: pages, HEAT_MAPS: maps}
    return [name for each in wanted for name in several.get(each, [each])]


def sop_classes(name: str) -> tuple[str, ...]:
    """Return the SOP classes that an object may have, the better first."""
    if name in (SR, NOTICE):
        return SR_CLASSES
    if name == RETRACTION:
        return (str(KeyObjectSelectionDocumentStorage),)
    return (EncapsulatedPDFStorage if name == PDF else SecondaryCaptureImageStorage,)


def series_uid_of(name: str, study_uid: str, series_uid: str) -> str:
    """Return the series in which an object of a CT series stands."""
    if name in (SR, NOTICE):
        return report_series_uid(study_uid, series_uid)
    pages = dict.fromkeys((SUMMARY, SUPERSEDED_PAGES), SUMMARY_SERIES_NUMBER)
    numbers = {**pages, PDF: PDF_SERIES_NUMBER}
    return capture_series_uid(numbers.get(name, HEAT_MAP_SERIES_NUMBER), study_uid, series_uid)
