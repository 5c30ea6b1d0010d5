"""What an administrator has stopped for a while: a file for each in `data_dir`, seen by every process there."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pacs.durable import write_whole
from worker.database import now


@dataclass(frozen=True)
class Stopped:
    """Who stopped something, and when (UTC)."""

    actor: str
    since: datetime

    def __str__(self) -> str:
        return f"by {self.actor}, since {self.since:%Y-%m-%d %H:%M} UTC"


class Switch:
    """Stops something while its file is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stop(self, actor: str) -> None:
        """Stop it; whoever was first is kept. Raises OSError."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            write_whole(self.path, json.dumps({"actor": actor, "since": now().isoformat()}).encode())

    def resume(self) -> bool:
        """Let it go on; False where it was not stopped. Raises OSError."""
        was = self.path.exists()
        self.path.unlink(missing_ok=True)
        return was

    def is_stopped(self) -> bool:
        """Whether it is stopped."""
        return self.path.exists()

    def stopped(self) -> Stopped | None:
        """Return who stopped it; None where nobody did."""
        try:
            content = json.loads(self.path.read_bytes())
            return Stopped(str(content["actor"]), datetime.fromisoformat(content["since"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):  # made by hand: it stops all the same
            return Stopped("somebody", datetime.fromtimestamp(self.path.stat().st_mtime, now().tzinfo))
