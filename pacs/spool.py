"""Received instances on disk, exactly as they came, and durable before anyone is told so.

    incoming/                              being written
    series/<study UID>/<series UID>/       CT, one file an instance: what exams are assembled from
    arrivals/<study UID>~<series UID>      empty: something of this series came and is not assembled yet
    notes/                                 Key Object Selections, until somebody has read them
    aside/<day>/                           other classes (SR, SC…) and notes that were read, with their own retention
    conflicts/<day>/                       an instance UID that came again with other content, with that retention too

By setting such an instance is refused instead, or lies beside the first one as `<UID>~<hash>.dcm` for a new revision.

File names are UIDs that were checked. Who sent an instance stands in its file meta information.
"""

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Protocol

from pydicom.uid import KeyObjectSelectionDocumentStorage

from pacs.durable import sync_folder, write_synced
from pacs.series import CT_CLASSES

# PS3.10 chapter 7.1: preamble and prefix, then (0002,0000), whose value is the length of the rest of the group.
_META_LENGTH_AT = 128 + 4 + 8
_STALE_SECONDS = 3600
# The mark of an announcement stays for this time at least, so that nobody removes it before its instance has a name.
_ANNOUNCED_SECONDS = 60
# Between the UID and the hash in the name of an instance whose UID was taken already: no UID holds it.
VERSION_MARK = "~"
# Between the UIDs in the name of an announcement.
_BETWEEN = "~"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True)
class ReceivedInstance:
    """An instance in the DICOM File Format with the UIDs that it names; all of them are valid."""

    sop_class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str
    content: bytes


class Stored(Enum):
    """What became of a received instance; where it was not refused, it is on disk.

    Of an instance whose UID is taken by other content: CONFLICT, REFUSED or REVISED, by the rule that is set.
    """

    NEW = "new"
    DUPLICATE = "the same as before"
    CONFLICT = "kept aside"
    REFUSED = "refused"
    REVISED = "taken as a new revision"
    ASIDE = "laid aside"


class OnConflict(Enum):
    """What is done with an instance whose UID is taken by other content. What was there first is never changed."""

    ASIDE = "aside"
    REFUSE = "refuse"
    REVISE = "revise"


class InstanceStore(Protocol):
    """What a listener hands instances to. `store` returns when they are durable and raises OSError otherwise."""

    def store(self, instance: ReceivedInstance) -> Stored:
        """Keep the instance."""
        ...

    def objection(self) -> str | None:
        """Why nothing more is taken now, None where it is; asked before a sender begins."""
        ...


@dataclass(frozen=True)
class SpooledSeries:
    """A folder of the spool; `changed_ns` is its modification time."""

    study_uid: str
    series_uid: str
    folder: Path
    changed_ns: int


@dataclass(frozen=True)
class SpooledInstance:
    """An instance of a series; `arrived` in UTC."""

    sop_uid: str
    path: Path
    size: int
    arrived: datetime


class Spool:
    """The spool in `root`; several processes may store into it at once.

    min_free: bytes of the disk below which no new sender is taken. Half of them are kept free from those that are under
    way, for the database, reports and logs. closed: while this file is there no new sender is taken either.
    """

    def __init__(
        self, root: Path, *, min_free: int = 0, on_conflict: OnConflict = OnConflict.ASIDE, closed: Path | None = None
    ) -> None:
        self.root, self._closed = root, closed
        self._min_free, self._on_conflict = min_free, on_conflict
        # Folders whose names are known to be durable, those of their parents too.
        self._durable: set[Path] = set()

    def prepare(self) -> None:
        """Make the folders and remove what a dead process left half written."""
        for name in ("incoming", "series", "arrivals", "notes", "aside", "conflicts"):
            self._make_folder(self.root / name)
        for path in (self.root / "incoming").iterdir():
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()

    def store(self, instance: ReceivedInstance) -> Stored:
        """Write, sync and name the instance; nothing that is there is ever overwritten.

        Raises OSError where the disk does not take it, and leaves no half file.
        """
        if self._min_free and self._free() - len(instance.content) < self._min_free // 2:
            raise OSError(errno.ENOSPC, "the disk is nearly full")
        name = f"{instance.sop_uid}.dcm"
        if instance.sop_class_uid == KeyObjectSelectionDocumentStorage:
            folder, outcome = self.root / "notes", Stored.ASIDE
        elif instance.sop_class_uid not in CT_CLASSES:
            folder, outcome = self.root / "aside" / datetime.now(UTC).strftime("%Y%m%d"), Stored.ASIDE
        else:
            folder, outcome = self.folder(instance.study_uid, instance.series_uid), Stored.NEW
        temporary = self.root / "incoming" / uuid.uuid4().hex
        try:
            write_synced(temporary, instance.content)
            if outcome is Stored.NEW:
                self.announce(instance.study_uid, instance.series_uid)
            named = self._name(temporary, folder / name)
            if outcome is Stored.NEW:
                # Giving the name may have taken longer than a mark stays.
                with suppress(OSError):
                    self.announce(instance.study_uid, instance.series_uid)
            if named:
                return outcome
            if _same_dataset(folder / name, instance.content):
                sync_folder(folder)  # whoever wrote it may not have come that far yet
                return Stored.DUPLICATE
            return self._conflict(instance, temporary, folder)
        finally:
            temporary.unlink(missing_ok=True)

    def objection(self) -> str | None:
        """Why no other sender is taken now: there is too little room, or an administrator closed the intake."""
        if self._closed is not None and self._closed.exists():
            return "the intake is closed by an administrator"
        if self._min_free and self._free() < self._min_free:
            return "the disk is nearly full"
        return None

    def _free(self) -> int:
        return shutil.disk_usage(self.root).free

    def _conflict(self, instance: ReceivedInstance, temporary: Path, folder: Path) -> Stored:
        """Do as the rule says with an instance whose UID is taken by other content."""
        if self._on_conflict is OnConflict.REFUSE:
            return Stored.REFUSED
        content = hashlib.sha256(_dataset(instance.content)).hexdigest()
        name = f"{instance.sop_uid}{VERSION_MARK}{content[:32]}.dcm"
        if self._on_conflict is OnConflict.ASIDE or folder.parent.parent != self.root / "series":
            self._name(temporary, self.root / "conflicts" / datetime.now(UTC).strftime("%Y%m%d") / name)
            return Stored.CONFLICT
        if self._name(temporary, folder / name):
            return Stored.REVISED
        sync_folder(folder)
        return Stored.DUPLICATE

    def folder(self, study_uid: str, series_uid: str) -> Path:
        """Return the folder of a series."""
        return self.root / "series" / study_uid / series_uid

    def series(self) -> Iterator[SpooledSeries]:
        """Yield every series of the spool."""
        for study in _folders(self.root / "series"):
            for series in _folders(study):
                with suppress(FileNotFoundError):
                    yield SpooledSeries(study.name, series.name, series, series.stat().st_mtime_ns)

    def arrivals(self) -> Iterator[SpooledSeries]:
        """Yield the series of which something came that is not settled yet.

        A process that died between the announcement and the name of an instance has announced it all the same. Marks
        are not synced: after a failure of the power, and now and then, `series` has to be walked.
        """
        for mark in self._marks():
            study_uid, _, series_uid = mark.name.partition(_BETWEEN)
            folder = self.folder(study_uid, series_uid)
            try:
                yield SpooledSeries(study_uid, series_uid, folder, folder.stat().st_mtime_ns)
            except FileNotFoundError:  # not named yet, or erased since
                self._forget(mark)

    def settle(self, series: SpooledSeries) -> None:
        """Note that everything of a series is assembled; it is an arrival again when something comes."""
        self._forget(self._mark(series.study_uid, series.series_uid))

    def forget_arrival(self, study_uid: str, series_uid: str) -> None:
        """Remove the mark of a series that was erased."""
        self._mark(study_uid, series_uid).unlink(missing_ok=True)

    def announce(self, study_uid: str, series_uid: str) -> None:
        """Mark a series before an instance of it gets its name, so that no instance is ever without a mark.

        Where another user owns the folder there is no mark, and the walk finds the instance. Raises OSError.
        """
        mark = self._mark(study_uid, series_uid)
        with suppress(PermissionError):
            try:
                mark.touch(mode=0o640)
            except FileNotFoundError:  # a spool that an earlier version made, or a folder that was tidied away
                self._durable.discard(mark.parent)
                self._make_folder(mark.parent)
                mark.touch(mode=0o640)

    def _forget(self, mark: Path) -> None:
        """Remove a mark, unless it is young, or was made anew in the very moment."""
        with suppress(FileNotFoundError):
            if not self._is_old(mark):
                return
            taken = self.root / "incoming" / uuid.uuid4().hex
            mark.rename(taken)
            if not self._is_old(taken):
                mark.touch(mode=0o640)
            taken.unlink()

    def _is_old(self, mark: Path) -> bool:
        return time.time() - mark.stat().st_mtime > _ANNOUNCED_SECONDS

    def _mark(self, study_uid: str, series_uid: str) -> Path:
        return self.root / "arrivals" / f"{study_uid}{_BETWEEN}{series_uid}"

    def _marks(self) -> list[Path]:
        try:
            with os.scandir(self.root / "arrivals") as entries:
                return sorted(Path(entry.path) for entry in entries if _BETWEEN in entry.name)
        except (FileNotFoundError, PermissionError):
            return []

    def notes(self) -> list[Path]:
        """Return the Key Object Selections that nobody has read."""
        return sorted((self.root / "notes").glob("*.dcm"))

    def lay_aside(self, path: Path) -> None:
        """Move what was read aside."""
        folder = self.root / "aside" / datetime.now(UTC).strftime("%Y%m%d")
        self._make_folder(folder)
        path.replace(folder / path.name)
        sync_folder(folder)

    def instances(self, folder: Path) -> list[SpooledInstance]:
        """Return the instances of a series in the order in which they arrived."""
        found = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".dcm"):
                    status = entry.stat()
                    arrived = datetime.fromtimestamp(status.st_mtime, UTC)
                    sop_uid = entry.name[:-4].partition(VERSION_MARK)[0]
                    found.append(SpooledInstance(sop_uid, Path(entry.path), status.st_size, arrived))
        return sorted(found, key=lambda instance: (instance.arrived, instance.path.name))

    def find(self, sop_uids: Collection[str]) -> dict[str, Path]:
        """Return where instances of series lie, by their UID; what is not there is left out.

        Whoever asks has mostly just sent them: the arrivals come first, then the rest of the spool, the newest first.
        """
        left, found = set(sop_uids), dict[str, Path]()
        for look in (self.arrivals, self.series):
            for series in sorted(look() if left else (), key=lambda each: -each.changed_ns):
                if not left:
                    break
                with suppress(FileNotFoundError):
                    for path in series.folder.iterdir():
                        if path.stem in left:
                            found[path.stem] = path
                left -= found.keys()
        return found

    def contested(self, sop_uids: Collection[str]) -> set[str]:
        """Return those UIDs that came with several contents, of which one lies in conflict."""
        found = set()
        for folder in _folders(self.root / "conflicts"):
            with suppress(FileNotFoundError):
                found |= {path.name.partition(VERSION_MARK)[0] for path in folder.iterdir()}
        return found & set(sop_uids)

    def expire_aside(self, days: int, today: date) -> int:
        """Remove what was laid aside or in conflict more than `days` days ago; return the number of folders removed."""
        oldest = (today - timedelta(days=days)).strftime("%Y%m%d")
        folders = [*_folders(self.root / "aside"), *_folders(self.root / "conflicts")]
        expired = [folder for folder in folders if folder.name < oldest]
        for folder in expired:
            shutil.rmtree(folder)
        return len(expired)

    def _name(self, temporary: Path, path: Path) -> bool:
        """Give the file its name, durably; False where it is taken. A link, unlike a rename, never overwrites."""
        for last in (False, True):
            self._make_folder(path.parent)
            try:
                path.hardlink_to(temporary)
                break
            except FileExistsError:
                return False
            except FileNotFoundError:  # the empty folder was tidied away in between
                self._durable.clear()
                if last:
                    raise
        sync_folder(path.parent)
        return True

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and its parents. Another process may have made it and not yet synced its name: sync it too."""
        if folder in self._durable:
            return
        if folder != self.root:
            self._make_folder(folder.parent)
        folder.mkdir(mode=0o750, parents=folder == self.root, exist_ok=True)
        sync_folder(folder.parent)
        self._durable.add(folder)


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or what one may use of it, is full."""
    return error.errno in _FULL


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _same_dataset(path: Path, content: bytes) -> bool:
    """Whether a file holds this dataset; the file meta information may name another sender."""
    return _dataset(path.read_bytes()) == _dataset(content)


def _dataset(content: bytes) -> bytes:
    length = int.from_bytes(content[_META_LENGTH_AT : _META_LENGTH_AT + 4], "little")
    return content[_META_LENGTH_AT + 4 + length :]
