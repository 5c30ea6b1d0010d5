"""The database: connections, transactions, and bringing the tables up to date."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import MetaData, create_engine, event, func, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from worker.errors import UnavailableError

if TYPE_CHECKING:
    from alembic.config import Config

_BUSY_SECONDS = 30
_MIGRATION_LOCK = 0x7265746963756C61  # "reticula": the number of PostgreSQL's advisory lock is ours to choose
_MISSING = ("42P01", "42703")  # PostgreSQL's codes for an undefined table or column


class Database:
    """An engine and its transactions. Nothing connects before the first of them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._is_sqlite = url.startswith("sqlite")
        if self._is_sqlite:
            self.engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS}, hide_parameters=True)
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            self.engine = create_engine(
                url, pool_pre_ping=True, connect_args={"connect_timeout": 5}, hide_parameters=True
            )

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write. Raises UnavailableError where the database is away."""
        with self._session({}) as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads: on SQLite it waits for no writer."""
        with self._session({"read_only": True}) as session:
            yield session

    @contextmanager
    def _session(self, options: dict[str, Any]) -> Iterator[Session]:
        try:
            if self._is_sqlite:
                Path(str(self.engine.url.database)).parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            with (
                Session(self.engine.execution_options(**options), expire_on_commit=False) as session,
                session.begin(),
            ):
                yield session
        except ProgrammingError as error:
            if getattr(error.orig, "sqlstate", "") not in _MISSING:
                raise
            raise UnavailableError("The tables are missing or old: run 'reticula db upgrade'.") from error
        except (OperationalError, InterfaceError) as error:
            if "no such table" in str(error.orig) or "no such column" in str(error.orig):  # SQLite without them
                raise UnavailableError("The tables are missing or old: run 'reticula db upgrade'.") from error
            raise UnavailableError(f"The database cannot be used: {_first_line(error)}.") from error

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A transaction that reads the state of one moment, however long it takes. Raises UnavailableError."""
        options = {"read_only": True} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._session(options) as session:
            yield session.connection()

    def has_rows(self) -> bool:
        """Whether any table has rows. Raises UnavailableError."""
        with self.snapshot() as connection:
            metadata = MetaData()
            metadata.reflect(connection)
            tables = [table for table in metadata.sorted_tables if table.name != "alembic_version"]
            return any(connection.execute(select(table).limit(1)).first() is not None for table in tables)

    def dispose(self) -> None:
        """Close all connections; after a fork the child must do so first."""
        self.engine.dispose()

    def forget_connections(self) -> None:
        """Drop inherited connections without closing them: they are the parent's."""
        self.engine.dispose(close=False)

    def upgrade(self, revision: str = "head") -> None:
        """Bring the tables up to `revision`. Raises UnavailableError."""
        from alembic import command

        self._migrate(command.upgrade, revision)

    def downgrade(self, revision: str) -> None:
        """Take the tables back to `revision`. Raises UnavailableError."""
        from alembic import command

        self._migrate(command.downgrade, revision)

    def is_current(self) -> bool:
        """Whether the tables are those of this software. Raises UnavailableError."""
        from alembic.runtime.migration import MigrationContext
        from alembic.script import ScriptDirectory

        heads = set(ScriptDirectory.from_config(_alembic_config()).get_heads())
        with self.read() as session:
            return set(MigrationContext.configure(session.connection()).get_current_heads()) == heads

    def knows_revision(self, revision: str) -> bool:
        """Whether this software can bring tables of a revision up to date."""
        from alembic.script import ScriptDirectory

        return revision in {each.revision for each in ScriptDirectory.from_config(_alembic_config()).walk_revisions()}

    def _migrate(self, action: Any, revision: str) -> None:
        config = _alembic_config()
        with self.write() as session:
            if not self._is_sqlite:
                # Of two processes that bring empty tables up to date at once, one waits; SQLite's lock is held anyway.
                session.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config.attributes["connection"] = session.connection()
            action(config, revision)


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def _alembic_config() -> "Config":
    """The revisions lie in the wheel as data of `worker`, and beside it in a checkout."""
    from alembic.config import Config

    config = Config()
    shipped = Path(str(resources.files("worker"))) / "_alembic"
    folder = shipped if shipped.is_dir() else Path(__file__).resolve().parent.parent / "alembic"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we begin ourselves, see below
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that reads first and writes later fails at once when another writes: take the lock first."""
    read_only = connection.get_execution_options().get("read_only")
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0].rstrip(".") if str(error.orig).strip() else type(error.orig).__name__
