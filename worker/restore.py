"""A backup into an empty installation: it is checked first, then files are written, then all rows or none."""

import hashlib
import json
import os
import re
import tarfile
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import DateTime, MetaData, Table, func, insert, select, text
from sqlalchemy.engine import Connection

from pacs.durable import sync_folder
from worker import audit, exams
from worker.backup import FORMAT, MANIFEST, VERSIONS, reflected
from worker.database import Database
from worker.errors import WorkerError

_ROWS_AT_ONCE = 1000
_PIECE = 1 << 20
# Nothing else is in a backup, and nothing else is written.
_MEMBERS = re.compile(r"manifest\.json|tables/\w+\.jsonl|files/(bundles|reports)(/[\w.-]+)+")


@dataclass(frozen=True)
class Restored:
    """What came back: rows in all, files, and the files that the backup lacked already."""

    made_at: str
    rows: int
    files: int
    missing: tuple[str, ...]


def restore(database: Database, data_dir: Path, source: Path, *, actor: str) -> Restored:
    """Bring a backup back, and the tables up to date. Raises WorkerError, UnavailableError."""
    manifest = _checked(source)
    if database.has_rows():
        raise WorkerError(
            "The database holds rows already (looking at exams is one, in the audit trail): "
            "stop what runs, and restore into a new database and data_dir."
        )
    if not database.knows_revision(manifest["revision"]):
        raise WorkerError(f"{source} is of a later version ({manifest['software']}): install that one first.")
    files = 0
    with _opened(source) as archive:
        for member in archive:
            if member.name.startswith("files/"):
                path = data_dir / member.name.removeprefix("files/")
                _write_file(path, _content(archive, member), manifest["sha256"][member.name])
                files += 1
    database.upgrade(manifest["revision"])
    with _opened(source) as archive, database.write() as session:
        connection = session.connection()
        metadata = reflected(connection)
        for table in metadata.sorted_tables:
            if table.name != VERSIONS and f"tables/{table.name}.jsonl" in manifest["sha256"]:
                _insert(connection, table, _content(archive, archive.getmember(f"tables/{table.name}.jsonl")))
        _continue_sequences(connection, metadata)
    database.upgrade()
    exams.end_leases(database, "")  # whoever held anything is not here
    rows = sum(manifest["tables"].values())
    with database.write() as session:
        audit.record(session, "database restored", manifest["made_at"], actor=actor, rows=rows, files=files)
    return Restored(manifest["made_at"], rows, files, tuple(manifest["missing"]))


def _checked(source: Path) -> dict[str, Any]:
    """Read the whole archive and return its manifest. Raises WorkerError where a byte is not as it was."""
    sums = {}
    manifest: dict[str, Any] = {}
    with _opened(source) as archive:
        for member in archive:
            if not (member.isfile() and _MEMBERS.fullmatch(member.name) and ".." not in member.name.split("/")):
                raise WorkerError(f"{source} is no backup of ours: it holds {member.name!r}.")
            content = _content(archive, member)
            if member.name == MANIFEST:
                manifest = json.load(content)
            else:
                sums[member.name] = hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]
    if manifest.get("format") != FORMAT:
        raise WorkerError(f"{source} is no backup that this version knows, or it was cut short.")
    if sums != manifest["sha256"]:
        raise WorkerError(f"{source} is damaged: its content is not what was saved.")
    return manifest


@contextmanager
def _opened(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, ValueError) as error:
        raise WorkerError(f"{source} is damaged or no backup.") from error
    except OSError as error:
        raise WorkerError(f"{source} cannot be read or restored: {error.strerror or 'it is damaged'}.") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    if content is None:
        raise WorkerError(f"The backup holds {member.name!r}, which is no file.")
    return content


def _write_file(path: Path, content: IO[bytes], sha256: str) -> None:
    """Write a file so that it is whole, whatever was there."""
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    temporary = path.with_name(f".{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as file:
            while piece := content.read(_PIECE):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _insert(connection: Connection, table: Table, content: IO[bytes]) -> None:
    times = [column.name for column in table.columns if isinstance(column.type, DateTime)]
    aware = connection.dialect.name != "sqlite"
    rows: list[dict[str, Any]] = []
    for line in content:
        row = json.loads(line)
        for name in times:
            if row.get(name) is not None:
                moment = datetime.fromisoformat(row[name])
                row[name] = moment if aware else moment.astimezone(UTC).replace(tzinfo=None)
        rows.append(row)
        if len(rows) == _ROWS_AT_ONCE:
            connection.execute(insert(table), rows)
            rows = []
    if rows:
        connection.execute(insert(table), rows)


def _continue_sequences(connection: Connection, metadata: MetaData) -> None:
    """Let PostgreSQL number new rows after those that brought their numbers along."""
    if connection.dialect.name != "postgresql":
        return
    for table in metadata.sorted_tables:
        if "id" in table.columns:
            last = connection.scalar(select(func.max(table.c.id)))
            if last is not None:
                connection.execute(
                    text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"),
                    {"name": table.name, "last": last},
                )
