"""Connections to PostgreSQL that never wait for long, whether a name server doesn't respond, a
network drops packets, or the server is stopped."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from math import inf
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exporter.config.errors import ConfigError
from exporter.config.files import read_file
from exporter.daemon_thread import in_daemon_thread
from exporter.state.backend import DatabaseServer, Unreachable

T = TypeVar("T")

_RECONNECT_WAIT = 1.0
"""Seconds that an operation waits for a new connection after one was lost. If it gives up, the
attempt to connect continues."""
_NO_RESPONSE = "can't connect to the database: no response"


def validate(server: DatabaseServer) -> None:
    """Checks the URL and the password file.

    Raises:
        ConfigError: with what is wrong.
    """
    problems = []
    for setting, read in (("state.url", _parameters), ("state.password_file", _password)):
        try:
            read(server)
        except Unreachable as error:
            problems.append(f"{setting}: {error}")
    if problems:
        raise ConfigError(*problems)


def connect(server: DatabaseServer) -> "Session":
    """A new connection.

    Raises:
        Unreachable: there is none, and why.
    """
    parameters = _parameters(server) | _password(server)
    try:
        # Statements aren't prepared: with a pooler, each transaction may run on another connection.
        session = Session.connect(
            make_conninfo(**parameters), autocommit=True, prepare_threshold=None
        )
    except (psycopg.Error, OSError, UnicodeError) as error:
        raise Unreachable(reason(error)) from None
    session.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    session.timeout = server.timeout
    return session


def _parameters(server: DatabaseServer) -> dict[str, Any]:
    try:
        parameters: dict[str, Any] = {**conninfo_to_dict(server.url.get_secret_value())}
    except psycopg.Error as error:
        raise Unreachable(reason(error)) from None
    defaults = {
        # If there are several hosts, only the primary will do.
        "PGTARGETSESSIONATTRS": ("target_session_attrs", "read-write"),
        "PGCONNECT_TIMEOUT": ("connect_timeout", max(2, round(server.timeout))),
        "PGAPPNAME": ("application_name", "cloudflare-workflows-exporter"),
    }
    given = {
        name: value for variable, (name, value) in defaults.items() if variable not in os.environ
    }
    return given | parameters


def _password(server: DatabaseServer) -> dict[str, str]:
    path = server.password_file
    if path is None:
        return {}
    try:
        password = read_file(path).decode().rstrip("\r\n")
    except OSError as error:
        raise Unreachable(f"{path}: {error.strerror}") from None
    except ValueError:
        raise Unreachable(f"{path}: not text in UTF-8") from None
    if not password:
        raise Unreachable(f"{path}: is empty; a password is expected")
    return {"password": password}


class Session(psycopg.Connection[Any]):
    """One connection, for one thread at a time. After an error it can't be used any more."""

    timeout = inf
    """Maximum seconds that the server may take for a statement."""

    def run(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] | None = None
    ) -> list[Any]:
        """The rows that a statement returns. Several statements, without parameters, return none.

        Raises:
            Unreachable: the server doesn't respond in time.
            psycopg.Error: all other errors.
        """
        cursor = self.execute(query.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def in_transaction(self, act: Callable[["Session"], T]) -> T:
        """What an operation returns that is committed as a whole."""
        timeout = round(self.timeout * 900)  # in milliseconds; a little less than the session's own
        # So the server drops the locks of a replica that vanished. There is no statement_timeout: a
        # COMMIT that waits for a synchronous standby would then end as if it had succeeded.
        limits = (
            f"SET LOCAL lock_timeout = {timeout}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {timeout}"
        )
        with self.transaction():
            self.run(limits)
            return act(self)

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        return super().wait(self._in_time(gen), *args, **kwargs)

    def _in_time(self, exchange: PQGen[T]) -> PQGen[T]:
        """The exchange, with a deadline. Psycopg resumes it at least every tenth of a second."""
        deadline = time.monotonic() + self.timeout
        try:
            wanted = next(exchange)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    raise Unreachable(f"the database doesn't respond within {self.timeout:g} s")
                wanted = exchange.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result


class Connector:
    """Connects in a thread of its own, so that a name server that doesn't respond blocks nothing
    else."""

    def __init__(self, server: DatabaseServer) -> None:
        self._server = server
        self._attempt: Future[Session] | None = None
        self._wait = server.timeout

    def session(self) -> Session:
        """A new session, possibly from an attempt that an earlier call didn't wait for.

        Raises:
            Unreachable: there was none in time. At first, that is the server's timeout; after a
                connection was lost, a second; and no time at all for an attempt that another call
                has already waited for.
        """
        attempt = self._attempt = self._attempt or in_daemon_thread(connect, self._server)
        connected, _ = wait([attempt], self._wait)
        # Saves wait while workflows are restored, and there may be hundreds of them.
        self._wait = _RECONNECT_WAIT if connected else 0.0
        if not connected:
            raise Unreachable(_NO_RESPONSE)
        self._attempt = None
        return attempt.result()

    def close(self) -> None:
        """Has a connection closed that may still be established."""
        if self._attempt is not None:
            self._attempt.add_done_callback(_discard)


def _discard(attempt: Future[Session]) -> None:
    if attempt.exception() is None:
        attempt.result().close()


def reason(error: Exception) -> str:
    """Why an operation failed, in one line that shows no values of rows."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "the database is read-only; state.url must name the primary"
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return _NO_RESPONSE
    # The server's details are left out, since they may show what was written.
    text = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
    return re.sub(r"\s*\n\s*", "; ", text.strip()) or type(error).__name__
