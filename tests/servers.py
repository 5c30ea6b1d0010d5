"""Real servers for tests, each on a free port of 127.0.0.1, ended by process id."""

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import requests
from pydicom import dcmread

START_SECONDS = 40


def need(program: str, package: str) -> str:
    """Return the path of a program, or skip the test and say what to install."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return found


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = START_SECONDS) -> Any:
    """Wait until a condition holds and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come within {seconds:.0f} s")


class Server:
    """A child process with a port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], **options: Any) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, **options)
        wait_for(self.answers, f"{type(self).__name__} on {self.port}")

    def answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """End the server and its children with signal 9, all at once; its data stays as it lies."""
        if self.process is not None:
            parent = psutil.Process(self.process.pid)
            family = [parent, *parent.children(recursive=True)]
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            self.process.wait(30)
            psutil.wait_procs(family, timeout=30)
            self.process = None

    def start_again(self) -> None:
        """Start it once more on the data that it left."""
        self.start()

    def start(self) -> None:
        raise NotImplementedError


class Redis(Server):
    """redis-server without persistence."""

    def start(self) -> None:
        program = need("redis-server", "redis-server")
        self.run(
            [
                program,
                "--bind",
                "127.0.0.1",
                "--port",
                str(self.port),
                "--save",
                "",
                "--dir",
                str(self.folder),
            ]
        )

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


class Postgres(Server):
    """A cluster of its own; as root it runs as the user postgres, since it refuses to run as root."""

    def start(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not binaries:
            pytest.skip("PostgreSQL's initdb is missing: apt-get install postgresql")
        binary = binaries[-1].parent
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            # pytest's folders are for their owner alone.
            self.folder = Path("/tmp") / f"reticula-postgres-{uuid.uuid4().hex[:8]}"
            self.folder.mkdir(mode=0o755)
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        data = self.folder / "data"
        subprocess.run(
            [binary / "initdb", "-D", data, "-U", "reticula", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, cwd=self.folder, **as_user,
        )  # fmt: skip
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", "fsync=off"]
        options = [part for setting in settings for part in ("-c", setting)]
        self._command = [str(binary / "postgres"), "-D", str(data), "-p", str(self.port), *options]
        self._as_user = as_user
        self.start_again()

    def start_again(self) -> None:
        self.run(self._command, cwd=self.folder, **self._as_user)

    def halt(self) -> None:
        """End the server and keep its data."""
        super().stop(signal.SIGINT)

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def new_database(self) -> str:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with self._connect() as connection:
            connection.autocommit = True
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return f"postgresql+psycopg://reticula@127.0.0.1:{self.port}/{name}"

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        super().stop(number)
        if os.geteuid() == 0:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _connect(self) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(host="127.0.0.1", port=self.port, user="reticula", dbname="postgres", connect_timeout=5)


class Orthanc(Server):
    """Orthanc with its DICOMweb plugin."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.http = free_port()
        self.dicomweb_servers: dict[str, Any] = {}
        self.modalities: dict[str, Any] = {}

    def start(self) -> None:
        program = need("Orthanc", "orthanc")
        plugins = [str(file) for file in Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so")]
        if not plugins:
            pytest.skip("Orthanc's DICOMweb plugin is missing: apt-get install orthanc-dicomweb")
        configuration = {
            "Name": "PACS",
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "DicomPort": self.port,
            "HttpPort": self.http,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": plugins,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": self.dicomweb_servers},
            "DicomModalities": self.modalities,
            "TcpNoDelay": True,
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(configuration))
        self.run([program, str(file)])

    def answers(self) -> bool:
        try:
            return requests.get(f"http://127.0.0.1:{self.http}/system", timeout=5).ok
        except requests.RequestException:
            return False

    @property
    def dicomweb(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def get(self, path: str, **parameters: str) -> Any:
        answer = requests.get(f"http://127.0.0.1:{self.http}{path}", params=parameters, timeout=20)
        answer.raise_for_status()
        return answer.json()

    def content(self, path: str) -> bytes:
        answer = requests.get(f"http://127.0.0.1:{self.http}{path}", timeout=20)
        answer.raise_for_status()
        return answer.content


class DcmtkArchive(Server):
    """DCMTK's own archive, dcmqrscp: an index file beside one file for each object. No AE title is refused."""

    def start(self) -> None:
        program = need("/usr/bin/dcmqrscp", "dcmtk")
        area = self.folder / "area"
        area.mkdir(exist_ok=True)
        settings = self.folder / "dcmqrscp.cfg"
        settings.write_text(
            "MaxPDUSize = 16384\nMaxAssociations = 16\n"
            "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nARCHIVE {area} RW (200, 1024mb) ANY\nAETable END\n"
        )
        self.run([program, "--config", str(settings), "--allow-shutdown", str(self.port)])

    def store(self, file: Path) -> None:
        """Store an object."""
        command = [need("/usr/bin/storescu", "dcmtk"), "-R", "-aec", "ARCHIVE", "127.0.0.1", str(self.port), str(file)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def lose(self, patient_id: str) -> None:
        """Take a patient's objects from the disk; the index still has them."""
        for file in (self.folder / "area").glob("*"):
            if file.name != "index.dat" and dcmread(file).PatientID == patient_id:
                file.unlink()
