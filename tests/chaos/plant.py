"""The processes of an installation, each killed and started again for itself."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs.archive import Archive
from pacs.listener import Listener
from pacs.report import SR_CLASSES
from tests.chaos.relay import Relay
from tests.servers import Orthanc, Postgres, Redis, free_port, wait_for
from worker.database import Database

COMMANDS = {
    "listener": ("listen",),
    "sweep": ("sweep",),
    "classify": ("work", "--queues", "classify"),
    "deliver": ("work", "--queues", "deliver"),
}


class Plant:
    """An installation with servers (Redis, PostgreSQL, Orthanc) or embedded, its senders and its PACS behind relays."""

    def __init__(self, folder: Path, *, servers: bool) -> None:
        self.folder, self.data = folder, folder / "data"
        self.servers = servers
        folder.mkdir(parents=True, exist_ok=True)
        self.postgres = Postgres(folder / "postgres") if servers else None
        self.redis = Redis(folder / "redis") if servers else None
        self.orthanc = Orthanc(folder / "orthanc") if servers else None
        self.archive = Archive(folder / "archive")
        self._archive_listener: Listener | None = None
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.restarts = 0
        self._port = free_port()

    def start(self) -> None:
        """Start servers and processes, and wait until they serve."""
        url = ""
        for server in (self.postgres, self.redis, self.orthanc):
            if server is not None:
                server.start()
        if self.orthanc is not None:
            pacs, title = self.orthanc.port, "ORTHANC"
        else:
            self._archive_listener = Listener(self.archive, ae_title="ARCHIVE", host="127.0.0.1", port=0)
            self._archive_listener.start()
            pacs, title = self._archive_listener.port, "ARCHIVE"
        self.to_pacs, self.to_us = Relay(pacs), Relay(self._port)
        if self.postgres is not None and self.redis is not None:
            url = f'database_url = "{self.postgres.new_database()}"\nbroker_url = "{self.redis.url}"\n'
        config = self.folder / "reticula.toml"
        config.write_text(
            f'{url}data_dir = "{self.data}"\n'
            f"[listener]\nport = {self._port}\nquiet_seconds = 2\nmin_free_mb = 0\n[selection]\nmin_slices = 4\n"
            "[worker]\nlease_seconds = 10\nstuck_seconds = 20\n"
            f'[[destinations]]\nname = "pacs"\nkind = "dimse"\nhost = "127.0.0.1"\nport = {self.to_pacs.port}\n'
            f'ae_title = "{title}"\n',
            encoding="utf-8",
        )
        self._environment = {**os.environ, "RETICULA_CONFIG": str(config)}
        for arguments in (("db", "upgrade"), ("models", "import", "demo")):
            subprocess.run(self._command(*arguments), env=self._environment, check=True, capture_output=True)
        self.database = Database(url.split('"')[1] if url else f"sqlite:///{self.data / 'reticula.sqlite3'}")
        self.tend()
        wait_for(self._listens, "the listener")

    def tend(self) -> None:
        """Start again what has ended, as a supervisor does."""
        for name, arguments in COMMANDS.items():
            process = self._processes.get(name)
            if process is not None and process.poll() is None:
                continue
            self.restarts += process is not None
            log = (self.folder / f"{name}.log").open("ab")
            with log:
                self._processes[name] = subprocess.Popen(
                    self._command(*arguments), stdout=log, stderr=log, env=self._environment, start_new_session=True
                )

    def kill(self, name: str, *, pool: bool = False, itself: bool = True) -> None:
        """Kill -9 a process, and with `pool` those below it, which would end in good order otherwise."""
        process = self._processes[name]
        with suppress(ProcessLookupError, psutil.Error):
            children = psutil.Process(process.pid).children() if pool else []
            if itself:  # first: it would replace a child that it sees end
                os.kill(process.pid, signal.SIGKILL)
                process.wait(10)
            for child in children:
                child.kill()

    def reports(self) -> list[Dataset]:
        """Return every structured report that the PACS holds."""
        if self.orthanc is None:
            found = [dcmread(path) for path in (self.folder / "archive").rglob("*.dcm")]
        else:
            found = [dcmread(BytesIO(self.orthanc.content(f"/instances/{each}/file"))) for each in self._instances()]
        return [dataset for dataset in found if dataset.SOPClassUID in SR_CLASSES]

    def fill_disk(self, seconds: float) -> None:
        """Fill the small disk of the spool for a while."""
        if not (self.data / "spool").is_mount():
            raise RuntimeError("The spool has no disk of its own: it must not be filled.")
        filler = self.data / "spool" / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 20))
        time.sleep(seconds)
        filler.unlink(missing_ok=True)

    def mount_small_disk(self, megabytes: int) -> bool:
        """Give the spool a disk of its own where this process may mount one."""
        spool = self.data / "spool"
        spool.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=750", "tmpfs", str(spool)],
            check=False, capture_output=True,
        )  # fmt: skip
        return done.returncode == 0

    def close(self) -> None:
        """End everything that was started."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        for relay in (getattr(self, "to_pacs", None), getattr(self, "to_us", None)):
            if relay is not None:
                relay.close()
        if self._archive_listener is not None:
            self._archive_listener.stop()
        if hasattr(self, "database"):
            self.database.dispose()
        for server in (self.redis, self.orthanc, self.postgres):
            if server is not None:
                server.stop()
        if (self.data / "spool").is_mount():
            subprocess.run(["umount", str(self.data / "spool")], check=False)

    def _listens(self) -> bool:
        return "ready" in (self.folder / "listener.log").read_text(errors="replace")

    def _instances(self) -> list[Any]:
        return list(self.orthanc.get("/instances")) if self.orthanc is not None else []

    @staticmethod
    def _command(*arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "worker.main", *arguments]
