"""What tests of results that are taken back do and look at: notes that come and notes that were sent."""

from collections.abc import Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.report.rejection import (
    Grounds,
    RejectionNote,
    SentObject,
    build_rejection_note,
    read_rejection_note,
)
from pacs.spool import ReceivedInstance
from tests.integration.test_rules import Site
from tests.integration.test_rules import site as site  # noqa: PLC0414 – a fixture
from tests.plant import Plant


def sent(here: Site, modality: str) -> list[Dataset]:
    """What the archive has of a modality, in the order in which it came."""
    found = sorted(here.archive.rglob("*.dcm"), key=lambda path: path.stat().st_mtime_ns)
    return [dataset for dataset in map(dcmread, found) if dataset.Modality == modality]


def note_about(paths: Sequence[Path], grounds: Grounds = Grounds.QUALITY) -> bytes:
    """A note as a PACS makes it for images."""
    heads = [dcmread(path) for path in paths]
    for keyword in ("SpecificCharacterSet", "StudyID", "ReferringPhysicianName"):
        heads[0].setdefault(keyword, "")
    named = [SentObject(head.SeriesInstanceUID, head.SOPClassUID, head.SOPInstanceUID) for head in heads]
    return build_rejection_note(heads[0], named, grounds, datetime.now(UTC), "PACS 1", "en").content


def arrive(plant: Plant, content: bytes) -> None:
    head = dcmread(BytesIO(content))
    plant.app.spool.store(
        ReceivedInstance(head.SOPClassUID, head.SOPInstanceUID, head.StudyInstanceUID, head.SeriesInstanceUID, content)
    )


def named(note: Dataset) -> set[str]:
    read = read_rejection_note(note)
    assert isinstance(read, RejectionNote)
    return {sop_uid for series in read.series for sop_uid in series.sop_uids}


def run(here: Site, times: int = 3) -> None:
    for _ in range(times):
        here.plant.run()


def classify(here: Site) -> None:
    here.plant.sweep.tick()
    while here.plant.app.classification().run_one("worker"):
        pass
