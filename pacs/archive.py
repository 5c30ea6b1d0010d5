"""An archive that stands for a PACS where there is none: it keeps what it is sent, sorted by study and series."""

from collections.abc import Container
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.durable import write_whole
from pacs.report import SR_CLASSES
from pacs.spool import ReceivedInstance, Stored


class Archive:
    """A store for a listener: `<folder>/<study UID>/<series UID>/<instance UID>.dcm`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def objection(self) -> str | None:
        """An archive for demonstrations looks at no watermark."""
        return None

    def store(self, instance: ReceivedInstance) -> Stored:
        """Keep an instance; the first with a UID stays."""
        path = self.folder / instance.study_uid / instance.series_uid / f"{instance.sop_uid}.dcm"
        if path.exists():
            return Stored.DUPLICATE
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, instance.content)
        return Stored.NEW

    def objects(self, study_uid: str, sop_classes: Container[str]) -> list[tuple[Path, Dataset]]:
        """Return the objects of some classes in a study with their files, the oldest first."""
        found: list[tuple[Path, Dataset]] = []
        for path in sorted((self.folder / study_uid).glob("*/*.dcm"), key=lambda path: path.stat().st_mtime):
            dataset = dcmread(path)
            if dataset.SOPClassUID in sop_classes:
                found.append((path, dataset))
        return found

    def reports(self, study_uid: str) -> list[tuple[Path, Dataset]]:
        """Return the structured reports of a study with their files, the oldest first."""
        return self.objects(study_uid, SR_CLASSES)
