"""Files that are whole and on disk, or absent, whatever happens (fsync(2): a new name is durable with its folder)."""

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and sync its content. Raises OSError."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the names in a folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put a file in its place, whole, whether or not one is there; its folder exists.

    Raises OSError: either nothing was changed, or only the sync of the folder failed. Without `durable` the folder is
    not synced, which some network file systems refuse.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        write_synced(temporary, content)
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Letter(Generic[T]):
    """A note that was read from a mailbox. name: of its file, without the extension."""

    name: str
    path: Path
    content: T

    def remove(self) -> None:
        """Take it out of the mailbox; it has been dealt with."""
        self.path.unlink(missing_ok=True)


class Mailbox(Generic[T]):
    """A folder by which processes leave each other notes in JSON, one file each, without a database.

    read: turns what a file says into a T; it raises ValueError, KeyError or TypeError where somebody else wrote it.
    Such a file is set aside with a warning, so that it stops nobody. what: the warning's word for a note.
    """

    def __init__(self, folder: Path, read: Callable[[Any], T], what: str) -> None:
        self.folder, self._read, self._what = folder, read, what
        self._stuck: set[Path] = set()

    def put(self, content: Mapping[str, Any]) -> Path:
        """Leave a note, durably, and return its file. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        path = self.folder / f"{uuid.uuid4().hex}.json"
        write_whole(path, json.dumps(content).encode())
        return path

    def letters(self, at_once: int | None = None) -> Iterator[Letter[T]]:
        """Yield what was left, `at_once` notes at most. What another process takes meanwhile is left out."""
        waiting = sorted(path for path in self.folder.glob("*.json") if path not in self._stuck)
        for path in waiting[:at_once]:
            try:
                letter = Letter(path.stem, path, self._read(json.loads(path.read_bytes())))
            except (ValueError, KeyError, TypeError, IsADirectoryError):
                self._set_aside(path)
            except PermissionError as error:
                logger.warning("%s cannot be read: %s. It stays where it is.", path.name, error.strerror)
                self._stuck.add(path)
            except OSError:
                continue  # another process took it; or the disk is in trouble, and the next look finds it
            else:
                yield letter

    def _set_aside(self, path: Path) -> None:
        logger.warning("%s is no %s: it is set aside.", path.name, self._what)
        try:
            path.rename(path.with_suffix(".odd"))
        except OSError:
            self._stuck.add(path)  # it stays where it is, and is not looked at again
