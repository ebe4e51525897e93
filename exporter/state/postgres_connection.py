"""Connections to PostgreSQL that never wait for long: neither for a name server, nor for a network
that drops packets, nor for a server that is stopped."""

import contextlib
import os
import re
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from threading import Thread, Timer
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exporter.config.errors import ConfigError
from exporter.state.backend import Server, Unreachable

_RECONNECT_WAIT = 1.0
"""Seconds that one operation waits for a connection that was lost; the attempt continues."""
_NO_RESPONSE = "can't connect to the database: no response"


def validate(server: Server) -> None:
    """Reads the URL and the password file.

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
        raise ConfigError(problems)


def connect(server: Server) -> "Session":
    """A new connection.

    Raises:
        Unreachable: there is none, and why.
    """
    parameters = _parameters(server) | _password(server)
    try:
        # Statements aren't prepared: poolers hand each transaction to another connection.
        connection = psycopg.connect(
            make_conninfo(**parameters), autocommit=True, prepare_threshold=None
        )
    except (psycopg.Error, OSError, UnicodeError) as error:
        raise Unreachable(reason(error)) from None
    return Session(connection, server.timeout)


def _parameters(server: Server) -> dict[str, Any]:
    try:
        parameters: dict[str, Any] = {**conninfo_to_dict(server.url.get_secret_value())}
    except psycopg.Error as error:
        raise Unreachable(reason(error)) from None
    defaults = {
        # Of several hosts the primary, and no standby in its place.
        "PGTARGETSESSIONATTRS": ("target_session_attrs", "read-write"),
        "PGCONNECT_TIMEOUT": ("connect_timeout", max(2, round(server.timeout))),
        "PGAPPNAME": ("application_name", "cloudflare-workflows-exporter"),
    }
    given = {
        name: value for variable, (name, value) in defaults.items() if variable not in os.environ
    }
    return given | parameters


def _password(server: Server) -> dict[str, str]:
    path = server.password_file
    try:
        return {"password": path.read_text().rstrip("\r\n")} if path else {}
    except OSError as error:
        raise Unreachable(f"{path}: {error.strerror}") from None
    except ValueError:
        raise Unreachable(f"{path}: not text in UTF-8") from None


class Session:
    """One connection, for one thread at a time. After an error it is of no further use."""

    def __init__(self, connection: psycopg.Connection[Any], timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._cut_off = False

    def run(self, query: str, parameters: Sequence[object] | None = None) -> list[Any]:
        """The rows of one statement; of several, without parameters, none.

        Raises:
            Unreachable: the server doesn't respond in time.
            psycopg.Error: all other errors.
        """
        watchdog = Timer(self._timeout, self._cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            cursor = self._connection.execute(query.encode(), parameters)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error:
            if self._cut_off:
                text = f"the database doesn't respond within {self._timeout:g} s"
                raise Unreachable(text) from None
            raise
        finally:
            watchdog.cancel()

    def _cut(self) -> None:
        self._cut_off = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()
        self._socket.close()


class Connector:
    """Connects in a thread of its own: a name server that doesn't respond holds it, and nobody
    else."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._attempt: Future[Session] | None = None
        self._wait = server.timeout

    def session(self) -> Session:
        """A new session; of an attempt that took too long before, its session.

        Raises:
            Unreachable: there is none within the server's timeout, or within a second where there
                was one before.
        """
        if self._attempt is None:
            self._attempt = Future()
            Thread(target=self._connect, args=(self._attempt,), daemon=True).start()
        try:
            session = self._attempt.result(self._wait)
        except TimeoutError:
            raise Unreachable(_NO_RESPONSE) from None
        except BaseException:
            self._attempt = None
            raise
        finally:
            self._wait = _RECONNECT_WAIT
        self._attempt = None
        return session

    def _connect(self, attempt: Future[Session]) -> None:
        try:
            attempt.set_result(connect(self._server))
        except BaseException as error:
            attempt.set_exception(error)

    def close(self) -> None:
        """Has a connection closed that may still come."""
        if self._attempt is not None:
            self._attempt.add_done_callback(_discard)


def _discard(attempt: Future[Session]) -> None:
    if attempt.exception() is None:
        attempt.result().close()


def reason(error: Exception) -> str:
    """Why an operation failed, in one line without a value of a row."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "the database is read-only; state.url must name the primary"
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return _NO_RESPONSE
    # The server's details may repeat what was written.
    text = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
    return re.sub(r"\s*\n\s*", "; ", text.strip()) or type(error).__name__
