"""Files that are whole and on disk, or absent, whatever happens (fsync(2): a new name is durable with its folder)."""

import os
from pathlib import Path


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
