"""A decoder apart: slices are decoded in a process of their own, which hostile bytes may crash.

`python -m pacs.decoder FD` is that process; it serves the other end of a pipe.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from pacs.pixels import Decoded, decode
from pacs.series import SourceSlice

# Decoding one slice takes a few hundredths of it.
_SECONDS = 60.0


def decode_apart(sources: Sequence[SourceSlice]) -> Iterator[Decoded]:
    """Decode the slices one by one and yield them in order; one that crashes or stops its decoder costs itself only."""
    child: _Child | None = None
    try:
        for source in sources:
            if child is None:
                child = _Child()
            decoded = child.decode(source)
            if decoded is None:
                child.end()
                child = None
            yield decoded or Decoded(source, None, "The pixels crash their decoder.")
    finally:
        if child is not None:
            child.end()


class _Child:
    """The process; limits of memory are inherited. Celery's own let nobody have children by `multiprocessing`."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "pacs.decoder", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()

    def decode(self, source: SourceSlice) -> Decoded | None:
        """Decode a slice; None where the process died of it or takes too long."""
        try:
            self._connection.send(source)
            if not self._connection.poll(_SECONDS):
                return None
            decoded: Decoded = self._connection.recv()
        except (EOFError, OSError):
            return None
        return decoded

    def end(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Decode what comes, until nothing comes any more."""
    connection = Connection(int(sys.argv[1]))
    while True:
        try:
            source = connection.recv()
        except EOFError:
            return
        connection.send(decode(source))


if __name__ == "__main__":
    main()
