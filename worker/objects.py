"""What goes out for an exam: the report, and beside it what a destination's settings name."""

from collections.abc import Sequence

from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from pacs.report import SR_CLASSES
from worker.tables import SR

SUMMARY, HEAT_MAPS, PDF = "summary", "heatmaps", "pdf"
HEAT_MAP = "heatmap-"  # and its number


def objects_of(wanted: Sequence[str], key_slices: int) -> list[str]:
    """Return the names of the objects of an exam: each key slice is one of its own."""
    maps = [f"{HEAT_MAP}{number}" for number in range(1, key_slices + 1)]
    return [name for each in wanted for name in (maps if each == HEAT_MAPS else [each])]


def sop_classes(name: str) -> tuple[str, ...]:
    """Return the SOP classes that an object may have, the better first."""
    if name == SR:
        return SR_CLASSES
    return (EncapsulatedPDFStorage if name == PDF else SecondaryCaptureImageStorage,)
