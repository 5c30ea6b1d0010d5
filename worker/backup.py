"""A backup: every row of one moment, the model bundles, and the reports that are not delivered yet, in one file.

    tables/<name>.jsonl     rows as JSON, in the order of their keys; times in ISO 8601
    files/<path>            as under `data_dir`
    manifest.json           revision of the tables, and the sha256 of everything else

It is neutral: what was saved from SQLite can be restored into PostgreSQL, and the other way round.
"""

import base64
import hashlib
import io
import json
import os
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import MetaData, Table, exists, select
from sqlalchemy.engine import Connection

from pacs.durable import sync_folder
from worker.database import Database, now
from worker.errors import WorkerError
from worker.states import DeliveryState, State
from worker.version import __version__

FORMAT = 1
MANIFEST = "manifest.json"
VERSIONS = "alembic_version"
_ROWS_AT_ONCE = 1000


def back_up(database: Database, data_dir: Path, target: Path, *, all_reports: bool = False) -> list[str]:
    """Write a backup while work goes on; return the files that should be in it and are not there.

    Raises WorkerError where there is nothing to save or the file cannot be written, UnavailableError.
    """
    if target.exists():
        raise WorkerError(f"{target} exists already: give the backup another name.")
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with part.open("xb") as raw:
            part.chmod(0o600)
            missing = _write(database, data_dir, raw, all_reports=all_reports)
        part.rename(target)
        sync_folder(target.absolute().parent)
    except OSError as error:
        raise WorkerError(f"The backup cannot be written to {target}: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)
    return missing


def reflected(connection: Connection) -> MetaData:
    """Return the tables as they are in this database, whatever revision they have."""
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.tables.values():
        for column in table.columns:
            if hasattr(column.type, "none_as_null"):
                column.type.none_as_null = True
    return metadata


def _write(database: Database, data_dir: Path, raw: IO[bytes], *, all_reports: bool) -> list[str]:
    archive = _Archive(raw)
    missing = []
    with database.snapshot() as connection:
        metadata = reflected(connection)
        if VERSIONS not in metadata.tables:
            raise WorkerError("The database has no tables: there is nothing to save.")
        revision = connection.scalar(select(metadata.tables[VERSIONS].c.version_num))
        counts = {}
        for table in metadata.sorted_tables:
            if table.name != VERSIONS:
                counts[table.name] = archive.add_rows(f"tables/{table.name}.jsonl", _rows(connection, table))
        for path in _files(connection, metadata, data_dir, all_reports=all_reports):
            try:
                archive.add_file(f"files/{path}", data_dir / path)
            except FileNotFoundError:
                missing.append(str(path))
    archive.close(
        {
            "format": FORMAT,
            "software": __version__,
            "made_at": now().isoformat(),
            "revision": revision,
            "tables": counts,
            "missing": missing,
        }
    )
    return missing


class _Archive:
    """A compressed tar file that remembers what is in it."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._tar = tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6)  # noqa: SIM115 – closed in `close`
        self._sums: dict[str, str] = {}

    def add_rows(self, name: str, rows: Iterator[str]) -> int:
        """Add lines, and return how many."""
        count = 0
        with tempfile.TemporaryFile() as file:
            for count, row in enumerate(rows, start=1):  # noqa: B007 – the last one counts
                file.write(row.encode() + b"\n")
            self._add(name, file, file.tell())
        return count

    def add_file(self, name: str, path: Path) -> None:
        """Add a file. Raises OSError."""
        with path.open("rb") as file:
            self._add(name, file, path.stat().st_size)

    def close(self, manifest: dict[str, Any]) -> None:
        """Add the manifest and sync everything."""
        content = json.dumps({**manifest, "sha256": self._sums}, indent=1).encode()
        self._add(MANIFEST, io.BytesIO(content), len(content))
        self._tar.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())

    def _add(self, name: str, file: IO[bytes], size: int) -> None:
        file.seek(0)
        self._sums[name] = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, 0o600, int(now().timestamp())
        self._tar.addfile(member, file)


def _rows(connection: Connection, table: Table) -> Iterator[str]:
    query = select(table).order_by(*table.primary_key.columns)
    result = connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query)
    for row in result.mappings():
        yield json.dumps({name: _plain(value) for name, value in row.items()})


def _plain(value: Any) -> Any:
    """Return a value as JSON has it. SQLite hands out times without their zone, which is UTC."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def _files(connection: Connection, metadata: MetaData, data_dir: Path, *, all_reports: bool) -> Iterator[Path]:
    """Yield the files to save, relative to `data_dir`."""
    if "model_versions" in metadata.tables:
        for folder in connection.scalars(select(metadata.tables["model_versions"].c.path)):
            found = sorted(path for path in (data_dir / folder).rglob("*") if path.is_file())
            yield from (path.relative_to(data_dir) for path in found)
            if not found:
                yield Path(folder)
    reports, series, deliveries = (metadata.tables.get(name) for name in ("reports", "series", "deliveries"))
    if reports is None or series is None or deliveries is None:
        return
    waiting = select(deliveries.c.series_id).where(deliveries.c.state == DeliveryState.PENDING)
    other = series.alias()
    # A rejection note names all revisions of its series, and takes the patient from what they said.
    same = (other.c.series_uid == series.c.series_uid) & (other.c.study_id == series.c.study_id)
    undelivered = select(series.c.id).where(
        (series.c.state == State.CLASSIFIED) | exists().where(same, other.c.id.in_(waiting))
    )
    query = select(reports.c.path).order_by(reports.c.id)
    for path in connection.scalars(query if all_reports else query.where(reports.c.series_id.in_(undelivered))):
        yield Path(path)
