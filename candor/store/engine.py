"""Opens the database and brings its tables up to date.

SQLite by default, PostgreSQL by URL.  What a transaction has committed survives the end of the
process and of the machine: SQLite writes ahead with every commit forced to disk.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from candor.contracts.secrets import shown_url, without_secrets
from candor.files.reading import kind_of
from candor.store.tables import Base

MIGRATIONS_DIR = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 7_263_001  # any number, the same in every process
# NAME=VALUE of PostgreSQL's own addresses, and URLs whose scheme is missing or half written.
_NO_PATH = re.compile(
    r"\s*[A-Za-z_]+\s*=|(?:postgres|sqlite|mysql|mariadb)[\w+]*:|[^/\s]+:[^@\n]*@", re.IGNORECASE
)
_PATIENCE_SECONDS = 30.0


class StoreError(ValueError):
    """The store's address is wrong or nothing answers there."""


class Store:
    """An open database with the tables of `candor.store.tables`; safe to share among threads.

    Attributes:
        address: URL that opens it again, its password included.
    """

    def __init__(self, engine: Engine) -> None:
        self.address = engine.url.render_as_string(hide_password=False)
        self._engine = engine
        self._reading_engine = engine
        if engine.dialect.name == "postgresql":
            self._reading_engine = engine.execution_options(isolation_level="REPEATABLE READ")
        self._writing_engine = engine.execution_options(is_writing=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One snapshot of the database."""
        with Session(self._reading_engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: all of it on disk when the block ends, or nothing where it raises."""
        with Session(self._writing_engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self._engine.dispose()


def open_store(address: str, *, patience_seconds: float = _PATIENCE_SECONDS) -> Store:
    """The store at a path or URL, created or migrated as needed.

    Args:
        address: path of an SQLite file, or ``sqlite:///PATH``, or ``postgresql://USER@HOST/NAME``.
        patience_seconds: the longest wait for a connection, and for a lock of another process.
    Raises:
        StoreError: not such an address, or the database cannot be opened or is of a newer Candor.
    """
    url = store_url(address)
    if url.database and url.get_backend_name() == "sqlite":
        _prepare_place(Path(url.database))
    engine = _engine(url, patience_seconds)
    try:
        with engine.execution_options(is_writing=True).begin() as connection:
            _migrate(connection)
    except (DBAPIError, OSError) as err:
        engine.dispose()
        reason = _one_line(err.orig if isinstance(err, DBAPIError) else err)
        raise StoreError(f"store: {_shown(url)} cannot be opened: {reason}") from err
    except CommandError as err:  # a revision that this version has no migration for
        engine.dispose()
        reason = _one_line(err)
        raise StoreError(f"store: {_shown(url)} is of a newer version of Candor: {reason}") from err
    return Store(engine)


def is_away(error: Exception) -> bool:
    """Whether this error of a query says that the database does not answer, or is full or locked.

    The same query may work later.
    """
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _prepare_place(path: Path) -> None:
    """Raises: StoreError: no place for a file; SQLite would read from a pipe for ever."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = kind_of(path.stat().st_mode) if path.exists() else "file"
    except OSError as err:
        raise StoreError(f"store: {path}: {err.strerror}") from err
    if kind != "file":
        raise StoreError(f"store: {path}: expected a file, got a {kind}")


def store_url(address: str) -> URL:
    """The database URL an address stands for, the path of an SQLite file made absolute.

    Raises:
        StoreError: it is neither, or can be read in two ways.
    """
    if "://" not in address:
        if _NO_PATH.match(address):  # else a file of that name would be made, password and all
            raise StoreError(
                f"store: expected a path, sqlite:///PATH or postgresql://, got {shown_url(address)}"
            )
        return URL.create("sqlite", database=str(Path(address).absolute()))
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):  # their texts quote the URL, password and all
        raise StoreError(
            f"store: expected a path, sqlite:///PATH or postgresql://, got {shown_url(address)}"
        ) from None
    if url.get_backend_name() == "sqlite" and url.query:
        raise StoreError(f"store: expected sqlite:///PATH without a query, got {_shown(url)}")
    if url.get_backend_name() == "sqlite" and url.database:
        return url.set(drivername="sqlite", database=str(Path(url.database).absolute()))
    if url.get_backend_name() == "postgresql":
        is_ambiguous = url.username is not None and "?" in address.partition("@")[0]
        if is_ambiguous or "@" in (url.host or ""):
            raise StoreError(
                "store: expected a URL in which @ and ? of user and password are written %40 and "
                f"%3F, got {shown_url(address)}"
            )
        return url.set(drivername="postgresql+psycopg")
    raise StoreError(f"store: expected a path, sqlite:///PATH or postgresql://, got {_shown(url)}")


def insert_new(session: Session, table: type[Base], **values: object) -> bool:
    """Insert a row unless one of the table's uniquenesses already has it; whether it is new.

    Where another transaction is about to insert the same, waits for how that ends.
    """
    is_postgres = session.get_bind().dialect.name == "postgresql"
    insert = postgresql.insert if is_postgres else sqlite.insert
    key = inspect(table).primary_key[0]
    new = insert(table).values(**values).on_conflict_do_nothing().returning(key)
    return session.scalar(new) is not None


def _engine(url: URL, patience_seconds: float) -> Engine:
    if url.get_backend_name() == "postgresql":
        milliseconds = round(1000 * patience_seconds)
        limits = {
            "connect_timeout": math.ceil(patience_seconds),
            "tcp_user_timeout": milliseconds,
            "options": f"-c lock_timeout={milliseconds}",
        }
        given = {name: value for name, value in limits.items() if name not in url.query}
        return create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=given)
    engine = create_engine(url, hide_parameters=True, connect_args={"timeout": patience_seconds})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _shown(url: URL) -> str:
    return shown_url(url.render_as_string(hide_password=True))


def _one_line(error: object) -> str:
    """A library's text as part of ours."""
    return without_secrets(" ".join(str(error).split()))


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, no later
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that read first could no longer become a writer.
    is_writing = connection.get_execution_options().get("is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _migrate(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":  # two processes may start at the same moment
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS_DIR).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
