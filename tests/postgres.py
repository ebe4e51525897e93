"""PostgreSQL's own server, on a free port of this machine, with a folder of its own."""

import contextlib
import itertools
import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import trustme
from pydantic import SecretStr

from exporter.state.backend import DatabaseServer
from tests.ports import reserved_port
from tests.requires import requires_program
from tests.waiting import DEADLINE, tied, wait_until

PASSWORD = "it's a s3cret: 100% @/?#"
"""Of every user: nothing that a URL, or an option, takes as it is."""
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_OPTIONS = {
    "fsync": "off",  # what is written outlives the processes, if not the machine
    "full_page_writes": "off",
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
}
_HEIRS = itertools.count(1)


def _program(name: str) -> str:
    return requires_program(name, "postgresql", _FOLDERS)


class PostgresServer:
    """A server that can be stopped in every way, and started again.

    Args:
        folder: All that it writes.
        port: On 127.0.0.1, of TCP.
        primary: Of which it is to be a standby.
    """

    def __init__(self, folder: Path, port: int, primary: "PostgresServer | None" = None) -> None:
        self.folder = folder
        self.port = port
        self._data = folder / "data"
        # It refuses to run as root; the package makes the user.
        self._user = "postgres" if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        password = folder / "password"
        password.write_text(PASSWORD)
        if self._user:
            for path in (folder, password):
                shutil.chown(path, self._user)
        if primary is None:
            options = [f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8"]
            options += ["--locale=C", "--username=admin", "--wal-segsize=1"]
            command = [_program("initdb"), *options]
        else:
            command = [_program("pg_basebackup"), "--checkpoint=fast", "--write-recovery-conf"]
            command += ["-d", primary.url("", user="admin")]
        subprocess.run(
            [*command, "--no-sync", "-D", str(self._data)],
            user=self._user,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self, *, file_size: int = resource.RLIM_INFINITY, **options: str) -> None:
        """Starts it, and waits until it takes connections.

        Args:
            file_size: Bytes that no file grows beyond, as on a disk that is full.
            options: The server's settings.
        """
        # It ends with a test run that is killed.
        command = tied(_program("postgres"), "-D", str(self._data), signal="QUIT")
        given = _OPTIONS | {"port": str(self.port)} | options
        log = self.folder / "log"
        with log.open("wb") as output, _file_size(file_size):
            process = self._process = subprocess.Popen(
                [
                    *command,
                    *("-k", str(self.folder)),
                    *(f"--{name}={value}" for name, value in given.items()),
                ],
                user=self._user,
                cwd=self.folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def ready() -> bool:
            found = b"database system is ready to accept" in log.read_bytes()
            assert found or process.poll() is None, log.read_text()
            return found

        wait_until(ready, log.read_text)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stops it: SIGINT ends the connections (fast), SIGQUIT the processes (immediate)."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(DEADLINE)
            self._process = None

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """All of its processes stand still; their connections stay open."""
        # Postgres gives each of them a group of its own.
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        processes = [self._process.pid]
        os.kill(self._process.pid, signal.SIGSTOP)  # before it starts others
        processes += map(int, children.read_text().split())
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def url(self, database: str, *, user: str = "", address: str = "", query: str = "") -> str:
        """Of its own user, with the password; with another user, or through a relay's address."""
        login = f"{user or database}:{quote(PASSWORD, safe='')}"
        return f"postgresql://{login}@{address or f'127.0.0.1:{self.port}'}/{database}{query}"

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Has the administrator execute SQL, each statement in a transaction of its own."""
        with psycopg.connect(self.url(database, user="admin"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def tables(self, database: str) -> int:
        """How many tables a database has."""
        with psycopg.connect(self.url(database, user="admin")) as connection:
            query = "SELECT FROM pg_tables WHERE schemaname = 'public'"
            return len(connection.execute(query).fetchall())

    def use_certificate(self, certificate: trustme.LeafCert | None) -> None:
        """Has new connections use TLS, or not."""
        if certificate is not None:
            path = self._data / "server.pem"
            certificate.private_key_and_cert_chain_pem.write_to_path(path)
            path.chmod(0o600)
            if self._user:
                shutil.chown(path, self._user)
        self.execute(
            "ALTER SYSTEM SET ssl_cert_file = 'server.pem'",
            "ALTER SYSTEM SET ssl_key_file = 'server.pem'",
            f"ALTER SYSTEM SET ssl = {'on' if certificate else 'off'}",
            "SELECT pg_reload_conf()",
        )

    def new_user(self) -> str:
        """The name of a new user, who has an empty schema in the database `postgres`: that is made
        sooner than a database, of hundreds of files."""
        name = f"user{next(self._numbers)}"
        self.execute(_role(name), f"CREATE SCHEMA {name} AUTHORIZATION {name}")
        return name

    def new_url(self) -> str:
        """Of a new user's own."""
        return self.url("postgres", user=self.new_user())

    def new_database(self, options: str = "") -> str:
        """The name of a new, empty database, which a user of the same name owns."""
        name = f"test{next(self._numbers)}"
        self.execute(_role(name), f"CREATE DATABASE {name} OWNER {name} {options}")
        return name


def _role(name: str) -> str:
    password = PASSWORD.replace("'", "''")
    return f"CREATE ROLE {name} LOGIN PASSWORD '{password}'"


@contextlib.contextmanager
def _file_size(limit: int) -> Iterator[None]:
    """Processes started meanwhile write no file beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def taken_over(server: DatabaseServer) -> DatabaseServer:
    """What a user's schema holds at this moment, as another user's own: whoever uses it can't get
    there any more. The time of all leases and shares of budgets is over in it."""
    url = urlsplit(server.url.get_secret_value())
    user, address = url.username, url.netloc.rpartition("@")[2]
    password, heir = quote(PASSWORD, safe=""), f"heir{next(_HEIRS)}_of_{user}"
    admin = f"postgresql://admin:{password}@{address}{url.path}"
    with psycopg.connect(admin, autocommit=True) as connection:
        for statement in (
            f"ALTER ROLE {user} NOLOGIN",
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            f"WHERE usename = '{user}'",
            f"ALTER SCHEMA {user} RENAME TO {heir}",
            f"ALTER ROLE {user} RENAME TO {heir}",
            f"ALTER ROLE {heir} LOGIN",
            f"DELETE FROM {heir}.replicas",
            f"DELETE FROM {heir}.budgets",
        ):
            connection.execute(statement.encode())
    heirs = url._replace(netloc=f"{heir}:{password}@{address}")
    return server._replace(url=SecretStr(heirs.geturl()))


@contextlib.contextmanager
def postgres_server(primary: PostgresServer | None = None) -> Iterator[PostgresServer]:
    """A running server, or a standby of another."""
    # Folders of pytest's can't be entered by other users.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, reserved_port() as port:
        server = PostgresServer(Path(folder), port, primary)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)
