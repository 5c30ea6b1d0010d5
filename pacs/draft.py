"""An instance that is still coming: writing it takes as long as receiving it, so both are done at once."""

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

# Whether there is room is asked again after so many bytes.
_ASK_AFTER = 1 << 20


class Draft(BytesIO):
    """The dataset of an instance as it comes, in memory; the file at `path` has the same behind the head of a file.

    The file saves time and is nothing to rely on: where it cannot be written there is none, and who keeps the instance
    writes it then and learns what is wrong with the disk. It is removed with the draft at the latest.
    """

    def __init__(self, path: Path, head: bytes, has_room: Callable[[], bool]) -> None:
        super().__init__()
        self.path, self._head, self._has_room = path, head, has_room
        self._written = self._ask_at = 0
        self._descriptor = -1
        self._remove: Callable[[], object] | None = None  # while there is a file
        # One thread receives; another may end the association, and what it closed must not be written to.
        self._lock = threading.Lock()
        with self._lock, suppress(OSError):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._remove = weakref.finalize(self, _remove, self._descriptor, path)
        self._append(head)

    def write(self, piece: Any) -> int:
        """Take the next piece of the dataset."""
        self._append(piece)
        return super().write(piece)

    def holds(self, content: bytes) -> bool:
        """Whether the file has this content: the head that was expected, and then all that came."""
        with self._lock:
            return self._remove is not None and self._written == len(content) and content.startswith(self._head)

    def sync(self) -> None:
        """Sync the content of the file. Raises OSError."""
        with self._lock:
            os.fsync(self._descriptor)

    def discard(self) -> None:
        """Remove the file; another name that it was given stays."""
        with self._lock:
            self._drop()

    def _append(self, piece: Any) -> None:
        with self._lock:
            if self._remove is None:
                return
            try:
                whole = self._may_go_on() and os.write(self._descriptor, piece) == len(piece)
            except OSError:
                whole = False
            if whole:
                self._written += len(piece)
            else:
                self._drop()

    def _may_go_on(self) -> bool:
        if self._written < self._ask_at:
            return True
        self._ask_at = self._written + _ASK_AFTER
        return self._has_room()

    def _drop(self) -> None:
        if self._remove is not None:
            self._remove()
            self._remove = None


def _remove(descriptor: int, path: Path) -> None:
    with suppress(OSError):
        os.close(descriptor)
    with suppress(OSError):
        path.unlink()
