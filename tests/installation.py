"""An installation for end-to-end tests: settings, processes, and its command line."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.servers import free_port, wait_for
from worker.application import Application
from worker.database import Database
from worker.listing import list_exams
from worker.settings import Settings


class Installation:
    """`reticula` with a data folder of its own."""

    def __init__(self, folder: Path, extra: str = "", *, listeners: int = 1, **environment: str) -> None:
        # Each process costs a second to start, and most tests need one.
        self.folder, self.listeners = folder, listeners
        self.port = free_port()
        self.data = folder / "data"
        self.config = folder / "reticula.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.write(extra)
        # The gate of an int8 network takes a minute.
        own = {"RETICULA_CONFIG": str(self.config), "RETICULA_TRAINING__INT8": "false"}
        self.environment = {**os.environ, **own, **environment}
        self.processes: list[subprocess.Popen[str]] = []
        url = tomllib.loads(self.config.read_text(encoding="utf-8")).get("database_url")
        self._database = Database(url or f"sqlite:///{self.data / 'reticula.sqlite3'}")

    def write(self, extra: str) -> None:
        tables = f'data_dir = "{self.data}"\n[listener]\nport = {self.port}\n'
        tables += f"processes = {self.listeners}\nquiet_seconds = 1.5\n"
        scalars, _, rest = extra.partition("\n[")
        self.config.write_text(f"{scalars}\n{tables}\n{'[' + rest if rest else ''}\n", encoding="utf-8")

    def run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "worker.main", *arguments],
            capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=180, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command with --json and return what it says."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a long-running command and wait until it says that it is ready."""
        if arguments == ("up",):  # no test of exams needs a trainer, and each process costs a second to start
            arguments = ("up", "--queues", "classify,deliver")
        log = (self.folder / f"{arguments[0]}.log").open("a")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "worker.main", *arguments],
                stdout=subprocess.PIPE, stderr=log, text=True, env=self.environment, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip() == "ready", f"{arguments} said {line!r}:\n{self.log(arguments[0])[-3000:]}"
        return process

    def stop(self, process: "subprocess.Popen[str]", number: signal.Signals = signal.SIGTERM) -> int:
        """End a process and return its exit code."""
        process.send_signal(number)
        code = process.wait(60)
        if process.stdout is not None:
            process.stdout.close()
        self.processes.remove(process)
        return code

    def prepare(self) -> None:
        """Make the tables and import the demo model, as the commands do, in this process: that is faster."""
        app = Application(Settings(data_dir=self.data, database_url=self._database.url))
        app.database.upgrade()
        app.registry.import_bundle("demo", actor="test")
        app.database.dispose()

    def close(self) -> None:
        """End whatever still runs, at once."""
        for process in self.processes:
            family: list[psutil.Process] = []
            with suppress(psutil.NoSuchProcess):  # it may have ended by itself
                top = psutil.Process(process.pid)
                family = [*top.children(recursive=True), top]
            for member in reversed(family):
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait(10)
            psutil.wait_procs(family[:-1], timeout=10)
            if process.stdout is not None:
                process.stdout.close()
        self.processes.clear()
        self._database.dispose()

    def log(self, command: str) -> str:
        """Return what a command logged."""
        file = self.folder / f"{command}.log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def exams(self) -> dict[str, dict[str, Any]]:
        """Return the exams by series UID, read from the database: it is asked often, and a process costs time."""
        with self._database.read() as session:
            return {exam["series_uid"]: exam for exam in list_exams(session)}

    def wait_for_state(self, series_uid: str, *states: str, revision: int = 1, seconds: float = 90) -> dict[str, Any]:
        """Wait until a series stands in one of the states and return it."""
        seen: dict[str, Any] = {}

        def reached() -> bool:
            seen.update(self.exams().get(series_uid, {}))
            return seen.get("state") in states and seen.get("revision") == revision

        try:
            wait_for(reached, f"{series_uid} {states}", seconds)
        except AssertionError as error:
            files = sorted(self.folder.glob("*.log"))
            logs = "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)
            raise AssertionError(f"{error}; it is {seen}\n{logs}") from None
        return seen


def send(
    storescu: str,
    port: int,
    *paths: Path,
    called: str = "RETICULA",
    calling: str = "MODALITY",
    options: tuple[str, ...] = (),
) -> "subprocess.CompletedProcess[str]":
    """Send files or folders with DCMTK's storescu."""
    folders = any(path.is_dir() for path in paths)
    return subprocess.run(
        [storescu, "-R", *(["+sd"] if folders else []), *options, "-aet", calling, "-aec", called, "127.0.0.1",
         str(port), *map(str, paths)],
        capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "TCP_NODELAY": "1"},
    )  # fmt: skip
