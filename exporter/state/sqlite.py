"""The state in SQLite: in memory, or in a file. A transaction on the file is on the disk when it
returns.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exporter.state.backend import (
    TABLES,
    Backend,
    Batch,
    InUse,
    Owner,
    Seen,
    Turn,
    Unusable,
    alone,
)

_MAGIC = 0x43574558
"""`application_id` of the file: CWEX."""

_TABLE = """
    CREATE TABLE {} (
        account TEXT, workflow TEXT, id TEXT, data BLOB NOT NULL, last_watched REAL,
        PRIMARY KEY (account, workflow, id)
    ) WITHOUT ROWID;
"""
_MIGRATIONS = (
    "",  # it had other tables, and was never released
    "".join(map(_TABLE.format, TABLES))
    + "CREATE INDEX watched ON instances (account, workflow, last_watched, id)",
)
"""The n-th makes version n out of version n - 1."""

_OPTIONS: dict[str, Any] = {"timeout": 2.0, "isolation_level": None, "check_same_thread": False}
"""timeout: seconds to wait for another process' lock; less than a round takes, so that nothing
piles up."""
_SUFFIXES = ("", "-wal", "-shm")
"""Suffixes of the file, and of those that SQLite writes beside it."""
_LOG_SIZE = 16 << 20
"""Bytes to which SQLite's log shrinks again after a large transaction."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""Errors that a healthy file never causes."""
_NO_LOG = (
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
)
"""Errors where SQLite can't create its log: there is no room, or nothing may be written."""


class Sqlite(Backend):
    """An open state file, or memory.

    Args:
        path: The file, which is created if it doesn't exist; None: the state is in memory. Beside
            the file are SQLite's log (`-wal`, `-shm`), and a lock file (`.lock`) that keeps other
            exporters away.

    Raises:
        InUse: another exporter has it.
        Unusable: it is from a newer version, is no state file, or can't be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._inode = 0
        self._lock: int | None = None
        self._held: Collection[Owner] = ()
        """What the last turn granted. It never expires: it is watched, or still being restored."""
        with contextlib.ExitStack() as failed:
            failed.callback(self._unlock)
            try:
                self._connection = self._opened()
            except OSError as error:
                raise Unusable(error.strerror or str(error)) from None
            except sqlite3.DatabaseError as error:
                if not self.is_damage(error):
                    raise Unusable(str(error)) from None
                self.renew()
            failed.pop_all()

    def _opened(self) -> sqlite3.Connection:
        if self._path is not None and self._lock is None:
            self._lock = _locked(self._path)
        connection = _connect(self._path) if self._path else sqlite3.connect(":memory:", **_OPTIONS)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        # With this, a flipped bit in a key makes it another key, and costs no other record.
        connection.text_factory = lambda text: text.decode(errors="replace")
        self._inode = os.stat(self._path).st_ino if self._path else 0
        return connection

    def renew(self) -> None:
        """Sets the file aside under another name and begins an empty one.

        Raises:
            Unusable: that can't be done.
        """
        assert self._path is not None, "memory has neither damage nor a name"
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._connection.close()
        self._inode = 0
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = self._path.with_name(f"{self._path.name}.damaged-{now}")
        try:
            for suffix in _SUFFIXES:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self._path}{suffix}", f"{aside}{suffix}")
                    self.set_aside = aside
        except OSError as error:
            raise Unusable(f"it is damaged, and can't be set aside: {error}") from None
        try:
            self._connection = self._opened()
        except (OSError, sqlite3.Error) as error:
            # The file that was begun is empty, and the next attempt would set it aside.
            for suffix in _SUFFIXES:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._path}{suffix}")
            raise Unusable(f"an empty one can't be begun: {error}") from None

    @property
    def is_there(self) -> bool:
        """Whether the file is still the one that was opened: nobody deleted or replaced it."""
        if self._path is None:
            return True
        with contextlib.suppress(OSError):
            return os.stat(self._path).st_ino == self._inode
        return False

    def write(self, batch: Batch, *, now: float) -> None:
        with self._transaction():
            for table, written, deleted in batch.by_table(now):
                insert = f"REPLACE INTO {table} VALUES (?, ?, ?, ?, ?)"  # noqa: S608
                self._connection.executemany(insert, written)
                self._delete(table, deleted, "AND id = ?")
            older = [(*owner, horizon) for owner, horizon in batch.horizons.items()]
            self._delete("instances", older, "AND last_watched < ?")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Opens the file again where it can't be written: by the next transaction, there may be
        room or permission."""
        try:
            with self._connection as connection:
                connection.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_READONLY:
                former, self._connection = self._connection, self._opened()
                former.close()
            raise

    def _delete(self, table: str, owners: list[Any], condition: str = "") -> None:
        """Deletes the rows of owners. A condition takes one more value after each owner."""
        of_owner = f"DELETE FROM {table} WHERE account = ? AND workflow = ?"  # noqa: S608
        self._connection.executemany(f"{of_owner} {condition}", owners)

    def take_turn(self, turn: Turn) -> Seen:
        """Grants everything that is wanted, even while nothing can be written: the lock file keeps
        other exporters away."""
        self._held = turn.wanted
        return alone(turn)

    def _select(self, query: str, *parameters: object) -> sqlite3.Cursor:
        return self._connection.execute(query, parameters)

    def expire(self, *, after: float, now: float) -> None:
        with self._transaction():
            old = "SELECT account, workflow FROM workflows WHERE last_watched < ?"
            expired = [owner for owner in self._select(old, now - after) if owner not in self._held]
            for table in TABLES:
                self._delete(table, expired)

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @staticmethod
    def is_damage(error: Exception) -> bool:
        """Whether an error means that the content is damaged, and not only unavailable now."""
        return _code(error) in _DAMAGE


def _code(error: Exception) -> int:
    """SQLite's primary error code; 0: the error isn't SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _locked(path: Path) -> int | None:
    """A lock that keeps other exporters away until it is closed; None: it can't be made."""
    # In a file of its own: SQLite's locks come and go with transactions, and they would be lost
    # when any other descriptor of the state file is closed.
    try:
        name = f"{os.path.realpath(path)}.lock"  # one, by whatever link the file is named
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None  # where no file can be created, two exporters can't both write one
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InUse(f"{path} is in use by another exporter") from None
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    # Absolute, since SQLite takes `:memory:` and, as some build it, `file:…` for more than a name.
    connection: sqlite3.Connection = sqlite3.connect(path.absolute(), **_OPTIONS)
    try:
        connection.execute("SELECT * FROM sqlite_master").fetchall()
    except sqlite3.DatabaseError as error:
        connection.close()
        if _code(error) not in _NO_LOG:
            raise
        # The file can still be read.
        uri = f"{path.absolute().as_uri()}?immutable=1"
        connection = sqlite3.connect(uri, uri=True, **_OPTIONS)
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Checks the file, and migrates it to the newest version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    magic = connection.execute("PRAGMA application_id").fetchone()[0]
    empty = not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if not empty and magic != _MAGIC:
        raise Unusable("it is an SQLite database of something else")
    if version > len(_MIGRATIONS):
        raise Unusable(
            f"it is of version {version}, from a newer exporter; this one knows {len(_MIGRATIONS)}"
        )
    if version == 1:
        raise Unusable("it is of version 1, which was never released; delete it")
    problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if problem != "ok":
        damage = sqlite3.DatabaseError(problem)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage
    # FULL: a transaction is on the disk when it returns, and survives a power failure.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_LOG_SIZE}")
    if version == len(_MIGRATIONS):
        return
    connection.execute("PRAGMA journal_mode = WAL")
    for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA application_id = {_MAGIC}; "
            f"PRAGMA user_version = {number}; COMMIT;"
        )
